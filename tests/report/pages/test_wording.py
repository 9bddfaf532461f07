from reconstruct.report.pages.wording import differing, signed


def test_settings_that_differ() -> None:
    assert differing([{"a": {"b": None, "c": [1]}, "d": 0}, {"a": {"b": None, "c": [1, 2]}, "e": 0}]) == {
        "a.c": ["1", "1, 2"],
        "d": ["0", "–"],
        "e": ["–", "0"],
    }


def test_signs() -> None:
    assert [signed(value, 1) for value in (1.26, -1.26, 0.01, -0.01, None)] == ["+1.3", "−1.3", "0.0", "0.0", "–"]
