import itertools
import math
from dataclasses import replace

import pytest
import torch

from reconstruct.errors import CallError
from reconstruct.network.architecture import Architecture, Layer
from reconstruct.network.network import Network
from reconstruct.network.read_points import layer_list
from reconstruct.network.surgery import fold_batch_norm, randomise, with_batch_norm, with_classes
from reconstruct.zoo.load import load_model


def chain(*layers: Layer, size: int = 37) -> Architecture:
    return Architecture("test", layers, size, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def network(*layers: Layer, size: int = 37) -> Network:
    return randomise(Network(chain(*layers, size=size)), 0).double().eval()


STRIDED = (
    Layer("a", 4, 5, stride=2, activation="crelu"),
    Layer("b", 5, 3, padding=1, activation="avr"),
    Layer("c", 6, 3, stride=3, padding=1, activation="leaky_relu", slope=0.1),
)

POOLED = (
    Layer("a", 4, 3, activation="crelu"),
    Layer("p", kernel=3, stride=2, padding=1, dropout=0.5, kind="max_pool"),
    Layer("b", 5, 3, padding=1),
    Layer("q", kernel=2, stride=3, kind="max_pool"),
    Layer("c", 6, 1, activation="none"),
)

AVERAGED = tuple(replace(layer, kind="avg_pool") if layer.kind == "max_pool" else layer for layer in POOLED)


def test_features_are_those_of_plain_torch(generator: torch.Generator) -> None:
    net = network(*STRIDED)
    images = torch.rand(2, 3, 37, 31, generator=generator, dtype=torch.float64)
    mean, std = (torch.tensor(v).double().view(1, 3, 1, 1) for v in (net.architecture.mean, net.architecture.std))
    z = torch.nn.functional.conv2d((images - mean) / std, net.a.weight, net.a.bias, 2)
    h = torch.cat((z.relu(), (-z).relu()), 1)
    torch.testing.assert_close(net.responses(images, "a"), z)
    torch.testing.assert_close(net.features(images, "a"), h)
    h = torch.nn.functional.conv2d(h, net.b.weight, net.b.bias, padding=1).abs()
    h = torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(h, net.c.weight, net.c.bias, 3, 1), 0.1)
    torch.testing.assert_close(net.features(images, "c"), h)
    torch.testing.assert_close(net(images), h.mean((2, 3)))


def test_average_pooling_is_torchs(generator: torch.Generator) -> None:
    """Padded by zeros that count: of four rows by four columns of ones the corner's window of nine sees four."""
    pool = Layer("p", kernel=3, stride=2, padding=1, kind="avg_pool")
    net = network(Layer("a", 4, 3, activation="crelu"), pool, Layer("b", 5, 3))
    images = torch.rand(2, 3, 37, 31, generator=generator, dtype=torch.float64)
    pooled = torch.nn.functional.avg_pool2d(net.features(images, "a"), 3, 2, 1)
    assert torch.equal(net.features(images, "p"), pooled)
    assert torch.equal(net.responses(images, "p"), pooled)
    z = torch.nn.functional.conv2d(pooled, net.b.weight, net.b.bias)
    torch.testing.assert_close(net.responses(images, "b"), z)
    flat = network(Layer("a", 1, 1, activation="none"), pool)
    with torch.no_grad():
        flat.a.weight.zero_()
        flat.a.bias.fill_(1)
    ones = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    expected = torch.tensor([[4 / 9, 6 / 9], [6 / 9, 1]], dtype=torch.float64)
    torch.testing.assert_close(flat.features(ones, "p")[0, 0], expected)
    assert layer_list(net, "all") == ["a", "b"]
    with pytest.raises(CallError, match="the average pooling p has no weights"):
        net.convolution("p")
    with pytest.raises(CallError, match="ends in the average pooling p"):
        with_classes(flat.architecture, 5)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 3, 0)])
def test_switches_are_where_the_windows_have_their_maxima(
    kernel: int, stride: int, padding: int, generator: torch.Generator
) -> None:
    """By a search through every window, of CReLU features, half of which are 0: the first of equal ones."""
    pool = Layer("p", kernel=kernel, stride=stride, padding=padding, kind="max_pool")
    net = network(Layer("a", 2, 3, activation="crelu"), pool, Layer("b", 3, 1))
    images = torch.rand(2, 3, 11, 10, generator=generator, dtype=torch.float64)
    below, pooled = net.features(images, "a"), net.features(images, "p")
    found = net.switches(images, "p")
    assert found.dtype == torch.int64
    height, width = below.shape[2:]
    values, expected = below.detach().numpy(), torch.full_like(found, -1)
    for n, c, i, j in itertools.product(*map(range, pooled.shape)):
        best = -math.inf
        for row, column in itertools.product(range(kernel), repeat=2):
            y, x = i * stride - padding + row, j * stride - padding + column
            if 0 <= y < height and 0 <= x < width and values[n, c, y, x] > best:
                best = values[n, c, y, x]
                expected[n, c, i, j] = y * width + x
    assert torch.equal(found, expected)
    assert torch.equal(below.flatten(2).gather(2, found.flatten(2)).view_as(pooled), pooled)


def test_switches_are_of_a_max_pooling() -> None:
    average = Layer("q", kernel=2, stride=2, kind="avg_pool")
    net = network(Layer("a", 4, 3), Layer("p", kernel=3, kind="max_pool"), Layer("b", 3, 1), average)
    images = torch.rand(1, 3, 11, 10, dtype=torch.float64)
    with pytest.raises(CallError, match="switches are of a max-pooling, and not of the convolution b"):
        net.switches(images, "b")
    with pytest.raises(CallError, match="switches are of a max-pooling, and not of the average pooling q"):
        net.switches(images, "q")
    with pytest.raises(CallError, match="no layer 'r'"):
        net.switches(images, "r")
    with pytest.raises(CallError, match="smaller than the receptive field of p, 5 x 5"):
        net.switches(images[:, :, :4], "p")


def test_max_pooling_is_torchs(generator: torch.Generator) -> None:
    """Padded by minus infinity: a window of negative features at the border keeps its largest, not 0."""
    net = network(*POOLED)
    images = torch.rand(2, 3, 37, 31, generator=generator, dtype=torch.float64)
    pooled = torch.nn.functional.max_pool2d(net.features(images, "a"), 3, 2, 1)
    assert torch.equal(net.features(images, "p"), pooled)
    assert torch.equal(net.responses(images, "p"), pooled)
    z = torch.nn.functional.conv2d(pooled, net.b.weight, net.b.bias, padding=1)
    torch.testing.assert_close(net.responses(images, "b"), z)
    torch.testing.assert_close(net.features(images, "q"), torch.nn.functional.max_pool2d(z.relu(), 2, 3))
    plain = network(Layer("a", 4, 1, activation="none"), Layer("p", kernel=3, stride=2, padding=1, kind="max_pool"))
    with torch.no_grad():
        plain.a.bias -= 100
    below = plain.features(images, "a")
    corner = below[:, :, :2, :2].amax((2, 3))
    assert (corner < 0).all()
    assert torch.equal(plain.features(images, "p")[:, :, 0, 0], corner)


def test_a_max_pooling_has_the_channels_of_its_input_and_no_weights() -> None:
    architecture = chain(*POOLED)
    assert [layer.channels for layer in architecture.layers] == [8, 8, 5, 5, 6]
    assert [architecture.in_channels(layer.name) for layer in architecture.layers] == [3, 8, 8, 5, 5]
    assert [architecture.parameters(layer.name) for layer in architecture.layers] == [108, 0, 360, 0, 30]
    assert architecture.parameters() == 498
    net = network(*POOLED)
    assert {key.split(".")[0] for key in net.state_dict()} == {"a", "b", "c"}
    assert layer_list(net, "all") == ["a", "b", "c"]
    assert layer_list(net, "q,a") == ["q", "a"]
    with pytest.raises(CallError, match="the max-pooling q has no weights"):
        net.convolution("q")
    shallow = Network(architecture, 2)
    assert shallow.layer_names == ["a", "p"]
    with pytest.raises(CallError, match="no weights for the layers below q; it has them for a "):
        shallow.up_to("q")
    with pytest.raises(CallError, match="weights only up to a: no class scores"):
        shallow(torch.rand(1, 3, 37, 37))


@pytest.mark.parametrize("size", [(37, 31), (40, 33), (24, 57)])
@pytest.mark.parametrize("layers", [STRIDED, POOLED, AVERAGED])
def test_shapes_are_those_of_the_features(layers: tuple[Layer, ...], size: tuple[int, int]) -> None:
    net = network(*layers)
    sizes = net.architecture.response_sizes(size)
    for layer in net.layers:
        features = net.features(torch.rand(1, 3, *size, dtype=torch.float64), layer.name)
        assert tuple(features.shape) == (1, layer.channels, *sizes[layer.name])


def seen_by(net: Network, layer: str, size: tuple[int, int], position: tuple[int, int] | None) -> torch.Tensor:
    """Which pixels a layer's responses (all, or at one position) depend on, by automatic differentiation.

    A maximum depends on one of its window: on another in each of many images.
    """
    images = torch.rand(64, 3, *size, dtype=torch.float64, requires_grad=True)
    responses = net.responses(images, layer)
    chosen = responses if position is None else responses[..., position[0], position[1]]
    (gradient,) = torch.autograd.grad(chosen.square().sum(), images)
    return gradient.abs().sum((0, 1)) > 0


@pytest.mark.parametrize("layers", [STRIDED, POOLED, AVERAGED])
def test_receptive_field_is_what_a_response_depends_on(layers: tuple[Layer, ...]) -> None:
    torch.manual_seed(0)
    net = network(*layers)
    for layer in net.layers:
        grid = net.architecture.response_sizes((61, 61))[layer.name]
        rows, columns = seen_by(net, layer.name, (61, 61), (grid[0] // 2, grid[1] // 2)).nonzero().T
        side = net.architecture.receptive_field(layer.name)
        assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (side, side)


EVEN = (Layer("a", 4, 4, stride=2, padding=1), Layer("b", 3, 2, stride=3), Layer("c", 2, 6, padding=3))


@pytest.mark.parametrize("layers", [STRIDED, POOLED, AVERAGED, EVEN])
def test_grid_is_where_receptive_fields_are_centred(layers: tuple[Layer, ...]) -> None:
    """By the extent of the input gradient of one response, well inside the image; pixel i extends from i to i + 1."""
    torch.manual_seed(0)
    net = network(*layers)
    for layer in net.layers:
        grid = net.architecture.response_sizes((61, 61))[layer.name]
        start, step = net.architecture.grid(layer.name)
        for down, across in {(grid[0] // 2, grid[1] // 2), (grid[0] // 2, grid[1] // 2 - 1)}:
            rows, columns = seen_by(net, layer.name, (61, 61), (down, across)).nonzero().T
            assert float(rows.min() + rows.max() + 1) / 2 == start + step * down
            assert float(columns.min() + columns.max() + 1) / 2 == start + step * across


@pytest.mark.parametrize("layers", [STRIDED, POOLED, AVERAGED])
def test_features_of_several_layers_are_those_of_each(layers: tuple[Layer, ...], generator: torch.Generator) -> None:
    net = network(*layers)
    images = torch.rand(2, 3, 37, 31, generator=generator, dtype=torch.float64)
    for wanted in itertools.chain.from_iterable(itertools.combinations(net.layer_names, n) for n in (1, 2, 3)):
        found = net.features_of(images, reversed(wanted))
        assert list(found) == list(wanted)
        for name in wanted:
            assert torch.equal(found[name], net.features(images, name))


def test_features_of_several_layers_are_refused_as_those_of_one() -> None:
    net = network(*POOLED)
    images = torch.rand(1, 3, 37, 37, dtype=torch.float64)
    with pytest.raises(CallError, match="no layer 'r'"):
        net.features_of(images, ["a", "r"])
    with pytest.raises(CallError, match="no layer named; test has a, p, b, q, c"):
        net.features_of(images, [])
    with pytest.raises(CallError, match="smaller than the receptive field of p, 5 x 5"):
        net.features_of(images[:, :, :4], ["p", "a"])
    with pytest.raises(CallError, match="images are floating point"):
        net.features_of((255 * images).byte(), ["a"])


@pytest.mark.parametrize("size", list(itertools.product((30, 31, 32, 33, 34, 35), (36, 40))))
@pytest.mark.parametrize("layers", [STRIDED, POOLED, AVERAGED])
def test_covered_size_is_what_all_responses_depend_on(layers: tuple[Layer, ...], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = network(*layers)
    rows, columns = seen_by(net, "c", size, None).nonzero().T
    assert net.architecture.covered_size(size, "c") == (int(rows.max()) + 1, int(columns.max()) + 1)


@pytest.mark.parametrize("layers", [STRIDED, POOLED, AVERAGED])
def test_covered_size_keeps_every_response(layers: tuple[Layer, ...]) -> None:
    architecture = chain(*layers)
    for side in range(20, 60):
        trimmed = architecture.covered_size((side, side), "c")
        assert architecture.response_sizes(trimmed)["c"] == architecture.response_sizes((side, side))["c"]
        assert architecture.covered_size(trimmed, "c") == trimmed


def test_folding_batch_norm_changes_no_feature(generator: torch.Generator) -> None:
    layers = (
        Layer("a", 4, 3, batch_norm=True, activation="crelu"),
        Layer("p", kernel=3, stride=2, kind="max_pool"),
        Layer("b", 5, 3, activation="relu"),
        Layer("c", 6, 1, batch_norm=True),
    )
    net = network(*layers)
    with torch.no_grad():
        for name in ("a_bn", "c_bn"):
            norm = getattr(net, name)
            for value in (norm.weight, norm.bias, norm.running_mean):
                value.copy_(torch.randn(value.shape, generator=generator))
            norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.1)
    images = torch.rand(2, 3, 20, 17, dtype=torch.float64, generator=generator)
    folded = fold_batch_norm(net)
    assert not any("bn" in key for key in folded.state_dict())
    # The folded weights are float32: one rounding each.
    torch.testing.assert_close(folded.double().features(images, "c"), net.features(images, "c"), rtol=1e-5, atol=1e-5)
    with pytest.raises(CallError, match="fold_batch_norm"):
        net.convolution("a")


def test_dropout_only_in_training(generator: torch.Generator) -> None:
    net = network(Layer("a", 8, 3, dropout=0.5), Layer("b", 8, 3))
    images = torch.rand(1, 3, 20, 20, dtype=torch.float64, generator=generator)
    assert torch.equal(net.features(images, "b"), net.features(images, "b"))
    net.train()
    assert not torch.equal(net.features(images, "b"), net.features(images, "b"))


def test_dropout_of_the_input_and_after_pooling(generator: torch.Generator) -> None:
    """In training alone; of the normalised image's entries, so that 0 is the mean colour, the rest by 1 / 0.8."""
    images = torch.rand(1, 3, 40, 40, dtype=torch.float64, generator=generator)
    one = Layer("a", 3, 1, activation="none")
    net = Network(replace(chain(one), input_dropout=0.2)).double()
    with torch.no_grad():
        net.a.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        net.a.bias.zero_()
    plain = (images - net.mean) / net.std
    torch.testing.assert_close(net.eval().features(images, "a"), plain)
    torch.manual_seed(0)
    dropped = net.train().features(images, "a")
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], plain[kept] / 0.8)
    # 4,800 draws: 7 standard deviations.
    assert float(kept.double().mean()) == pytest.approx(0.8, abs=0.04)
    pooled = network(*POOLED)
    assert torch.equal(pooled.features(images, "b"), pooled.features(images, "b"))
    pooled.train()
    assert torch.equal(pooled.features(images, "p"), pooled.features(images, "p"))
    assert not torch.equal(pooled.features(images, "b"), pooled.features(images, "b"))


def test_classes_are_the_last_layers_outputs() -> None:
    relu, crelu = (chain(Layer("a", 4, 3), Layer("b", 6, 1, activation=each)) for each in ("relu", "crelu"))
    assert with_classes(relu, 5).layers == (Layer("a", 4, 3), Layer("b", 5, 1))
    assert with_classes(crelu, 10).layers[-1].filters == 5
    assert Network(with_classes(crelu, 10))(torch.rand(2, 3, 37, 37)).shape == (2, 10)
    with pytest.raises(CallError, match="its classes are even, not 5"):
        with_classes(crelu, 5)
    with pytest.raises(CallError, match="at least 1, not 0"):
        with_classes(relu, 0)
    with pytest.raises(CallError, match="ends in the max-pooling q"):
        with_classes(chain(*POOLED[:4]), 5)


def test_batch_norm_of_every_convolution_is_folded_again(generator: torch.Generator) -> None:
    plain = chain(*POOLED)
    architecture = with_batch_norm(plain)
    assert [layer.batch_norm for layer in architecture.layers] == [True, False, True, False, True]
    net = randomise(Network(architecture), 0)
    images = torch.rand(8, 3, 37, 37, generator=generator)
    net.train()(images)  # moves the running statistics
    folded = fold_batch_norm(net.eval())
    assert folded.architecture == plain
    torch.testing.assert_close(folded.eval()(images), net(images), rtol=1e-4, atol=1e-5)


def test_random_weights_follow_the_seed() -> None:
    one, same, other = (randomise(Network(chain(*STRIDED)), seed) for seed in (1, 1, 2))
    assert torch.equal(one.b.weight, same.b.weight)
    assert not torch.equal(one.b.weight, other.b.weight)


def test_errors_name_what_would_be_right(net: Network) -> None:
    images = torch.rand(1, 3, 227, 227)
    with pytest.raises(CallError, match="did you mean conv"):
        net.features(images, "cnov3")
    with pytest.raises(CallError, match="1 x 1 x 227 x 227"):
        net.features(images[:, :1], "conv1")
    with pytest.raises(CallError, match="divide by 255"):
        net.features((images * 255).byte(), "conv1")
    with pytest.raises(CallError, match="smaller than the receptive field of conv4, 51 x 51"):
        net.features(images[..., :50, :], "conv4")
    without_classes = load_model("convpool_cnn_c")
    images = torch.rand(1, 3, 32, 32)
    with pytest.raises(CallError, match=r"no weights for conv9; it has them for conv1, .* conv8 .*--random-weights"):
        without_classes.features(images, "conv9")
    with pytest.raises(CallError, match="only up to conv8"):
        without_classes(images)


def test_a_model_takes_images_of_its_own_size_however_large_the_receptive_field() -> None:
    net = network(Layer("a", 4, 5, padding=2), Layer("b", 4, 5, padding=2), size=8)
    assert net.architecture.receptive_field("b") == 9
    assert net.features(torch.rand(1, 3, 8, 8).double(), "b").shape == (1, 4, 8, 8)
    with pytest.raises(CallError, match="7 x 9 pixels is smaller than the images of test, 8 x 8"):
        net.features(torch.rand(1, 3, 7, 9).double(), "b")
    with pytest.raises(CallError, match="4 x 8 pixels is smaller than the receptive field of a, 5 x 5"):
        net.features(torch.rand(1, 3, 4, 8).double(), "a")


def test_layer_list(net: Network) -> None:
    assert layer_list(net, "all") == [f"conv{i}" for i in range(1, 13)]
    assert layer_list(net, "conv3, conv1,conv3") == ["conv3", "conv1"]
    with pytest.raises(CallError, match="no layer"):
        layer_list(net, "pool1")
    with pytest.raises(CallError, match="no layer named"):
        layer_list(net, ",")
