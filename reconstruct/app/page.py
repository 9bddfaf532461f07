"""The interactive page, drawn by Gradio: choose a picture, a layer and a method, and watch the reconstruction.

Here are the controls and what they call; ``watched`` inverts, and ``view`` makes what is shown.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

# Read when it is imported: no use is reported to anybody, nor by the hub's client that it brings.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio
import skimage.data
import torch
from PIL import Image

from reconstruct.app.view import STYLE, View, failed, view, waiting
from reconstruct.app.watched import watched
from reconstruct.errors import CallError
from reconstruct.evaluation.batch import FAILURES
from reconstruct.images.files import model_input, read_image, to_tensor
from reconstruct.inversion.methods import METHODS
from reconstruct.network.protocol import AnyNetwork
from reconstruct.zoo.load import load_model
from reconstruct.zoo.registry import model_names
from reconstruct.zoo.specification import read_architecture

SAMPLES = ("chelsea", "astronaut", "coffee", "rocket", "camera")
"""Photographs that scikit-image brings; those of ``samples/`` are the same, as JPEG files."""

DEFAULT = ("crelu_conv1_4", "conv2", "map")
LARGEST_FILE = "50mb"

Shown = tuple[str, Any, Any]
"""A handler gives the page the view, and the two buttons as they are to be."""


def with_weights() -> list[str]:
    """The models of the zoo that can be chosen: those with weights, the default first."""
    names = [name for name in model_names() if read_architecture(name).weights is not None]
    return sorted(names, key=lambda name: name != DEFAULT[0])


class Page:
    """The state that the page's handlers share: networks, and which session's inversion can be cancelled."""

    def __init__(self, device: str = "cpu") -> None:
        self.network = lru_cache(len(with_weights()))(lambda name: load_model(name, device=device))
        self._running: dict[str, threading.Event] = {}

    def run(
        self, picture: str | None, model: str, layer: str, method: str, budget: float, noise: float,
        request: gradio.Request,
    ) -> Iterator[Shown]:  # fmt: skip
        """Invert, and yield what is to be seen as it goes on; ends with the result or one line that says why not."""
        session = str(request.session_hash)
        cancel = threading.Event()
        self.cancel(request)  # one at a time
        self._running[session] = cancel
        try:
            for shown in self._views(picture, model, layer, method, budget, noise, cancel):
                yield shown, gradio.Button(interactive=False), gradio.Button(interactive=True)
            last = shown
        except FAILURES as error:
            last = failed(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")
        finally:
            cancel.set()
            if self._running.get(session) is cancel:
                del self._running[session]
        yield last, gradio.Button(interactive=True), gradio.Button(interactive=False)

    def cancel(self, request: gradio.Request) -> None:
        """End this session's inversion at its next step."""
        if running := self._running.get(str(request.session_hash)):
            running.set()

    def layers(self, model: str) -> Any:
        """The layers that can be chosen, once a model is."""
        names = self.network(model).layer_names
        return gradio.Dropdown(choices=names, value=DEFAULT[1] if DEFAULT[1] in names else names[0])

    def _views(
        self, picture: str | None, model: str, layer: str, method: str, budget: float, noise: float,
        cancel: threading.Event,
    ) -> Iterator[str]:  # fmt: skip
        if picture is None:
            raise CallError("no picture yet: choose a sample, or upload one")
        net = self.network(model)
        original = seen(net, picture, layer)
        about = View(original, net, layer, method, budget)
        yield view(about, None)
        for snapshot in watched(
            net, original.to(net.mean.device), layer, method, noise=noise, budget=budget, cancel=cancel
        ):
            yield view(about, snapshot)


def seen(net: AnyNetwork, picture: str, layer: str) -> torch.Tensor:
    """A picture file as the network sees it: 3 x H x W.

    Raises
    ------
    ImageError : not a picture, or one too small for the layer.
    """
    read = read_image(picture)
    return to_tensor(model_input(read, "this picture", net, [layer], None, False))


def write_samples(folder: Path) -> list[Path]:
    """The sample photographs as PNG files."""
    paths = [folder / f"{name}.png" for name in SAMPLES]
    for path in paths:
        Image.fromarray(getattr(skimage.data, path.stem)()).save(path, compress_level=1)
    return paths


def build(samples: list[Path], device: str = "cpu") -> gradio.Blocks:
    """The page with its controls, not yet served.

    Parameters
    ----------
    samples : picture files to choose from.
    device : where the networks are.
    """
    page = Page(device)
    model, layer, method = DEFAULT
    with gradio.Blocks(title="reconstruct", analytics_enabled=False, fill_width=False) as blocks:
        gradio.HTML(
            "<h1>What does a layer still know about the image?</h1><p>A convolutional network turns a picture into "
            "features, layer by layer. Choose a layer: its features, and nothing else, are turned back into a "
            "picture by linear algebra on the network's own weights. Nothing was trained to do this.</p>",
            elem_id="about",
        )
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                picture = gradio.Image(
                    str(samples[0]), type="filepath", image_mode=None, sources=["upload", "clipboard"], height=170,
                    label="Picture: drop one here, or choose a sample", elem_id="picture", buttons=[],
                )  # fmt: skip
                # Gradio would read the file itself, and call what it cannot read an error without a word.
                picture.preprocess = lambda payload: payload and payload.path
                gallery = gradio.Gallery(
                    [(str(path), path.stem) for path in samples], columns=len(samples), height=72, show_label=False,
                    allow_preview=False, object_fit="cover", elem_id="samples", interactive=False, buttons=[],
                )  # fmt: skip
                with gradio.Row():
                    models = gradio.Dropdown(with_weights(), value=model, label="Model", elem_id="model", min_width=150)
                    layers = gradio.Dropdown(
                        page.network(model).layer_names, value=layer, label="Layer", elem_id="layer", min_width=100
                    )
                methods = gradio.Radio(
                    list(METHODS), value=method, label="Method", info=METHODS[method].summary, elem_id="method"
                )
                with gradio.Row():
                    budget = gradio.Slider(
                        30, 1500, METHODS[method].budget, step=30, label="Budget", info="work, in forward passes",
                        elem_id="budget", min_width=150, buttons=[],
                    )  # fmt: skip
                    noise = gradio.Slider(
                        0, 0.5, 0, step=0.01, label="Noise", info="a share of the features' norm", elem_id="noise",
                        min_width=150, buttons=[],
                    )  # fmt: skip
                with gradio.Row():
                    start = gradio.Button("Reconstruct", variant="primary", elem_id="start", min_width=120)
                    stop = gradio.Button("Cancel", interactive=False, elem_id="cancel", min_width=80)
            with gradio.Column(scale=3, min_width=420):
                result = gradio.HTML(waiting(), elem_id="result")

        def chosen(event: gradio.SelectData) -> str:
            return str(samples[event.index])

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        gallery.select(chosen, None, picture, **quiet)
        models.change(page.layers, models, layers, **quiet)
        methods.change(lambda name: gradio.Radio(info=METHODS[name].summary), methods, methods, **quiet)
        inputs = [picture, models, layers, methods, budget, noise]
        # One inversion at a time has all the cores; others wait for their turn.
        start.click(page.run, inputs, [result, start, stop], concurrency_limit=1, **quiet)
        stop.click(page.cancel, None, None, concurrency_limit=None, queue=False, **quiet)
        # A page that is closed leaves nobody to look.
        blocks.unload(page.cancel)
    return blocks


def serve(host: str, port: int, device: str = "cpu") -> None:
    """Build the page and serve it until the process is interrupted.

    Pictures that are uploaded are kept in a folder of this process's and deleted with it.

    Raises
    ------
    OSError : the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="reconstruct-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        samples = Path(folder) / "samples"
        samples.mkdir()
        blocks = build(write_samples(samples), device)
        blocks.queue(default_concurrency_limit=None)
        # The reader's own fonts.
        fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        theme = gradio.themes.Default(primary_hue="blue", **fonts)
        blocks.launch(
            server_name=host, server_port=port, share=False, quiet=True, inbrowser=False, show_error=True,
            ssr_mode=False, mcp_server=False, run_history=False, footer_links=[], max_file_size=LARGEST_FILE,
            theme=theme, css=STYLE, prevent_thread_lock=True,
        )  # fmt: skip
        # As Ctrl-C, so that the folder goes with the process.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(f"http://{host}:{port}  (Ctrl-C ends it)", flush=True)
        blocks.block_thread()
