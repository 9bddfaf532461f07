"""Whole files of every kind, small, made once in a process."""

import io
import json
import pickle
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy
import torch
from PIL import Image
from safetensors.torch import save

from tests.builders.results_folder import random_rows, run_json
from tests.builders.synthetic import noise, python2_pickle
from tests.fuzz.mutations import deepened

CONFIG: dict[str, Any] = {
    "library_name": "reconstruct", "library_version": "0.1.0", "format": 1, "dtype": "float32", "name": "x",
    "base": None, "source": "t", "input_size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2],
    "input_dropout": 0.1, "crelu_order": "positive phases first",
    "layers": [
        {"name": "conv1", "filters": 4, "kernel": 3, "stride": 1, "padding": 1, "activation": "crelu"},
        {"name": "pool1", "kernel": 2, "stride": 2, "padding": 0, "dropout": 0.0, "kind": "max_pool"},
        {"name": "conv2", "filters": 6, "kernel": 3, "stride": 2, "activation": "leaky_relu", "slope": 0.1},
        {"name": "conv3", "filters": 5, "kernel": 1, "activation": "none", "dropout": 0.5},
    ],
    "damping": {"conv1": {"conv1": 0.1}}, "torchvision": {"conv1": "f.0", "conv2": "f.1", "conv3": "f.2"},
    "splits": {"s1": {"layer": "conv1", "tap": "responses"}}, "id2label": {str(each): f"c{each}" for each in range(5)},
}  # fmt: skip
SPECIFICATION = {key: CONFIG[key] for key in ("source", "input_size", "mean", "std", "input_dropout", "layers")} | {
    "weights": "w.safetensors", **{key: CONFIG[key] for key in ("splits", "damping", "torchvision")},
}  # fmt: skip
SHAPES = {"conv1": (4, 3, 3, 3), "conv2": (6, 8, 3, 3), "conv3": (5, 6, 1, 1)}


def toml(table: Any) -> str:
    """A tree as TOML, as far as TOML has it: inline tables, and nothing for None."""
    text = "".join(f"{json.dumps(key)} = {_toml(each)}\n" for key, each in table.items() if each is not None)
    return deepened(text)


def as_json(tree: Any) -> bytes:
    return deepened(json.dumps(tree)).encode()


def _toml(each: Any) -> str:
    if isinstance(each, dict):
        return (
            "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in each.items() if one is not None) + "}"
        )
    if isinstance(each, list | tuple):
        return "[" + ", ".join(_toml(one) for one in each if one is not None) + "]"
    if isinstance(each, str):
        return json.dumps(each)
    return {True: "true", False: "false"}[each] if isinstance(each, bool) else repr(each)


def state(prefix: str = "", names: tuple[str, ...] = ("conv1", "conv2", "conv3")) -> dict[str, torch.Tensor]:
    """Weights of ``CONFIG``'s layers, under these names."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in zip(names, SHAPES.values(), strict=True):
        found[f"{prefix}{name}.weight"] = 0.1 * torch.randn(shape, generator=generator)
        found[f"{prefix}{name}.bias"] = torch.zeros(shape[0])
    return found


def saved(value: Any, **options: Any) -> bytes:
    """What ``torch.save`` writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


@cache
def weights() -> bytes:
    return save(state())


def picture(form: str = "PNG", mode: str = "RGB", side: int = 12, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pixels = numpy.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


@cache
def pictures() -> dict[str, bytes]:
    """A picture of every form, by a name that ends as such files do."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    frames = [Image.new("P", (9, 9), value) for value in (1, 2, 3)]
    animated = io.BytesIO()
    frames[0].save(animated, "GIF", save_all=True, append_images=frames[1:])
    deep = io.BytesIO()
    Image.fromarray(numpy.arange(144, dtype=numpy.uint16).reshape(12, 12)).save(deep, "PNG")
    found = {
        "a.jpg": picture("JPEG", exif=exif.tobytes()), "b.jpg": picture("JPEG", "CMYK"),
        "c.jpg": picture("JPEG", progressive=True), "d.jpg": picture("JPEG", "L"), "animated.gif": animated.getvalue(),
        "deep.png": deep.getvalue(), "e.webp": picture("WEBP"), "f.webp": picture("WEBP", "RGBA", lossless=True),
        "g.bmp": picture("BMP"), "h.ppm": picture("PPM"), "i.pgm": picture("PPM", "L"), "j.bmp": picture("BMP", "P"),
    }  # fmt: skip
    found |= {f"{mode}.png": picture("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    found |= {
        f"{how}.tif": picture("TIFF", compression=how)
        for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    }
    return found


def tar(
    members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT, links: tuple[tuple[str, str], ...] = ()
) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for number, (name, target) in enumerate(links):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.LNKTYPE, tarfile.SYMTYPE)[number % 2], target
            archive.addfile(info)
    return buffer.getvalue()


@cache
def archives() -> list[bytes]:
    png, jpg = pictures()["RGB.png"], pictures()["a.jpg"]
    plain = [("a.png", png), ("b/c.jpg", jpg), ("b/c.cls", b"3")]
    return [
        tar(plain),
        tar([("x" * 150 + ".png", png), ("é.png", png)], tarfile.GNU_FORMAT),
        tar([("x" * 150 + ".png", png), ("é.png", png)], tarfile.PAX_FORMAT),
        tar(plain, links=(("d.png", "a.png"), ("b/e.png", "../a.png"), ("f.png", "f.png"), ("g.png", "nothing"))),
        tar([("n1.tar", tar(plain)), ("n2.tar", tar([("z.png", png)]))], tarfile.USTAR_FORMAT),
        tar([]),
    ]


def zipped(deflated: bool) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        for name, content in (("a.png", pictures()["RGB.png"]), ("b/c", pictures()["a.jpg"]), ("b/d.txt", b"3" * 99)):
            archive.writestr(name, content)
    return buffer.getvalue()


def batch(count: int = 4, protocol: int = 2, **changes: Any) -> bytes:
    """A batch of CIFAR-10, of Python 2 or, by the protocol, of Python 3."""
    content: dict[str, Any] = {
        "batch_label": "b", "labels": [each % 10 for each in range(count)],
        "data": noise(count).reshape(count, 3072), "filenames": [f"{each}.png" for each in range(count)],
    } | changes  # fmt: skip
    if protocol == 2:
        return python2_pickle(content)
    return pickle.dumps({key.encode(): each for key, each in content.items()}, protocol)


@cache
def rows() -> list[dict[str, Any]]:
    return random_rows(6, ("conv1", "conv2"), ("map", "linear"), seed=0)


@cache
def run() -> dict[str, Any]:
    return run_json(gallery=2)


def npz(arrays: dict[str, numpy.ndarray], packed: bool = True) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            # Of no day: the same file every time.
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), npy(array), file.compression)
    return buffer.getvalue()


@cache
def bomb() -> bytes:
    """400 MB in half a megabyte."""
    return npz({"features": numpy.zeros((1, 1, 10_000, 10_000), "f4")})


def npy(array: numpy.ndarray) -> bytes:
    buffer = io.BytesIO()
    numpy.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
