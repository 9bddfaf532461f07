"""Activations of modules that are averaged while the module runs."""

import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from reconstruct.errors import CallError
from reconstruct.network.activations import deviations, smoothed
from reconstruct.network.calls import taken
from reconstruct.network.gaussian_means import LOGISTIC, mean_of_gated, mean_of_hard_swish, mean_of_mixture
from reconstruct.network.smoothing import recorded, smoothing
from tests.builders.modules import drawn
from tests.builders.networks import randn

Function = Callable[[torch.Tensor], torch.Tensor]


class Mixed(nn.Module):
    """Every way to call an activation, in place and not; a gate of squeeze and excitation; a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3 if i == 0 else 6, 6, 3, padding=1) for i in range(6))
        self.relu, self.last = nn.ReLU(inplace=True), nn.Conv2d(6, 6, 1)
        self.limit = nn.Parameter(torch.ones(2, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth, fifth, sixth = self.convolutions
        values = self.relu(first(images))
        values = functional.relu(second(values))
        values = third(values).relu_()
        values = torch.clamp(fourth(values), min=0)
        values = functional.silu(fifth(values))
        values = values * torch.sigmoid(values.mean((2, 3), keepdim=True))
        # Neither is an activation of what comes from the image.
        values = values * self.limit.clamp(max=0.5).mean() * torch.arange(4).view(2, 2).clamp(min=1).sum()
        values = functional.hardswish(sixth(values), True)
        return self.last(values.softmax(1))


def mixed(images: torch.Tensor, module: Mixed, spreads: list[torch.Tensor]) -> torch.Tensor:
    """The same by hand, on average."""
    first, second, third, fourth, fifth, sixth = module.convolutions
    values = images
    for convolution, spread in zip((first, second, third, fourth), spreads, strict=False):
        values = smoothed(convolution(values), "relu", 0.0, spread)[0]
    values = mean_of_gated(LOGISTIC)(fifth(values), spreads[4])[0]
    values = values * mean_of_mixture(LOGISTIC)(values.mean((2, 3), keepdim=True), spreads[5])[0]
    values = values * module.limit.clamp(max=0.5).mean() * 7
    values = mean_of_hard_swish(sixth(values), spreads[6])[0]
    return module.last(values.softmax(1))


@pytest.fixture
def module() -> Mixed:
    """In float64, without gradients of its weights."""
    return drawn(Mixed()).double().requires_grad_(False)


@pytest.fixture
def images() -> torch.Tensor:
    return randn(2, 3, 8, 7, seed=5, dtype=torch.float64).requires_grad_(True)


def test_all_calls_are_smoothed_and_the_module_is_what_it_was(module: Mixed, images: torch.Tensor) -> None:
    before, state = module(images), {name: values.clone() for name, values in module.state_dict().items()}
    spreads = recorded(module, images)
    assert [tuple(spread.shape) for spread in spreads] == [(1, 6, 1, 1)] * 7
    assert torch.equal(spreads[0], deviations(module.convolutions[0](images)))
    halves = [spread / 2 for spread in spreads]
    with smoothing(halves):
        found = module(images)
    expected = mixed(images, module, halves)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert float((found - before).detach().abs().max()) > 1e-4
    torch.testing.assert_close(
        torch.autograd.grad(found.sin().sum(), images), torch.autograd.grad(expected.sin().sum(), images)
    )
    assert torch.equal(module(images), before)
    assert all(torch.equal(values, state[name]) for name, values in module.state_dict().items())


def test_two_derivatives(module: Mixed, images: torch.Tensor) -> None:
    """That of the mean, and that of a derivative of it, are those of central differences."""
    spreads = recorded(module, images)

    def smooth(values: torch.Tensor) -> torch.Tensor:
        with smoothing(spreads):
            return module(values)

    few = images[:1, :, :3, :3].detach().requires_grad_(True)
    assert torch.autograd.gradcheck(smooth, few)
    assert torch.autograd.gradgradcheck(smooth, few)


@pytest.mark.parametrize(
    ("call", "same"),
    [
        (nn.ReLU6(), functional.relu6),
        (nn.ReLU6(inplace=True), functional.relu6),
        (nn.Hardtanh(0.0, 6.0), functional.relu6),
        (lambda z: z.clamp(0, 6), functional.relu6),
        (lambda z: z.clip(0, 6), functional.relu6),
        (lambda z: torch.clamp(input=z, min=0, max=6), functional.relu6),
        (lambda z: z.clamp_(max=6, min=0), functional.relu6),
        (torch.relu, functional.relu),
        (torch.relu_, functional.relu),
        (lambda z: torch.relu(input=z), functional.relu),
        (lambda z: functional.relu(z, inplace=True), functional.relu),
        (lambda z: functional.relu(z, True), functional.relu),
        (lambda z: z.clamp_min(0), functional.relu),
        (lambda z: -(-z).clamp_max(0), functional.relu),
        (nn.LeakyReLU(0.0), functional.relu),
        (nn.PReLU(init=0.0), functional.relu),
        (lambda z: (z + abs(z)) / 2, functional.relu),
        (lambda z: (z + z.abs()) / 2, functional.relu),
        (nn.ELU(0.0), functional.relu),
        (nn.CELU(), functional.elu),
        (lambda z: functional.elu(z, alpha=1.0, inplace=True), functional.elu),
        (lambda z: functional.selu(z) / 1.0507009873554805, lambda z: functional.elu(z, 1.6732632423543772)),
        (lambda z: (2 * z).sigmoid_() * 2 - 1, lambda z: z.tanh()),
        (lambda z: torch.special.expit(z * 2) * 2 - 1, torch.tanh),
        (nn.Tanh(), lambda z: z.tanh_()),
        (nn.Hardsigmoid(), lambda z: (z + 3).clamp(0, 6) / 6),
        (lambda z: functional.softplus(z) - nn.Softplus()(-z), lambda z: functional.relu(z) - functional.relu(-z)),
        (nn.SiLU(inplace=True), functional.silu),
        (nn.Mish(inplace=True), functional.mish),
        (nn.GELU(), lambda z: functional.gelu(z, approximate="none")),
        (lambda z: nn.GELU("tanh")(z * 1e3) / 1e3, lambda z: functional.gelu(z * 1e3) / 1e3),
        (nn.Softsign(), functional.softsign),
        (nn.Hardswish(inplace=True), functional.hardswish),
    ],
)
def test_ways_to_call_the_same(call: Function, same: Function) -> None:
    z = (3 * randn(2, 4, 5, 5, seed=3)).requires_grad_(True)

    def run(function: Function) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        spreads = recorded(lambda leaf: function(leaf * 1), z)
        assert spreads
        with smoothing(spreads):
            given = z * 1
            features = function(given)
        return features, torch.autograd.grad(features.sum(), z)[0]

    torch.testing.assert_close(run(call), run(same), rtol=1e-5, atol=2e-5)


def test_in_place_writes_over_what_goes_in() -> None:
    z = randn(2, 3, 4, 4).requires_grad_(True)
    spread = torch.full((1, 3, 1, 1), 0.5)
    values = z * 1
    with smoothing([spread]):
        features = functional.relu(values, inplace=True)
    assert features is values
    assert torch.equal(features, smoothed(z, "relu", 0.0, spread)[0])
    assert torch.equal(torch.autograd.grad(features.sum(), z)[0], smoothed(z, "relu", 0.0, spread)[1])
    part = z * 1
    with smoothing([spread[:, :1]]):
        part[:, 1:2].relu_()
    assert torch.equal(part[:, 1:2], smoothed(z[:, 1:2], "relu", 0.0, spread[:, :1])[0])
    assert torch.equal(part[:, ::2], z[:, ::2])


def test_a_run_that_is_ended_by_an_exception(module: Mixed, images: torch.Tensor) -> None:
    """What goes into a part's call is taken, and the module runs no further."""

    def run(values: torch.Tensor) -> torch.Tensor:
        return taken(module, values, ("convolutions.4", 1, ()), "mixed", before=False)

    spreads = recorded(run, images)
    assert len(spreads) == 4
    with smoothing(spreads):
        found = run(images)
    values: torch.Tensor = images
    for convolution, spread in zip(module.convolutions, spreads, strict=False):
        values = smoothed(convolution(values), "relu", 0.0, spread)[0]
    torch.testing.assert_close(found, module.convolutions[4](values), rtol=0, atol=1e-12)


def test_what_does_not_fit_is_refused(images: torch.Tensor) -> None:
    spread = torch.ones(1, 3, 1, 1)
    with pytest.raises(CallError, match="calls more activations than the 1 "), smoothing([spread]):
        functional.relu(functional.relu(images))
    with pytest.raises(CallError, match="has called 1 activations, and 2 spreads"), smoothing([spread] * 2):
        functional.relu(images)
    for wrong in (torch.ones(1, 4, 1, 1), torch.ones(1, 3, 1), torch.tensor(1.0), torch.ones(1, 3, 8, 7)):
        with (
            pytest.raises(CallError, match="activation 1 of the run is of 2 x 3 x 8 x 7, and its spread is"),
            smoothing([wrong]),
        ):
            functional.relu(images)
    with pytest.raises(ZeroDivisionError), smoothing([spread]):
        raise ZeroDivisionError


def test_none_leaves_a_call_as_it_is(images: torch.Tensor) -> None:
    with smoothing([None, torch.ones(1, 3, 1, 1)]):
        first, second = functional.silu(images), functional.relu(images)
    assert torch.equal(first, functional.silu(images))
    assert torch.equal(second, smoothed(images, "relu", 0.0, torch.ones(1, 3, 1, 1))[0])


class Swish(torch.autograd.Function):
    """As efficientnet_pytorch has it: with a derivative of its own."""

    @staticmethod
    def forward(ctx: object, values: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(values)  # type: ignore[attr-defined]
        return values * torch.sigmoid(values)

    @staticmethod
    def backward(ctx: object, pulled: torch.Tensor) -> torch.Tensor:
        (values,) = ctx.saved_tensors  # type: ignore[attr-defined]
        gate = torch.sigmoid(values)
        return pulled * gate * (1 + values * (1 - gate))


def test_what_torch_does_not_show_is_left_alone(images: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double(), images.detach())
    for run in (scripted, Swish.apply, lambda values: torch.clamp(values, min=torch.zeros(()).double())):
        assert recorded(run, images) == []
        with smoothing([]):
            found = run(images)
        assert torch.equal(found, run(images))


def test_the_innermost_decides(images: torch.Tensor) -> None:
    """And what runs within a recording is recorded as it runs: smoothed, where that is outside."""
    narrow, wide = torch.full((1, 3, 1, 1), 0.1), torch.full((1, 3, 1, 1), 2.0)
    with smoothing([]), smoothing([narrow]):
        inner = functional.silu(images)
    with smoothing([narrow]):
        assert torch.equal(functional.silu(images), inner)
    with smoothing([wide, wide]):
        spreads = recorded(lambda values: functional.relu(functional.relu(values)), images)
    once = smoothed(images, "relu", 0.0, wide)[0]
    torch.testing.assert_close(spreads, [deviations(images), deviations(once)])


def test_another_thread_is_not_smoothed(images: torch.Tensor) -> None:
    found: list[torch.Tensor] = []
    with smoothing([]):
        thread = threading.Thread(target=lambda: found.append(functional.relu(images)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], functional.relu(images))


def test_without_gradients_nothing_is_smoothed(images: torch.Tensor) -> None:
    with smoothing([]), torch.no_grad():
        assert torch.equal(functional.relu(images), images.relu())


def test_half_precision(images: torch.Tensor) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        given = images.to(dtype)
        (spread,) = recorded(functional.gelu, given)
        assert spread.dtype == dtype
        with smoothing([spread]):
            means = functional.gelu(given)
        with smoothing([spread.double()]):
            expected = functional.gelu(images)
        assert means.dtype == dtype
        assert float((means - expected).detach().abs().max()) < 8 * torch.finfo(dtype).eps * float(
            images.detach().abs().max()
        )
