"""An inversion that can be watched and cancelled: its images as they come, from a thread that works on."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from reconstruct.errors import CallError
from reconstruct.images.quality import psnr
from reconstruct.inversion.disturb import disturb
from reconstruct.inversion.invert import invert
from reconstruct.inversion.result import Result
from reconstruct.network.protocol import AnyNetwork

INTERVAL = 0.25
"""Seconds between two snapshots: more would keep a page busy with drawing them."""

Curve = list[tuple[float, float]]
"""Points of forward passes so far and PSNR in dB (infinite where the image is exact)."""


@dataclass(frozen=True)
class Snapshot:
    """An image on its way, and how far it has come.

    Attributes
    ----------
    image : 3 x H x W, not clipped; None before the first one.
    curve : of all images so far, those between two snapshots included.
    passes : forward passes so far.
    seconds : since the start, with all that had to be prepared.
    result : what ``invert`` gives, when it is done; None before, and where it was cancelled.
    cancelled : nothing comes after this.
    """

    image: torch.Tensor | None
    curve: Curve
    passes: float
    seconds: float
    result: Result | None = None
    cancelled: bool = False


class _CancelledError(Exception):
    """This ends an inversion from within what watches it."""


class _Worker(threading.Thread):
    """A thread that inverts, and keeps the last image for whoever looks."""

    def __init__(
        self, net: AnyNetwork, picture: torch.Tensor, layer: str, method: str, sent: dict[str, Any],
        options: dict[str, Any], cancel: threading.Event,
    ) -> None:  # fmt: skip
        super().__init__(daemon=True)
        self.net, self.picture, self.layer, self.method = net, picture, layer, method
        self.sent, self.options, self.cancel = sent, options, cancel
        self.lock, self.began = threading.Lock(), time.perf_counter()
        self.image: torch.Tensor | None = None
        self.curve: Curve = []
        self.result: Result | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            images = self.picture[None]
            with torch.no_grad():
                features, noise = disturb(self.net.features(images, self.layer), **self.sent)
            size = (images.shape[2], images.shape[3])
            options = {"size": size, "noise": noise, "watch": self.note, **self.options}
            self.stop_if_cancelled()
            result = invert(self.net, features, self.layer, self.method, **options)
            self.note(result.forward_passes[0], result.image)
            self.result = result
        except _CancelledError:
            pass
        except BaseException as error:  # raised again where it is waited for
            self.error = error

    def note(self, passes: float, images: torch.Tensor) -> None:
        """Take an image of ``invert``, which calls this as it goes on."""
        self.stop_if_cancelled()
        point = (passes, psnr(self.picture[None], images)[0])
        with self.lock:
            self.image = images[0].clone()
            self.curve.append(point)

    def stop_if_cancelled(self) -> None:
        if self.cancel.is_set():
            raise _CancelledError

    def snapshot(self, cancelled: bool = False) -> Snapshot:
        with self.lock:
            passes = self.curve[-1][0] if self.curve else 0.0
            seconds = time.perf_counter() - self.began
            return Snapshot(self.image, list(self.curve), passes, seconds, self.result, cancelled)


def watched(
    net: AnyNetwork,
    picture: torch.Tensor,
    layer: str,
    method: str = "map",
    *,
    noise: float = 0.0,
    quantise: str | None = None,
    seed: int = 0,
    cancel: threading.Event | None = None,
    interval: float = INTERVAL,
    **options: Any,
) -> Iterator[Snapshot]:
    """Invert the features of one picture, and tell how far it has come.

    ``map`` and ``gradient`` show each step's image, ``linear`` and ``wiener`` only the last. The last snapshot has the
    result, or is ``cancelled``; its image is the result's.

    Parameters
    ----------
    picture : 3 x H x W in [0, 1], on the network's device; its features are what is inverted.
    noise, quantise, seed : of ``inversion.disturb``; the seed is that of ``gradient``, too.
    cancel : set by another thread, it ends the work at its next step (``linear`` and ``wiener`` have one).
    interval : seconds from one snapshot to the next.
    options : of ``inversion.invert``, as ``budget`` and ``tolerance``.

    Closing the iterator cancels, and waits for the thread.

    Raises
    ------
    CallError : an interval that is none, and whatever else ``invert`` refuses: here, and not in the thread.
    """
    if not math.isfinite(interval) or interval <= 0:
        raise CallError(f"interval is a number of seconds above 0, not {interval:g}")
    cancel = threading.Event() if cancel is None else cancel
    sent = {"noise": noise, "quantise": quantise, "seed": seed}
    worker = _Worker(net, picture, layer, method, sent, {**options, "seed": seed}, cancel)
    worker.start()
    try:
        while True:
            worker.join(interval)
            if not worker.is_alive():
                break
            yield worker.snapshot()
    finally:
        if worker.is_alive():
            cancel.set()
            worker.join()
    if worker.error is not None:
        raise worker.error
    yield worker.snapshot(cancelled=worker.result is None)
