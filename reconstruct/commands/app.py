"""``reconstruct app``: the interactive page."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from reconstruct.commands.common import device_of
from reconstruct.commands.options import Device, Threads
from reconstruct.commands.terminal import busy
from reconstruct.errors import CallError
from reconstruct.extras import install_hint


def app(
    port: Annotated[int, typer.Option(help="Where the page is served.", min=1, max=65535)] = 7860,
    host: Annotated[str, typer.Option(help="Address to serve at; 0.0.0.0 opens it to the network.")] = "127.0.0.1",
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """A page in the browser: choose a picture, a layer and a method, and watch the reconstruction.

    Needs the extra 'app'; 'reconstruct doctor' says how it is installed.
    """
    with busy("loading", False):
        # Not imported: the module that does so first says that nothing is to be reported.
        if find_spec("gradio") is None:
            raise CallError(f"the page is drawn by Gradio, which is not installed: {install_hint('app')}")
        from reconstruct.app.page import serve

        chosen = device_of(device)
    serve(host, port, chosen)
