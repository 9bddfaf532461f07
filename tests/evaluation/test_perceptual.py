"""LPIPS and DISTS: what they say of equal and of distorted pictures, and what is said where they cannot be had.

No published weights are here. With the networks behind the measures filled at random, both still are 0 for equal
pictures and grow with the distortion, which is what is ours to get wrong: the range, the order, the clipping.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest
import torch
from torch import nn

from reconstruct.errors import CallError
from reconstruct.evaluation import perceptual as module
from reconstruct.evaluation import results
from reconstruct.evaluation.perceptual import BACKBONES, check, measures_of, perceptual
from reconstruct.extras import install_hint
from tests.builders.command_line import SAMPLE, refused
from tests.builders.results_folder import row, run_json
from tests.conftest import Call

ALEXNET = [(64, 11, 4, 2), "pool", (192, 5, 1, 2), "pool", (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), "pool"]
VGG16 = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool"]


def layers(plan: list[object], size: int, stride: int) -> nn.Sequential:
    """A published network's convolutions, with random weights: the parts and their order are what counts."""
    parts: list[nn.Module] = []
    channels = 3
    for each in plan:
        if each == "pool":
            parts.append(nn.MaxPool2d(size, stride))
            continue
        filters, kernel, step, padding = each if isinstance(each, tuple) else (each, 3, 1, 1)
        parts += [nn.Conv2d(channels, filters, kernel, step, padding), nn.ReLU()]
        channels = filters
    return nn.Sequential(*parts)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The networks behind the measures, with random weights, and files where theirs would be."""
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    dists = pytest.importorskip("torchmetrics.functional.image.dists")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    for _, file in BACKBONES.values():
        (tmp_path / "checkpoints" / file).touch()
    torch.manual_seed(0)
    alexnet, vgg = layers(ALEXNET, 3, 2), layers(VGG16, 2, 2)
    monkeypatch.setattr(models, "alexnet", lambda weights: SimpleNamespace(features=alexnet))
    monkeypatch.setattr(dists, "vgg16", lambda weights: SimpleNamespace(features=vgg))
    module._measure.cache_clear()
    yield
    module._measure.cache_clear()


@pytest.mark.extras
def test_they_are_0_of_equal_pictures_and_grow_with_the_distortion(published: None, photograph: torch.Tensor) -> None:
    image = photograph[:, :, 20:84, 20:84]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    images = image.expand(3, -1, -1, -1)
    found = perceptual(images, torch.cat((image, image + 0.05 * noise, image + 0.3 * noise)))
    assert found.keys() == {"lpips", "dists"}
    for name, (same, near, far) in found.items():
        assert same == pytest.approx(0, abs=1e-5), name
        assert 0 < near < far, name
    # Clipped, and each picture by itself.
    (alone,) = perceptual(image, (image + 0.3 * noise).clamp(0, 1), ["dists"])["dists"]
    assert alone == pytest.approx(found["dists"][2], abs=1e-6)


@pytest.mark.extras
def test_of_grey_and_small_pictures(published: None, photograph: torch.Tensor) -> None:
    grey = photograph[:, :1, :40, :40]
    assert perceptual(grey, 1 - grey, ["lpips"]) == perceptual(
        grey.expand(-1, 3, -1, -1), 1 - grey.expand(-1, 3, -1, -1), ["lpips"]
    )
    assert perceptual(grey[:, :, :31], grey[:, :, :31]) == {"lpips": [None], "dists": [None]}
    two = torch.rand(2, 2, 40, 40)
    assert perceptual(two, two, ["lpips"]) == {"lpips": [None, None]}


@pytest.mark.extras
def test_the_records_and_the_table_have_them(published: None, call: Call, tmp_path: Path) -> None:
    quick = (SAMPLE, "--model", "crelu_conv1_4", "--layer", "conv1", "--method", "linear", "--size", "63")
    asked = (*quick, "--budget", "4", "--perceptual", "dists,lpips", "--output", tmp_path)
    status, out, err = call(*asked)
    assert status == 0, err
    assert out.splitlines()[0].split()[5:9] == ["SSIM", "DISTS", "LPIPS", "residual"]


@pytest.mark.extras
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Call) -> None:
    """The file, where it comes from and where it goes: in one sentence, before any work."""
    pytest.importorskip("torchvision", exc_type=(ImportError, RuntimeError))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = "alexnet-owt-7be5be79.pth"
    with pytest.raises(CallError, match=rf"AlexNet's published weights.*/{file} as {tmp_path}/checkpoints/{file}"):
        check(["lpips"])
    err = refused(call, SAMPLE, "--model", "crelu_conv1_4", "--layer", "conv1", "--perceptual", "dists")
    assert "DISTS sees by VGG16's published weights" in err
    assert len(err.strip().splitlines()) == 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(CallError) as error:
        check(["dists"])
    assert install_hint("perceptual") in str(error.value)
    assert perceptual(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8), ()) == {}


def test_a_package_that_was_built_for_another_torch_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setitem(sys.modules, "torchmetrics", SimpleNamespace())
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CallError, match=r"cannot be imported \(operator torchvision::nms does not exist\)"):
        check(["lpips"])


def test_rows_of_before_there_were_any_have_none(tmp_path: Path) -> None:
    """They are read, and their summary is as it was; rows that have them are summarised with them."""
    old = pyarrow.schema([field for field in results.SCHEMA if field.name not in BACKBONES])
    (tmp_path / "rows").mkdir()
    table = pyarrow.Table.from_pylist([row(0, "conv1", "map")], schema=old)
    pyarrow.parquet.write_table(table, tmp_path / "rows" / "part-00000.parquet")
    read = results.read_rows(tmp_path)
    assert read.schema.equals(results.SCHEMA)
    assert read["lpips"].to_pylist() == [None]
    (summary,) = results.summarise(read, run_json())["results"]
    assert not summary.keys() & BACKBONES.keys()
    results.write_part(tmp_path, [row(1, "conv1", "map", lpips=0.25), row(2, "conv1", "map", lpips=0.75)])
    (summary,) = results.summarise(results.read_rows(tmp_path), run_json())["results"]
    assert (summary["count"], summary["lpips"]["mean"]) == (3, 0.5)
    assert "dists" not in summary


def test_there_are_these_alone() -> None:
    with pytest.raises(CallError, match="no perceptual measure 'fid'; there are lpips and dists"):
        measures_of("fid")
    assert measures_of(None) == ()


@pytest.mark.extras
def test_the_files_are_the_ones_that_torchvision_reads() -> None:
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    urls = {"lpips": models.AlexNet_Weights.DEFAULT.url, "dists": models.VGG16_Weights.DEFAULT.url}
    assert {name: f"{module.ADDRESS}/{file}" for name, (_, file) in BACKBONES.items()} == urls
