"""What the same prior would give if every sign on the way were known: the ceiling of method ``map``.

    python benchmarks/ceiling.py PHOTOGRAPH... [--model crelu_conv1_4] [--layers conv2,conv3] [--iterations 75,150,300]

With the signs (and switches) of the true image the layer is linear, z = J x + c, and the most probable image is one
solve: u from J P J^T u = z - J mean - c by conjugate gradients, preconditioned by ``map``'s own covariance G, then
x = mean + P J^T u. Of ReLU features only the responses that are not 0 are used. An iteration is two forward passes.
Prints PSNR in dB of each photograph, and the share of signs below that ``map`` has wrong after 450 passes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import torch

import reconstruct
from reconstruct.inversion.known import Box, known_of
from reconstruct.inversion.most_probable import search
from reconstruct.inversion.most_probable.task import Task, task_of
from reconstruct.operators.layer_stack import LayerStack
from reconstruct.solvers.conjugate_gradients import conjugate_gradients


def ceiling(task: Task, images: torch.Tensor, iterations: int) -> torch.Tensor:
    """The most probable images, N x 3 x H x W, given the responses that are known and every sign below."""
    prior, operator = task.prior, task.operator
    at = operator.linearise(images)
    given = task.known.known.float() if isinstance(task.known, Box) else torch.ones_like(at.responses)
    # A little of g keeps the products positive where rounding is all that is left.
    weigh = search.prepare(task).inverse(search.Step(0.0, False, 0), 0.0)

    def pull(responses: torch.Tensor) -> torch.Tensor:
        field = prior.extend(operator.transposed(at, given * responses))
        return prior.field(prior.field_adjoint(field))

    def push(field: torch.Tensor) -> torch.Tensor:
        return given * operator.product(at, prior.crop(field))

    right = given * operator.product(at, images - prior.mean)
    found = conjugate_gradients(lambda each: push(pull(each)), right, lambda each: given * weigh(each), iterations)
    return prior.mean + prior.crop(pull(found))


def wrong_signs(task: Task, images: torch.Tensor, found: torch.Tensor) -> list[float]:
    """The share of slopes of each layer below, lowest first, that are not those at the true images."""
    assert isinstance(task.operator, LayerStack)
    true, reached = (task.operator.linearise(each).slopes for each in (images, found))
    return [float((one != other).float().mean()) for one, other in zip(true, reached, strict=True)]


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
        shares = wrong_signs(task, images, rows["map, 450 passes"])
        print(f"{layer:6s} wrong signs of the layers below: {', '.join(f'{100 * each:.1f} %' for each in shares)}")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
