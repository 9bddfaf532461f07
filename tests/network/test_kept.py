"""What is kept of a network holds as long as nothing that it computes with has changed, and no longer."""

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from reconstruct import from_torch
from reconstruct.network.kept import forget, kept, kept_or_made, state
from tests.builders.modules import chain


def made(net: nn.Module) -> int:
    """A new number each time that it had to be made."""
    return kept(net, "number", lambda: next(NUMBERS))


NUMBERS = iter(range(10**6))


def flipped(net: nn.Module) -> None:
    """Filters in the opposite order, past the version counter: the sum over all of them stays."""
    weight = next(net.parameters())
    weight.data.copy_(weight.data.flip(0))


def negated(net: nn.Module) -> None:
    next(net.parameters()).data.neg_()


def loaded(net: nn.Module) -> None:
    net.load_state_dict({name: values + 1 for name, values in net.state_dict().items()})


def counted(net: nn.Module) -> None:
    """The statistics of a batch normalisation, which are buffers."""
    next(part for part in net.modules() if isinstance(part, nn.BatchNorm2d)).running_mean += 0.1


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "in place": lambda net: next(net.parameters()).add_(1e-3),
    "in place, through .data": negated,
    "filters change places, through .data": flipped,
    "load_state_dict": loaded,
    "another tensor": lambda net: setattr(net[0], "weight", nn.Parameter(net[0].weight.detach().clone())),
    "half": lambda net: net.half(),
    "double": lambda net: net.double(),
    "a buffer": counted,
    "another device": lambda net: net.to("meta"),
}


@pytest.fixture
def net() -> nn.Module:
    return chain().requires_grad_(False)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(net: nn.Module, change: str) -> None:
    first = made(net)
    assert made(net) == first
    before = state(net)
    CHANGES[change](net)
    assert state(net) != before
    assert made(net) != first
    assert made(net) == made(net)


def test_nothing_else_is(net: nn.Module) -> None:
    """A forward pass, a copy and what becomes of it, gradients switched on."""
    first = made(net)
    net.eval()(torch.rand(1, 3, 16, 16))
    other = copy.deepcopy(net)
    next(other.parameters()).zero_()
    net.requires_grad_(True)
    assert made(net) == first
    assert made(other) != first


def test_numbers_that_are_none_are_equal_to_themselves(net: nn.Module) -> None:
    next(net.parameters()).fill_(torch.nan)
    assert made(net) == made(net)


def test_each_key_has_its_own(net: nn.Module) -> None:
    assert kept_or_made(net, ("a", 1), lambda: 1) == (1, True)
    assert kept_or_made(net, ("a", 2), lambda: 2) == (2, True)
    assert kept_or_made(net, ("a", 1), lambda: 3) == (1, False)
    forget(net)
    assert kept_or_made(net, ("a", 1), lambda: 3) == (3, True)


def test_what_was_kept_goes_with_the_network() -> None:
    """Networks and what was made of them are freed, without waiting for the collector of cycles."""
    gc.collect()
    gc.disable()
    try:
        net = from_torch(chain(), input_size=24, name="chain")
        found = net.as_chain("9")
        assert found is not None
        assert found is net.as_chain("9")
        seen, own = weakref.ref(found), weakref.ref(net)
        del net, found
        assert own() is None
        assert seen() is None
    finally:
        gc.enable()


def test_a_network_that_is_sent_takes_nothing_along() -> None:
    """As Ray sends it to another machine: what was made on this one stays here, and is made anew there."""
    net = from_torch(chain(), input_size=24, name="chain")
    size = len(pickle.dumps(net))
    features = net.features(torch.rand(1, 3, 24, 24), "9")
    assert net.as_chain("9") is not None
    sent = pickle.dumps(net)
    assert len(sent) <= size + 100
    there = pickle.load(io.BytesIO(sent))
    next(there.parameters()).mul_(2)
    assert there.as_chain("9") is not net.as_chain("9")
    assert features.shape == there.features(torch.rand(1, 3, 24, 24), "9").shape
