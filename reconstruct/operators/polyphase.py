"""Polyphase components: an image taken apart into s x s coarser ones, on which a stride-s convolution has stride 1."""

from __future__ import annotations

import torch


def polyphase(images: torch.Tensor, step: int) -> torch.Tensor:
    """N x C x H x W to N x C s^2 x H/s x W/s, H and W multiples of the step s."""
    count, channels, height, width = images.shape
    parts = images.reshape(count, channels, height // step, step, width // step, step)
    return parts.permute(0, 1, 3, 5, 2, 4).reshape(count, channels * step**2, height // step, width // step)


def unpolyphase(parts: torch.Tensor, step: int) -> torch.Tensor:
    """The inverse of ``polyphase``, and its adjoint."""
    count, channels, height, width = parts.shape
    images = parts.reshape(count, channels // step**2, step, step, height, width)
    return images.permute(0, 1, 4, 2, 5, 3).reshape(count, channels // step**2, height * step, width * step)
