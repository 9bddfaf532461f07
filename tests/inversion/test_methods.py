"""What methods declare is what they do, and what the command line, the page and the documentation say of them."""

import inspect
import re

import pytest
import torch

from reconstruct import CallError, invert
from reconstruct.commands.evaluate import evaluate
from reconstruct.commands.invert import invert as main_job
from reconstruct.inversion.methods import METHODS, applicable, method_of
from reconstruct.network.architecture import Layer
from tests.builders.networks import random_net
from tests.conftest import ROOT

EVERY = {"tolerance", "budget"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_options_that_it_declares_and_no_others(name: str) -> None:
    method = METHODS[name]
    assert method.name == name
    keywords = inspect.signature(method.invert).parameters.values()
    assert {each.name for each in keywords if each.kind is each.KEYWORD_ONLY} == method.options | EVERY
    assert method.options | EVERY <= set(inspect.signature(invert).parameters)


def test_the_user_s_own_are_declared_like_the_built_in_ones() -> None:
    method = method_of(lambda problem: problem.prior.mean.expand(len(problem), -1, *problem.size))
    keywords = {
        name for name, each in inspect.signature(method.invert).parameters.items() if each.kind is each.KEYWORD_ONLY
    }
    assert keywords == method.options | EVERY


@pytest.mark.parametrize("command", [main_job, evaluate])
def test_the_command_line_has_every_option(command: object) -> None:
    """All but ``watch``, which is a function."""
    wanted = set().union(EVERY, *(method.options for method in METHODS.values())) - {"watch"}
    assert wanted <= set(inspect.signature(command).parameters)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("activation", ["crelu", "relu", "avr", "none"])
@pytest.mark.parametrize("pool", [(), (Layer("pool1", kernel=2, stride=2, kind="max_pool"),)], ids=["", "pooled"])
def test_what_is_refused_and_what_is_not(name: str, activation: str, pool: tuple[Layer, ...]) -> None:
    """Where a method says nothing against a layer it inverts it; where it does, ``invert`` says the same."""
    net = random_net(Layer("conv1", 8, 3, 1, 1, activation), *pool, Layer("conv2", 8, 3, 1, 1, "none"))
    features = net.features(torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), "conv2")
    reason = applicable(net, "conv2", name)
    needs_crelu = name in ("linear", "wiener")
    assert (reason is not None) == (needs_crelu and (activation in ("relu", "avr") or bool(pool)))
    if reason is None:
        result = invert(net, features, "conv2", name, size=16, budget=12)
        assert result.image.shape == (1, 3, 16, 16)
        assert max(result.forward_passes) <= 12
    else:
        with pytest.raises(CallError, match=re.escape(reason)):
            invert(net, features, "conv2", name, size=16)


def test_the_page_on_methods_says_what_they_declare() -> None:
    table = [
        line.split("|")[2:-1]
        for line in (ROOT / "docs" / "methods.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    names = [re.findall(r"`(\w+)`", cell)[0] for cell in table[0]]
    assert names == list(METHODS)
    lines = (ROOT / "docs" / "methods.md").read_text().splitlines()
    for row, said in (
        ("runs until", lambda method: f"{method.budget:g} forward passes"),
        ("knows of noise", lambda method: "weighs" if "noise" in method.options else "no"),
    ):
        cells = next(line for line in lines if line.startswith(f"| {row} ")).split("|")[2:-1]
        for name, cell in zip(names, cells, strict=True):
            assert said(METHODS[name]) in cell, (row, name)
