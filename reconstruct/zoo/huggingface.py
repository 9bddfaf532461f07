"""A model as a folder in the layout of the Hugging Face Hub: ``config.json``, ``model.safetensors`` and a card.

These are plain files, which ``load_model(folder)`` reads; nothing here talks to a hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save

from reconstruct.errors import CallError, ModelError, words_of
from reconstruct.images.atomic import write_atomically
from reconstruct.network.activations import phases
from reconstruct.network.architecture import KINDS
from reconstruct.network.network import Network
from reconstruct.network.protocol import AnyNetwork
from reconstruct.version import __version__
from reconstruct.zoo.load import is_module, load_network
from reconstruct.zoo.registry import CONFIG, MODELS, PRETRAINED, class_names, is_model_name, specification_path
from reconstruct.zoo.specification import CONFIG_FORMAT, CRELU_ORDER
from reconstruct.zoo.specification_text import layer_table

CARD = "README.md"
_CHANNELS = {1: "grey", 3: "RGB"}
Precision = Literal["float32", "float16"]
_UNSTATED = (
    "What these weights were learned from, and under which licence the data or the weights are, is not stated: whoever "
    "passes them on should say so here."
)


def save_pretrained(
    net: Network,
    folder: str | Path,
    *,
    dtype: Precision = "float32",
    card: str | None = None,
    licence: str | None = None,
    classes: Sequence[str] | None = None,
) -> Path:
    """Write a network as ``config.json``, ``model.safetensors`` and ``README.md``.

    ``load_model(folder)`` gives it back with the same bits: in float32 any network in single precision, in float16 one
    whose numbers are float16's. Batch normalisation is kept in the files, and folded when they are loaded.

    Parameters
    ----------
    net : the network, from ``load_model`` or trained; torch modules (``from_torch``) have no specification to write.
    folder : made where it is not there. One that this function wrote is written over; the config is written last.
    dtype : the precision to which numbers are rounded, ``float32`` or ``float16``.
    card : Markdown on what the weights were trained on and how well they do; without it the card says that this is not
        stated.
    licence : the weights' licence, as the Hub calls it (``bsd-3-clause``); left out where it is None.
    classes : names of the outputs, which become the config's ``id2label``.

    Returns
    -------
    The folder.

    Raises
    ------
    CallError : ``net`` is no ``Network``, or for images that are no squares; the dtype is another; a weight is not
        finite, or too large for float16; there are not as many names as outputs; or the folder holds another project's
        ``README.md`` or config.

    Examples
    --------
    >>> import reconstruct, tempfile
    >>> net = reconstruct.load_model("cifar_split")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = reconstruct.save_pretrained(net, folder, dtype="float16")
    ...     names = sorted(path.name for path in written.iterdir())
    >>> names
    ['README.md', 'config.json', 'model.safetensors']
    """
    if isinstance(net, AnyNetwork) and not isinstance(net, Network):
        raise CallError(f"{net.name} is a torch module, whose code no file holds: save its longest_chain()")
    if not isinstance(net, Network):
        raise CallError(f"save_pretrained takes a Network, as load_model gives it, not {type(net).__name__}")
    if net.input_area != (net.input_size, net.input_size):
        height, width = net.input_area
        raise CallError(f"{net.name} is for images of {height} x {width}, and a specification says one side of squares")
    if dtype not in ("float32", "float16"):
        raise CallError(f"weights are saved as float32 or float16, not {dtype!r}")
    if not is_model_name(net.name):
        raise CallError(f"the model's name is {net.name!r}; letters, digits, _, . and - make one")
    outputs = net.architecture.layers[-1].channels
    if classes is not None and len(classes) != outputs:
        raise CallError(f"{net.name} has {outputs} outputs, and these are the names of {len(classes)}")
    folder = Path(folder)
    _refuse_other(folder)
    state = {key: _rounded(key, value, dtype) for key, value in net.state_dict().items()}
    write_atomically(folder / PRETRAINED, save(state, metadata={"format": "pt"}))
    write_atomically(folder / CARD, _card(net, dtype, card, licence).encode())
    config = json.dumps(_config(net, dtype, classes), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / CONFIG, f"{config}\n".encode())
    return folder


def export_model(name: str, folder: str | Path, *, dtype: Precision | None = None, licence: str | None = None) -> Path:
    """Write a model of the zoo, or of a file, with its card and its classes where they are known.

    The card is NAME.md beside the weights. The zoo's own weights are under the project's licence, as their cards say.

    Parameters
    ----------
    name : the model, as in ``load_model``.
    folder, licence : as in ``save_pretrained``.
    dtype : None is float16 where the model's own weights file has nothing else, and float32 otherwise: both are exact.

    Returns
    -------
    The folder.

    Raises
    ------
    ModelError : the model cannot be loaded, or its card is no text.
    CallError : as in ``save_pretrained``, or the model is a torch module.
    """
    if is_module(name):
        raise CallError(
            f"{name} is a torch module, whose code no file holds: export models of the zoo, and imported ones"
        )
    net = load_network(name)
    assert net.architecture.weights is not None
    path = Path(net.architecture.weights)
    if dtype is None:
        with safe_open(path, "pt") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        dtype = "float16" if kinds == {"F16"} else "float32"
    beside = path.with_name(CARD) if path.name == PRETRAINED else path.with_suffix(".md")
    card = _body(_text(beside)) if beside.is_file() else None
    if licence is None and specification_path(name).parent == MODELS:
        licence = "bsd-3-clause"
    return save_pretrained(net, folder, dtype=dtype, card=card, licence=licence, classes=class_names(name))


def _rounded(key: str, value: torch.Tensor, dtype: Precision) -> torch.Tensor:
    """A rounded copy, since tensors of a file share no memory; counters stay whole numbers."""
    copied = value.detach().cpu()
    if not value.is_floating_point():
        return copied.clone().contiguous()
    copied = copied.to(torch.float16 if dtype == "float16" else torch.float32, copy=True).contiguous()
    if not copied.isfinite().all():
        finite = bool(value.isfinite().all())
        raise CallError(f"{key} holds a number that is {f'too large for {dtype}' if finite else 'not finite'}")
    return copied


def _refuse_other(folder: Path) -> None:
    """Refuse to write over a card that somebody else wrote: the current folder may be any project's."""
    config = folder / CONFIG
    try:
        ours = json.loads(config.read_text(encoding="utf-8"))["library_name"] == "reconstruct"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = False
    for path in (config, folder / CARD):
        if path.exists() and not ours:
            raise CallError(f"{path} is there already, and of no model of reconstruct's: write to another folder")


def _config(net: Network, dtype: Precision, classes: Sequence[str] | None) -> dict[str, Any]:
    architecture = net.architecture
    config: dict[str, Any] = {
        "library_name": "reconstruct",
        "library_version": __version__,
        "format": CONFIG_FORMAT,
        "dtype": dtype,
        "name": architecture.name,
        "base": architecture.base,
        "source": architecture.source,
        "input_size": architecture.input_size,
        "mean": list(architecture.mean),
        "std": list(architecture.std),
        "input_dropout": architecture.input_dropout,
        "crelu_order": CRELU_ORDER,
        "layers": [layer_table(layer) for layer in architecture.layers],
        "damping": architecture.damping,
        "torchvision": architecture.torchvision,
        "splits": {name: {"layer": at.layer, "tap": at.tap} for name, at in architecture.splits.items()},
    }
    if classes is not None:
        config["id2label"] = {str(number): name for number, name in enumerate(classes)}
    return config


def _card(net: Network, dtype: Precision, card: str | None, licence: str | None) -> str:
    architecture = net.architecture
    side, channels = architecture.input_size, net.channels
    colours = _CHANNELS.get(channels, f"{channels} channels")
    sizes = architecture.response_sizes((side, side))
    tags = ["reconstruct", "feature-inversion"]
    tags += ["crelu"] if any(phases(layer.activation) == 2 for layer in net.layers) else []
    head = ["library_name: reconstruct", "pipeline_tag: image-feature-extraction"]
    head += [] if licence is None else [f"license: {json.dumps(licence)}"]
    rows = [
        f"| {layer.name} | {KINDS[layer.kind]} | {layer.filters if layer.has_weights else ''} "
        f"| {layer.kernel} x {layer.kernel} / {layer.stride}, {layer.padding}"
        f"{f', {layer.groups} groups' if layer.groups > 1 else ''}"
        f"{f', dilation {layer.dilation}' if layer.dilation > 1 else ''} "
        f"| {layer.activation if layer.has_weights else ''}"
        f"{f', slope {layer.slope:g}' if layer.slope else ''} "
        f"| {layer.channels} x {sizes[layer.name][0]} x {sizes[layer.name][1]} |"
        for layer in net.layers
    ]
    numbers = [", ".join(f"{value:g}" for value in each) for each in (architecture.mean, architecture.std)]
    return "\n".join(
        [
            "---",
            *head,
            "tags:",
            *(f"- {tag}" for tag in tags),
            "---",
            "",
            f"# {net.name}",
            "",
            *([architecture.source, ""] if architecture.source else []),
            f"A chain of convolutions for images of {side} x {side} pixels, {colours} in [0, 1], which it normalises "
            f"itself (mean {numbers[0]}; standard deviation {numbers[1]}). Weights: `{PRETRAINED}`, {dtype}.",
            "",
            "```python",
            "import reconstruct",
            "",
            f'net = reconstruct.load_model("{net.name}")  # the path of this folder',
            f"image = {_image(channels, side)}",
            f'features = net.features(image[None], "{net.layers[0].name}")',
            "```",
            "",
            f"CReLU features have {CRELU_ORDER}.",
            "",
            f"| layer | kind | filters | kernel / stride, padding | activation | features at {side} x {side} |",
            "| --- | --- | ---: | --- | --- | ---: |",
            *rows,
            "",
            "## Weights",
            "",
            (card or _UNSTATED).strip(),
            "",
        ]
    )


def _image(channels: int, side: int) -> str:
    """Python that makes an image for a network of so many channels."""
    if channels not in _CHANNELS:
        return f"torch.rand({channels}, {side}, {side})  # no picture has so many channels"
    return f'reconstruct.load_image("photo.jpg", {side}{"" if channels == 3 else f", channels={channels}"})'


def _text(card: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"the card {card} cannot be read as text: {words_of(error)}") from error


def _body(card: str) -> str:
    """A card less its front matter, its heading and what comes before "Weights"; relative links become text."""
    text = card.partition("\n## Weights\n")[2] or re.sub(r"\A#[^\n]*\n", "", card)
    return re.sub(r"\[([^\]]*)\]\((?![a-z]+:)[^)]*\)", r"\1", text).strip()
