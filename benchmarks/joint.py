"""Several layers' features inverted together, beside bdpy's critic: how the layers are weighed, and what that gives.

    pip install bdpy
    python benchmarks/joint.py PHOTOGRAPH... [--layers conv3,conv5] [--noise 0.1] [--budget 450]

bdpy (Kamitani Lab, Kyoto University) inverts features of several layers by ``FeatureInversionTask``: here Adam on the
pixels, each layer's squared error over its target's squared norm (``TargetNormalizedMSE``), and the mean over layers.
``map`` weighs each residual by its own covariance and noise. Both get the same features, each layer's alone and all of
them together, the same noise, and the same number of forward passes (an iteration of bdpy's is three).

Prints PSNR in dB / SSIM, means over the photographs.
"""

from __future__ import annotations

import argparse
from statistics import mean

import torch
from bdpy.recon.torch.modules.critic import TargetNormalizedMSE
from bdpy.recon.torch.modules.encoder import NNModuleEncoder
from bdpy.recon.torch.modules.generator import BareGenerator
from bdpy.recon.torch.modules.latent import ArbitraryLatent
from bdpy.recon.torch.modules.optimizer import build_optimizer_factory
from bdpy.recon.torch.task import FeatureInversionTask

import reconstruct
from reconstruct.network.network import Network
from reconstruct.zoo.load import load_network

RATES = (0.01, 0.02, 0.05)
"""Adam's rates that are tried for bdpy; the best for each setting is printed."""
PASSES = 3


class Encoder(NNModuleEncoder):  # type: ignore[misc]
    """A network's features of some layers, as bdpy asks for them."""

    def __init__(self, net: Network, layers: list[str]) -> None:
        super().__init__()
        self.net, self.layers = net, layers

    def encode(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {layer: self.net.features(images, layer) for layer in self.layers}


def grey(image: torch.Tensor) -> None:
    """Where the search begins."""
    with torch.no_grad():
        image.fill_(0.45)


def by_bdpy(net: Network, given: dict[str, torch.Tensor], rate: float, budget: int, size: int) -> torch.Tensor:
    """The images, one after the other: the loss of a batch would be a vector."""
    found = []
    for number in range(len(next(iter(given.values())))):
        task = FeatureInversionTask(
            Encoder(net, list(given)),
            BareGenerator(),
            ArbitraryLatent((1, 3, size, size), grey),
            TargetNormalizedMSE(),
            build_optimizer_factory(torch.optim.Adam, lr=rate),
            num_iterations=budget // PASSES,
        )
        found.append(task.run({layer: features[number : number + 1] for layer, features in given.items()}))
    return torch.cat(found).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--model", default="crelu_conv1_4")
    parser.add_argument("--layers", default="conv3,conv5")
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--budget", type=int, default=450)
    chosen = parser.parse_args()
    net = load_network(chosen.model)
    images = torch.stack([reconstruct.load_image(path, net.input_size) for path in chosen.photographs])
    layers = chosen.layers.split(",")
    noisy = {
        layer: reconstruct.disturb(net.features(images, layer), noise=chosen.noise, seed=number)[0]
        for number, layer in enumerate(layers)
    }
    print("layers            bdpy (rate)          map")
    for names in [*([layer] for layer in layers), layers]:
        given = {layer: noisy[layer] for layer in names}
        tried = {
            rate: reconstruct.quality(images, by_bdpy(net, given, rate, chosen.budget, net.input_size))
            for rate in RATES
        }
        best = max(tried, key=lambda rate: mean(tried[rate].psnr))
        ours = reconstruct.quality(
            images,
            reconstruct.invert(net, list(given.values()), names, "map", budget=chosen.budget, noise=chosen.noise).image,
        )
        theirs = f"{mean(tried[best].psnr):.1f} / {mean(tried[best].ssim):.2f} ({best:g})"
        print(f"{'+'.join(names):17s} {theirs:20s} {mean(ours.psnr):.1f} / {mean(ours.ssim):.2f}", flush=True)


if __name__ == "__main__":
    main()
