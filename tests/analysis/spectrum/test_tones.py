import pytest

from reconstruct.analysis.spectrum.tones import Tones
from reconstruct.errors import CallError


@pytest.mark.parametrize(
    ("tones", "message"),
    [
        (((5.0,), (1.0, 1.0), 64.0, 1.0), "one amplitude"),
        (((5.0,), (0.0,), 64.0, 1.0), "above 0"),
        (((32.0,), (1.0,), 64.0, 1.0), "half of the rate"),
        (((5.5,), (1.0,), 64.0, 1.0), "no whole number"),
    ],
)
def test_tones_that_are_none_are_refused(
    tones: tuple[tuple[float, ...], tuple[float, ...], float, float], message: str
) -> None:
    with pytest.raises(CallError, match=message):
        Tones(*tones)
