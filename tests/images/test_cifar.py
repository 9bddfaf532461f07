import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from reconstruct.errors import CallError
from reconstruct.images.cifar import load_cifar
from tests.builders import synthetic
from tests.builders.synthetic import labels_of, noise

NAMES = [f"kind{i}" for i in range(10)]


def test_what_the_tests_write_is_what_python_2_wrote() -> None:
    """The opcodes of CIFAR-10's published batches: strings of Python 2, and numpy's names of that time."""
    content = synthetic.python2_pickle({"data": noise(1).reshape(1, -1), "labels": [6, 9]})
    operations = [(code.name, argument) for code, argument, _ in pickletools.genops(content)]
    assert ("PROTO", 2) in operations
    assert ("GLOBAL", "numpy.core.multiarray _reconstruct") in operations
    assert ("GLOBAL", "numpy ndarray") in operations
    assert ("GLOBAL", "numpy dtype") in operations
    assert {"SHORT_BINSTRING", "BINSTRING"} <= {code for code, _ in operations}
    assert not {"BINUNICODE", "SHORT_BINBYTES", "BINBYTES"} & {code for code, _ in operations}


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def hostile(trace: Path) -> dict[str, bytes]:
    """Pickles that would create ``trace``, or that are no data."""
    run = f"touch {trace}"
    objects = numpy.empty(1, dtype=object)
    objects[0] = Calls(os.system, run)
    code = f"__import__('os').system({run!r})"
    return {
        "system": pickle.dumps({b"data": Calls(os.system, run)}),
        "eval": pickle.dumps({b"data": Calls(eval, code)}, 2),
        "exec in a key": pickle.dumps({Calls(exec, code): 1}, 4),
        "object array": pickle.dumps({b"data": objects, b"labels": [0]}),
        "numpy.load": pickle.dumps({b"data": Calls(numpy.load, str(trace))}),
        # A method reached through a class that is allowed: protocol 4 takes names with dots.
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
        "another attribute": b"cnumpy.core.multiarray\nfromfile\n.",
        "vast": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I1000000000000000\ntC\x01btR.",
        "not a dictionary": pickle.dumps([1, 2]),
        "truncated": synthetic.python2_pickle({"data": noise(2).reshape(2, -1), "labels": [0, 1]})[:3000],
        "empty": b"",
        "text": b"this is not a pickle",
    }


@pytest.mark.parametrize("name", hostile(Path()))
@pytest.mark.parametrize("where", ["data_batch_3", "batches.meta"])
def test_hostile_and_broken_pickles_are_refused(name: str, where: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    data = (noise(10), labels_of(10, 10))
    synthetic.cifar10_python(tmp_path / "cifar", data, data, NAMES)
    (tmp_path / "cifar" / where).write_bytes(hostile(trace)[name])
    with pytest.raises(CallError, match="CIFAR's files"):
        load_cifar(tmp_path / "cifar", "train")
    assert not trace.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"labels": [0] * 9},
        {"labels": [0] * 9 + [10]},
        {"labels": [0] * 9 + [-1]},
        {"labels": [0] * 9 + ["frog"]},
        {"labels": [0.5] * 10},
        {"labels": None},
        {"data": numpy.zeros((10, 3072), numpy.float32)},
        {"data": numpy.zeros((10, 3071), numpy.uint8)},
        {"data": numpy.array([[None] * 3072] * 10, dtype=object)},
        {"data": b"pixels"},
    ],
)
def test_pictures_and_labels_that_do_not_fit_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    data = (noise(10), labels_of(10, 10))
    synthetic.cifar10_python(tmp_path, data, data, NAMES)
    content = {"data": noise(10).reshape(10, 3072), "labels": [0] * 10} | changed
    (tmp_path / "test_batch").write_bytes(synthetic.python2_pickle(content))
    with pytest.raises(CallError):
        load_cifar(tmp_path, "test")


def test_broken_binary_files_are_refused(tmp_path: Path) -> None:
    data = (noise(10), labels_of(10, 10))
    synthetic.cifar10_binary(tmp_path, data, data, NAMES)
    whole = (tmp_path / "test_batch.bin").read_bytes()
    for content in (whole[:-1], whole + b"\0", b"", b"\x0a" + whole[1:]):
        (tmp_path / "test_batch.bin").write_bytes(content)
        with pytest.raises(CallError, match=r"no whole number|a label is 10"):
            load_cifar(tmp_path, "test")
