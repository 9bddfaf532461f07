import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from reconstruct.errors import CallError
from reconstruct.evaluation import ray_engine as cluster
from reconstruct.evaluation.batch import Job
from reconstruct.evaluation.results import SCHEMA, read_rows
from reconstruct.evaluation.run import local
from reconstruct.images.sources import open_source
from reconstruct.zoo.load import load_model
from tests.builders.command_line import run
from tests.builders.synthetic import patterns
from tests.conftest import ROOT

# Ray's own.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}Warning") for kind in ("Deprecation", "Future", "Resource")]

TIMES = ("seconds", "prepare_seconds", "prepare_passes")
METHODS = {"conv1": ["linear", "map"], "conv2": ["wiener", "gradient"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures and a broken one."""
    where = tmp_path_factory.mktemp("val")
    for number, image in enumerate(patterns(20, 32, 5)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(where / f"{number:03d}.png")
    (where / "broken.png").write_bytes(b"broken")
    return where


@pytest.fixture(scope="module")
def two_workers() -> Iterator[tuple[int, float]]:
    """Ray on this machine, as the command line starts it."""
    ray = pytest.importorskip("ray")
    yield cluster.start(None, 2, 1, None)
    ray.shutdown()


def job() -> Job:
    return Job(METHODS, options={"budget": 60.0, "tolerance": None, "seed": 3}, disturbance={"noise": 0.01, "seed": 3})


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CallError, match=r"pip install 'reconstruct-features\[ray\]'"):
        cluster.start(None, 1, 1, None)


@pytest.mark.ray
def test_rows_are_those_of_one_machine(folder: Path, two_workers: tuple[int, float]) -> None:
    net, source = load_model("convpool_cnn_c_crelu"), open_source(str(folder))
    batches = [list(range(start, min(start + 4, 21))) for start in range(0, 21, 4)]
    workers, gpus = two_workers
    assert (workers, gpus) == (2, 0.0)
    there = [row for rows in cluster.on_ray(net, source, batches, job(), workers=2, cpus=1, gpus=0) for row in rows]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # as each worker has
        here = [row for rows in local(net, source, batches, job()) for row in rows]
    finally:
        torch.set_num_threads(threads)
    order = [
        sorted(rows, key=lambda row: (row["index"], row["layer"] or "", row["method"] or "")) for rows in (there, here)
    ]
    assert len(there) == len(here) == 20 * 4 + 1
    for one, other in zip(*order, strict=True):
        assert set(one) == set(SCHEMA.names)
        for name in SCHEMA.names:
            if name in ("psnr", "ssim", "relative_error", "feature_residual") and one[name] is not None:
                assert one[name] == pytest.approx(other[name], abs=1e-4)
            elif name not in TIMES:
                assert one[name] == other[name], name
    assert len({row["image"] for row in there if row["error"] is not None}) == 1


@pytest.mark.ray
def test_a_worker_that_is_killed_costs_its_batch_and_nothing_else(
    folder: Path, two_workers: tuple[int, float], tmp_path: Path
) -> None:
    import ray

    log = tmp_path / "log"
    log.touch()

    net, source = load_model("convpool_cnn_c_crelu"), open_source(str(folder))

    def features(images: torch.Tensor, layer: str) -> torch.Tensor:
        with log.open("a") as file:  # one short line is written whole
            file.write(f"{os.getpid()}\n")
        return type(net).features(net, images, layer)

    # Sent to the workers with the network: a batch is noted when its features are asked for.
    net.features = features  # type: ignore[method-assign]
    batches = [[number] for number in range(20)]
    chosen = Job({"conv1": ["map"]}, options={"budget": 400.0, "tolerance": None, "seed": 0})
    seen: list[int] = []
    killed = 0
    for rows in cluster.on_ray(net, source, batches, chosen, workers=2, cpus=1, gpus=0):
        seen += [row["index"] for row in rows]
        if len(seen) == 6:
            killed = int(log.read_text().split()[-1])
            assert killed != os.getpid()
            os.kill(killed, signal.SIGKILL)
    assert killed
    assert sorted(seen) == list(range(20))
    workers = log.read_text().split()
    # Two processes, and the one that took the place of the killed.
    assert len(set(workers)) == 3
    # Every batch once, and once more what the killed one had in hand.
    assert 20 <= len(workers) <= 21
    assert ray.is_initialized()


@pytest.mark.ray
def test_clusters_that_are_not_there_or_too_small(two_workers: tuple[int, float]) -> None:
    cores = os.cpu_count() or 1
    with pytest.raises(CallError, match=rf"{cores + 1} workers of 1 cores and 0 GPUs each do not fit: the cluster has"):
        cluster.start(None, cores + 1, 1, None)
    with pytest.raises(CallError, match="do not fit"):
        cluster.start(None, 1, 1, 1.0)
    code = "from reconstruct.evaluation.ray_engine import start; start('127.0.0.1:1', 1, 1, None)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "CallError: Ray finds no cluster at 127.0.0.1:1: Connection refused" in done.stderr


@pytest.mark.ray
def test_the_command_line(folder: Path, tmp_path: Path) -> None:
    call = [
        "evaluate", str(folder), "--model", "convpool_cnn_c_crelu", "--layer", "conv1", "--method", "linear", "--quiet",
        "--engine", "ray", "--workers", "2", "--batch-size", "3", "--budget", "20", "--output", str(tmp_path / "ray"),
    ]  # fmt: skip
    done = run(*call, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    # Nothing of Ray's own talk, but for one line that it always prints where its level is set.
    lines = [line for line in done.stderr.splitlines() if "RAY_BACKEND_LOG_LEVEL" not in line and line.strip()]
    assert lines == [f"reconstruct: 1 of 21 images failed: broken.png: {folder}/broken.png is not a picture in JPEG, "
                     "PNG, WEBP, TIFF, BMP, GIF, PPM"]  # fmt: skip
    assert (tmp_path / "ray" / "report.html").is_file()
    here = [argument if argument != "ray" else "local" for argument in call[:-1]] + [str(tmp_path / "local")]
    assert run(*here, cwd=ROOT).returncode == 0
    psnr = [read_rows(tmp_path / name)["psnr"].to_numpy(zero_copy_only=False) for name in ("ray", "local")]
    assert numpy.allclose(*psnr, rtol=0, atol=1e-4, equal_nan=True)
