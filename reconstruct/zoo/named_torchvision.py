"""torchvision's networks by name, with their weights' own preprocessing: ``torchvision:resnet18``."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reconstruct.errors import ModelError, words_of
from reconstruct.extras import install_hint
from reconstruct.network.module import ModuleNetwork, from_torch
from reconstruct.network.preprocessing import Preprocessing
from reconstruct.zoo.weights_file import is_weights_file, read_weights


def torchvision_network(name: str, chosen: str | None, random_weights: int | None) -> ModuleNetwork:
    """A network of torchvision's: a classifier, a segmentation network, or a detector's backbone.

    It is made as torchvision makes it for these weights (``transform_input``, classes, size), and normalises as their
    ``transforms()`` does. A detector normalises inside; that of its backbone is taken out of it.

    Parameters
    ----------
    name : as torchvision calls it.
    chosen : its weights by torchvision's name, ``IMAGENET1K_V1``, or a file of weights; None: its default weights.
    random_weights : a seed for random weights in place of them.

    Raises
    ------
    ModelError : torchvision or the weights are not there, or it has no such network. Nothing is downloaded.
    """
    models = _torchvision(name)
    kind = _kind(models, name)
    weights = _weights(models, name, chosen)
    if random_weights is not None:
        module = _random(models, name, random_weights)
    else:
        state = read_weights(_file(models, name, weights, chosen))
        module = _with_weights(models, name, weights, state)
    if kind == "detection":
        return _backbone(module, name)
    how = _preprocessing(weights, name)
    net = from_torch(module, (how.mean, how.std), input_size=how.size, name=name)
    net.preprocessing = how
    net.source = f"torchvision's {name}, {'random weights' if random_weights is not None else chosen or weights.name}"
    return net


def _torchvision(name: str) -> Any:
    try:
        from torchvision import models
    except ImportError as error:
        raise ModelError(f"torchvision:{name} needs torchvision: {install_hint('torchvision')}") from error
    except RuntimeError as error:  # built for another torch, it lacks its own operators
        raise ModelError(f"the torchvision that is installed does not fit this torch: {error}") from error
    return models


def _kind(models: Any, name: str) -> str:
    """What a network is for, as torchvision's modules are called.

    Raises
    ------
    ModelError : there is no such network, or it takes no pictures one by one.
    """
    known = dict.fromkeys(models.list_models(module=models), "classification")
    for kind in ("segmentation", "detection"):
        known |= dict.fromkeys(models.list_models(module=getattr(models, kind)), kind)
    if name in known:
        return known[name]
    if name.startswith("quantized_"):
        plain = name.removeprefix("quantized_")
        raise ModelError(f"torchvision's {name} computes in int8, which has no gradients: take torchvision:{plain}")
    if name in models.list_models():
        raise ModelError(f"torchvision's {name} takes films or pairs of pictures, not a picture")
    near = get_close_matches(name, known, n=3)
    ending = f"; did you mean {', '.join(near)}?" if near else f"; it has {', '.join(sorted(known)[:8])} and others"
    raise ModelError(f"torchvision has no model '{name}'{ending}")


def _weights(models: Any, name: str, chosen: str | None) -> Any:
    """The published weights that are meant, or whose place a file of weights takes: its own where it is a copy."""
    known = models.get_model_weights(name)
    if chosen is None:
        return known.DEFAULT
    if is_weights_file(chosen):
        return next((each for each in known if _is_copy(Path(chosen), each.url)), known.DEFAULT)
    names = [each.name for each in known]
    if chosen not in ("DEFAULT", *names):
        raise ModelError(
            f"torchvision:{name} has no weights '{chosen}'; it has {', '.join(names)}, and takes a file of weights"
        )
    return known[chosen]


def _is_copy(file: Path, url: str) -> bool:
    """Whether a file has what is published there, by the first digits of its SHA-256, which end the published name."""
    digits = Path(url).stem.rpartition("-")[2]
    if len(digits) < 8 or not file.is_file():
        return False
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest().startswith(digits)


def _file(models: Any, name: str, weights: Any, chosen: str | None) -> Path:
    """Where weights lie on this machine.

    Raises
    ------
    ModelError : they are not there; says where they belong, and which others are.
    """
    if chosen is not None and is_weights_file(chosen):
        return Path(chosen)
    path = _cached(weights)
    if path.is_file():
        return path
    others = [each.name for each in models.get_model_weights(name) if _cached(each).is_file()]
    instead = (
        f"its weights {others[0]} are there: torchvision:{name}:{others[0]}"
        if others
        else (f"random weights serve to try it: torchvision:{name}:random")
    )
    raise ModelError(
        f"torchvision:{name}: {path} is not there, and nothing is downloaded; put {weights.url} there, or {instead}"
    )


def _cached(weights: Any) -> Path:
    """Where torch keeps a file that torchvision downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name


def _random(models: Any, name: str, seed: int) -> nn.Module:
    # Some builders would download a backbone's weights unless told otherwise.
    named = inspect.signature(models.get_model_builder(name)).parameters
    options = {"weights_backbone": None} if "weights_backbone" in named else {}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of how GoogLeNet draws its weights
        torch.manual_seed(seed)
        module: nn.Module = models.get_model(name, weights=None, **options)
    return module


def _with_weights(models: Any, name: str, weights: Any, state: dict[str, torch.Tensor]) -> nn.Module:
    """The network as torchvision makes it for published weights, with the tensors of a state dict."""
    with _read_already(weights, state):
        try:
            module: nn.Module = models.get_model(name, weights=weights)
        except (RuntimeError, KeyError) as error:  # load_state_dict lists every key that does not fit
            raise ModelError(f"the weights are not of torchvision's {name}: {words_of(error)}") from error
    return module


@contextmanager
def _read_already(weights: Any, state: dict[str, torch.Tensor]) -> Iterator[None]:
    """Give torchvision's own code a state dict that we have read, and as many classes as it has.

    Only its builders know what else depends on the weights (``transform_input``, classes, auxiliary heads), and they
    know it only when they load them. They would read a file by pickle, and download one. The last parameter of
    torchvision's networks is of their classes; were it of anything else, the weights would not fit.
    """
    kind = type(weights)
    before = vars(kind).get("get_state_dict")
    kind.get_state_dict = lambda *_, **__: state
    categories = weights.meta["categories"]
    last = next(reversed(state.values()), torch.zeros(()))
    if last.ndim and len(last) not in (0, len(categories)):
        weights.meta["categories"] = [str(number) for number in range(len(last))]
    try:
        yield
    finally:
        weights.meta["categories"] = categories
        if before is None:
            del kind.get_state_dict
        else:
            kind.get_state_dict = before


def _preprocessing(weights: Any, name: str) -> Preprocessing:
    """What the weights' ``transforms()`` does."""
    how = weights.transforms()
    stated_by = f"torchvision's {name} (weights {weights.name})"
    resize = _side(how.resize_size)
    # Segmentation resizes without a crop, and its pictures stay as long as they are: here their middle is taken.
    size = _side(getattr(how, "crop_size", how.resize_size))
    return Preprocessing(stated_by, tuple(how.mean), tuple(how.std), size, max(size, resize), how.interpolation.value)


def _side(value: Any) -> int:
    return int(value) if isinstance(value, int) else int(value[0])


def _backbone(detector: nn.Module, name: str) -> ModuleNetwork:
    """A detector's backbone, at the size of pictures that it is trained on."""
    inside: Any = detector.transform
    side = _side(inside.min_size if inside.fixed_size is None else inside.fixed_size)
    whole: Any = detector
    net = from_torch(whole.backbone, (inside.image_mean, inside.image_std), input_size=side, name=name)
    net.source = f"the backbone of torchvision's {name}, which takes pictures as large as they are"
    return net
