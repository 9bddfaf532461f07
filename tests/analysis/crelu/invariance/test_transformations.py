import math

import pytest
import torch

from reconstruct.analysis.crelu.invariance.transformations import Transformation, transform, transformations
from reconstruct.errors import CallError

FLIP = Transformation("flip")


STAY = Transformation("translation", 0.0)


@pytest.mark.parametrize(("side", "radii"), [(227, [4, 7, 14]), (32, [1, 2])])
def test_default_transformations_follow_the_image(side: int, radii: list[int]) -> None:
    """Eight different ones of each length, and these but for rounding to pixels."""
    made = transformations(side)
    moves = [each for each in made if each.kind == "translation"]
    assert [each.magnitude for each in moves] == [radius for radius in radii for _ in range(8)]
    assert len({(each.magnitude, each.shift) for each in moves}) == len(moves)
    assert all(abs(math.hypot(*each.shift) - each.magnitude) <= math.sqrt(0.5) for each in moves)
    assert len(made) == len(moves) + 8 + 6 + 1


def test_transformations_of_whole_pixels_are_exact(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 9, 12, generator=generator)
    moved = transform(images, Transformation("translation", 3.0, (2, -3)))
    assert torch.equal(moved[:, :, 2:, :-3], images[:, :, :-2, 3:])
    assert torch.equal(moved[:, :, :2, :-3], images[:, :, :2, 3:].flip(2))
    assert torch.equal(moved[:, :, 2:, -3:], images[:, :, :-2, -3:].flip(3))
    assert torch.equal(transform(images, STAY), images)
    assert torch.equal(transform(images, FLIP), images.flip(3))
    about = transform(images, FLIP, (4.0, 5.0))
    assert torch.equal(about[..., :10], images[..., :10].flip(3))
    assert torch.equal(transform(about, FLIP, (4.0, 5.0))[..., :10], images[..., :10])


def test_rotation_is_anticlockwise_and_about_its_centre(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    turned = transform(images, Transformation("rotation", 90.0))
    torch.testing.assert_close(turned, torch.rot90(images, 1, (2, 3)))
    part = transform(images, Transformation("rotation", 90.0), (3.5, 3.5))
    torch.testing.assert_close(part[..., :7, :7], torch.rot90(images[..., :7, :7], 1, (2, 3)))
    # Bicubic interpolation overshoots at edges of black and white.
    edges = transform(images.round(), Transformation("rotation", 30.0))
    assert (float(edges.min()), float(edges.max())) == (0, 1)
    for nothing in (Transformation("rotation", 0.0), Transformation("scale", 1.0)):
        torch.testing.assert_close(transform(images, nothing), images)


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_scale_enlarges_about_its_centre(factor: float) -> None:
    """A Gaussian of width 4 at (20, 24) becomes one of 4 times the factor where its centre goes."""
    rows, columns = (torch.arange(side, dtype=torch.float64) + 0.5 for side in (60, 50))

    def blob(down: float, across: float, width: float) -> torch.Tensor:
        square = ((rows - down)[:, None] ** 2 + (columns - across)[None] ** 2) / (2 * width**2)
        return (-square).exp().expand(1, 3, -1, -1)

    found = transform(blob(20, 24, 4), Transformation("scale", factor), (30.0, 20.0))
    expected = blob(30 - 10 * factor, 20 + 4 * factor, 4 * factor)
    # In each direction the cubic kernel of a = -0.75 is off by 0.048 f' + 0.063 f'' at most, and higher derivatives; of
    # a Gaussian of width 4 these are at most 0.152 and 0.0625.
    assert float((found - expected).abs().max()) < 2 * (0.048 * 0.152 + 0.063 * 0.0625)
    shown = found[0, 0] / found[0, 0].sum()
    assert float((shown.sum(1) * rows).sum()) == pytest.approx(30 - 10 * factor, abs=0.05)
    assert float((shown.sum(0) * columns).sum()) == pytest.approx(20 + 4 * factor, abs=0.05)


def test_transformations_that_are_none_are_refused() -> None:
    with pytest.raises(CallError, match="unknown kind of transformation 'shear'; there are translation, rotation"):
        Transformation("shear")
    with pytest.raises(CallError, match="a scale's factor is above 0, not -2"):
        Transformation("scale", -2)
    with pytest.raises(CallError, match="only a translation has a shift, not a flip"):
        Transformation("flip", shift=(1, 0))
    with pytest.raises(CallError, match=r"whole number of half pixels across, not 3\.3"):
        transform(torch.rand(2, 3, 40, 40), FLIP, (3.0, 3.3))
