"""What the code asks of CuPy, held against CuPy's own signatures, without a GPU.

The code reaches CuPy in two ways: as ``xp``, wherever ``arrays.namespace`` gives it, and by name in ``arrays.py``.
Every name and every keyword that is used is looked up in CuPy, which imports on a CPU.
"""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

cupy = pytest.importorskip("cupy", reason="CuPy has no wheel for this platform")

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "reconstruct").rglob("*.py"))
# Methods of arrays that the code calls, beside NumPy's and CuPy's shared Python protocols.
ARRAY_METHODS = {
    "all",
    "any",
    "argsort",
    "astype",
    "copy",
    "max",
    "min",
    "reshape",
    "sum",
    "swapaxes",
    "tolist",
    "transpose",
}


def names_used(tree: ast.AST, root: str) -> Iterator[tuple[str, ast.Call | None]]:
    """Dotted names below ``root`` (``xp.linalg.svd`` gives ``linalg.svd``), with the call where it is one."""
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            parts, at = [], node
            while isinstance(at, ast.Attribute):
                parts.append(at.attr)
                at = at.value
            if (isinstance(at, ast.Name) and at.id == root) or (
                isinstance(at, ast.Call) and root == "cupy" and getattr(at.func, "id", "") == "_cupy"
            ):
                yield ".".join(reversed(parts)), calls.get(id(node))


def asked_of_cupy() -> list[tuple[str, str, ast.Call | None]]:
    found = []
    for path in FILES:
        tree = ast.parse(path.read_text())
        found += [(path.name, name, call) for name, call in names_used(tree, "xp")]
        if path.name == "arrays.py":
            found += [(path.name, name, call) for name, call in names_used(tree, "cupy")]
        for node in ast.walk(tree):
            # arrays.namespace(a).sqrt(...)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of = node.func.value
                if isinstance(of, ast.Call) and getattr(of.func, "attr", "") == "namespace":
                    found.append((path.name, node.func.attr, node))
    return found


ASKED = asked_of_cupy()


def look_up(name: str) -> object:
    value: object = cupy
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(("file", "name", "call"), ASKED, ids=[f"{file}-{name}" for file, name, _ in ASKED])
def test_cupy_has_the_name_and_takes_the_call(file: str, name: str, call: ast.Call | None) -> None:
    if name in ("cuda.get_current_stream.ptr",):
        name = "cuda.get_current_stream"
    function = look_up(name)
    if call is None:
        return
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
    positional = [None] * sum(not isinstance(argument, ast.Starred) for argument in call.args)
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        # Universal functions and compiled ones keep theirs in the first line of the docstring.
        documented = (getattr(function, "__doc__", None) or "").split("\n")[0]
        for keyword in keywords:
            assert keyword in documented or isinstance(function, cupy.ufunc), (name, keyword, documented)
        return
    signature.bind_partial(*positional, **keywords)


def test_the_walk_sees_what_the_code_uses() -> None:
    """So that the test above cannot pass by looking at nothing."""
    names = {name for _, name, _ in ASKED}
    assert {"linalg.svd", "linalg.eigvalsh", "from_dlpack", "cuda.using_allocator"} <= names
    assert {"sqrt", "where", "flip", "ascontiguousarray", "cuda.PythonFunctionAllocator"} <= names
    with pytest.raises(AttributeError):
        look_up("linalg.nonsense")
    keywords = {keyword.arg for _, name, call in ASKED if name == "linalg.svd" and call for keyword in call.keywords}
    assert keywords == {"full_matrices"}


@pytest.mark.parametrize("method", ARRAY_METHODS)
def test_arrays_have_the_methods_that_are_called(method: str) -> None:
    assert callable(getattr(cupy.ndarray, method))


def test_streams_cross_from_torch() -> None:
    import torch

    assert hasattr(torch.cuda.Stream, "__cuda_stream__")
    assert callable(cupy.cuda.Stream.from_external)
    assert list(inspect.signature(torch.cuda.caching_allocator_alloc).parameters)[:3] == ["size", "device", "stream"]


def test_only_arrays_names_cupy() -> None:
    """Beside it only the command line asks, once, whether CuPy is installed."""
    for path in FILES:
        imports = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        named = {alias.name for node in imports for alias in node.names} | {getattr(n, "module", "") for n in imports}
        assert ("cupy" in named) == (path.name == "arrays.py"), path
