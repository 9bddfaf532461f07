"""Panels of a comparison: how large each is drawn."""

import numpy
import pytest
import torch

from reconstruct.report.figures import panels
from reconstruct.report.figures.panels import CAPTION_PIXELS, GAP_PIXELS, Panel, comparison


def test_a_large_picture_is_reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the least whole factor that suffices, to means of its pixels; one at the limit is drawn as it is."""
    monkeypatch.setattr(panels, "WIDEST_PIXELS", 200)
    image = torch.zeros(3, 300, 500)
    image[:, 1::3] = 0.6  # a line in three
    drawn = comparison(Panel(image, "original"), [[None]])
    assert drawn.size[1] == 100 + CAPTION_PIXELS + 2 * GAP_PIXELS
    assert numpy.asarray(drawn)[20:90, 20:150, 0] == pytest.approx(0.2 * 255, abs=1)
    kept = comparison(Panel(image[:, :150, :200], "original"), [[None]])
    assert kept.size[1] == 150 + CAPTION_PIXELS + 2 * GAP_PIXELS
    assert set(numpy.unique(numpy.asarray(kept)[20:150, 20:200, 0])) == {0, 153}
