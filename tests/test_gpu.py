"""On a real GPU, with torch for CUDA and CuPy: the same numbers as on the CPU, no memory lost, one stream."""

import math
from pathlib import Path

import numpy
import pytest
import torch

from reconstruct import Architecture, Network, fold_batch_norm, invert, load_image, load_model
from reconstruct.analysis.pooling_bounds import layer_bounds
from reconstruct.inversion.linear import LayerInverse
from reconstruct.inversion.pooled import rebuild
from reconstruct.network.architecture import Layer
from reconstruct.network.surgery import randomise, with_pool
from reconstruct.operators import arrays
from reconstruct.operators.convolution import Convolution
from reconstruct.training.data import Arrays, Augmentation
from reconstruct.training.loop import Recipe, fit
from tests.builders import synthetic
from tests.conftest import SAMPLES

cupy = pytest.importorskip("cupy", reason="CuPy has no wheel for this platform")
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu() -> torch.device:
    assert torch.cuda.is_available(), "make test-gpu needs a CUDA device"
    return torch.device("cuda")


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3", "conv4"])
@pytest.mark.parametrize("form", ["global", "patch", "direct"])
def test_the_gpu_gives_the_cpus_reconstruction(layer: str, form: str, photograph: torch.Tensor) -> None:
    images = {}
    for device in ("cpu", "cuda"):
        net = load_model("crelu_conv1_4", device=device)
        features = net.features(photograph.to(device), layer)
        result = invert(net, features, layer, "linear", linear_form=form, tolerance=1e-4)
        assert result.image.device.type == device
        images[device] = result.image.cpu()
    # Both stop within tolerance 1e-4 of the responses; damping or rank leaves at most two decades of amplification.
    torch.testing.assert_close(images["cuda"], images["cpu"], atol=2e-2, rtol=0)


def test_operators_agree_to_float32(photograph: torch.Tensor) -> None:
    weight = load_model("crelu_conv1_4").conv1.weight
    found = {}
    for device in ("cpu", "cuda"):
        op = Convolution(weight.to(device), 4, 0, (227, 227), torch.float32)
        with arrays.using(torch.device(device)):
            x = arrays.array_of(photograph.to(device))
            z = op.apply(x)
            found[device] = [arrays.to_torch(each).cpu() for each in (z, op.adjoint(z), op.gram("inputs"))]
    for cpu, cuda in zip(found["cpu"], found["cuda"], strict=True):
        scale = float(cpu.abs().max())
        torch.testing.assert_close(cuda / scale, cpu / scale, atol=1e-4, rtol=0)


def test_arrays_share_memory_stream_and_pool(gpu: torch.device) -> None:
    tensor = torch.arange(6.0, device=gpu)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), arrays.using(gpu):
        assert cupy.cuda.get_current_stream().ptr == stream.cuda_stream
        array = arrays.array_of(tensor)
        array += 1
        assert arrays.to_torch(array).data_ptr() == tensor.data_ptr()
        before = torch.cuda.memory_allocated()
        held = cupy.zeros(2**20, dtype=cupy.float32)
        assert torch.cuda.memory_allocated() - before >= held.nbytes
    stream.synchronize()
    assert tensor.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_loop_of_hand_overs_does_not_grow(gpu: torch.device) -> None:
    op = Convolution(torch.randn(8, 3, 5, 5, device=gpu), 2, 2, (64, 64), torch.float32)
    with arrays.using(gpu):
        inverse = LayerInverse(op, "global", 0.01)
        z = arrays.array_of(torch.randn(4, *op.output_shape, device=gpu))
        used = []
        for _ in range(60):
            inverse.solve(z, 1e-3, 20)
            torch.cuda.synchronize()
            used.append(torch.cuda.memory_allocated())
    assert used[-1] <= max(used[:10]), numpy.diff(used)


@pytest.mark.parametrize("method", ["map", "wiener", "gradient"])
def test_methods_through_the_network_agree_with_the_cpu(method: str) -> None:
    size = (67, 67)
    image = load_image(SAMPLES[0], size)[None]
    found = {}
    for device in ("cpu", "cuda"):
        net = load_model("crelu_conv1_4", device=device)
        features = net.features(image.to(device), "conv3")
        found[device] = invert(net, features, "conv3", method, size=size, budget=60).image.cpu()
    # float32 sums in another order, amplified by the iteration: far below what the method itself leaves.
    error = (found["cpu"] - image).norm()
    assert (found["cuda"] - found["cpu"]).norm() < 0.1 * error


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_learns_in_every_precision_and_goes_on(precision: str, gpu: torch.device, tmp_path: Path) -> None:
    images, labels = synthetic.patterns(48, 16, 3)
    data = Arrays(images, labels, ["a", "b", "c"])
    layers = (Layer("conv1", 8, 3, padding=1, activation="crelu", batch_norm=True), Layer("conv2", 3, 3))
    architecture = Architecture("small", layers, 16, (0.5,) * 3, (0.25,) * 3)
    scores = []
    seen = torch.from_numpy(images).to(gpu) / 255
    for _ in range(2):  # the second time from the checkpoint, with nothing left to do
        net = randomise(Network(architecture), 0).to(gpu)
        trained = fit(net, data, Recipe(60, 16, 0.05), Augmentation(16), tmp_path, precision=precision)
        scores.append(net(seen))
    assert trained.loss < 0.5 * math.log(3)  # chance is log 3
    assert torch.equal(scores[0], scores[1])
    torch.testing.assert_close(fold_batch_norm(net)(seen), scores[0], rtol=1e-3, atol=1e-3)


def test_regions_and_pooled_images_agree(photograph: torch.Tensor) -> None:
    """Bounds in double precision; images within what 150 passes in single precision leave open."""
    found = {}
    for device in ("cpu", "cuda"):
        net = with_pool(load_model("crelu_conv1_4", device=device), "conv1", 3, 2)
        image = photograph[:, :, :99, :99].to(device)
        regions = layer_bounds(net, image, "conv1_pool")
        assert regions.violations == 0
        rebuilt = {known: each.images.cpu() for known, each in rebuild(net, image, "conv1_pool", budget=150)}
        found[device] = (regions, rebuilt)
    (cpu, images), (cuda, others) = found["cpu"], found["cuda"]
    for name in ("reconstruction_ratio", "relative_error", "bound_measured", "bound_model"):
        torch.testing.assert_close(getattr(cuda, name).cpu(), getattr(cpu, name), atol=1e-5, rtol=0)
    for known in ("switches", "both"):
        torch.testing.assert_close(others[known], images[known], atol=2e-2, rtol=0)
