"""Models by name: a specification's architecture with the weights of its file, as a ``Network``."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from reconstruct.errors import ModelError
from reconstruct.network.architecture import Architecture
from reconstruct.network.network import Network
from reconstruct.network.protocol import AnyNetwork
from reconstruct.network.surgery import fold_batch_norm, randomise
from reconstruct.user_function import is_function_name
from reconstruct.zoo.named_timm import is_timm_folder, timm_folder
from reconstruct.zoo.published import is_external, load_external
from reconstruct.zoo.registry import is_zoo_name
from reconstruct.zoo.specification import read_architecture
from reconstruct.zoo.user_module import load_user_module

_FLOATS = ("F16", "BF16", "F32", "F64")


def load_model(
    name: str | Path, *, random_weights: int | None = None, device: str | torch.device = "cpu"
) -> AnyNetwork:
    """A network by its name, in evaluation mode and without gradients: one of the zoo, or a torch module.

    Batch normalisation is folded into the convolutions (``fold_batch_norm``).

    Parameters
    ----------
    name : a name in the zoo; the path of a TOML specification; a folder that ``save_pretrained`` wrote, with
        ``config.json`` and ``model.safetensors``, or that timm wrote (a name of the zoo goes first);
        ``efficientnet_lite0``, ``torchvision:resnet18`` or ``timm:resnet18`` (``zoo.published``); or
        ``package.module:function``, which gives a torch module (``from_torch``).
    random_weights : a seed: every layer gets random weights (He et al. 2015), in place of a weights file.
    device : where the network is put.

    Raises
    ------
    ModelError : the name is unknown (the message has the nearest ones), the specification is faulty, there are no
        weights, or the weights file does not fit; it is checked against the specification before a number is read.
    CallError : ``package.module:function`` names no function, or one that gives no torch module.

    Examples
    --------
    >>> import reconstruct
    >>> net = reconstruct.load_model("crelu_conv1_4", device="cpu")
    >>> net.input_size
    227
    >>> net.layer_names[:3]
    ['conv1', 'conv2', 'conv3']
    """
    name = str(name)
    if is_module(name):
        return load_module(name, random_weights=random_weights, device=device)
    return load_network(name, random_weights=random_weights, device=device)


def load_network(name: str | Path, *, random_weights: int | None = None, device: str | torch.device = "cpu") -> Network:
    """A network of the zoo, of a TOML file or of a folder; arguments and errors as of ``load_model``."""
    architecture = read_architecture(str(name))
    if random_weights is not None:
        net = randomise(Network(architecture), random_weights)
    elif architecture.weights is None:
        raise ModelError(
            f"{architecture.name} has no weights; random ones serve to try it: "
            "--random-weights SEED, or random_weights=SEED"
        )
    else:
        net = _load_weights(architecture, Path(architecture.weights))
    if any(layer.batch_norm for layer in net.layers):
        net = fold_batch_norm(net)
        for key, value in net.state_dict().items():
            if not value.isfinite().all():
                raise ModelError(f"{architecture.name}: {key}, with its batch normalisation, is not finite in float32")
    return net.eval().requires_grad_(False).to(device)


def is_module(name: str) -> bool:
    """Whether a name is that of a torch module, which ``load_module`` loads, and of no specification."""
    return is_external(name) or is_function_name(name) or (is_timm_folder(name) and not is_zoo_name(name))


def load_module(name: str, *, random_weights: int | None = None, device: str | torch.device = "cpu") -> AnyNetwork:
    """A torch module as a network: a published one, or what a function of the user's gives.

    Parameters
    ----------
    name : ``efficientnet_lite0``, ``torchvision:resnet18`` or ``timm:resnet18`` (``published``), a folder that timm
        wrote, or ``package.module:function``.
    random_weights, device : as in ``load_model``.

    Raises
    ------
    ModelError : the package of a published network or its weights are not there, or random weights are asked of a
        function, which makes its own.
    CallError : there is no such function, or it gives no torch module.
    """
    if is_external(name):
        return load_external(name, random_weights).to(device)
    if not is_function_name(name):
        return timm_folder(name, random_weights).to(device)
    if random_weights is not None:
        raise ModelError(f"{name} makes its own weights: leave out random weights")
    return load_user_module(name, device)


def _load_weights(architecture: Architecture, path: Path) -> Network:
    """A network as deep as the weights file: its layers must be the first of the architecture.

    The poolings between them and right after them need no weights and belong to it.
    """
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            depth = 0
            for layer in architecture.layers:
                if layer.has_weights and f"{layer.name}.weight" not in shapes:
                    break
                depth += 1
            if not depth:
                raise ModelError(f"{path} has no weights for {architecture.layers[0].name}")
            with torch.device("meta"):
                expected = {key: tuple(value.shape) for key, value in Network(architecture, depth).state_dict().items()}
            for key in sorted(shapes.keys() | expected.keys()):
                if key not in expected:
                    raise ModelError(f"{path} holds {key}, which {architecture.name} has no place for")
                if key not in shapes:
                    raise ModelError(f"{path} lacks {key}")
                if shapes[key] != expected[key]:
                    raise ModelError(f"{path}: {key} is {shapes[key]}, {architecture.name} needs {expected[key]}")
                kind = file.get_slice(key).get_dtype()
                if kind not in _FLOATS and not key.endswith("num_batches_tracked"):
                    raise ModelError(f"{path}: {key} is {kind}, and weights are {', '.join(_FLOATS)}")
            state = {key: file.get_tensor(key) for key in expected}
    except ModelError:
        raise
    except (OSError, SafetensorError, ValueError) as error:  # also a name that no file can have
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
    _check_numbers(path, state)
    net = Network(architecture, depth)
    net.load_state_dict(state)
    return net


def _check_numbers(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Refuse weights that are not finite, and variances below 0."""
    for key, value in state.items():
        # As float32, which the network computes in: a file may hold more.
        if value.is_floating_point() and not value.float().isfinite().all():
            raise ModelError(f"{path}: {key} holds a number that is not finite in float32")
        if key.endswith("running_var") and (value < 0).any():
            raise ModelError(f"{path}: {key} holds a negative number, and it is of variances")
