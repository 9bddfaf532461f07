"""An inversion that is watched: what is seen on the way, its end, and cancelling it."""

import threading
import time

import pytest
import torch

from reconstruct import CallError, disturb, invert, quality
from reconstruct.app.watched import Snapshot, watched
from reconstruct.images.quality import psnr
from reconstruct.network.network import Network

SIDE = 75


@pytest.fixture(scope="module")
def picture(photograph: torch.Tensor) -> torch.Tensor:
    """3 x 75 x 75."""
    return photograph[0, :, 60 : 60 + SIDE, 60 : 60 + SIDE].clone()


@pytest.mark.parametrize("method", ["map", "gradient"])
def test_images_improve_and_the_last_is_the_result(net: Network, picture: torch.Tensor, method: str) -> None:
    *way, last = watched(net, picture, "conv2", method, budget=120, noise=0.01, seed=3, interval=0.01)
    features, noise = disturb(net.features(picture[None], "conv2"), noise=0.01, seed=3)
    expected = invert(net, features, "conv2", method, size=SIDE, budget=120, noise=noise, seed=3)
    assert last.image is not None
    assert last.result is not None
    assert torch.equal(last.image, expected.image[0])
    assert last.result.feature_residual == expected.feature_residual
    assert last.passes == expected.forward_passes[0]
    assert len(way) > 2
    assert all(each.result is None and not each.cancelled for each in way)
    # A later curve goes on with an earlier one, and each ends in the image beside it.
    for one, later in zip(way, [*way[1:], last], strict=True):
        assert later.curve[: len(one.curve)] == one.curve
        assert one.seconds < later.seconds
    for each in (*way, last):
        if each.image is not None:
            assert each.curve[-1] == (each.passes, psnr(picture[None], each.image[None])[0])
    passes, values = zip(*last.curve, strict=True)
    assert list(passes) == sorted(passes)
    assert values[-1] > values[0] + 5


def test_a_method_that_shows_no_way_shows_its_end(net: Network, picture: torch.Tensor) -> None:
    last = list(watched(net, picture, "conv1", "linear", interval=0.05))[-1]
    assert last.result is not None
    assert [passes for passes, _ in last.curve] == last.result.forward_passes
    assert psnr(picture[None], last.result.image)[0] > 30


def test_it_is_cancelled(net: Network, picture: torch.Tensor) -> None:
    """At its next step, with the image that it had; before it began, with none."""
    cancel = threading.Event()
    seen: list[Snapshot] = []
    for snapshot in watched(net, picture, "conv2", "gradient", budget=1e6, cancel=cancel, interval=0.02):
        seen.append(snapshot)
        if snapshot.passes > 30:
            cancel.set()
    assert seen[-1].cancelled
    assert seen[-1].result is None
    assert seen[-1].image is not None
    (only,) = watched(net, picture, "conv2", cancel=cancel, interval=10)
    assert (only.cancelled, only.image, only.curve) == (True, None, [])


def test_closing_it_ends_the_thread(net: Network, picture: torch.Tensor) -> None:
    before = threading.active_count()
    way = watched(net, picture, "conv2", "gradient", budget=1e6, interval=0.02)
    next(way)
    assert threading.active_count() == before + 1
    began = time.monotonic()
    way.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    assert time.monotonic() - began < 5


def test_errors_come_out_of_the_thread(net: Network, picture: torch.Tensor) -> None:
    with pytest.raises(CallError, match="needs CReLU at and below conv6"):
        list(watched(net, picture, "conv6", "wiener"))
    with pytest.raises(CallError, match="interval"):
        next(watched(net, picture, "conv1", interval=0))


def test_psnr_alone_is_that_of_quality(generator: torch.Generator) -> None:
    """Clipped first, in dB for a range of 1: both reckon in float64, to within its rounding."""
    images = torch.rand((3, 3, 16, 20), generator=generator)
    found = images + 0.3 * torch.randn(images.shape, generator=generator)
    found[0] = images[0]
    assert psnr(images, found) == pytest.approx(quality(images, found).psnr, rel=1e-12)
    assert psnr(images, found)[0] == float("inf")
    # Off by a tenth everywhere: 20 dB.
    assert psnr(torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.6)) == pytest.approx([20], rel=1e-6)
