import itertools

import pytest
import torch

from reconstruct.errors import CallError
from reconstruct.network import Architecture, Layer, Network, fold_batch_norm, layer_list, randomise


def chain(*layers: Layer, size: int = 37) -> Architecture:
    return Architecture("test", layers, size, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def network(*layers: Layer, size: int = 37) -> Network:
    return randomise(Network(chain(*layers, size=size)), 0).double().eval()


STRIDED = (
    Layer("a", 4, 5, stride=2, activation="crelu"),
    Layer("b", 5, 3, padding=1, activation="avr"),
    Layer("c", 6, 3, stride=3, padding=1, activation="leaky_relu", slope=0.1),
)


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


@pytest.mark.parametrize("size", [(37, 31), (40, 33), (24, 57)])
def test_shapes_are_those_of_the_features(size: tuple[int, int]) -> None:
    net = network(*STRIDED)
    sizes = net.architecture.response_sizes(size)
    for layer in net.layers:
        features = net.features(torch.rand(1, 3, *size, dtype=torch.float64), layer.name)
        assert tuple(features.shape) == (1, layer.channels, *sizes[layer.name])


def seen_by(net: Network, layer: str, size: tuple[int, int], position: tuple[int, int] | None) -> torch.Tensor:
    """Which pixels a layer's responses (all, or at one position) depend on, by automatic differentiation."""
    images = torch.rand(1, 3, *size, dtype=torch.float64, requires_grad=True)
    responses = net.responses(images, layer)
    chosen = responses if position is None else responses[..., position[0], position[1]]
    (gradient,) = torch.autograd.grad(chosen.square().sum(), images)
    return gradient.abs().sum((0, 1)) > 0


def test_receptive_field_is_what_a_response_depends_on() -> None:
    net = network(*STRIDED)
    for layer in net.layers:
        grid = net.architecture.response_sizes((61, 61))[layer.name]
        rows, columns = seen_by(net, layer.name, (61, 61), (grid[0] // 2, grid[1] // 2)).nonzero().T
        side = net.architecture.receptive_field(layer.name)
        assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (side, side)


@pytest.mark.parametrize("size", list(itertools.product((30, 31, 32, 33, 34, 35), (36, 40))))
def test_covered_size_is_what_all_responses_depend_on(size: tuple[int, int]) -> None:
    net = network(*STRIDED)
    rows, columns = seen_by(net, "c", size, None).nonzero().T
    assert net.architecture.covered_size(size, "c") == (int(rows.max()) + 1, int(columns.max()) + 1)


def test_covered_size_keeps_every_response() -> None:
    architecture = chain(*STRIDED)
    for side in range(20, 60):
        trimmed = architecture.covered_size((side, side), "c")
        assert architecture.response_sizes(trimmed)["c"] == architecture.response_sizes((side, side))["c"]
        assert architecture.covered_size(trimmed, "c") == trimmed


def test_folding_batch_norm_changes_no_feature(generator: torch.Generator) -> None:
    layers = (
        Layer("a", 4, 3, batch_norm=True, activation="crelu"),
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


def test_random_weights_follow_the_seed() -> None:
    one, same, other = (randomise(Network(chain(*STRIDED)), seed) for seed in (1, 1, 2))
    assert torch.equal(one.b.weight, same.b.weight)
    assert not torch.equal(one.b.weight, other.b.weight)


def test_errors_name_what_would_be_right(net: Network) -> None:
    images = torch.rand(1, 3, 227, 227)
    with pytest.raises(CallError, match="did you mean conv"):
        net.features(images, "cnov3")
    with pytest.raises(CallError, match=r"no weights for conv10; it has them for conv1, .* conv9 .*--random-weights"):
        net.features(images, "conv10")
    with pytest.raises(CallError, match="1 x 1 x 227 x 227"):
        net.features(images[:, :1], "conv1")
    with pytest.raises(CallError, match="divide by 255"):
        net.features((images * 255).byte(), "conv1")
    with pytest.raises(CallError, match="smaller than the receptive field of conv4, 51 x 51"):
        net.features(images[..., :50, :], "conv4")
    with pytest.raises(CallError, match="only up to conv9"):
        net(images)


def test_layer_list(net: Network) -> None:
    assert layer_list(net, "all") == [f"conv{i}" for i in range(1, 10)]
    assert layer_list(net, "conv3, conv1,conv3") == ["conv3", "conv1"]
    with pytest.raises(CallError, match="no layer"):
        layer_list(net, "pool1")
    with pytest.raises(CallError, match="no layer named"):
        layer_list(net, ",")
