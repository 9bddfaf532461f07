"""The same features inverted by outside implementations, in the same run.

    python benchmarks/peers.py PHOTOGRAPH...

- conv1, a linear layer: SciPy's ``lsmr`` on the layer's operator, against ``linear`` and ``map``.
- conv2 and conv3, through the network: ``torch.optim.LBFGS`` (strong Wolfe line search) and ``torch.optim.Adam`` on
  |f(x) - z|^2 from a grey image, as anybody would write it first, against ``gradient`` and ``map``.

The same work for all: 450 forward passes (forward and backward 3, an operator and its adjoint 2).
"""

from __future__ import annotations

import argparse
import time
from statistics import mean

import numpy
import torch
from scipy.sparse.linalg import LinearOperator, lsmr

import reconstruct
from reconstruct.network.network import Network
from reconstruct.zoo.load import load_network

BUDGET = 450


def scipy_lsmr(net: Network, image: torch.Tensor, layer: str) -> torch.Tensor:
    """conv1 by SciPy's lsmr, without a preconditioner: it has none."""
    convolution = net.convolution(layer)
    size = (image.shape[1], image.shape[2])
    operator = reconstruct.Convolution(convolution.weight, convolution.stride[0], int(convolution.padding[0]), size)
    assert convolution.bias is not None
    responses = (net.responses(image[None], layer) - convolution.bias.view(1, -1, 1, 1)).double().numpy()
    linear = LinearOperator(
        (operator.rows, operator.columns),
        matvec=lambda x: operator.apply(x.reshape(1, *operator.input_shape)).ravel(),
        rmatvec=lambda z: operator.adjoint(z.reshape(1, *operator.output_shape)).ravel(),
        dtype=numpy.float64,
    )
    found = lsmr(linear, responses.ravel(), atol=0, btol=0, conlim=0, maxiter=BUDGET // 2)[0]
    values = torch.from_numpy(found.reshape(operator.input_shape)).float()
    return values * net.std[0] + net.mean[0]


def torch_optimiser(net: Network, image: torch.Tensor, layer: str, name: str) -> torch.Tensor:
    target = net.responses(image[None], layer)
    x = torch.full_like(image[None], 0.45, requires_grad=True)
    if name == "LBFGS":
        optimiser: torch.optim.Optimizer = torch.optim.LBFGS(
            [x], max_iter=BUDGET, max_eval=BUDGET // 3, history_size=25, line_search_fn="strong_wolfe"
        )
    else:
        optimiser = torch.optim.Adam([x], lr=0.02)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = (net.responses(x, layer) - target).square().sum() / target.square().sum()
        loss.backward()
        return loss

    for _ in range(1 if name == "LBFGS" else BUDGET // 3):
        optimiser.step(closure)  # type: ignore[arg-type]
    return x.detach()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    net = load_network("crelu_conv1_4")
    images = [reconstruct.load_image(path, net.input_size) for path in parser.parse_args().photographs]
    print("layer  by                     PSNR   SSIM  s/image")
    for layer in ("conv1", "conv2", "conv3"):
        rivals = ["scipy lsmr"] if layer == "conv1" else ["torch.optim.Adam", "torch.optim.LBFGS"]
        own = ["linear", "map"] if layer == "conv1" else ["gradient", "map"]
        for name in (*rivals, *own):
            scores, began = [], time.perf_counter()
            for image in images:
                if name in own:
                    features = net.features(image[None], layer)
                    found = reconstruct.invert(net, features, layer, name, budget=BUDGET, tolerance=1e-6).image[0]
                elif name == "scipy lsmr":
                    found = scipy_lsmr(net, image, layer)
                else:
                    found = torch_optimiser(net, image, layer, name.rsplit(".", maxsplit=1)[-1])
                scores.append(reconstruct.quality(image[None], found[None]))
            psnr, ssim = mean(each.psnr[0] for each in scores), mean(each.ssim[0] for each in scores)
            seconds = (time.perf_counter() - began) / len(images)
            print(f"{layer}  {name:20s} {psnr:6.1f} {ssim:6.3f} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
