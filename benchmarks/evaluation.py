"""What ``evaluate`` costs beside the inversion itself, on one machine and with Ray, and what its page does.

    python benchmarks/evaluation.py samples/*.jpg --output docs/figures

The peer is a bare loop: ``net.features`` and ``invert`` on images that are decoded already, batch by batch, with no
metric, no rows and no files. ``evaluate`` and the loop are run in turn and the median of their ratios is given. Memory
is a whole process's peak, from the operating system. The Ray part needs Ray, and two cores.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy
import torch
import typer
from PIL import Image

from reconstruct import Network, invert
from reconstruct.evaluation.batch import Job, batch_size
from reconstruct.evaluation.batch import read as read_items
from reconstruct.evaluation.results import begin, write_json, write_part
from reconstruct.evaluation.run import evaluate, local
from reconstruct.images.files import read_image
from reconstruct.images.sources import open_source
from reconstruct.report.pages.write import write_report
from reconstruct.zoo.load import load_network

CASES = {"conv1, linear": ("conv1", "linear"), "conv1, map": ("conv1", "map")}
"""The cheapest, beside which everything else weighs most, and the default."""
PEAK = """
import re, sys
from reconstruct.__main__ import main
try:
    main()
except SystemExit:
    pass
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
"""The command line, and then this process's peak memory in kB. The operating system's account of a child begins with
what its parent held."""
SMALL = "convpool_cnn_c_crelu"
LAYERS, METHODS = [f"conv{number}" for number in range(1, 5)], ["linear", "map"]


def main(
    images: list[Path],
    output: Annotated[Path, typer.Option(help="Folder for the JSON.")] = Path("docs/figures"),
    model: Annotated[str, typer.Option(help="A model of the zoo.")] = "crelu_conv1_4",
    count: Annotated[int, typer.Option(help="Photographs of each run that is timed.")] = 24,
    repeats: Annotated[int, typer.Option(help="Runs of each, in turn.")] = 3,
    ray: Annotated[bool, typer.Option(help="Also with Ray.")] = True,
) -> None:
    """Run everything and write it down."""
    found: dict[str, Any] = {
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    }
    net = load_network(model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photographs(images, folder / "photographs", count)
        found["throughput"] = {
            name: throughput(net, folder / "photographs", layer, method, repeats)
            for name, (layer, method) in CASES.items()
        }
        for name, each in found["throughput"].items():
            print(f"{name}: {each['images_per_second']:.2f} images/s, {each['ratio']:.2f} of the bare loop", flush=True)
        found["memory_mb"] = memory(folder)
        print(f"peak memory in MB by images: {found['memory_mb']}", flush=True)
        found["page"] = page(folder / "results")
        print(
            "50,000 images of 8 layers and methods: page of {bytes:,} bytes in {seconds:.1f} s".format(**found["page"])
        )
        if ray:
            found["ray"] = workers(net, folder / "photographs")
            print("Ray: 2 workers are {ratio:.2f} times 1, rows differ by {difference:.1e} dB".format(**found["ray"]))
    output.mkdir(parents=True, exist_ok=True)
    (output / "evaluation.json").write_text(json.dumps(found, indent=1) + "\n")


def photographs(images: list[Path], folder: Path, count: int) -> None:
    """JPEG files of ImageNet's usual 500 x 375, parts of the given ones."""
    folder.mkdir(parents=True)
    draw = numpy.random.default_rng(0)
    pictures = [read_image(path) for path in images]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        wide = int(picture.width * draw.uniform(0.6, 0.9))
        tall = min(picture.height, wide * 3 // 4)
        left, top = draw.integers(0, picture.width - wide + 1), draw.integers(0, picture.height - tall + 1)
        part = picture.crop((int(left), int(top), int(left) + wide, int(top) + tall))
        part.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=92)


def throughput(net: Network, folder: Path, layer: str, method: str, repeats: int) -> dict[str, float]:
    """Images a second of ``evaluate``, and its speed as a share of the bare loop's."""
    source = open_source(str(folder))
    job = Job({layer: [method]})
    together = batch_size(net, job)
    chosen = range(len(source.names))
    items = read_items(source, chosen, net, job)
    decoded = torch.from_numpy(numpy.stack([item.pixels for item in items if item.pixels is not None]))
    decoded = decoded.permute(0, 3, 1, 2).float() / 255

    def bare() -> None:
        for batch in decoded.split(together):
            invert(net, net.features(batch, layer), layer, method, size=net.input_size)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as results:
            session = {"images": 0, "seconds": 0.0, "finished": False}
            begin(Path(results), {"settings": {}, "sessions": [session]}, chosen)
            evaluate(
                Path(results),
                chosen,
                lambda batches: local(net, source, batches, job),
                batch_size=together,
                session=session,
            )

    invert(net, net.features(decoded[:1], layer), layer, method, size=net.input_size)  # prepares
    times = [(timed(bare), timed(whole)) for _ in range(repeats)]
    return {
        "images_per_second": len(chosen) / statistics.median(whole for _, whole in times),
        "ratio": statistics.median(bare / whole for bare, whole in times),
    }


def memory(folder: Path) -> dict[str, float]:
    """Peak memory of ``reconstruct evaluate`` in MB, on 100 and on 2,000 images of 32 x 32."""
    found = {}
    for count in (100, 2000):
        where = folder / f"small-{count}"
        where.mkdir()
        draw = numpy.random.default_rng(1)
        for number in range(count):
            pixels = draw.integers(0, 256, (6, 6, 3), dtype=numpy.uint8)
            Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(where / f"{number:05d}.png")
        call = [
            sys.executable, "-c", PEAK, "evaluate", str(where), "--model", SMALL, "--layer", "conv1",
            "--method", "map", "--budget", "30", "--batch-size", "50", "--quiet", "--output", f"{where}-results",
        ]  # fmt: skip
        done = subprocess.run(call, check=True, capture_output=True, text=True)
        found[str(count)] = int(done.stdout) / 1e3
    return found


def page(folder: Path, count: int = 50_000) -> dict[str, float]:
    """The page of synthetic rows of so many images: seconds that it takes to build, and its size."""
    draw = numpy.random.default_rng(2)
    common = {
        "model": "crelu_conv1_4", "relative_error": 0.1, "feature_residual": 0.01, "status": "budget", "seconds": 1.0,
        "prepare_seconds": 0.0, "prepare_passes": 0.0, "noise": 0.0, "device": "cpu", "output": None, "error": None,
    }  # fmt: skip
    for start in range(0, count, 5000):
        rows = []
        for index in range(start, start + 5000):
            for number, layer in enumerate(LAYERS):
                for method in METHODS:
                    psnr = float(draw.normal(40 - 6 * number - 5 * (method == "linear"), 4))
                    rows.append(
                        common
                        | {
                            "index": index, "image": f"val/ILSVRC2012_val_{index:08d}.JPEG", "layer": layer,
                            "method": method, "psnr": psnr, "ssim": min(1.0, max(0.0, psnr / 60)),
                            "forward_passes": float(draw.integers(200, 450)),
                        }
                    )  # fmt: skip
        write_part(folder, rows)
    settings = {"source": {"images": count}, "model": {"name": "crelu_conv1_4"}, "methods": {}, "options": {}}
    write_json(folder / "run.json", {"call": "synthetic", "settings": settings, "sessions": []})
    seconds = timed(lambda: write_report([folder], folder / "report.html"))
    return {"seconds": seconds, "bytes": (folder / "report.html").stat().st_size}


def workers(net: Network, folder: Path) -> dict[str, float]:
    """Images a second of 2 workers of one core over those of 1, once all are at work; and rows against ``local``'s."""
    from reconstruct.evaluation import ray_engine as cluster

    source = open_source(str(folder))
    job = Job({"conv1": ["map"]}, options={"budget": 150.0})
    batches = [[index] for index in range(len(source.names))]
    cluster.start(None, 2, 1, None)
    rates: dict[int, float] = {}
    rows: list[dict[str, Any]] = []
    for count in (1, 2, 1, 2):
        moments, rows = [], []
        for batch in cluster.on_ray(net, source, batches, job, workers=count, cpus=1, gpus=0):
            moments.append(time.monotonic())
            rows += batch
        # From when every worker has had its first batch, which it prepares for.
        steady = (len(moments) - count) / (moments[-1] - moments[count - 1])
        rates[count] = max(steady, rates.get(count, 0.0))
    with one_thread():
        here = [row for rows in local(net, source, batches, job) for row in rows]
    psnr = [[row["psnr"] for row in sorted(of, key=lambda row: row["index"])] for of in (rows, here)]
    return {
        "one": rates[1],
        "two": rates[2],
        "ratio": rates[2] / rates[1],
        "difference": max(abs(a - b) for a, b in zip(*psnr, strict=True)),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Take one thread, as each of Ray's workers has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    typer.run(main)
