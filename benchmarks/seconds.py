"""Seconds of an inversion by threads, and by how many other processes want the same cores.

    python benchmarks/seconds.py samples/chelsea.jpg --threads 1,2 --neighbours 0,1

Every figure is of a process of its own, with so many threads from its start, beside processes that do nothing but
count. Threads that wait for each other give up their core, as the command line has them; with ``--waiting active`` they
spin. What a model and layer prepare once is prepared before the clock starts. Timings of two versions that are to be
compared are taken in one go: this file runs in either, by ``PYTHONPATH``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that want a core each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5 * bool(count))
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(path: str, model: str, layer: str, method: str, budget: float | None) -> float:
    """Seconds of one inversion in this process."""
    import reconstruct

    net = reconstruct.load_model(model)
    image = reconstruct.load_image(path, net.input_size)[None]
    features = net.features(image, layer)
    fixed = method in ("linear", "wiener")  # these take what they take
    reconstruct.invert(net, features, layer, method, budget=None if fixed else 30)
    began = time.perf_counter()
    reconstruct.invert(net, features, layer, method, budget=None if fixed else budget)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph")
    parser.add_argument("--model", default="crelu_conv1_4")
    parser.add_argument("--layers", default="conv1,conv2,conv3,conv4")
    parser.add_argument("--methods", default="map,linear")
    parser.add_argument("--budget", type=float, default=450)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--neighbours", default="0,1")
    parser.add_argument("--waiting", choices=["passive", "active"], default="passive")
    parser.add_argument("--repeats", type=int, default=1, help="The median of so many runs.")
    parser.add_argument("--one", action="store_true", help="Measure the first layer and method in this process.")
    args = parser.parse_args()
    layers, methods = args.layers.split(","), args.methods.split(",")
    if args.one:
        print(json.dumps(measure(args.photograph, args.model, layers[0], methods[0], args.budget)))
        return
    print(f"{'method':8s}{'threads':>8s}{'neighbours':>12s}" + "".join(f"{layer:>9s}" for layer in layers), flush=True)
    for method in methods:
        for threads in args.threads.split(","):
            for neighbours in map(int, args.neighbours.split(",")):
                print(f"{method:8s}{threads:>8s}{neighbours:12d}", end="", flush=True)
                for layer in layers:
                    command = [sys.executable, __file__, args.photograph, "--one", "--model", args.model]
                    command += ["--layers", layer, "--methods", method, "--budget", str(args.budget)]
                    pools = dict.fromkeys(POOLS, threads) | {"OMP_WAIT_POLICY": args.waiting}
                    with busy(neighbours):
                        runs = [
                            subprocess.run(command, env={**os.environ, **pools}, check=True, capture_output=True)
                            for _ in range(args.repeats)
                        ]
                    print(f"{median(json.loads(run.stdout) for run in runs):9.2f}", end="", flush=True)
                print(flush=True)


if __name__ == "__main__":
    main()
