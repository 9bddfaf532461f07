import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from reconstruct import CallError
from reconstruct.training import distill, questions
from reconstruct.training.data import load_pictures, resize
from tests.builders.synthetic import noise


def photographs(folder: Path) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(noise(4, 40, 50)):
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("seed", range(6))
def test_a_distorted_part_is_of_the_photograph_alone(seed: int) -> None:
    """A turned square has corners from outside it: of a photograph of one colour, part and corners have one colour."""
    photograph = numpy.full((3, 90, 70), 120, numpy.uint8) + numpy.arange(0, 90, 30, dtype=numpy.uint8)[:, None, None]
    part = questions.distorted_part(photograph, 33, numpy.random.default_rng(seed))
    assert part.shape == (3, 33, 33)
    assert (part == part[:, :1, :1]).all()


def test_parts_are_turned_and_mirrored() -> None:
    pixels = noise(1, 20, 20)[0]
    assert numpy.array_equal(questions.turned(pixels, 90, 20), numpy.rot90(pixels, axes=(1, 2)))
    assert numpy.array_equal(questions.turned(pixels, 0, 10), pixels[:, 5:15, 5:15])
    # Dark on the left and bright on the right: mirrored, the other way round.
    ramp = numpy.broadcast_to(numpy.linspace(0, 255, 80).astype(numpy.uint8), (3, 60, 80))
    parts = [questions.distorted_part(ramp, 16, numpy.random.default_rng(seed)).astype(float) for seed in range(60)]
    rising = sum(part[:, :, -1].mean() > part[:, :, 0].mean() for part in parts)
    assert abs(rising - 30) <= 5 * math.sqrt(60 / 4)


def colours(*factors: float, hue: float = 0.0, grey: bool = False) -> Any:
    """A generator that draws these factors of brightness, contrast and saturation, and this hue."""
    drawn = iter([numpy.array(factors), hue])
    return SimpleNamespace(uniform=lambda *_: next(drawn), random=lambda: 0.0 if grey else 1.0)


def test_colours_change_as_they_are_named() -> None:
    pixels = noise(1, 9, 7)[0] // 2 + 40
    assert numpy.array_equal(questions.recoloured(pixels, colours(1, 1, 1)), pixels)
    assert numpy.array_equal(questions.recoloured(pixels, colours(0.5, 1, 1)), (pixels / 2).round())
    grey = numpy.asarray(Image.fromarray(pixels.transpose(1, 2, 0).copy()).convert("L")).astype(int)
    for drawn in (colours(1, 1, 0), colours(1, 1, 1.4, grey=True)):
        assert abs(questions.recoloured(pixels, drawn) - grey).max() <= 1
    # A third of a turn makes red green, green blue, and blue red.
    assert numpy.array_equal(questions.recoloured(pixels, colours(1, 1, 1, hue=1 / 3)), pixels[[2, 0, 1]])
    flat = questions.recoloured(pixels, colours(1, 0, 1))
    assert (flat == round(float(questions.LUMINANCE @ pixels.reshape(3, -1).mean(1)))).all()


def test_a_blend_has_half_of_the_other_at_most() -> None:
    first, other = numpy.full((3, 4, 4), 200, numpy.uint8), numpy.zeros((3, 4, 4), numpy.uint8)
    found = [questions.blend(first, other, numpy.random.default_rng(seed)) for seed in range(200)]
    assert all((each == each[0, 0, 0]).all() for each in found)
    levels = numpy.array([each[0, 0, 0] for each in found])
    assert 100 <= levels.min() < 105
    assert 195 < levels.max() <= 200


def test_the_teacher_is_asked_about_what_came_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distorted and mixed as they are, crops are what the teacher saw; and the seed alone says what that is."""
    pictures = photographs(tmp_path / "photographs")
    matrix = torch.randn(48, 7, generator=torch.Generator().manual_seed(0))
    shown: list[torch.Tensor] = []

    def teacher(images: torch.Tensor) -> torch.Tensor:
        shown.append(images.clone())
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ matrix * 3

    made: dict[str, Any] = {"count": 12, "side": 20, "teacher": teacher, "mixed": 1.0, "distorted": True}
    distill.make_crops(pictures, tmp_path / "whole", **made)
    found = load_pictures(tmp_path / "whole")
    seen = torch.cat(shown)
    for number, image in enumerate((seen * 255).round().byte().numpy()):
        assert numpy.array_equal(found.pixels(number), resize(image, (20, 20)))
    said = teacher(seen).log_softmax(1)
    assert torch.allclose(torch.tensor(found.targets).float(), said, rtol=2e-3, atol=1e-3)
    monkeypatch.setattr(distill, "CHUNK", 5)
    distill.make_crops(pictures, tmp_path / "again", **made)
    for name in ("crops.npy", "crops.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for changes in ({"seed": 1}, {"mixed": 0.0}, {"distorted": False}):
        distill.make_crops(pictures, tmp_path / str(changes), **(made | changes))
        others = load_pictures(tmp_path / str(changes))
        assert not any(numpy.array_equal(others.pixels(number), found.pixels(number)) for number in range(12))


def test_damaged_crops_are_told(tmp_path: Path) -> None:
    pictures = photographs(tmp_path / "photographs")
    made: dict[str, Any] = {"count": 6, "side": 12, "teacher": lambda images: images.mean((2, 3))}
    folder = tmp_path / "crops"
    distill.make_crops(pictures, folder, **made)
    answers = (folder / "answers.npy").read_bytes()
    for name, content, message in (
        ("answers.npy", answers[:50], r"answers\.npy cannot be read: .* crops are made anew"),
        ("crops.json", b"[" * 100_000, r"crops\.json cannot be read"),
        ("crops.json", b'{"done": "all"}', r"crops\.json cannot be read: all is no whole number"),
        ("crops.json", b"[6]", r"crops\.json cannot be read"),
    ):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(CallError, match=message):
            distill.make_crops(pictures, folder, **made)
        (folder / name).write_bytes(whole)
    distill.make_crops(pictures, folder, **made)
    assert (folder / "answers.npy").read_bytes() == answers
