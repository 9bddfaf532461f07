import pytest
import torch

from reconstruct.inversion.most_probable.step_over import step_over, steps_over
from reconstruct.network.activations import activate
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from reconstruct.zoo.load import load_model
from tests.builders.networks import random_net

SIZE = (18, 17)


def wide(filters: int = 25) -> Network:
    """conv2: at least as many filters as the 24 features below, stride 1."""
    return random_net(Layer("conv1", 12, 5, 2, 0, "crelu"), Layer("conv2", filters, 3, 1, 1))


def condition(net: Network) -> float:
    """The condition number of conv2 for all features of an image of SIZE."""
    matrix = torch.func.jacrev(net.conv2)(torch.zeros(24, 7, 7)).flatten(3).flatten(0, 2)
    values = torch.linalg.eigvalsh((matrix.T @ matrix).double())
    return float((values.max() / values.min()).sqrt())


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(227, 227), (64, 64), (320, 201)])
def test_the_rule_is_read_off_the_shapes(net: Network, size: tuple[int, int]) -> None:
    """conv4 has 256 responses for 192 features on one grid; conv1 has no features below; conv3 a quarter of
    conv2's positions; conv2 half the filters; conv5 as many filters as features, but from ReLU."""
    names = [f"conv{i}" for i in range(1, 6)]
    assert [name for name in names if steps_over(net, name, size)] == ["conv4"]


def test_no_max_pooling_is_stepped_over() -> None:
    """Not even one that gives as many features as it takes, nor the convolution right above it."""
    pool = Layer("pool1", kernel=3, padding=1, kind="max_pool")
    conv1, conv2 = Layer("conv1", 12, 5, 2, 0, "crelu"), Layer("conv2", 24, 3, 1, 1, "crelu")
    net = random_net(conv1, pool, conv2, Layer("conv3", 48, 1))
    assert [steps_over(net, name, SIZE) for name in ("pool1", "conv2", "conv3")] == [None, None, "conv2"]
    assert steps_over(random_net(conv1, conv2), "conv2", SIZE)


def test_the_rule_needs_crelu_below_and_enough_responses() -> None:
    for model in ("all_cnn_b", "avr_conv1_4"):
        other = load_model(model, random_weights=0)
        assert not any(steps_over(other, f"conv{i}", (64, 64)) for i in range(1, 6))
    for filters, expected in ((23, None), (24, "conv1")):
        layers = Layer("conv1", 12, 5, 2, 0, "crelu"), Layer("conv2", filters, 1)
        assert steps_over(random_net(*layers), "conv2", SIZE) == expected
    # A border of padding gives more responses than features from fewer filters.
    assert steps_over(random_net(Layer("conv1", 12, 5, 2, 0, "crelu"), Layer("conv2", 20, 1, 1, 1)), "conv2", (12, 12))


@pytest.mark.parametrize("filters", [25, 32])
def test_the_responses_below_come_back(filters: int) -> None:
    """All images, also one whose responses are the bias alone; to the tolerance times the condition number: an
    error of t |A h| in A h is at most cond(A) t |h| in h, and sqrt(2) times that in the difference of its phases."""
    net = wide(filters)
    x = images(3)
    below = net.responses(x, "conv1")
    amplification = condition(net)
    assert amplification > 10
    for tolerance in (1e-3, 1e-6):
        responses = net.responses(x, "conv2")
        found, _, counts = step_over(net, "conv2", SIZE, responses, tolerance=tolerance, iterations=400)
        assert max(counts) < 400
        error = (found - below).flatten(1).norm(dim=1) / below.flatten(1).norm(dim=1)
        # The bias is no part of A h: it makes the responses larger by less than 2.
        assert float(error.max()) <= 2 * amplification * tolerance, error

    nothing = net.conv2.bias.view(1, -1, 1, 1).expand(1, -1, *found.shape[2:])
    zero, _, counts = step_over(net, "conv2", SIZE, nothing, tolerance=1e-6, iterations=400)
    assert (zero == 0).all()
    assert max(counts) < 400


@pytest.mark.slow
def test_conv4_of_the_trained_model(net: Network, photograph: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ill-conditioned, as trained layers are: deciding signs ends, and exactly, where least squares crawls on."""
    x = photograph[:, :, 60:123, 70:133]
    below = net.responses(x, "conv3")
    responses = net.responses(x, "conv4")
    found, _, counts = step_over(net, "conv4", (63, 63), responses, tolerance=1e-6, iterations=800)
    monkeypatch.setattr("reconstruct.inversion.most_probable.step_over.FIRST", 800)
    plain, _, same = step_over(net, "conv4", (63, 63), responses, tolerance=1e-6, iterations=800)
    assert counts < same == [800]
    error, other = (float((each - below).norm() / below.norm()) for each in (found, plain))
    assert error < 0.2 * other
    assert error < 1e-4
    # A sign that is wrong puts the response at least its own size off.
    wrong = below[found.sign() != below.sign()]
    assert float(wrong.norm() / below.norm()) <= error


def test_images_are_independent_and_stop_when_they_are_done() -> None:
    net = wide(32)
    responses = net.responses(images(3), "conv2")
    responses[1] = net.conv2.bias.view(-1, 1, 1)  # nothing to do
    together, _, counts = step_over(net, "conv2", SIZE, responses, tolerance=1e-6, iterations=300)
    assert counts[1] < counts[0]
    for i in range(3):
        alone, _, own = step_over(net, "conv2", SIZE, responses[i : i + 1], tolerance=1e-6, iterations=300)
        assert own == counts[i : i + 1]
        # Either is within the tolerance times the condition number of the truth, as above.
        assert float((together[i] - alone[0]).norm()) <= 4 * condition(net) * 1e-6 * float(alone.norm())


@pytest.mark.parametrize("iterations", [1, 29, 30, 31, 47])
def test_the_iterations_are_kept(iterations: int) -> None:
    net = wide()
    _, _, counts = step_over(
        net, "conv2", SIZE, net.responses(images(2), "conv2"), tolerance=1e-12, iterations=iterations
    )
    assert counts == [iterations] * 2


def test_the_tolerance_decides_when_to_stop() -> None:
    net = wide()
    responses = net.responses(images(1), "conv2")
    tolerances = (1e-1, 1e-3, 1e-5)
    work = [
        step_over(net, "conv2", SIZE, responses, tolerance=tolerance, iterations=300).iterations[0]
        for tolerance in tolerances
    ]
    assert work[0] < work[1] < work[2] < 300


def test_no_images() -> None:
    net = wide()
    responses = net.responses(images(1), "conv2")[:0]
    found, _, counts = step_over(net, "conv2", SIZE, responses, tolerance=1e-5, iterations=50)
    assert (found.shape, counts) == ((0, 12, 7, 7), [])


def test_the_misfit_is_that_of_what_is_given() -> None:
    """|A h - (z - b)| / |z - b| with h the features of the responses found, exact or not."""
    net = wide()
    responses = net.responses(images(2), "conv2")
    wanted = responses - net.convolution("conv2").bias.view(1, -1, 1, 1)
    true = net.responses(images(2), "conv1")
    for iterations in (20, 300):
        found = step_over(net, "conv2", SIZE, responses, tolerance=1e-9, iterations=iterations)
        features = activate(found.responses, "crelu")
        convolution = net.convolution("conv2")
        again = torch.nn.functional.conv2d(features, convolution.weight, None, convolution.stride, convolution.padding)
        misfit = (again - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
        torch.testing.assert_close(torch.tensor(found.misfits), misfit, rtol=1e-2, atol=1e-6)
    error = (found.responses - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1)
    assert float(error.max()) < 1e-3
