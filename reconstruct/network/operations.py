"""What a node of a traced module does, as one of the few things that chains are made of.

Parts and functions alike: ``nn.MaxPool2d(2)`` and ``functional.max_pool2d(x, 2)`` are the same ``Pool``. What is none
of these is refused.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import fx, nn
from torch.nn import functional


class NoOperationError(Exception):
    """A node does something that no chain is made of."""


@dataclass(frozen=True)
class Nothing:
    """What comes in goes out."""


@dataclass(frozen=True)
class Activation:
    """An activation and its slope, by their names in ``activations``."""

    name: str
    slope: float = 0.0


@dataclass(frozen=True, eq=False)
class Affine:
    """``gain x + offset``: float64, one number each or one a channel."""

    gain: torch.Tensor
    offset: torch.Tensor

    def after(self, first: Affine) -> Affine:
        """Both, ``first`` before this one."""
        return Affine(self.gain * first.gain, self.gain * first.offset + self.offset)


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution with zeros for padding: its filters, K x C / groups x k x k, and biases, K."""

    weight: torch.Tensor
    bias: torch.Tensor
    stride: int
    padding: int
    groups: int
    dilation: int


@dataclass(frozen=True)
class Pool:
    """A pooling of the kind ``max_pool`` or ``avg_pool``, as of ``architecture.Layer``."""

    kind: str
    kernel: int
    stride: int
    padding: int
    ceil_mode: bool


@dataclass(frozen=True)
class Padding:
    """Zeros around, as many on every side."""

    by: int


@dataclass(frozen=True)
class Reordered:
    """The channels in another order, each number that of a channel as it was; None: from the last to the first."""

    order: tuple[int, ...] | None


Operation = Nothing | Activation | Affine | Convolution | Pool | Padding | Reordered


def operation(module: nn.Module, node: fx.Node) -> tuple[Operation, fx.Node]:
    """What a node of a module's graph does, and the one node that it does it to.

    Raises
    ------
    NoOperationError : it does something else, or something to several nodes.
    """
    below = [each for each in node.all_input_nodes if not _is_constant(each)]
    if len(below) != 1:
        raise NoOperationError
    if node.op == "call_module":
        return _of_part(module.get_submodule(str(node.target))), below[0]

    def known(each: fx.Node) -> Any:
        return each if each is below[0] else _value(each)

    args: Any = fx.node.map_arg(node.args, known)
    kwargs: Any = fx.node.map_arg(node.kwargs, known)
    if node.target is operator.getitem and _gives_indices(module, below[0]) and args[1] == 0:
        return Nothing(), below[0]
    if node.target is operator.getitem:
        return _indexed(args[1]), below[0]
    given = [*args, *(kwargs[name] for name in ("input", "other") if name in kwargs)]
    named = {name: value for name, value in kwargs.items() if name not in ("input", "other")}
    if node.target in _ARITHMETIC:
        return _arithmetic(_ARITHMETIC[node.target], given, named, below[0]), below[0]
    if node.target not in _FUNCTIONS or not given or given[0] is not below[0]:
        raise NoOperationError
    try:
        return _FUNCTIONS[node.target](*given[1:], **named), below[0]
    except TypeError:  # other arguments than the function has
        raise NoOperationError from None


def is_normalisation(part: nn.Module) -> bool:
    """Whether a part is torchvision's ``Normalize``, which torch.fx cannot look into."""
    kind = type(part)
    return kind.__module__.startswith("torchvision.transforms") and kind.__name__ == "Normalize"


def _of_part(part: nn.Module) -> Operation:  # noqa: PLR0911  # one for each kind
    match part:
        case nn.Identity():
            return Nothing()
        case nn.modules.dropout._DropoutNd():
            return _dropout(training=part.training)
        case nn.Hardtanh():  # ReLU6 is one
            return _between(part.min_val, part.max_val)
        case nn.ReLU():
            return Activation("relu")
        case nn.LeakyReLU():
            return _leaky(part.negative_slope)
        case nn.PReLU() if part.weight.numel() == 1:
            return _leaky(float(part.weight))
        case nn.BatchNorm2d() | nn.SyncBatchNorm():
            return _norm(
                part.running_mean, part.running_var, part.weight, part.bias, training=part.training, eps=part.eps
            )
        case nn.Conv2d() if part.padding_mode == "zeros":
            return _convolution(part.weight, part.bias, part.stride, part.padding, part.dilation, part.groups)
        case nn.MaxPool2d():
            return _max_pool(part.kernel_size, part.stride, part.padding, part.dilation, part.ceil_mode)
        case nn.AvgPool2d():
            return _avg_pool(
                part.kernel_size,
                part.stride,
                part.padding,
                part.ceil_mode,
                part.count_include_pad,
                part.divisor_override,
            )
        case nn.ConstantPad2d():  # ZeroPad2d is one
            return _padding(part.padding, value=part.value)
    if is_normalisation(part):
        mean, std = (torch.as_tensor(values, dtype=torch.float64).reshape(-1) for values in (part.mean, part.std))
        return _checked(1 / std, -mean / std)
    raise NoOperationError


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> Operation:
    return _refuse() if training else Nothing()


def _between(min_val: Any = -1.0, max_val: Any = 1.0, inplace: bool = False) -> Operation:
    if min_val == 0 and max_val in (None, float("inf")):
        return Activation("relu")
    return Activation("relu6") if (min_val, max_val) == (0, 6) else _refuse()


def _clamped(*given: Any, **named: Any) -> Operation:
    low, high = (*given, *[None] * 2)[:2]
    return _between(named.get("min", low), named.get("max", high))


def _leaky(negative_slope: float = 0.01, inplace: bool = False) -> Operation:
    return Activation("leaky_relu", float(negative_slope)) if 0 <= negative_slope < 1 else _refuse()


def _norm(
    running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Operation:  # fmt: skip
    if training or running_mean is None or running_var is None:  # statistics of the batch
        raise NoOperationError
    gain = (running_var.double() + eps).rsqrt() * (1 if weight is None else weight.double())
    return _checked(gain, (0 if bias is None else bias.double()) - gain * running_mean.double())


def _convolution(
    weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Operation:
    kernel, apart = _one(tuple(weight.shape[2:])), _one(dilation)
    if padding == "same":
        whole = apart * (kernel - 1)
        padding = whole // 2 if whole % 2 == 0 else _refuse()
    elif padding == "valid":
        padding = 0
    offsets = weight.new_zeros(len(weight)) if bias is None else bias
    return Convolution(weight.double(), offsets.double(), _one(stride), _one(padding), groups, apart)


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Operation:  # fmt: skip
    return _pool("max_pool", kernel_size, stride, padding, ceil_mode) if _one(dilation) == 1 else _refuse()


def _avg_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Operation:  # fmt: skip
    if divisor_override is not None or (_one(padding) and not count_include_pad):
        raise NoOperationError
    return _pool("avg_pool", kernel_size, stride, padding, ceil_mode)


def _pool(kind: str, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> Pool:
    step = kernel if stride is None or stride in ((), []) else stride
    return Pool(kind, _one(kernel), _one(step), _one(padding), bool(ceil_mode))


def _padding(pad: Any, mode: str = "constant", value: float | None = None) -> Operation:
    sides = [*pad]
    if mode != "constant" or value not in (None, 0) or len(sides) != 4 or len({*sides}) != 1:
        raise NoOperationError
    return Padding(sides[0]) if isinstance(sides[0], int) and sides[0] >= 0 else _refuse()


def _indexed(index: Any) -> Operation:
    """``x[:, [2, 1, 0]]``, by which networks that were trained with OpenCV or Caffe take RGB."""
    if not isinstance(index, tuple) or len(index) < 2 or any(each != slice(None) for each in (index[0], *index[2:])):
        raise NoOperationError
    order = index[1].tolist() if isinstance(index[1], torch.Tensor) else index[1]
    if not isinstance(order, list | tuple) or sorted(order) != list(range(len(order))):
        raise NoOperationError
    return Reordered(tuple(order))


def _flipped(*dims: Any, **named: Any) -> Operation:
    axes = named.get("dims", dims[0] if len(dims) == 1 else dims)
    axes = [axes] if isinstance(axes, int) else [*axes]
    return Reordered(None) if axes in ([1], [-3]) else _refuse()


def _nothing(memory_format: Any = None) -> Operation:
    return Nothing()


def _arithmetic(kind: str, given: list[Any], named: dict[str, Any], below: fx.Node) -> Operation:
    if named.get("alpha", 1) != 1 or named.get("rounding_mode") is not None:
        raise NoOperationError
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if kind == "neg":
        return Affine(-one, zero)
    if len(given) != 2 or (given[0] is below) == (given[1] is below):
        raise NoOperationError
    first = given[0] is below
    number = _a_channel(given[1] if first else given[0])
    match kind:
        case "add":
            return _checked(one, number)
        case "sub":
            return _checked(one, -number) if first else _checked(-one, number)
        case "mul":
            return _checked(number, zero)
        case _:
            return _checked(1 / number, zero) if first else _refuse()


def _a_channel(value: Any) -> torch.Tensor:
    """One number, or one for each channel of N x C x h x w."""
    if isinstance(value, torch.Tensor):
        if value.numel() == 1 or (value.ndim in (3, 4) and value.shape[-3] == value.numel()):
            return value.double().reshape(-1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return torch.tensor([value], dtype=torch.float64)
    raise NoOperationError


def _checked(gain: torch.Tensor, offset: torch.Tensor) -> Affine:
    return Affine(gain, offset) if bool(gain.isfinite().all() and offset.isfinite().all()) else _refuse()


def _one(value: Any) -> int:
    """One number for both directions."""
    if isinstance(value, int):
        return value
    sides = {*value} if isinstance(value, tuple | list) else set()
    return int(sides.pop()) if len(sides) == 1 else _refuse()


def _refuse() -> NoReturn:
    raise NoOperationError


def _gives_indices(module: nn.Module, node: fx.Node) -> bool:
    """Whether a node is a max-pooling that gives the places of its maxima as well."""
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        return isinstance(part, nn.MaxPool2d) and part.return_indices
    return node.target is functional.max_pool2d_with_indices


def _is_constant(node: fx.Node) -> bool:
    """Whether a node is the same for every image."""
    if node.op == "get_attr":
        return True
    if node.op == "call_method" and node.target in _CASTS:
        return isinstance(node.args[0], fx.Node) and _is_constant(node.args[0])
    inputs = node.all_input_nodes
    return node.op in ("call_function", "call_method") and bool(inputs) and all(map(_is_constant, inputs))


@torch.no_grad()
def _value(node: fx.Node) -> Any:
    """What a constant node is.

    Raises
    ------
    NoOperationError : it cannot be computed, or is not the same twice.
    """
    try:
        value, again = _computed(node), _computed(node)
    except Exception:  # whatever the user's own code raises
        raise NoOperationError from None
    if isinstance(value, torch.Tensor) and not torch.equal(value, again):
        raise NoOperationError
    return value


def _computed(node: fx.Node) -> Any:
    if node.op == "get_attr":
        value = operator.attrgetter(str(node.target))(node.graph.owning_module)
        return value.clone() if isinstance(value, torch.Tensor) else value
    if node.op == "call_method" and node.target in _CASTS:
        return _computed(node.all_input_nodes[0])
    args: Any = fx.node.map_arg(node.args, _computed)
    kwargs: Any = fx.node.map_arg(node.kwargs, _computed)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


_CASTS = ("to", "type_as", "expand_as")
"""What changes where and how constants are kept, by the images, and not the numbers."""

_ARITHMETIC: dict[Any, str] = {
    target: kind
    for kind, targets in {
        "add": (operator.add, operator.iadd, torch.add, "add", "add_"),
        "sub": (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_", "subtract"),
        "mul": (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"),
        "div": (operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "div_"),
        "neg": (operator.neg, torch.neg, torch.negative, "neg", "neg_"),
    }.items()
    for target in targets
}

_FUNCTIONS: dict[Any, Callable[..., Operation]] = {
    target: build
    for build, targets in (
        (
            lambda inplace=False: Activation("relu"),
            (torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_"),
        ),
        (lambda inplace=False: Activation("relu6"), (functional.relu6,)),
        (_leaky, (functional.leaky_relu, functional.leaky_relu_)),
        (_between, (functional.hardtanh, functional.hardtanh_)),
        (
            _clamped,
            (torch.clamp, torch.clamp_, torch.clip, torch.clip_, "clamp", "clamp_", "clip", "clip_"),
        ),
        (_clamped, (torch.clamp_min, torch.clamp_min_, "clamp_min", "clamp_min_")),
        (lambda: Activation("avr"), (torch.abs, torch.abs_, torch.absolute, operator.abs, "abs", "abs_", "absolute")),
        (_dropout, (functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d)),
        (_norm, (functional.batch_norm,)),
        (_convolution, (functional.conv2d,)),
        (
            _max_pool,
            (functional.max_pool2d, functional.max_pool2d_with_indices, torch.max_pool2d),
        ),
        (_avg_pool, (functional.avg_pool2d,)),
        (_padding, (functional.pad,)),
        (_flipped, (torch.flip, "flip")),
        (_nothing, ("contiguous", "clone", "detach", "float", torch.clone, torch.detach)),
    )
    for target in targets
}
