"""The networks of the paper's Tables 1, 2 and 4, from their start: they train, and do not diverge."""

import math
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from reconstruct.network.activations import activate
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network, part_of
from reconstruct.network.surgery import with_dropout, without_dropout
from reconstruct.training import runs
from reconstruct.training.data import Arrays, Augmentation, statistics
from reconstruct.training.loop import fit
from reconstruct.training.start import incoming_moments, start_evenly
from reconstruct.zoo.paper_cells import ROWS
from reconstruct.zoo.specification import read_architecture
from tests.builders import synthetic

SMALL_NETWORKS = sorted({row.model for row in ROWS if row.table in (1, 2)})
LARGE_NETWORKS = sorted({row.model for row in ROWS if row.table == 4})


def narrow(architecture: Architecture, filters: int) -> Architecture:
    """The architecture with at most so many filters a layer, those of the classes left."""
    *below, last = architecture.layers
    layers = tuple(replace(each, filters=min(each.filters, filters)) if each.has_weights else each for each in below)
    return replace(architecture, layers=(*layers, last))


def learn(architecture: Architecture, pictures: Arrays, folder: Path, steps: int) -> list[float]:
    """The mean losses of each 20 steps of so many by the architecture's own recipe, warm-up in their first quarter."""
    recipe = runs.RECIPES[runs.recipe_for(architecture, pictures)]
    recipe = replace(recipe, batch_size=20, batch_norm=False)
    per_epoch = len(pictures) // 20
    recipe = replace(recipe, epochs=steps / per_epoch, warmup=steps / per_epoch / 4)
    net = runs.start(architecture, recipe, pictures, ica=None, seed=0, device="cpu")
    augment = Augmentation(pictures.images.shape[2])
    return [row.loss for row in fit(net, pictures, recipe, augment, folder).rows]


def test_the_synthetic_set_is_as_cifar() -> None:
    images, labels = synthetic.cifar_like(1000)
    assert (images.shape, images.dtype) == ((1000, 3, 32, 32), numpy.uint8)
    assert (numpy.bincount(labels) == 100).all()
    found = numpy.array(statistics(Arrays(images, labels, [])))
    assert numpy.abs(found - [synthetic.CIFAR_MEAN, synthetic.CIFAR_STD]).max() < 0.02
    assert not numpy.array_equal(images, synthetic.cifar_like(1000, 1)[0])


def test_second_moments_are_those_of_normal_responses() -> None:
    """By hand: 1/2 of ReLU and of each phase of CReLU, of AVR the variance; dropout divides; of poolings by drawing."""
    pools = (Layer("most", kernel=3, stride=2, kind="max_pool"), Layer("mean", kernel=2, stride=2, kind="avg_pool"))
    layers = (
        Layer("conv1", 4, 3),
        Layer("conv2", 4, 3, activation="crelu", dropout=0.5),
        Layer("conv3", 4, 3, activation="avr"),
        Layer("conv4", 4, 3, activation="none"),
        Layer("conv5", 4, 3, activation="leaky_relu", slope=0.5),
        Layer("conv6", 4, 3),
    )
    architecture = Architecture("net", layers, 32, (0.5,) * 3, (0.25,) * 3, input_dropout=0.2)
    # |z + 1| has second moment 2 and the mean of a folded normal.
    folded = 2 - ((2 / math.pi) ** 0.5 * math.exp(-0.5) + math.erf(0.5**0.5)) ** 2
    assert incoming_moments(architecture) == pytest.approx([1.25, 0.5, 1.0, folded, 1.0, 0.625], rel=1e-4)
    draw = torch.randn(200_000, 9, generator=torch.Generator().manual_seed(0)).double()
    for activation, features in (("relu", draw.relu()), ("crelu", draw.relu()), ("avr", (draw + 1).abs())):
        for pool, given in zip(pools, (features.amax(1), features[:, :4].mean(1)), strict=True):
            chain = (Layer("conv1", 4, 3, activation=activation), pool, Layer("conv2", 4, 3))
            moment = incoming_moments(replace(architecture, layers=chain))[1]
            common = float(given.mean()) ** 2 if activation == "avr" else 0
            assert moment == pytest.approx(float(given.square().mean()) - common, rel=0.02)


def test_what_avr_passes_on_follows_the_response_and_has_no_common_part() -> None:
    """Of AVR's start: |z + 1| follows z as closely as ReLU does, and the filters above sum to zero."""
    normal = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))[0]
    relu, avr = (
        float(torch.corrcoef(torch.stack([normal, each]))[0, 1]) for each in (normal.relu(), (normal + 1).abs())
    )
    assert avr == pytest.approx(relu, abs=0.01)
    net = start_evenly(Network(narrow(read_architecture("convpool_cnn_c_avr"), 8)), 0)
    sums = {each.name: net.convolution(each.name).weight.sum((1, 2, 3)).abs().max() for each in net.layers_with_weights}
    assert sums.pop("conv1") > 0.1
    assert max(sums.values()) < 1e-5


@torch.no_grad()
def variances(net: Network, images: torch.Tensor) -> dict[str, float]:
    """The mean square of every convolution's responses, less its bias: a last ReLU's is large."""
    found = {}
    torch.manual_seed(0)
    values = net._normalise(images)
    for layer in net.layers:
        values = net._respond(values, layer)
        if layer.has_weights:
            bias = getattr(net, part_of(layer.name)).bias
            found[layer.name] = float((values - (0 if bias is None else bias.view(-1, 1, 1))).square().mean())
        values = torch.nn.functional.dropout(activate(values, layer.activation, layer.slope), layer.dropout)
    return found


@pytest.mark.parametrize("name", [*SMALL_NETWORKS, *LARGE_NETWORKS])
def test_responses_start_at_even_variance(name: str) -> None:
    """In training, on pictures with CIFAR's statistics: no layer's responses are far larger or smaller than 1."""
    architecture = narrow(read_architecture(name), 32)
    side = min(architecture.input_size, 99)
    net = start_evenly(Network(architecture), 0).train()
    images = torch.from_numpy(synthetic.cifar_like(16)[0]) / 255
    images = torch.nn.functional.interpolate(images, size=(side, side), mode="bilinear")
    for layer, square in variances(net, images).items():
        assert 0.1 < square**0.5 < 5, layer


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_every_row_of_tables_1_and_2_learns(name: str, tmp_path: Path) -> None:
    """A few filters a layer and forty steps at the recipe's rate, without dropout, on classes of a colour each."""
    pictures = Arrays(*synthetic.patterns(200, 32, 10), [str(i) for i in range(10)])
    first, last = learn(without_dropout(narrow(read_architecture(name), 8)), pictures, tmp_path, 40)
    assert last < first < 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convpool_cnn_c_crelu_half", "crelu_all"])
def test_networks_at_their_own_width_do_not_diverge(name: str, tmp_path: Path) -> None:
    """With its own dropout, on pictures with CIFAR's statistics; that of Table 4 without batch normalisation."""
    architecture = read_architecture(name)
    images, labels = synthetic.cifar_like(200)
    if name in LARGE_NETWORKS:
        images = images.repeat(2, axis=2).repeat(2, axis=3)
    losses = learn(architecture, Arrays(images, labels, [str(i) for i in range(10)]), tmp_path, 40)
    assert len(losses) == 2
    assert max(losses) < 4


def test_dropout_of_another_rate_is_where_the_model_has_some() -> None:
    vgg = read_architecture("cifar_vgg")
    changed = with_dropout(vgg, 0.2)
    assert [each.dropout for each in changed.layers] == [0.2 if each.dropout else 0 for each in vgg.layers]
    assert with_dropout(read_architecture("convpool_cnn_c"), 0.3).input_dropout == 0.2


def test_recipes_are_chosen_by_the_model() -> None:
    pictures = Arrays(*synthetic.patterns(20, 32, 10), [str(i) for i in range(10)])
    trained = {row.model for row in ROWS if row.table in (1, 2, 4)}
    chosen = {model: runs.recipe_for(read_architecture(model), pictures) for model in trained}
    assert [name for name, recipe in chosen.items() if recipe == "avr"] == ["convpool_cnn_c_avr"]
    assert {name for name, recipe in chosen.items() if recipe == "vgg"} == {row.model for row in ROWS if row.table == 2}
    assert {name for name, recipe in chosen.items() if recipe == "imagenet"} == set(LARGE_NETWORKS)
    assert runs.RECIPES["vgg"].rate(60) == 0.1 / 4
