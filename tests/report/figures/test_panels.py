"""Pictures side by side with captions."""

import numpy
import pytest
import torch

from reconstruct.report.figures import panels as drawing
from reconstruct.report.figures.lettering import fitting, font
from reconstruct.report.figures.panels import CAPTION_PIXELS, GAP_PIXELS, Panel, comparison, panels


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("conv1, map", "conv1, map"),
        ("$\\frac$ 50 %", "$\\frac$ 50 %"),
        ("café и Ω", "café и Ω"),
        ("two\nlines", "two%0Alines"),
        ("写真", "%E5%86%99%E7%9C%9F"),  # DejaVu Sans has neither
    ],
)
def test_captions_are_written_in_signs_that_the_font_has(text: str, drawn: str) -> None:
    assert fitting(text, 1000, font(12)) == drawn


def test_of_a_caption_that_does_not_fit_the_middle_is_left_out() -> None:
    print_ = font(12)
    name = "IMG_20240613_a_walk_along_the_river_after_rain_0042"
    short = fitting(name, 150, print_)
    begin, end = short.split("...")
    assert name.startswith(begin)
    assert name.endswith(end)
    assert 120 < print_.getlength(short) <= 150
    assert len(fitting(name, 1, print_)) == 8


def test_pictures_stand_pixel_for_pixel_and_captions_below_their_own() -> None:
    image = torch.rand(3, 150, 160, generator=torch.Generator().manual_seed(0))
    page = numpy.asarray(panels([[Panel(image, "W" * 100, "w" * 100), None, Panel(image / 2, "conv1")]]))
    assert page.shape == (150 + 40 + 20, 3 * 170 + 10, 3)
    expected = (255 * image).round().permute(1, 2, 0).byte().numpy()
    assert numpy.array_equal(page[10:160, 10:170], expected)
    print_ = page[160:].min(2) < 255
    columns = print_.any(0)
    assert columns[15:165].any()
    assert not columns[:10].any()
    assert not columns[170:350].any()
    assert columns[350:510].any()


def test_a_small_picture_is_magnified_by_a_whole_factor() -> None:
    image = torch.rand(1, 20, 32, generator=torch.Generator().manual_seed(0))
    page = numpy.asarray(panels([[Panel(image, "grey")]]))
    assert page.shape == (5 * 20 + 40 + 20, 5 * 32 + 20, 3)
    expected = (255 * image[0]).round().byte().numpy()
    assert numpy.array_equal(page[12:110:5, 12:170:5, 1], expected)


def test_a_large_picture_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the least whole factor that suffices, to means of its pixels; one at the limit is drawn as it is."""
    monkeypatch.setattr(drawing, "WIDEST_PIXELS", 200)
    image = torch.zeros(3, 300, 500)
    image[:, 1::3] = 0.6  # a line in three
    drawn = comparison(Panel(image, "original"), [[None]])
    assert drawn.size[1] == 100 + CAPTION_PIXELS + 2 * GAP_PIXELS
    assert numpy.asarray(drawn)[20:90, 20:150, 0] == pytest.approx(0.2 * 255, abs=1)
    kept = comparison(Panel(image[:, :150, :200], "original"), [[None]])
    assert kept.size[1] == 150 + CAPTION_PIXELS + 2 * GAP_PIXELS
    assert set(numpy.unique(numpy.asarray(kept)[20:150, 20:200, 0])) == {0, 153}
