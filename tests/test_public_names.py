"""The public names: exactly these, each importable, documented, and shown at work in an example."""

import doctest
import inspect
import re
import subprocess
import sys

import pytest

import reconstruct
from tests.conftest import ROOT

NAMES = [
    "Architecture",
    "CallError",
    "Convolution",
    "FeatureError",
    "ImageError",
    "Inverted",
    "ModelError",
    "Network",
    "Problem",
    "Quality",
    "ReconstructError",
    "ReconstructWarning",
    "Result",
    "__version__",
    "describe",
    "disturb",
    "fold_batch_norm",
    "frame",
    "from_torch",
    "invert",
    "linear_operator",
    "linear_responses",
    "load_image",
    "load_model",
    "model_names",
    "quality",
    "save_image",
    "save_pretrained",
]
"""What users may rely on. A name joins on purpose, with a line in the change log, and none leaves unannounced."""
SHOWN = [name for name in NAMES if name != "__version__"]


def test_they_are_exactly_these() -> None:
    assert sorted(reconstruct.__all__) == NAMES
    assert sorted(dir(reconstruct)) == NAMES
    assert isinstance(reconstruct.__version__, str)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        reconstruct.nonsense  # noqa: B018


@pytest.mark.parametrize("name", SHOWN)
def test_it_is_imported_from_the_package_and_is_itself(name: str) -> None:
    """What a name gives is what its module calls by the same name."""
    found = getattr(reconstruct, name)
    assert found.__name__ == name
    assert getattr(sys.modules[found.__module__], name) is found


def test_star_import_gives_them_and_help_needs_no_torch() -> None:
    script = (
        "import sys, reconstruct; assert 'torch' not in sys.modules; before = set(globals()); "
        "exec('from reconstruct import *'); print(*sorted(set(globals()) - before - {'before'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # __version__ is in __all__, so a star takes it along.
    assert done.stdout.split() == NAMES


def test_the_reference_has_each_once() -> None:
    page = (ROOT / "docs" / "reference" / "public.md").read_text()
    assert sorted(re.findall(r"^::: reconstruct\.(\S+)$", page, flags=re.MULTILINE)) == SHOWN


@pytest.mark.parametrize("name", SHOWN)
def test_it_is_shown_at_work(name: str) -> None:
    """Its docstring has a section Examples with a session, which ``test_doctests.py`` runs; a function's calls it."""
    public = getattr(reconstruct, name)
    docstring = inspect.getdoc(public) or ""
    assert re.search(r"^Examples\n-{8}$", docstring, flags=re.MULTILINE), f"{name} has no section Examples"
    session = doctest.DocTestParser().get_examples(docstring)
    assert session, f"{name}'s Examples show no session"
    if inspect.isfunction(public):
        assert any(f"reconstruct.{name}(" in example.source for example in session), f"{name} is not called"
