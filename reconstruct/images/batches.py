"""Which images go together through a network: those of one size, up to a number of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from reconstruct.network.architecture import Size

T = TypeVar("T")


def most_together(size: Size, pixels: int) -> int:
    """How many images of this height and width have no more pixels than that together; at least 1."""
    height, width = size
    return max(1, pixels // (height * width))


def in_batches(items: Iterable[T], size_of: Callable[[T], Size], pixels: int) -> Iterator[list[T]]:
    """Batches of images that follow one another and have one size, in their order.

    Parameters
    ----------
    items : the images, or what stands for them; taken one by one, so that no more than a batch is held.
    size_of : the height and width of one of them.
    pixels : how many a batch has at most. An image that alone has more is a batch of its own.
    """
    batch: list[T] = []
    size: Size | None = None
    for item in items:
        own = size_of(item)
        if batch and (own != size or len(batch) == most_together(own, pixels)):
            yield batch
            batch = []
        size = own
        batch.append(item)
    if batch:
        yield batch
