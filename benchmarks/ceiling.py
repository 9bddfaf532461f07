"""What the same prior would give if every sign on the way were known: the ceiling of method ``map``.

    python benchmarks/ceiling.py PHOTOGRAPH... [--model crelu_conv1_4] [--layers conv2,conv3] [--iterations 75,150,300]

With the signs (and switches) of the true image the layer is linear, z = J x + c, and the most probable image is one
solve: u from J P J^T u = z - J mean - c by conjugate gradients, preconditioned by ``map``'s own covariance G, then
x = mean + P J^T u. Of ReLU features only the responses that are not 0 are used. An iteration is two forward passes.
Prints PSNR in dB of each photograph, and the share of signs below that ``map`` has wrong after 450 passes, in brackets
how large the true responses with wrong signs are beside all.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

import reconstruct
from reconstruct.inversion.known import Box, known_of
from reconstruct.inversion.most_probable import search
from reconstruct.inversion.most_probable.task import Task, task_of
from reconstruct.network.module import ModuleNetwork
from reconstruct.network.protocol import AnyNetwork
from reconstruct.solvers.conjugate_gradients import conjugate_gradients


def ceiling(task: Task, images: torch.Tensor, iterations: int) -> torch.Tensor:
    """The most probable images, N x 3 x H x W, given the responses that are known and every sign below."""
    prior, operator = task.prior, task.operator
    at = operator.linearise(images)
    given = task.known.known.float() if isinstance(task.known, Box) else torch.ones_like(at.responses)
    # A little of g keeps the products positive where rounding is all that is left.
    weigh = search.prepare(task).inverse(0.0, coarse=False, noise=0.0)

    def pull(responses: torch.Tensor) -> torch.Tensor:
        field = prior.extend(operator.transposed(at, given * responses))
        return prior.field(prior.field_adjoint(field))

    def push(field: torch.Tensor) -> torch.Tensor:
        return given * operator.product(at, prior.crop(field))

    right = given * operator.product(at, images - prior.mean)
    found = conjugate_gradients(lambda each: push(pull(each)), right, lambda each: given * weigh(each), iterations)
    return prior.mean + prior.crop(pull(found))


def bends(net: AnyNetwork, layer: str, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """What goes into each rectification below a layer, N x K x h x w, lowest first; of a module, into its own."""
    chain = net.as_chain(layer)
    if chain is not None:
        below = [each for each in chain.layers[: chain.index(layer)] if each.activation != "none"]
        return {each.name: chain.responses(images, each.name) for each in below}
    assert isinstance(net, ModuleNetwork)
    found: dict[str, torch.Tensor] = {}

    def watched(part: nn.Module, name: str) -> RemovableHandle:
        def note(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            found.setdefault(name, given[0].clone())

        return part.register_forward_pre_hook(note)

    parts = net.module.named_modules()
    hooks = [watched(part, name) for name, part in parts if isinstance(part, nn.ReLU | nn.ReLU6)]
    net.features(images, layer)
    for hook in hooks:
        hook.remove()
    return found


def wrong_signs(net: AnyNetwork, layer: str, images: torch.Tensor, found: torch.Tensor) -> dict[str, str]:
    """Of each rectification below: the share of signs that differ, and how large the true responses there are."""
    told = {}
    true, reached = (bends(net, layer, each) for each in (images, found))
    for name, values in true.items():
        wrong = (values > 0) != (reached[name] > 0)
        size = float(values[wrong].abs().mean() / values.abs().mean()) if wrong.any() else 0.0
        told[name] = f"{100 * float(wrong.float().mean()):.1f} % ({size:.2f})"
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--model", default="crelu_conv1_4")
    parser.add_argument("--layers", default="conv2,conv3")
    parser.add_argument("--iterations", default="75,150,300")
    chosen = parser.parse_args()
    net = reconstruct.load_model(chosen.model)
    images = torch.stack([reconstruct.load_image(path, net.input_size) for path in chosen.photographs])
    print(f"layer  by                      mean  {'  '.join(Path(path).stem for path in chosen.photographs)}")
    for layer in chosen.layers.split(","):
        features = net.features(images, layer)
        task = task_of(net, layer, (images.shape[2], images.shape[3]), known_of(features, net.layer(layer), 0.0), 0.0)
        rows = {
            f"true signs, {count} iterations": ceiling(task, images, int(count))
            for count in chosen.iterations.split(",")
        }
        rows["map, 450 passes"] = reconstruct.invert(net, features, layer, "map", budget=450).image
        for name, found in rows.items():
            psnr = reconstruct.quality(images, found).psnr
            print(f"{layer:6s} {name:26s} {mean(psnr):5.1f}  {'  '.join(f'{each:.1f}' for each in psnr)}", flush=True)
        for name, share in wrong_signs(net, layer, images, rows["map, 450 passes"]).items():
            print(f"{layer:6s} wrong signs at {name}: {share}", flush=True)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
