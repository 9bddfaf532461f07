import pytest
import torch

from reconstruct.analysis.crelu.invariance.measure import invariance
from reconstruct.analysis.crelu.invariance.scores import LayerInvariance
from reconstruct.analysis.crelu.invariance.transformations import Transformation, transformations
from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer
from reconstruct.report.figures.invariance import invariance_figure
from tests.builders.networks import exact_net
from tests.builders.synthetic import smooth_noise

FLIP = Transformation("flip")


LAYERS = (Layer("a", 3, 3, stride=2, padding=1, activation="crelu"), Layer("p", kernel=2, stride=2, kind="max_pool"))


def test_the_figure_shows_models_that_have_layers_of_their_own(generator: torch.Generator) -> None:
    images = [smooth_noise(3, (40, 36), generator)]
    tried = [each for each in transformations(32) if each.shift in ((0, 0), (0, 1), (0, 2))]
    first, second = exact_net(*LAYERS), exact_net(*LAYERS[:1])
    found: dict[str, list[LayerInvariance]] = {
        "first": invariance(first, images, ["a", "p"], transformations=tried, rate=0.1),
        "second": invariance(second, images, ["a"], transformations=tried, rate=0.1),
    }
    whole = invariance_figure(found)
    assert whole.size == (1300, 740)
    flips = {name: invariance(first, images, ["a"], transformations=[FLIP], rate=0.1) for name in found}
    assert invariance_figure(flips).size == (1300, 420)
    with pytest.raises(CallError, match="not every model has scores of p; all have a"):
        invariance_figure(found, ["p"])
    with pytest.raises(CallError, match="different kinds of transformation"):
        invariance_figure(found | flips | {"third": flips["first"]} | {"first": found["first"]})
    with pytest.raises(CallError, match="nothing to draw"):
        invariance_figure({})
    with pytest.raises(CallError, match="at most 5 models"):
        invariance_figure({str(n): found["first"] for n in range(6)})
