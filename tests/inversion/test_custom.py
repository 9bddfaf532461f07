"""Methods of the user's: what they are given, how their work is counted, what they may return, and the page on them."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import reconstruct
from reconstruct import CallError, Inverted, Problem, load_model
from reconstruct.evaluation.results import read_rows, read_run
from reconstruct.inversion.residual import feature_residual
from reconstruct.network.architecture import Layer
from reconstruct.network.network import Network
from reconstruct.operators.forward import Forward
from reconstruct.user_function import function_named
from tests.builders.networks import randn, random_net
from tests.conftest import ROOT, Call

SMALL = ("--model", "convpool_cnn_c_crelu", "--layer", "conv1", "--json")


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own_method.md").read_text(), flags=re.DOTALL)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page's method as a file in the current folder, of a name that no other test has imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = f"own_{tmp_path.name}"
    Path(f"{module}.py").write_text(examples()[0])
    return module


def small(activation: str = "crelu") -> Network:
    return random_net(Layer("conv1", 4, 3, 2, 1, "crelu"), Layer("conv2", 5, 3, 1, 1, activation))


def solve(
    net: Network, images: torch.Tensor, method: Callable[[Problem], object], **options: float
) -> reconstruct.Result:
    size = (images.shape[2], images.shape[3])
    return reconstruct.invert(net, net.features(images, "conv2"), "conv2", method, size=size, **options)  # type: ignore[arg-type]


@pytest.fixture
def images(generator: torch.Generator) -> torch.Tensor:
    return torch.rand(2, 3, 12, 11, generator=generator)


@pytest.mark.parametrize("activation", ["crelu", "relu", "leaky_relu", "avr", "none"])
def test_what_it_is_given(images: torch.Tensor, activation: str) -> None:
    """f(x) of the image itself is the target, J is autograd's, and the residual is what Result says."""
    net = small(activation)

    def method(problem: Problem) -> torch.Tensor:
        torch.testing.assert_close(problem.forward(images), problem.target, rtol=0, atol=1e-6)
        assert float(problem.residual(images).max()) < 1e-6
        at = problem.linearise(images)
        torch.testing.assert_close(at.values, problem.target, rtol=0, atol=1e-5)
        v, u = randn(*images.shape, seed=1), randn(*problem.target.shape, seed=2)
        _, expected = torch.autograd.functional.jvp(problem.f, images, v)
        torch.testing.assert_close(problem.product(at, v), expected, rtol=0, atol=1e-4)
        _, pulled = torch.autograd.functional.vjp(problem.f, images, u)
        torch.testing.assert_close(problem.transposed(at, u), pulled, rtol=0, atol=1e-4)
        return images + 0.1

    result = solve(net, images, method)
    assert result.feature_residual == feature_residual(
        Forward(net, "conv2"), images + 0.1, net.features(images, "conv2")
    )
    assert result.status == ["ended", "ended"]
    assert solve(net, images, lambda problem: images).status == ["converged", "converged"]


def test_work_is_counted(images: torch.Tensor) -> None:
    """On each of two images: 3 of a gradient, 1 and 1 and 1 of J, 1 of a residual, half of a pass on one image."""
    seen: list[float] = []

    def method(problem: Problem) -> torch.Tensor:
        x = images.clone().requires_grad_(True)
        problem.misfit(problem.forward(x)).sum().backward()
        assert x.grad is not None
        assert problem.passes == 3
        problem.transposed(at := problem.linearise(images), problem.product(problem.linearise(images), images))
        assert problem.passes == 3 + 4
        problem.transposed(at[torch.tensor([True, False])], problem.target[:1])
        problem.residual(images)
        problem.spend(10, 2)
        problem.show(images)
        return images

    options = {"tolerance": 0.5, "budget": 30.0}
    result = solve(small(), images, method, watch=lambda passes, _: seen.append(passes), **options)  # type: ignore[arg-type]
    assert seen == [3 + 4 + 0.5 + 1 + 10]
    assert result.forward_passes == seen * 2
    assert result.iterations == [5, 5]
    assert (result.prepare_passes, result.image.dtype) == (0, torch.float32)


def test_limits_and_defaults(images: torch.Tensor) -> None:
    net, found = small(), []
    solve(net, images, lambda problem: found.append(problem) or images)
    solve(net, images, lambda problem: found.append(problem) or images, tolerance=0.1, budget=7, noise=0.2, seed=3)
    assert [(each.tolerance, each.budget, each.noise, each.seed) for each in found] == [
        (1e-4, 450, 0, 0), (0.1, 7, 0.2, 3)
    ]  # fmt: skip
    none = solve(net, images[:0], found.append)
    assert none.image.shape == (0, 3, 12, 11)
    assert len(found) == 2


def test_a_network_that_is_no_chain(images: torch.Tensor) -> None:
    """All but J works where the layers cannot be had."""
    net = small()
    net.convolution = None  # type: ignore[assignment]

    def method(problem: Problem) -> torch.Tensor:
        x = problem.prior.mean.expand(2, 3, 12, 11).clone().requires_grad_(True)
        before = problem.misfit(problem.forward(x))
        (slope,) = torch.autograd.grad(before.sum(), x)
        x = x.detach() - 1e-3 * slope / slope.norm()
        assert bool((problem.residual(x) < before).all())
        return x

    assert solve(net, images, method).forward_passes == [4, 4]


def test_what_it_may_return(images: torch.Tensor) -> None:
    net = small()
    assert solve(net, images, lambda problem: (images, ["lost", "found"])).status == ["lost", "found"]
    said = Inverted(images.double(), ["a", "b"], [1, 2], [3.0, 4.0], 5.0, 6.0)
    result = solve(net, images, lambda problem: said)
    assert (result.status, result.iterations, result.forward_passes) == (["a", "b"], [1, 2], [3.0, 4.0])
    assert (result.prepare_passes, result.image.dtype) == (6.0, torch.float32)
    broken = images.clone()
    broken[1, 0, 0, 0] = torch.nan
    for returned, message in (
        (None, "returned NoneType; it is to return images of 2 x 3 x 12 x 11"),
        (images[:1], "returned 1 x 3 x 12 x 11"),
        (images.long(), "torch.int64"),
        (broken, "not finite, in 1 of 2 images"),
        (images.to("meta"), "images on meta, the features are on cpu"),
        ((images, ["found"]), "one entry an image, 2"),
        (Inverted(images, ["a", "b"], [1], [3.0, 4.0], 5.0, 6.0), "one entry an image, 2"),
    ):
        with pytest.raises(CallError, match=message):
            solve(net, images, lambda problem, returned=returned: returned)  # type: ignore[misc]
    with pytest.raises(CallError, match="not int"):
        solve(net, images, 3)  # type: ignore[arg-type]


def test_it_takes_the_problem_alone(images: torch.Tensor) -> None:
    for method in (lambda: images, lambda net, features, layer: images, lambda *, problem: images):
        with pytest.raises(CallError, match=r"method <lambda> is to take one argument, the problem"):
            solve(small(), images, method)
    for method in (lambda *given: images, lambda problem, steps=3, **options: images):
        assert torch.equal(solve(small(), images, method).image, images)


def test_its_errors_pass_through(images: torch.Tensor) -> None:
    error = KeyError("mine")

    def method(problem: Problem) -> torch.Tensor:
        raise error

    with pytest.raises(KeyError) as caught:
        solve(small(), images, method)
    assert caught.value is error


def test_the_page(net: Network, photograph: torch.Tensor) -> None:
    """At most 30 lines. At conv2 3 dB better than least squares layer by layer, half of their squared error; at conv1,
    a linear problem, 40 dB, an error of a hundredth of the range."""
    code, _ = examples()
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 30
    names: dict[str, Callable[[Problem], object]] = {}
    exec(code, names)
    for layer in ("conv1", "conv2"):
        features = net.features(photograph, layer)
        result = reconstruct.invert(net, features, layer, names["gauss_newton"], budget=150)
        assert 100 < result.forward_passes[0] <= 150
        (psnr,) = reconstruct.quality(photograph, result.image).psnr
        linear = reconstruct.invert(net, features, "conv2", "linear").image if layer == "conv2" else None
        baseline = 40.0 if linear is None else reconstruct.quality(photograph, linear).psnr[0] + 3
        assert psnr > baseline


def test_the_example_for_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.jpg").symlink_to(ROOT / "samples" / "chelsea.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, torch.Tensor] = {}
    exec(examples()[1], names)
    image, jacobian = names["image"], names["J"]
    found = torch.from_numpy(names["found"]).float()
    assert reconstruct.quality(image[None], found[None]).psnr[0] > 30
    for value, row in zip(names["values"], names["right"], strict=True):
        assert float(((jacobian @ row) ** 2).sum()) ** 0.5 == pytest.approx(value, rel=1e-6)


def test_on_the_command_line(call: Call, own: str, tmp_path: Path) -> None:
    """In the main job beside another method, and in evaluate, where a run goes on only with the same code."""
    sample, name = ROOT / "samples" / "chelsea.jpg", f"{own}:gauss_newton"
    status, out, err = call(sample, *SMALL, "--method", f"linear,{name}", "--budget", 40, "--output", tmp_path / "main")
    assert (status, err) == (0, "")
    first, second = json.loads(out)
    assert (first["method"], second["method"]) == ("linear", name)
    assert second["output"].endswith(f"chelsea.convpool_cnn_c_crelu.conv1.{own}.gauss_newton.png")
    assert Path(second["output"]).is_file()
    assert 20 < second["forward_passes"] <= 40
    assert second["psnr"] > 20

    results = tmp_path / "results"
    arguments = ("evaluate", ROOT / "samples", *SMALL, "--method", name, "--limit", 2, "--output", results)
    status, out, err = call(*arguments, "--budget", 20)
    assert status == 0, err
    assert {row["method"] for row in read_rows(results).to_pylist()} == {name}
    assert read_run(results)["settings"]["own_methods"].keys() == {name}
    assert not [path for path in (results / "thumbnails").iterdir() if ":" in path.name]
    with Path(f"{own}.py").open("a") as file:
        file.write("# changed\n")
    status, out, err = call(*arguments, "--budget", 20)
    assert status == 2
    assert "results of another call" in err


def test_wrong_names(call: Call, own: str, tmp_path: Path) -> None:
    Path(f"{own}_bad.py").write_text("def broken(:\n")
    Path(f"{own}_lacks.py").write_text("import nothing_of_this_name\n")
    for name, message in (
        ("nowhere_at_all:f", "nowhere_at_all cannot be imported"),
        (f"{own}_bad:f", "cannot be imported: invalid syntax"),
        (f"{own}_lacks:f", "No module named 'nothing_of_this_name'"),
        (f"{own}:newton", f"{own} has no function newton"),
        (f"{own}:RIDGE", "RIDGE is float, not a function"),
        (f"{own}.py:gauss_newton", f"not '{own}.py:gauss_newton'; {own}:gauss_newton?"),
        (":f", "package.module:function"),
        ("maps", "did you mean map?"),
    ):
        status, out, err = call(
            ROOT / "samples" / "chelsea.jpg", *SMALL, "--method", name, "--output", tmp_path / "out"
        )
        assert (status, out) == (2, ""), name
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert callable(function_named("torch:clone", "method"))


@pytest.mark.parametrize("layer", ["conv2", "pool1", "conv4"])
def test_the_pages_method_at_relu_and_above_a_max_pooling(layer: str) -> None:
    """Where no linear responses are kept, and ``linear`` does not reach: closer than the prior's mean by far."""
    names: dict[str, Callable[[Problem], object]] = {}
    exec(examples()[0], names)
    net = load_model("convpool_cnn_c")
    image = reconstruct.load_image(ROOT / "samples" / "coffee.jpg", 32)[None]
    features = net.features(image, layer)
    result = reconstruct.invert(net, features, layer, names["gauss_newton"], budget=150)
    mean = Problem(net, layer, (32, 32), features).prior.mean.expand_as(image)
    assert result.feature_residual < feature_residual(Forward(net, layer), mean, features)
    found, flat = (reconstruct.quality(image, each).psnr[0] for each in (result.image, mean))
    assert found > flat + 3
