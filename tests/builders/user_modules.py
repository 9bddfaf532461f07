"""Modules as users bring them that do what most do not: each is a sample of a kind of bug report."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from reconstruct import from_torch
from reconstruct.network.module import ModuleNetwork

HALF = ((0.5,) * 3, (0.25,) * 3)
SIDE = 32


class Sum(nn.Module):
    """No chain: a sum."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(channels, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.one(x)
        return y + self.two(functional.relu(y))


class Steps(nn.Module):
    """Parts, and a function of them and the image that says what is done."""

    def __init__(self, run: Any, **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


class WritesInto(nn.Module):
    """A part whose result is its activation's, with something written into it."""

    def __init__(self, act: nn.Module, how: str) -> None:
        super().__init__()
        self.conv, self.act, self.how = nn.Conv2d(8, 8, 3, padding=1), act, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.conv(x))
        match self.how:
            case "add":
                y += x
            case "multiply":
                y.mul_(1.5)
            case "slice":
                y[:, :4] = -1.0
            case "data":
                y.data.add_(1.0)
        return y


class Doubled(nn.ReLU):
    """A ReLU by its type, and not by what it gives."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - as torch calls it
        return 2 * super().forward(input)


class LastChannels(nn.Module):
    """Stages N x h x w x C, as Swin's and ConvNeXt's blocks have them; 8 x 8 positions of 8 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.grow = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 24)
        self.act, self.shrink, self.stage, self.head = nn.GELU(), nn.Linear(24, 8), nn.Identity(), nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = self.stage(x + self.shrink(self.act(self.grow(self.norm(x)))))
        return self.head(x.mean((1, 2)))


class Tokens(nn.Module):
    """A ViT: patches, a class token before them, a block of attention, scores of the class token.

    ``first`` : whether the images are on the first axis or, as in CLIP, on the second.
    """

    def __init__(self, first: bool = True) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 16, 8, 8), nn.Parameter(torch.randn(1, 1, 16))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=first)
        self.head, self.first = nn.Linear(16, 10), first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1)
        if self.first:
            return self.head(self.block(x)[:, 0])
        return self.head(self.block(x.transpose(0, 1))[0])


def tokens() -> ModuleNetwork:
    """``Tokens`` as ``--model`` takes it."""
    torch.manual_seed(0)
    return from_torch(Tokens(), HALF, input_size=SIDE, name="tokens")


class Once(torch.autograd.Function):
    """A square whose derivative has none."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, pulled: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        result: torch.Tensor = 2 * x * pulled
        return result


def _nearest(own: Any, x: torch.Tensor) -> Any:
    """Every pixel's vector replaced by the nearest of a table."""
    z = own.part(x).permute(0, 2, 3, 1)
    code = torch.cdist(z.reshape(-1, 8), own.table.weight).argmin(1)
    return own.last(own.table(code).view(z.shape).permute(0, 3, 1, 2))


def checkpointed(*, reentrant: bool = True) -> nn.Module:
    """Activation checkpointing, as training scripts leave it in a network."""
    return Steps(lambda own, x: own.last(checkpoint(own.part, x, use_reentrant=reentrant)), part=Sum(), last=Sum(8))


WITHOUT_GRADIENT: dict[str, Any] = {
    "no_grad": torch.no_grad()(lambda own, x: own.last(own.part(x))),
    "inference_mode": torch.inference_mode()(lambda own, x: own.last(own.part(x))),
    "nearest": _nearest,
    "rounded": lambda own, x: own.last(own.part(x).round()),
    "detached": lambda own, x: own.last(own.part(x).detach()),
    "numpy": lambda own, x: own.last(torch.from_numpy(own.part(x).detach().numpy())),
    "once": lambda own, x: own.last(Once.apply(own.part(x))),
}


def without_gradient(kind: str) -> nn.Module:
    """A module with a layer ``last`` whose features can be read, and that no gradient, or but one, leads back from."""
    return Steps(WITHOUT_GRADIENT[kind], part=Sum(), last=nn.Conv2d(8, 4, 1), table=nn.Embedding(16, 8))


def wrong_sum() -> nn.Module:
    """A function of a user's with a fault in it."""
    return Sum(3 + None)  # type: ignore[operator]


def no_file() -> nn.Module:
    """One whose weights are not there."""
    with open("weights that are nowhere.pth", "rb"):  # noqa: PTH123
        return Sum()


def numpy_inside() -> Any:
    """A network with NumPy inside, which takes no tensor with a gradient."""
    return from_torch(
        Steps(lambda own, x: torch.from_numpy(own.conv(x).numpy()), conv=nn.Conv2d(3, 4, 3)), input_size=16
    )
