import gzip
import os
import pickle
import pickletools
import tarfile
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


@pytest.mark.parametrize("labels", [[2**31 - 1] * 10, [2**62] * 10, [10**400] * 10, [[0]] * 10, [True] * 10])
@pytest.mark.parametrize("named", [True, False])
def test_labels_are_checked_before_anything_is_made_of_them(labels: list[Any], named: bool, tmp_path: Path) -> None:
    """A list of as many names as the largest label would take gigabytes."""
    data = (noise(10), labels_of(10, 10))
    synthetic.cifar10_python(tmp_path, data, data, NAMES)
    if not named:
        (tmp_path / "batches.meta").unlink()
    (tmp_path / "test_batch").write_bytes(
        synthetic.python2_pickle({"data": noise(10).reshape(10, 3072), "labels": labels})
    )
    with pytest.raises(CallError, match=r"a label is \d+, of 10 classes|these are not CIFAR's files"):
        load_cifar(tmp_path, "test")


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    data = (noise(10), labels_of(10, 10))
    synthetic.cifar10_binary(tmp_path, data, data, NAMES)
    (tmp_path / "batches.meta.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(CallError, match=r"batches\.meta\.txt holds no classes' names: it is not UTF-8"):
        load_cifar(tmp_path, "test")


@pytest.mark.parametrize("form", ["cifar10_python", "cifar100_python", "cifar10_binary", "cifar100_binary"])
def test_archives_and_folders_as_they_are_downloaded(form: str, tmp_path: Path) -> None:
    """The folder, the one above it, which is torchvision's root, and the archive, packed and unpacked."""
    inside = {
        "cifar10_python": "cifar-10-batches-py", "cifar100_python": "cifar-100-python",
        "cifar10_binary": "cifar-10-batches-bin", "cifar100_binary": "cifar-100-binary",
    }[form]  # fmt: skip
    names = [f"kind{i}" for i in range(100 if "100" in form else 10)]
    train, test = (noise(10, seed=1), labels_of(10, 10)), (noise(7, seed=2), labels_of(7, 7))
    getattr(synthetic, form)(tmp_path / "root" / inside, train, test, names)
    for name, mode in (("cifar.tar.gz", "w:gz"), ("cifar.tar", "w")):
        with tarfile.open(tmp_path / name, mode) as tar:  # type: ignore[call-overload]
            tar.add(tmp_path / "root" / inside, inside)
    for place in ("root", f"root/{inside}", "cifar.tar.gz", "cifar.tar"):
        for split, (images, labels) in (("train", train), ("test", test)):
            found = load_cifar(tmp_path / place, split)
            assert found is not None
            assert numpy.array_equal(found.images, images)
            assert numpy.array_equal(found.labels, labels)
            assert found.classes == names


def test_archives_that_are_others_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    for content in (b"", b"text", gzip.compress(b"text"), gzip.compress(bytes(3000))):
        path.write_bytes(content)
        assert load_cifar(path, "test") is None
    data = (noise(200), labels_of(200, 10))
    synthetic.cifar10_binary(tmp_path / "cifar-10-batches-bin", data, data, NAMES)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    path.write_bytes(path.read_bytes()[:-400_000])
    with pytest.raises(CallError, match="is damaged, cut off or larger than CIFAR"):
        load_cifar(path, "test")
    # A header that claims more than any file has: a stream would be read behind its end for ever.
    info = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    info.size = 2**60
    for name in ("cifar-10-batches-bin/test_batch.bin", "other"):
        info.name = name
        path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)))
        assert load_cifar(path, "test") is None
