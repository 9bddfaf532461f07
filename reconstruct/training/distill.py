"""Distillation without labels: crops of any photographs, and what a trained network, the teacher, says of them.

The crops and the teacher's answers are computed once and kept in a folder, so that several networks learn from the
same ones and no step of a training run waits for the teacher:

- ``crops.npy``: N x 3 x side x side bytes, RGB;
- ``answers.npy``: N x classes, float16, the teacher's log-probabilities;
- ``crops.json``: how they were made, and how many of them are done.

A crop is seen by the teacher at the teacher's own size, from the photograph's own pixels (Beyer et al. 2022, "Knowledge
distillation: a good teacher is patient and consistent": both networks must see the same part).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

from reconstruct.errors import CallError
from reconstruct.images.atomic import write_atomically
from reconstruct.images.cifar import numbered
from reconstruct.images.sources import open_source
from reconstruct.training.classification import log_probabilities
from reconstruct.training.data import Arrays, Files, Listed, Pictures, pictures_below, resize
from reconstruct.training.questions import AREA, WIDE_AREA, blend, distorted_part, mix, plain_part
from reconstruct.training.records import a_count, read_record
from reconstruct.zoo.published import efficientnet_lite0

Teacher = Callable[[torch.Tensor], torch.Tensor]
"""A function from images, N x 3 x 224 x 224 in [0, 1], to class scores, N x classes."""

TEACHER_SIDE = 224
MOST_CROPS = 1 << 40
CHUNK = 512
"""How many crops are made before they are made sure to be on disk."""


def load_teacher(name: str = "efficientnet_lite0", device: str | torch.device = "cpu") -> Teacher:
    """EfficientNet-Lite0 with its published ImageNet weights, from the Python package index.

    Raises
    ------
    CallError : the teacher is unknown, or its packages are not installed.
    """
    if name != "efficientnet_lite0":
        raise CallError(f"unknown teacher '{name}'; there is efficientnet_lite0")
    net: Any = efficientnet_lite0().eval().requires_grad_(False)
    net = net.to(device, memory_format=torch.channels_last)

    def scores(images: torch.Tensor) -> torch.Tensor:
        # The Lite networks were trained on (pixel - 127) / 128.
        inputs = ((images * 255 - 127) / 128).to(device, memory_format=torch.channels_last)
        with torch.no_grad():
            return net(inputs).float()

    return scores


def unlabelled(photographs: Path) -> Files | Listed:
    """Pictures as a data set of a thousand classes that nobody has named.

    Those below a folder, at any depth; or, as ``images.sources`` reads them, of an archive, a list or CIFAR's files.

    Raises
    ------
    CallError : there is none of these, or no picture in it.
    """
    paths, left_out = pictures_below(photographs) if photographs.is_dir() else ([], "")
    if paths:
        return Files(paths, numpy.zeros(len(paths), dtype=numpy.int64), numbered(1000), left_out)
    source = open_source(str(photographs), "train")
    count = len(source.names)
    return Listed(source, numpy.arange(count), numpy.zeros(count, dtype=numpy.int64), numbered(1000), source.left_out)


def ask(teacher: Teacher, pictures: Pictures, device: str | torch.device, **work: Any) -> numpy.ndarray:
    """What a teacher says of the pictures' centres, which ``classification.views`` shows to a student by default.

    Parameters
    ----------
    work : ``precision``, ``workers``, ``batch`` and ``advance`` of ``classification.class_scores``.

    Returns
    -------
    Log-probabilities, N x classes, float32.
    """
    seen = (TEACHER_SIDE, round(TEACHER_SIDE * 256 / 227), 1)
    return log_probabilities(teacher, pictures, seen, torch.device(device), **work).numpy()


def make_crops(
    photographs: Path,
    folder: Path,
    *,
    count: int,
    side: int,
    teacher: Teacher,
    mixed: float = 0.0,
    distorted: bool = False,
    seed: int = 0,
    precision: str = "float32",
    device: str = "cpu",
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Write ``count`` crops of photographs, and the teacher's answers. Continues where it stopped.

    Each photograph gives as many crops as any other (one more or less); a crop's area is a share of the photograph's
    drawn log-uniformly from ``questions.AREA``, its shape from ``data.ASPECT``; all depends on the seed and the crop's
    number alone. The teacher sees each crop as it is in the end, mixed and distorted.

    Parameters
    ----------
    photographs : a folder of pictures, at any depth, or what else ``unlabelled`` takes.
    folder : where the crops are written; made if need be.
    count : how many crops are made.
    side : height and width of the crops that the student will see, in pixels.
    mixed : the share of the crops over which a rectangle of another photograph's crop is laid (``questions.mix``).
    distorted : crops are ``questions.distorted_part``, and every other mixture lays a whole crop over another
        (``questions.blend``).
    precision : the teacher's precision, by autocast; bfloat16 moves its probabilities by less than its own flips do.

    Raises
    ------
    CallError : there are no pictures, or the folder holds crops made in another way.
    """
    pictures = unlabelled(photographs)
    how = {
        "pictures": len(pictures),
        "list": _list(photographs, pictures),
        "count": count,
        "side": side,
        "seed": seed,
        "area": WIDE_AREA if distorted else AREA,
        "mixed": mixed,
        "precision": precision,
    }
    if distorted:  # so that folders from before there was a choice are still continued
        how["distorted"] = True
    part = distorted_part if distorted else plain_part
    record = folder / "crops.json"
    done = 0
    if record.is_file():
        before, done = read_record(record, lambda found: ({**found}, a_count(found["done"], MOST_CROPS)))
        del before["done"]
        if before != json.loads(json.dumps(how)):
            raise CallError(f"{folder} holds crops made otherwise ({before}, not {how}); name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    crops = _array(folder / "crops.npy", (count, 3, side, side), numpy.uint8)
    answers: numpy.memmap | None = None
    opened, pixels = -1, numpy.empty(0)
    if done:
        answers = _opened(folder / "answers.npy")
    for first in range(done, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        seen = []
        for number in numbers:
            place = number * len(pictures) // count
            if place != opened:
                opened, pixels = place, pictures.pixels(place)
            draw = numpy.random.default_rng((seed, number))
            seen.append(part(pixels, TEACHER_SIDE, draw))
            if draw.random() < mixed:
                other = part(pictures.pixels(int(draw.integers(len(pictures)))), TEACHER_SIDE, draw)
                seen[-1] = (blend if distorted and draw.random() < 0.5 else mix)(seen[-1], other, draw)
            crops[number] = resize(seen[-1], (side, side))
        shown = Arrays(numpy.stack(seen), numpy.zeros(len(seen)), [])
        found = log_probabilities(
            teacher, shown, (TEACHER_SIDE, None, 1), torch.device(device), precision=precision
        ).numpy()
        if answers is None:
            answers = _array(folder / "answers.npy", (count, found.shape[1]), numpy.float16)
        answers[first : first + len(found)] = found
        crops.flush()
        answers.flush()
        write_atomically(record, json.dumps(how | {"done": first + len(found)}).encode())
        advance(len(found))


def _list(photographs: Path, pictures: Files | Listed) -> str:
    """A digest of the pictures' names, and of files' sizes: as many others are other pictures."""
    if isinstance(pictures, Files):
        lines = [f"{path.relative_to(photographs)} {path.stat().st_size}" for path in pictures.paths]
    else:
        lines = pictures.source.names
    # A name need not be UTF-8.
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _opened(path: Path) -> numpy.memmap:
    try:
        return numpy.lib.format.open_memmap(path, mode="r+")
    except (OSError, ValueError, EOFError) as error:
        raise CallError(f"{path} cannot be read: {error}; delete its folder, and the crops are made anew") from error


def _array(path: Path, shape: tuple[int, ...], dtype: type) -> numpy.memmap:
    """An array on disk: the one there is, if it fits, else a new one."""
    if path.is_file():
        there = _opened(path)
        if there.shape == shape and there.dtype == dtype:
            return there
    return numpy.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
