"""What publishers state of their weights."""

import warnings
from typing import Any

import pytest

from reconstruct import ModelError, from_torch
from reconstruct.network.preprocessing import Preprocessing, timm_preprocessing
from tests.builders.published import CONFIG, MEAN, STD, Tiny


@pytest.mark.parametrize(
    ("change", "resize", "words"),
    [
        ({}, 33, "the shorter side resized to 33 by bicubic interpolation, the middle 30 x 30 cut out"),
        ({"crop_pct": 1.0, "crop_mode": "squash"}, 30, "both sides resized to 30 by bicubic interpolation"),
        ({"crop_pct": None, "interpolation": "bilinear"}, 34, "the shorter side resized to 34 by bilinear"),
        ({"crop_pct": 1.15}, 26, "the shorter side resized to 26 by bicubic interpolation, the middle 30 x 30"),
    ],
)
def test_timms_configuration(change: dict[str, Any], resize: int, words: str) -> None:
    """30 / 0.9 is 33.3, which timm rounds down, and without a crop_pct it is 0.875."""
    found = timm_preprocessing(CONFIG | change, "it")
    assert (found.size, found.resize, found.mean, found.std) == (30, resize, MEAN, STD)
    assert str(found).startswith(words)


@pytest.mark.parametrize(
    "change",
    [
        {"input_size": (3, 40, 30)},
        {"crop_mode": "border"},
        {"interpolation": "random"},
        {"mean": None},
        {"mean": (0.5, float("nan"), 0.5)},
        {"mean": (0.5, 0.5)},
        {"std": (1.0, 1.0, 0.0)},
        {"crop_pct": "x"},
        {"crop_pct": float("nan")},
        {"input_size": 224},
        {"crop_pct": 1e300},
    ],
)
def test_configurations_that_cannot_be_followed(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"^it (asks for|has no|has the mean .* must have as many finite)"):
        timm_preprocessing(CONFIG | change, "it")


def test_a_difference_is_told() -> None:
    stated = Preprocessing("it", MEAN, STD, 30, 33, "bicubic")
    assert stated.difference(MEAN, STD, (30, 30)) is None
    assert stated.difference((0.50001, 0.4, 0.3), STD, (30, 30)) is None  # how numbers are rounded says nothing
    assert stated.difference((0.0,) * 3, STD, (30, 30)) == "it has the mean 0.5, 0.4, 0.3, not 0, 0, 0"
    other = stated.difference(MEAN, (1.0,), (64, 64))
    assert other == "it has the standard deviation 0.2, 0.25, 0.3, not 1, and 30 x 30 pixels, not 64 x 64"


def test_from_torch_warns_of_a_module_that_says_otherwise() -> None:
    module: Any = Tiny()
    module.pretrained_cfg = CONFIG
    with pytest.warns(UserWarning, match=r"pretrained_cfg of this Tiny has the mean 0\.5, 0\.4, 0\.3, not 0, 0, 0"):
        from_torch(module, input_size=30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_torch(module, (MEAN, STD), input_size=30)
        module.pretrained_cfg = {"mean": "nobody knows"}
        from_torch(module, input_size=30)
