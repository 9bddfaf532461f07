"""What ``invert`` gives back: how it is printed, and its pictures as files."""

from pathlib import Path

import pytest
import torch

from reconstruct import CallError, load_image
from reconstruct.inversion.result import Result, in_words


def result(count: int, status: list[str]) -> Result:
    images = torch.linspace(0, 1, count * 3 * 4 * 6).reshape(count, 3, 4, 6)
    return Result(images, [0.25] * count, status, [9] * count, [30.0 + i for i in range(count)], 1.0, 0.5, 0.0)


def test_it_is_printed_on_one_short_line() -> None:
    one = repr(result(1, ["budget"]))
    assert one == "Result(1 image of 4 x 6, budget spent, feature residual 0.25, 30 passes, 1.5 s)"
    three = str(result(3, ["budget", "converged", "budget"]))
    assert three.startswith("Result(3 images of 4 x 6, 2 budget spent, 1 converged, feature residual 0.25, 30 to 32 ")
    assert repr(result(0, [])) == "Result(0 images of 4 x 6, 1.5 s)"


@pytest.mark.parametrize(("status", "words"), [("budget", "budget spent"), ("converged", "converged"), ("odd", "odd")])
def test_statuses_in_words(status: str, words: str) -> None:
    assert in_words(status) == words


def test_pictures_are_saved_one_by_one(tmp_path: Path) -> None:
    found = result(2, ["budget", "budget"])
    assert found.save(tmp_path / "back.png") == [tmp_path / "back-1.png", tmp_path / "back-2.png"]
    assert result(1, ["budget"]).save(str(tmp_path / "back")) == [tmp_path / "back.png"]
    for image, name in zip(found.image, ("back-1", "back-2"), strict=True):
        assert torch.allclose(load_image(tmp_path / f"{name}.png"), image, atol=0.5 / 255 + 1e-6)
    with pytest.raises(CallError, match=r"name the file back\.png, not back\.jpg"):
        found.save(tmp_path / "back.jpg")
