"""Torch modules of the shapes that users bring."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional

from reconstruct.network.module import ModuleNetwork, from_torch
from reconstruct.network.preprocessing import Preprocessing

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Residual(nn.Module):
    """Two convolutions around which the input goes; one ReLU in place, called twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = self.conv2(self.relu(self.norm(self.conv1(x))))
        return self.relu(x + inner)


class ResNet(nn.Module):
    """A stem that is a chain, residual blocks, a concatenation, an attention over positions, a class score."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.layer1 = nn.Sequential(Residual(12), Residual(12))
        self.down = nn.Conv2d(24, 10, 3, 2, 1)
        self.attention = nn.MultiheadAttention(10, 2, batch_first=True)
        self.mix = nn.Identity()
        self.classes = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.down(torch.cat((self.layer1(x), x), dim=1))
        count, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        x = self.mix(tokens.transpose(1, 2).reshape(count, channels, height, width))
        return self.classes(x.mean((2, 3)))


class PhasePairs(nn.Module):
    """CReLU as people write it, and an absolute value."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 16, 5, 2, 2), nn.Conv2d(32, 8, 3), nn.Conv2d(8, 4, 1)
        self.out = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.conv1(x)
        x = torch.cat([functional.relu(z), functional.relu(-z)], dim=1)
        return self.out(torch.abs(self.conv3(self.conv2(x).relu())))


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and statistics, those of norms away from 1 and 0; in training mode, as users hand it over."""
    generator = torch.Generator().manual_seed(seed)
    for name, values in module.named_parameters():
        scale = (2 / values[0].numel()) ** 0.5 if values.ndim > 1 else 0.1
        norm = name.endswith(("norm.weight", "1.weight")) and values.ndim == 1
        values.data = scale * torch.randn(values.shape, generator=generator) + norm
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            assert each.running_mean is not None
            assert each.running_var is not None
            each.running_mean.normal_(0, 0.2, generator=generator)
            each.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.train()


def chain(seed: int = 0) -> nn.Module:
    """Convolutions, norms, poolings and activations one after the other."""
    layers = (
        nn.Conv2d(3, 16, 5, 2, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU6(), nn.AvgPool2d(2), nn.Conv2d(24, 8, 1), nn.LeakyReLU(0.1),
    )  # fmt: skip
    return drawn(nn.Sequential(*layers), seed)


def resnet() -> ModuleNetwork:
    """What ``--model tests.builders.modules:resnet`` runs."""
    return from_torch(drawn(ResNet()), IMAGENET, input_size=32, name="resnet")


def padded(channels: int, size: int | tuple[int, int] = 32, name: str = "0") -> ModuleNetwork:
    """One convolution that keeps the grid, and ReLU, on images of so many channels."""
    convolution = nn.Conv2d(channels, 3 * channels, 3, padding=1)
    module = drawn(nn.Sequential(OrderedDict([(name, convolution), ("relu", nn.ReLU())])))
    return from_torch(module, ((0.5,) * channels, (0.25,) * channels), input_size=size, name=f"padded{channels}")


def grey() -> ModuleNetwork:
    """What ``--model tests.builders.modules:grey`` runs."""
    return padded(1)


def six() -> ModuleNetwork:
    return padded(6)


def slash() -> ModuleNetwork:
    """With a layer as Caffe names them."""
    return padded(3, name="conv1/7x7_s2")


class Tall(nn.Module):
    """A convolution and a fully connected head: made for images of 32 x 16 alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.classes = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 32 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classes(self.conv(x).flatten(1))


def tall() -> ModuleNetwork:
    return from_torch(drawn(Tall()), IMAGENET, input_size=(32, 16), name="tall")


def plain() -> nn.Module:
    """A module, images as they are; made for images of any size."""
    return chain()


def broken() -> int:
    return 5


def published() -> ModuleNetwork:
    """A chain with what its publisher states of pictures: ``--model tests.builders.modules:published``."""
    net = from_torch(chain(), IMAGENET, input_size=32, name="published")
    net.preprocessing = Preprocessing("the publisher's weights", *IMAGENET, 32, 40, "bilinear")
    return net
