"""What operators on a torus share."""

from scipy.fft import next_fast_len

from reconstruct.operators.torus import quick_length


def test_quick_lengths_are_scipys() -> None:
    assert [quick_length(least) for least in range(1, 2000)] == [
        next_fast_len(least, real=True) for least in range(1, 2000)
    ]
