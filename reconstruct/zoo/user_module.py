"""Networks that functions of the user's make: ``package.module:function``."""

from __future__ import annotations

from inspect import signature

import torch
from torch import nn

from reconstruct.errors import CallError, ReconstructError
from reconstruct.network.module import from_torch
from reconstruct.network.protocol import AnyNetwork
from reconstruct.user_function import failure, function_named


def load_user_module(path: str, device: str | torch.device = "cpu") -> AnyNetwork:
    """The network that the function ``package.module:function`` gives: one of ours, or a module as it is.

    Raises
    ------
    CallError : as ``user_function.function_named``, or it gives something else, or fails.
    """
    function = function_named(path, "model")
    try:
        signature(function).bind()
    except TypeError as error:
        raise CallError(f"{path} is called without arguments: {error}") from error
    except ValueError:  # of a function of C's nobody knows its arguments
        pass
    try:
        found = function()
    except (ReconstructError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the user's own code raises
        raise CallError(f"{path} fails: {failure(error)}") from error
    if not isinstance(found, nn.Module):
        raise CallError(
            f"{path} gives a {type(found).__name__}, and not a torch module or what from_torch makes of one"
        )
    net = found if isinstance(found, AnyNetwork) else from_torch(found, name=path.partition(":")[2])
    return net.to(device)
