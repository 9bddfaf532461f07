"""Imports run downwards, and in no circle: the picture of folders in ``docs/architecture.md`` is held here.

Every module is parsed, not run. Imports inside functions and those for types alone count like any other: a reader who
follows a name through the code does not care when it was imported.
"""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

LEVELS: list[set[str]] = [
    {"errors", "version", "extras", "threads"},
    {"user_function"},
    {"network"},
    {"images"},
    {"operators"},
    {"solvers"},
    {"prior"},
    {"zoo"},
    {"inversion"},
    {"evaluation", "training", "analysis"},
    {"report"},
    {"app"},
    {"commands"},
    {"__main__"},
]
"""What lies directly in ``reconstruct``, lowest first. A folder imports what is below it, and from itself."""
HEIGHT = {name: height for height, names in enumerate(LEVELS) for name in names}
PACKAGE = "reconstruct"


@dataclass(frozen=True)
class Import:
    """A line of one module that needs another; modules by their dotted names below the package."""

    module: str
    needs: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.module} imports {self.needs}"


def modules_of(root: Path) -> dict[str, Path]:
    """Every module below the package by its dotted name, a folder's ``__init__`` by the folder's."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(root: Path) -> Iterator[Import]:
    """Every import of the package by one of its modules, wherever in the module it stands."""
    modules = modules_of(root)
    for module, path in modules.items():
        if not module:
            continue  # the root names the homes of the public names, and nobody may import it
        for node in ast.walk(ast.parse(path.read_text(), path)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = _targets(node, module, is_folder=path.name == "__init__.py")
                for needs in sorted({_module(name, modules) for name in names}):
                    yield Import(module, needs, f"{path.relative_to(root)}:{node.lineno}")


def _targets(node: ast.Import | ast.ImportFrom, module: str, *, is_folder: bool) -> list[str]:
    """Full dotted names that a statement imports from the package."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        start = [node.module] if node.module else []
        if node.level:  # a relative import
            here = [PACKAGE, *module.split(".")]
            start = here[: len(here) - node.level + is_folder] + start
        names = [".".join([*start, alias.name]) for alias in node.names]
    return [name for name in names if name.split(".")[0] == PACKAGE]


def _module(name: str, modules: dict[str, Path]) -> str:
    """The longest part of a dotted name that is a module; the empty one is the package's root."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


def upward(imports: list[Import]) -> list[str]:
    """Imports of the package's root, of something higher, and of a neighbour on the same height."""
    wrong = []
    for each in imports:
        here, there = each.module.split(".")[0], each.needs.split(".")[0]
        if not there:
            wrong.append(f"{each}the package's root")
        elif here != there and HEIGHT[there] >= HEIGHT[here]:
            wrong.append(str(each))
    return wrong


def circles(imports: list[Import]) -> list[str]:
    """Imports that lie on a circle of modules."""
    needs: dict[str, set[str]] = {}
    for each in imports:
        if each.module != each.needs:
            needs.setdefault(each.module, set()).add(each.needs)

    def reaches(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = needs.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reached = {module: reaches(module) for module in needs}
    return [
        str(each) for each in imports if each.module != each.needs and each.module in reached.get(each.needs, set())
    ]


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return list(imports_of(ROOT))


def test_every_folder_has_its_height(imports: list[Import]) -> None:
    """A new folder takes its place in ``LEVELS``, in the picture and on the page; one that has gone leaves them."""
    present = {module.split(".")[0] for module in modules_of(ROOT) if module}
    assert present == set(HEIGHT)
    assert len(imports) > 300

    picture = runpy.run_path(str(ROOT / "docs" / "folders.py"))
    assert picture["PICTURE"].read_text() == picture["folders_picture"](), "python docs/folders.py draws it anew"
    drawn = [name.removesuffix(".py").removesuffix("/") for row in reversed(picture["FOLDERS"]) for name in row]
    assert set(drawn) == present - {"__main__"}
    assert [HEIGHT[name] for name in drawn if name != "user_function"] == sorted(
        HEIGHT[name] for name in drawn if name != "user_function"
    )
    page = (ROOT / "docs" / "architecture.md").read_text()
    for name in drawn:
        assert f"`{name}/`" in page or f"`{name}.py`" in page, name


def test_the_page_names_files_that_exist() -> None:
    """Those named by their paths in the way of an image and in the table of folders."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", page))
    assert len(named) > 25
    assert [name for name in sorted(named) if not any((top / name).is_file() for top in (ROOT / PACKAGE, ROOT))] == []


def test_imports_run_downwards(imports: list[Import]) -> None:
    assert upward(imports) == []


def test_no_circle(imports: list[Import]) -> None:
    assert circles(imports) == []


def test_what_goes_wrong_is_found(tmp_path: Path) -> None:
    """Each kind of import that is not allowed, in whatever form it is written."""
    sources = {
        "network/low.py": "def f():\n    from reconstruct.zoo import load\n",
        "network/typed.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import reconstruct.zoo.load\n",
        "network/relative.py": "from ..zoo.load import load\n",
        "network/fine.py": "import torch\nfrom . import low\nfrom reconstruct import errors\n",
        "zoo/load.py": "import reconstruct\nfrom reconstruct.zoo.circle import name\n",
        "zoo/circle.py": "from reconstruct.zoo.load import load\n",
        "analysis/first.py": "from reconstruct.training.loop import Loop\n",
        "training/loop.py": "",
        "errors.py": "",
    }
    for name, source in sources.items():
        path = tmp_path / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        (path.parent / "__init__.py").touch()
    found = list(imports_of(tmp_path))
    assert sorted(upward(found)) == [
        "reconstruct/analysis/first.py:1: analysis.first imports training.loop",
        "reconstruct/network/low.py:2: network.low imports zoo.load",
        "reconstruct/network/relative.py:1: network.relative imports zoo.load",
        "reconstruct/network/typed.py:3: network.typed imports zoo.load",
        "reconstruct/zoo/load.py:1: zoo.load imports the package's root",
    ]
    assert sorted(circles(found)) == [
        "reconstruct/zoo/circle.py:1: zoo.circle imports zoo.load",
        "reconstruct/zoo/load.py:2: zoo.load imports zoo.circle",
    ]
