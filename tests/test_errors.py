from reconstruct.errors import LONGEST, CallError, ModelError


def test_long_messages_are_cut_in_their_middle() -> None:
    """What a file names may be of any length; what is said of it, before and behind, stays."""
    error = ModelError(f"x.toml: unknown key '{'a' * 100_000}', did you mean 'base'?")
    assert len(str(error)) == LONGEST
    assert str(error).startswith("x.toml: unknown key 'aaa")
    assert str(error).endswith("aaa', did you mean 'base'?")
    assert str(CallError("a" * LONGEST)) == "a" * LONGEST
