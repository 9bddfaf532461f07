"""What the interactive page shows of a reconstruction: pictures side by side, figures, and PSNR against work."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass

import torch
from markupsafe import escape
from PIL import Image

from reconstruct.app.watched import Snapshot
from reconstruct.images.files import to_pixels
from reconstruct.images.quality import quality
from reconstruct.network.protocol import AnyNetwork
from reconstruct.report.pages.charts import course

STATUS = {
    "converged": "done: the features are met",
    "budget": "done: the budget is spent",
    "stagnated": "done: no step improves it any more",
}

STYLE = """
:root { --ink: #1d1e20; --soft: #565a61; --line: #d9d9d2; --panel: #f3f3ef; --bad: #a02f17; --c0: #0072b2; }
.dark { --ink: #e8e8e4; --soft: #b4b8bf; --line: #3a3e44; --panel: #202327; --bad: #ff9a80; --c0: #4ea5e6; }
.gradio-container { max-width: 1240px !important; }
#about h1 { font-size: 1.55rem; font-weight: 650; margin: 0 0 .3rem; }
#about p { max-width: 62rem; margin: 0; color: var(--soft); }
.gradio-container { --body-text-color-subdued: var(--soft); --block-info-text-color: var(--soft); }
#samples .grid-wrap { padding: 0; overflow: hidden; }
#samples .grid-container { grid-template-columns: repeat(5, minmax(0, 1fr)) !important; gap: .4rem; margin: 0; }
#samples .grid-container > * { min-width: 0; width: 100%; aspect-ratio: 1.3; }
#samples .caption-label { display: none; }
.live { color: var(--ink); font-variant-numeric: tabular-nums; }
.live .pictures { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
.live figure { margin: 0; }
.live .frame { aspect-ratio: 1; background: var(--panel); display: grid; place-items: center; color: var(--soft); }
.live img { width: 100%; height: 100%; object-fit: contain; }
.live img.small { image-rendering: pixelated; }
.live figcaption { margin-top: .35rem; font-size: .875rem; color: var(--soft); }
.live figcaption b { color: var(--ink); }
.live dl { display: grid; grid-template-columns: repeat(5, 1fr); gap: .5rem; margin: .8rem 0; }
.live dl > div { background: var(--panel); border-radius: .4rem; padding: .5rem .7rem; }
.live dt { font-size: .8rem; color: var(--soft); }
.live dd { margin: 0; font-size: 1.3rem; font-weight: 600; white-space: nowrap; }
.live dd small { font-size: .8rem; font-weight: 400; color: var(--soft); }
.live .state { margin: 0 0 .6rem; min-height: 1.5em; }
.live .bad { color: var(--bad); font-weight: 600; }
.live .chart { width: 100%; height: auto; display: block; }
@media (max-width: 40rem) { .live dl { grid-template-columns: repeat(2, 1fr); } }
"""


@dataclass(frozen=True)
class View:
    """The inversion that the page shows.

    Attributes
    ----------
    original : 3 x H x W in [0, 1].
    architecture, layer, method : the model, the layer that is inverted, and how.
    budget : forward passes.
    """

    original: torch.Tensor
    net: AnyNetwork
    layer: str
    method: str
    budget: float


def waiting() -> str:
    """The page's right side as HTML before anything was started."""
    frames = "".join(
        f"<figure><div class='frame'>{text}</div></figure>" for text in ("what goes in", "what comes back")
    )
    return f"<div class='live'><div class='pictures'>{frames}</div></div>"


def failed(message: str) -> str:
    """The page's right side as HTML with one line that says why there is no reconstruction."""
    line = escape(" ".join(message.split()))
    return f"<div class='live'><p class='state bad' role='alert'>{line}</p></div>"


def view(about: View, snapshot: Snapshot | None) -> str:
    """The page's right side as HTML, from the start (None) to the result."""
    image = None if snapshot is None else snapshot.image
    back = f"back from {about.layer} by {about.method}"
    pictures = _figure(about.original, "original", _numbers(about))
    pictures += _figure(image, back, _features(about))
    curve = [] if snapshot is None else snapshot.curve
    chart = course(curve, about.budget, f"{about.layer} by {about.method}")
    return (
        f"<div class='live'><div class='pictures'>{pictures}</div>{_figures(about, snapshot)}"
        f"<p class='state' role='status'>{_state(snapshot)}</p>{chart}</div>"
    )


def _figure(image: torch.Tensor | None, title: str, detail: str) -> str:
    """A picture and its caption as HTML; None holds the place of one that is still to come."""
    caption = f"<figcaption><b>{escape(title)}</b><br>{escape(detail)}</figcaption>"
    if image is None:
        return f"<figure><div class='frame'>preparing</div>{caption}</figure>"
    buffer = io.BytesIO()
    Image.fromarray(to_pixels(image)).save(buffer, format="PNG", compress_level=1)
    data = base64.b64encode(buffer.getvalue()).decode()
    source = f"data:image/png;base64,{data}"
    # Few pixels are shown as they are, and not smoothed away.
    kind = " class='small'" if max(image.shape) < 100 else ""
    return f"<figure><div class='frame'><img{kind} alt='{escape(title)}' src='{source}'></div>{caption}</figure>"


def _numbers(about: View) -> str:
    """How many numbers the picture is, in words."""
    _, height, width = about.original.shape
    return f"{height} x {width} pixels, {about.original.numel():,} numbers"


def _features(about: View) -> str:
    """How many numbers the layer gives, in words; under CReLU two features hold one linear response."""
    size = (about.original.shape[1], about.original.shape[2])
    height, width = about.net.shapes(size)[about.layer]
    layer = about.net.layer(about.layer)
    features = f"{layer.channels} x {height} x {width} features"
    if not layer.has_weights:
        return features
    return f"{layer.filters * height * width:,} responses, {features}"


def _figures(about: View, snapshot: Snapshot | None) -> str:
    """The row of figures as HTML: how good the last image is, and at what work."""
    psnr = ssim = residual = "–"
    passes = seconds = 0.0
    if snapshot is not None:
        passes, seconds = snapshot.passes, snapshot.seconds
        if snapshot.image is not None:
            judged = quality(about.original[None], snapshot.image[None])
            psnr = "exact" if math.isinf(judged.psnr[0]) else f"{judged.psnr[0]:.1f}<small> dB</small>"
            ssim = "–" if math.isnan(judged.ssim[0]) else f"{judged.ssim[0]:.3f}"
        if snapshot.result is not None:
            residual = f"{snapshot.result.feature_residual[0]:.2g}"
    shown = {
        "PSNR": psnr,
        "SSIM": ssim,
        "feature residual": residual,
        "forward passes": f"{passes:.0f}",
        "seconds": f"{seconds:.1f}",
    }
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items()) + "</dl>"


def _state(snapshot: Snapshot | None) -> str:
    """One line that says whether the inversion goes on, and how it ended."""
    if snapshot is not None and snapshot.cancelled:
        return "cancelled"
    if snapshot is None or snapshot.result is None:
        return "working ..."
    return STATUS[snapshot.result.status[0]]
