from reconstruct.errors import LONGEST, LONGEST_WORDS, CallError, ModelError, words_of


def test_long_messages_are_cut_in_their_middle() -> None:
    """What a file names may be of any length; what is said of it, before and behind, stays."""
    error = ModelError(f"x.toml: unknown key '{'a' * 100_000}', did you mean 'base'?")
    assert len(str(error)) == LONGEST
    assert str(error).startswith("x.toml: unknown key 'aaa")
    assert str(error).endswith("aaa', did you mean 'base'?")
    assert str(CallError("a" * LONGEST)) == "a" * LONGEST


def test_somebody_elses_words_are_one_line_of_their_beginning() -> None:
    assert words_of(RuntimeError("  no\n  such\tlayer ")) == "no such layer"
    assert words_of(KeyError()) == "KeyError"
    assert words_of(RuntimeError("why " + "stack " * 1000)) == f"why {'stack ' * 1000}"[: LONGEST_WORDS - 3] + "..."
    assert words_of(ValueError("x" * 50), 20) == f"{'x' * 17}..."
