"""conv1 by ``linear``: the direct form beside conjugate gradients, in forward passes' time an image, by batch.

    OMP_NUM_THREADS=1 python benchmarks/direct.py samples/*.jpg

On one thread. A forward pass is the layer's convolution of the same batch in the same process: the best of five; of the
direct form the best of three, of conjugate gradients (300 passes) one. The pictures are taken in turn to fill a batch.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean

import torch

import reconstruct
from reconstruct.inversion.linear import Form
from reconstruct.network.network import Network


def seconds(call: Callable[[], object], times: int) -> float:
    """The best of so many."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--model", default="crelu_conv1_4")
    parser.add_argument("--batches", default="1,8,32")
    call = parser.parse_args()
    torch.set_num_threads(1)
    net = reconstruct.load_model(call.model)
    if not isinstance(net, Network):
        raise SystemExit(f"{call.model} is not a model of the zoo")
    convolution = net.convolution(net.layer_names[0])
    layer = net.layer_names[0]
    pictures = [reconstruct.load_image(path, net.input_size) for path in call.pictures]

    def inverted(images: torch.Tensor, form: Form) -> reconstruct.Result:
        return reconstruct.invert(net, net.features(images, layer), layer, "linear", linear_form=form)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = inverted(pictures[0][None], "direct")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    print(f"prepared in {first.prepare_seconds:.0f} s, {grown:.1f} GB\n")
    print("| batch | form | forward passes' time an image | ms an image | PSNR, mean | least | converged |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    inverted(pictures[0][None], "global")  # prepares it
    for count in map(int, call.batches.split(",")):
        images = torch.stack(list(itertools.islice(itertools.cycle(pictures), count)))
        with torch.no_grad():
            forward = seconds(partial(convolution, images), 5) / count
        forms: tuple[tuple[Form, int], ...] = (("direct", 3), ("global", 1))
        for form, times in forms:
            taken = seconds(partial(inverted, images, form), times) / count
            found = inverted(images, form)
            psnr = reconstruct.quality(images, found.image).psnr
            done = sum(status == "converged" for status in found.status)
            print(
                f"| {count} | {form} | {taken / forward:.1f} | {1e3 * taken:.1f} | {mean(psnr):.1f} | {min(psnr):.1f} "
                f"| {done} of {count} |"
            )


if __name__ == "__main__":
    main()
