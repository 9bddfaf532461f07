import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.errors import CallError
from reconstruct.network.architecture import Layer
from reconstruct.network.module import from_torch
from reconstruct.network.network import Network
from reconstruct.operators.layer_stack import LayerStack
from reconstruct.operators.polyphase import polyphase, unpolyphase
from reconstruct.operators.torus import inverse
from reconstruct.prior import estimates as covariance
from reconstruct.prior.estimates import IMAGES, REACH, exact_image_gram, image_gram, mean_field, response_covariance
from reconstruct.prior.gaussian import Prior
from reconstruct.prior.lags import spectrum, taper, torus_lags, variance
from reconstruct.zoo.load import load_model
from tests.builders.networks import randn, random_net

EPS = torch.finfo(torch.float32).eps
ESTIMATES = [response_covariance, image_gram, mean_field]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(folder))
    return folder


def small() -> Network:
    return random_net(Layer("conv1", 4, 5, 2, 1, "crelu"), Layer("conv2", 6, 3, 1, 1, "crelu"), biases=False)


def tensors(found: object) -> list[torch.Tensor]:
    if isinstance(found, covariance.MeanField):
        return [*found.slopes, *found.offsets, found.error, found.total]
    assert isinstance(found, torch.Tensor)
    return [found]


def equal(first: object, second: object) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


@pytest.mark.parametrize("grid", [(7, 7), (12, 5), (1, 9), (28, 28)])
@pytest.mark.parametrize("estimate", [response_covariance, image_gram])
def test_spectra_are_hermitian_and_not_negative(estimate, grid: tuple[int, int]) -> None:
    """Up to rounding of the largest: the triangular window's transform is not negative, on any grid."""
    lags, _ = estimate(small(), "conv2")
    matrices = spectrum(lags, grid)
    assert matrices.shape == (grid[0], grid[1] // 2 + 1, *lags.shape[2:])
    largest = float(matrices.abs().amax()) * len(lags[0, 0])
    rounding = 4 * lags.shape[0] * lags.shape[1] * EPS * largest
    torch.testing.assert_close(matrices, matrices.mH, rtol=0, atol=rounding)
    values = torch.linalg.eigvalsh(matrices.to(torch.complex128))
    assert float(values.min()) >= -rounding
    assert float(values.max()) > 0


@given(st.sampled_from([0, 1, 2, 4]), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_a_spectrum_is_the_direct_sum(reach: int, channels: int, height: int, width: int) -> None:
    lags = randn(2 * reach + 1, 2 * reach + 1, channels, channels)
    expected = torch.zeros(height, width // 2 + 1, channels, channels, dtype=torch.complex128)
    for i, j in torch.cartesian_prod(torch.arange(2 * reach + 1), torch.arange(2 * reach + 1)).tolist():
        turns = (i - reach) * torch.arange(height).double()[:, None] / height
        turns = turns + (j - reach) * torch.arange(width // 2 + 1).double() / width
        expected += torch.exp(-2j * math.pi * turns)[:, :, None, None] * lags[i, j]
    # Angles of up to 8 pi in float32, 81 terms of order 3.
    atol = 81 * 3 * 8 * math.pi * EPS
    torch.testing.assert_close(spectrum(lags, (height, width)).to(torch.complex128), expected, rtol=0, atol=atol)


@given(st.sampled_from([0, 1, 2, 4]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
def test_lags_on_a_torus_are_direct_sums(reach: int, count: int, channels: int, height: int, width: int) -> None:
    """Also of reaches that go round the torus more than once."""
    values = randn(count, channels, height, width)
    expected = torch.zeros(2 * reach + 1, 2 * reach + 1, channels, channels)
    for i, j in torch.cartesian_prod(torch.arange(2 * reach + 1), torch.arange(2 * reach + 1)).tolist():
        earlier = torch.roll(values, (i - reach, j - reach), (2, 3))
        expected[i, j] = torch.einsum("nkhw,nlhw->kl", values, earlier) / (height * width)
    # Means of products of order 10 over three images, from sums of up to 81 frequencies.
    torch.testing.assert_close(torus_lags(values, reach), taper(expected), rtol=0, atol=81 * 3 * 10 * EPS)


def torus_product(matrices: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A block-circulant matrix times fields."""
    waves = matrices @ torch.fft.rfft2(values).permute(2, 3, 1, 0)
    return torch.fft.irfft2(waves.permute(3, 2, 0, 1), s=values.shape[2:])


@pytest.mark.parametrize("grid", [(7, 8), (12, 5)])
def test_inverse_inverts(grid: tuple[int, int]) -> None:
    lags, _ = response_covariance(small(), "conv2")
    matrices = spectrum(lags, grid)
    values = randn(3, 6, *grid)
    upper = float(torch.linalg.eigvalsh(matrices).max())
    for share in (1.0, 0.01):
        shift = share * upper
        found = inverse(matrices, shift)(values)
        back = torus_product(matrices, found) + shift * found
        # Cholesky of 6 x 6: some n eps times the condition number, at most 1 + 1 / share; and the transforms.
        assert float((back - values).norm()) <= 16 * 6 * EPS * (1 + 1 / share) * float(values.norm())
    assert inverse(matrices, upper)(values[:0]).shape == (0, 6, *grid)


@given(st.integers(0, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_polyphase_components(count: int, channels: int, step: int, height: int, width: int) -> None:
    images = randn(count, channels, step * height, step * width)
    parts = polyphase(images, step)
    assert parts.shape == (count, channels * step**2, height, width)
    assert torch.equal(unpolyphase(parts, step), images)
    for component in range(channels * step**2):
        channel, down, right = component // step**2, component // step % step, component % step
        assert torch.equal(parts[:, component], images[:, channel, down::step, right::step])


@pytest.mark.parametrize(
    "layer", [Layer("conv1", 5, 11, 4), Layer("conv1", 5, 3, 1, 1), Layer("conv1", 5, 4, 2, 3), Layer("conv1", 5, 2, 3)]
)
def test_the_exact_gram_of_a_first_layer(layer: Layer) -> None:
    """As an operator on a torus: J^T J of noise. Kernels of some strides, of one, and smaller than a stride."""
    net = random_net(layer)
    step = layer.stride
    size = (7 * step, 12 * step)
    chain = LayerStack(net, "conv1", size, periodic=True)
    images = randn(2, 3, *size)
    at = chain.linearise(images)
    expected = chain.transposed(at, chain.product(at, images))
    lags = exact_image_gram(net, "conv1")
    found = unpolyphase(torus_product(spectrum(lags, (7, 12)), polyphase(images, step)), step)
    upper = float(torch.linalg.eigvalsh(spectrum(lags, (7, 12))).max())
    terms = lags.shape[0] * lags.shape[1] * lags.shape[2]
    assert float((found - expected).norm()) <= 4 * math.sqrt(terms) * EPS * upper * float(images.norm())


def exact_covariance(net: Network, side: int) -> torch.Tensor:
    """All lags of J P J^T of one layer on a torus, g x g x K x K: the responses' covariance with one of them."""
    chain = LayerStack(net, "conv1", (side, side), periodic=True)
    prior = Prior((side, side), torus=True)
    impulses = torch.zeros(chain.layer.filters, chain.layer.filters, *chain.grid)
    impulses[range(chain.layer.filters), range(chain.layer.filters), 0, 0] = 1
    at = chain.linearise(torch.zeros(1, 3, side, side))
    columns = chain.product(at, prior.field(prior.field_adjoint(chain.transposed(at, impulses))))
    return columns.permute(2, 3, 1, 0).double()


@pytest.mark.parametrize("layer", [Layer("conv1", 6, 5, 2, 1, "crelu"), Layer("conv1", 4, 3, 1, 0, "relu")])
def test_one_layer_has_the_exact_covariance(layer: Layer) -> None:
    """Lag d of n images with P positions: the estimate's variance is, for Gaussian responses of covariance C,
    sum over e of [C_kk(e) C_ll(e) + C_kl(e + d) C_kl(d - e)] / (n P), and at most twice the first sum (Cauchy)."""
    net = random_net(layer)
    exact = exact_covariance(net, 96)
    lags, cost = response_covariance(net, "conv1")
    assert cost == 2 * IMAGES * (96 / net.input_size) ** 2
    energy = exact.diagonal(dim1=2, dim2=3).square().sum(dim=(0, 1)).sqrt()
    positions = exact.shape[0] * exact.shape[1]
    deviation = math.sqrt(2 / (IMAGES * positions)) * (energy[:, None] * energy[None, :]).sqrt()
    reach = REACH["response_covariance"]
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            window = (1 - abs(down) / (reach + 1)) * (1 - abs(right) / (reach + 1))
            found, expected = lags[reach + down, reach + right].double(), window * exact[down, right]
            # The largest of 25 lags x 36 entries of a normal distribution: beyond 5 deviations once in 2,000 seeds.
            assert ((found - expected).abs() <= 5 * window * deviation + 1e-5 * energy.max()).all(), (down, right)
    level = exact[0, 0].diagonal()
    assert (5 * deviation.diagonal() < 0.5 * level).all()  # which says something


def test_the_image_gram_is_estimated_without_bias() -> None:
    """White noise pulled back through one layer, whose J^T J is known. Windowed, and 32 x 48^2 positions: a lag's
    estimate has the variance (as above) of at most 2 |C_kk| |C_ll| / (n P)."""
    net = random_net(Layer("conv1", 5, 5, 2, 1))
    exact = exact_image_gram(net, "conv1").double()
    lags, _ = image_gram(net, "conv1")
    reach, own = REACH["image_gram"], len(exact) // 2
    window = 1 - torch.arange(-reach, reach + 1).double().abs() / (reach + 1)
    window = window[:, None] * window[None, :]
    expected = torch.zeros_like(lags, dtype=torch.float64)
    middle = slice(reach - own, reach + own + 1)
    expected[middle, middle] = exact
    energy = exact.diagonal(dim1=2, dim2=3).square().sum(dim=(0, 1)).sqrt()
    deviation = math.sqrt(2 / (IMAGES * 48**2)) * (energy[:, None] * energy[None, :]).sqrt()
    error = (lags.double() - window[:, :, None, None] * expected).abs() / window[:, :, None, None]
    # 81 lags x 144 entries: beyond 6 deviations once in 40,000 seeds.
    assert (error <= 6 * deviation).all()
    assert float(deviation.max()) < 0.01 * float(energy.max())


def test_a_mean_field_halves_a_symmetric_response() -> None:
    """[z]+ - [-z]+ = z, so the phases' slopes differ by exactly 1 and their offsets by 0. Their mean, the regression
    of |z| / 2 on z, vanishes on average: for Gaussian z its variance is 3 / 4 n, and n images with P positions count
    as n P / sum |rho|, rho the correlation of two positions."""
    net = small()
    net.mean.copy_(Prior((1, 1)).mean)  # so that the responses have mean 0
    field, _ = mean_field(net, "conv2")
    (slope,), (offset,) = field.slopes, field.offsets
    positive, negative = slope.flatten().chunk(2)
    up, down = offset.flatten().chunk(2)
    exact = exact_covariance(net, 96).diagonal(dim1=2, dim2=3)
    rho = exact / exact[0, 0]
    samples = IMAGES * rho.shape[0] * rho.shape[1] / rho.abs().sum(dim=(0, 1))
    torch.testing.assert_close(positive - negative, torch.ones(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(up, down, rtol=0, atol=1e-5 * float(exact[0, 0].max()) ** 0.5)
    deviation = (0.75 / samples).sqrt()
    assert ((positive - 0.5).abs() <= 5 * deviation + 1e-5).all(), (positive, deviation)
    # E|z| / 2 = sigma / sqrt(2 pi); the mean of |z| has relative variance (pi/2 - 1) / n.
    mean = exact[0, 0].sqrt() / math.sqrt(2 * math.pi)
    assert ((up / mean - 1).abs() <= 5 * (0.58 / samples).sqrt() + 1e-5).all(), (up, mean)


def test_a_mean_field_leaves_what_is_not_affine() -> None:
    """The error is less than the whole, and 0 for networks that are affine."""
    net = small()
    field, _ = mean_field(net, "conv2")
    missed, total = (each[2, 2].diagonal() for each in (field.error, field.total))
    assert (missed > 0).all()
    assert (missed < total).all()
    affine = random_net(Layer("conv1", 4, 5, 2, 1, "none"), Layer("conv2", 6, 3, 1, 1))
    field, _ = mean_field(affine, "conv2")
    torch.testing.assert_close(field.slopes[0], torch.ones(1, 4, 1, 1), rtol=0, atol=1e-5)
    assert float(field.error.abs().max()) < 1e-8 * float(field.total.abs().max())
    first, _ = mean_field(net, "conv1")
    assert first.slopes == first.offsets == []
    assert (first.error == 0).all()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_the_second_time_is_free(estimate, cache: Path) -> None:
    net = small()
    found, cost = estimate(net, "conv2")
    assert cost > 0
    again, nothing = estimate(net, "conv2")
    assert nothing == 0
    assert equal(found, again)
    (file,) = cache.iterdir()
    assert file.suffix == ".safetensors"
    assert estimate(net, "conv1")[1] > 0
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_estimates_are_the_same_everywhere_and_seeded(estimate, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = estimate(small(), "conv2")
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(cache / "another"))
    torch.manual_seed(5)
    again, cost = estimate(small(), "conv2")
    assert cost > 0
    assert equal(found, again)
    other, cost = estimate(small(), "conv2", seed=1)
    assert cost > 0
    assert not equal(found, other)


@pytest.mark.parametrize("what", ["weight", "bias", "mean"])
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_changed_weights_are_noticed(estimate, what: str) -> None:
    net = small()
    found, _ = estimate(net, "conv2")
    changed = net.mean if what == "mean" else getattr(net.conv1, what)
    changed.flatten()[0] += 0.5
    again, cost = estimate(net, "conv2")
    assert cost > 0
    assert not equal(found, again)
    changed.flatten()[0] -= 0.5
    if what == "bias":  # which was 0
        assert estimate(net, "conv2")[1] == 0


def pooled(kernel: int = 2, padding: int = 0) -> Network:
    pool = Layer("pool1", kernel=kernel, stride=2, padding=padding, kind="max_pool")
    return random_net(Layer("conv1", 4, 3, 1, 1, "crelu"), pool, Layer("conv2", 6, 3, 1, 1), biases=False)


@pytest.mark.parametrize("estimate", [response_covariance, image_gram])
@pytest.mark.parametrize("layer", ["pool1", "conv2"])
def test_a_changed_max_pooling_is_noticed(estimate, layer: str) -> None:
    """All else equal, weights included."""
    found, _ = estimate(pooled(), layer)
    for other in (pooled(3), pooled(3, 1), pooled(2, 1)):
        again, cost = estimate(other, layer)
        assert cost > 0
        assert not equal(found, again)
    assert estimate(pooled(), layer)[1] == 0


def test_an_average_pooling_is_its_own_mean_field() -> None:
    """Slopes of 1 and offsets of 0; between convolutions without activation the affine map misses nothing."""
    pool = Layer("pool1", kernel=3, stride=2, padding=1, kind="avg_pool")
    net = random_net(Layer("conv1", 4, 3, 1, 1, "crelu"), pool, Layer("conv2", 6, 3, 1, 1), biases=False)
    field, _ = mean_field(net, "conv2")
    below, _ = mean_field(net, "conv1")
    assert below.slopes == []
    assert [tuple(each.shape) for each in field.slopes] == [(1, 8, 1, 1)] * 2
    torch.testing.assert_close(field.slopes[1], torch.ones(1, 8, 1, 1), rtol=0, atol=1e-4)
    scale = float(field.offsets[0].abs().max())
    torch.testing.assert_close(field.offsets[1], torch.zeros(1, 8, 1, 1), rtol=0, atol=1e-4 * scale)
    affine = random_net(Layer("conv1", 4, 3, 1, 1, "none"), pool, Layer("conv2", 6, 3, 1, 1))
    field, _ = mean_field(affine, "conv2")
    assert float(field.error.abs().max()) < 1e-8 * float(field.total.abs().max())


@pytest.mark.parametrize("estimate", [response_covariance, image_gram, mean_field])
def test_kinds_of_pooling_are_told_apart(estimate, cache: Path) -> None:
    average = Layer("pool1", kernel=2, stride=2, kind="avg_pool")
    net = random_net(Layer("conv1", 4, 3, 1, 1, "crelu"), average, Layer("conv2", 6, 3, 1, 1), biases=False)
    assert estimate(net, "conv2")[1] > 0
    if estimate is not mean_field:
        assert estimate(pooled(), "conv2")[1] > 0
        assert not equal(estimate(net, "conv2")[0], estimate(pooled(), "conv2")[0])
    assert estimate(net, "conv2")[1] == 0


@pytest.mark.parametrize("layer", ["pool1", "conv2"])
def test_a_max_pooling_has_no_mean_field(layer: str, cache: Path) -> None:
    with pytest.raises(CallError, match="pool1 is a max-pooling"):
        mean_field(pooled(), layer)
    assert not cache.exists()


@pytest.mark.parametrize("layer", ["pool1", "conv8"])
def test_statistics_of_a_model_for_small_images(layer: str) -> None:
    """The torus is larger than its images of 32 pixels and a multiple of all strides, through two poolings."""
    net = load_model("convpool_cnn_c_crelu_half", random_weights=0)
    lags, cost = response_covariance(net, layer)
    assert cost == 2 * IMAGES * (64 / 32) ** 2
    channels = net.layer(layer).filters
    assert lags.shape == (5, 5, channels, channels)
    grid = net.architecture.response_sizes((32, 32))[layer]
    matrices = spectrum(lags, grid)
    largest = float(matrices.abs().amax()) * channels
    assert float(torch.linalg.eigvalsh(matrices).min()) >= -4 * 25 * EPS * largest
    diagonal = lags[2, 2].diagonal()
    # He's weights keep the second moment from layer to layer, and pooling raises it: of the order of 1 throughout.
    assert 0.01 < float(diagonal.mean()) < 100


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "a byte", "folder"])
@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_damaged_cache_is_estimated_again(estimate, damage: str, cache: Path) -> None:
    net = small()
    found, cost = estimate(net, "conv2")
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    if damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        ends = {"truncated": whole[: len(whole) // 2], "a byte": whole[:-1] + bytes([whole[-1] ^ 64])}
        file.write_bytes({"empty": b"", "garbage": b"\xff" * 4096, **ends}[damage])
    again, repeated = estimate(net, "conv2")
    assert repeated == cost
    assert equal(found, again)
    if damage != "folder":
        assert file.read_bytes() == whole
        assert estimate(net, "conv2")[1] == 0
    assert list(cache.iterdir()) == [file]


def test_a_folder_that_cannot_be_written_does_not_matter(cache: Path) -> None:
    """Below a file no folder can be made, by nobody."""
    net = small()
    found, _ = response_covariance(net, "conv2")
    other = cache.parent / "file"
    other.write_text("not a folder")
    with pytest.MonkeyPatch.context() as patch:
        for folder in (other, other / "below"):
            patch.setenv("RECONSTRUCT_CACHE", str(folder))
            for _ in range(2):
                again, cost = response_covariance(net, "conv2")
                assert cost > 0
                assert equal(found, again)


def test_nothing_is_left_behind_where_writing_fails(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk shows at the earliest when the file is written, at the latest when it is put in its place."""

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    found, cost = response_covariance(small(), "conv2")
    assert cost > 0
    assert found.isfinite().all()
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("model", ["crelu_conv1_4", "all_cnn_b", "avr_conv1_4"])
def test_models_with_random_weights(model: str) -> None:
    """Every layer's torus holds its kernels and lags."""
    net = load_model(model, random_weights=0)
    for layer in ("conv3", "conv6"):
        lags, _ = response_covariance(net, layer)
        assert lags.shape[:2] == (5, 5)
        assert lags.isfinite().all()
        # Lag -d is lag d transposed.
        torch.testing.assert_close(lags.flip(0, 1).mT, lags, rtol=0, atol=1e-5 * float(lags.abs().max()))


@pytest.mark.parametrize("activation", ["relu", "crelu", "avr", "relu6", "leaky_relu"])
def test_the_errors_of_smoothed_networks(activation: str) -> None:
    """N(tau) is a covariance, grows with tau, and vanishes with it: by the cube, for a bend is met with a probability
    of order tau and then missed by some tau."""
    net = random_net(Layer("conv1", 4, 5, 2, 1, activation, slope=0.2), Layer("conv2", 6, 3, 1, 1, "crelu"))
    found, cost = covariance.smoothing(net, "conv2")
    assert cost > 0
    assert covariance.smoothing(net, "conv2")[1] == 0
    sizes = [variance(found.errors[tau]) for tau in covariance.TAUS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.01 * sizes[0]
    for tau in (2.0, 1.0, 0.7, 0.1, 0.03, 0.001):
        values = torch.linalg.eigvalsh(spectrum(found.error(tau), (9, 8)).to(torch.complex128))
        assert float(values.min()) >= -1e-5 * float(values.max())
    between = variance(found.error(0.7))
    assert sizes[1] < between < sizes[0]
    assert found.spread(0.0) is None


def test_the_spreads_are_those_of_the_responses() -> None:
    net = small()
    found, _ = covariance.smoothing(net, "conv2")
    prior = Prior((96, 96), torus=True)
    images = prior.image(prior.draw(32, torch.Generator().manual_seed(7)))
    expected = net.responses(images, "conv1").std(dim=(0, 2, 3), correction=0)
    (spread,) = found.spreads
    assert spread is not None
    # 8 images on one side and 32 on the other, whose slowest waves differ.
    torch.testing.assert_close(spread.flatten(), expected, rtol=0.3, atol=0)
    half = found.spread(0.5)
    assert half is not None
    assert half[0] is not None
    assert torch.equal(half[0], 0.5 * spread)


def test_a_module_that_is_no_chain_is_smoothed_like_the_chain_that_it_equals() -> None:
    """Errors on its own images, borders and all, beside those on a torus: of the same size."""

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Conv2d(3, 4, 5, 2, 1), torch.nn.Conv2d(4, 6, 3, 1, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            values = self.first(images)
            if float(values.detach().sum()) != float(values.detach().sum()):  # what no tracer follows
                return values
            return self.second(torch.relu(values))

    torch.manual_seed(0)
    module = Twice()
    plain = from_torch(torch.nn.Sequential(module.first, torch.nn.ReLU(), module.second), input_size=64, name="plain")
    other = from_torch(module, input_size=64, name="other")
    assert other.as_chain("second") is None
    chain, _ = covariance.smoothing(plain, "2")
    found, _ = covariance.smoothing(other, "second")
    for tau in covariance.TAUS:
        ratio = variance(found.errors[tau]) / variance(chain.errors[tau])
        assert 0.7 < ratio < 1.4, (tau, ratio)
