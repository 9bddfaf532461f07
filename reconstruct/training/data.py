"""Training data: pictures with classes or a teacher's answers, augmented, in batches that the step number determines.

A data set is a table of pictures: ``Arrays`` (CIFAR, crops) or ``Files`` (ImageNet, any folders). ``Batches`` makes the
batch of a step from the seed and the step alone, so a run that is killed goes on with the very batches it would have
seen, whatever the number of worker processes.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

import numpy
import torch
from PIL import Image

from reconstruct.errors import CallError, ReconstructError
from reconstruct.images.cifar import load_cifar, numbered
from reconstruct.images.files import SUFFIXES, read_image
from reconstruct.images.folders import files_by_kind
from reconstruct.images.left_out import ending, told_left_out
from reconstruct.images.sets import Source
from reconstruct.images.sources import open_source

ASPECT = (3 / 4, 4 / 3)
RUN_FILES = ("checkpoint.pt", "log.csv")
"""A folder with one of these is a training run's, and no class, where it lies among the class folders."""
BESIDE = "picture beside the classes' folders"
_MOST_CLASSES = 1 << 20
T = TypeVar("T")


class Pictures(Protocol):
    """A data set.

    Attributes
    ----------
    targets : class numbers, N, int64; or the logarithms of class probabilities, N x classes, float16.
    classes : the classes' names, in the order of their numbers.
    left_out : what lies there and is no part of the set, counted, as a sentence; empty where all is.
    """

    @property
    def left_out(self) -> str: ...

    @property
    def targets(self) -> numpy.ndarray: ...

    @property
    def classes(self) -> list[str]: ...

    def __len__(self) -> int: ...

    def pixels(self, index: int) -> numpy.ndarray:
        """3 x H x W bytes, RGB."""
        ...


@dataclass(frozen=True)
class Arrays:
    """Pictures of one size in one array, N x 3 x side x side bytes (a memory map serves)."""

    images: numpy.ndarray
    targets: numpy.ndarray
    classes: list[str]
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, index: int) -> numpy.ndarray:
        return numpy.asarray(self.images[index])


@dataclass(frozen=True)
class Files:
    """Picture files, read when they are needed."""

    paths: list[Path]
    targets: numpy.ndarray
    classes: list[str]
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, index: int) -> numpy.ndarray:
        return numpy.asarray(read_image(self.paths[index])).transpose(2, 0, 1)


@dataclass(frozen=True)
class Listed:
    """Pictures of an archive or another source, read when they are needed; ``indices``: those of it that are meant."""

    source: Source
    indices: numpy.ndarray
    targets: numpy.ndarray
    classes: list[str]
    left_out: str = ""

    def __len__(self) -> int:
        return len(self.indices)

    def pixels(self, index: int) -> numpy.ndarray:
        return numpy.asarray(self.source.picture(int(self.indices[index]))).transpose(2, 0, 1)


@dataclass(frozen=True)
class Part:
    """Some of the pictures of a data set: a fold, or what is not held out."""

    whole: Pictures
    indices: numpy.ndarray

    @cached_property
    def targets(self) -> numpy.ndarray:
        # Kept: every batch asks for them, and a selection is a copy.
        return self.whole.targets[self.indices]

    @property
    def classes(self) -> list[str]:
        return self.whole.classes

    @property
    def left_out(self) -> str:
        return self.whole.left_out

    def __len__(self) -> int:
        return len(self.indices)

    def pixels(self, index: int) -> numpy.ndarray:
        return self.whole.pixels(int(self.indices[index]))


def load_pictures(folder: Path, split: str = "train") -> Pictures:
    """A data set from a folder, by what lies in it.

    - CIFAR-10 or CIFAR-100 as published, the Python or the binary version, unpacked, or the archive as it is
      downloaded; ``split`` picks the training or the test batches.
    - Crops with a teacher's answers (``distill.make_crops``).
    - A folder of class folders, as ImageNet's, or one with such a folder inside named as the split (``train``; ``val``,
      ``validation`` or ``test``). Classes are numbered in the order of their folders' names.
    - An archive of such folders, ``.tar``, ``.tar.gz`` or ``.zip``, or a tar archive of one a class.

    What lies there besides is counted in ``left_out``. A picture that is broken is found when it is read.

    Raises
    ------
    CallError : the folder is none of these, or files in it are not what they should be.
    """
    if split not in ("train", "test"):
        raise CallError(f"a split is 'train' or 'test', not '{split}'")
    try:
        if not folder.exists():
            raise CallError(f"there is no folder {folder}")
    except (OSError, ValueError) as error:  # a name that no folder can have
        raise CallError(f"{folder} cannot be read: {error}") from error
    if (folder / "crops.json").is_file():
        return _crops(folder)
    cifar = load_cifar(folder, split)
    if cifar is None and not folder.is_dir():
        return _archived(folder, split)
    return _class_folders(_split_folder(folder, split)) if cifar is None else Arrays(*cifar)


@dataclass(frozen=True)
class Augmentation:
    """What a network sees of a picture during training: a random part, perhaps mirrored.

    Attributes
    ----------
    side : height and width of what it sees, in pixels.
    area : the part's share of the picture's area, drawn log-uniformly between these two; its shape is from 3/4 to 4/3,
        and it is resized to ``side``. None takes a square of ``side`` pixels at a random place.
    resize : the picture's shorter side before a square is cut (Krizhevsky et al. 2012: 256); None leaves it as it is.
    shift : the picture moves by up to so many pixels in each direction, and the gap is filled with ``fill`` (CIFAR).
    flip : whether every other picture is mirrored, left to right.
    """

    side: int
    area: tuple[float, float] | None = None
    resize: int | None = None
    shift: int = 0
    flip: bool = True
    fill: tuple[int, ...] = (127, 127, 127)

    def __call__(self, pixels: numpy.ndarray, draw: numpy.random.Generator) -> numpy.ndarray:
        """Augment a picture: 3 x H x W bytes become 3 x side x side bytes."""
        if self.area is not None:
            pixels = resize(random_part(pixels, self.area, draw), (self.side, self.side))
        elif self.resize is not None:
            pixels = shorter_side(pixels, self.resize)
        if self.shift:
            channels = zip(pixels, self.fill, strict=True)
            pixels = numpy.stack([numpy.pad(channel, self.shift, constant_values=fill) for channel, fill in channels])
        if min(pixels.shape[1:]) < self.side:
            pixels = shorter_side(pixels, self.side)
        top, left = (int(draw.integers(0, length - self.side + 1)) for length in pixels.shape[1:])
        pixels = pixels[:, top : top + self.side, left : left + self.side]
        return pixels[:, :, ::-1] if self.flip and draw.random() < 0.5 else pixels


def random_part(pixels: numpy.ndarray, area: tuple[float, float], draw: numpy.random.Generator) -> numpy.ndarray:
    """A random part, 3 x h x w: its area a share of the picture's, its shape (w / h) from 3/4 to 4/3."""
    height, width = pixels.shape[1:]
    share, shape = (float(numpy.exp(draw.uniform(*numpy.log(bounds)))) for bounds in (area, ASPECT))
    tall = min(height, max(1, round((height * width * share / shape) ** 0.5)))
    wide = min(width, max(1, round((height * width * share * shape) ** 0.5)))
    top, left = int(draw.integers(0, height - tall + 1)), int(draw.integers(0, width - wide + 1))
    return pixels[:, top : top + tall, left : left + wide]


def shorter_side(pixels: numpy.ndarray, side: int) -> numpy.ndarray:
    """Resize 3 x H x W bytes, antialiased bicubic, so that the shorter side has this length."""
    height, width = pixels.shape[1:]
    scale = side / min(height, width)
    return resize(pixels, (max(side, round(height * scale)), max(side, round(width * scale))))


def resize(pixels: numpy.ndarray, size: tuple[int, int]) -> numpy.ndarray:
    """Resize 3 x H x W bytes to this height and width, antialiased bicubic."""
    if pixels.shape[1:] == size:
        return pixels
    image = Image.fromarray(numpy.ascontiguousarray(pixels.transpose(1, 2, 0)))
    resized = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return numpy.asarray(resized).transpose(2, 0, 1)


class Batches(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The batch of every step of a run: images N x 3 x side x side bytes, and targets.

    An epoch shows every picture once, in an order of its own, less what is left over after whole batches. Item ``step``
    depends on ``seed`` and ``step`` alone.

    Parameters
    ----------
    batch_size : pictures of a batch, of all processes together.
    rank, world : this process's number and how many there are; each takes every ``world``-th picture of a batch.

    Raises
    ------
    CallError : there are fewer pictures than a batch has, or the processes cannot share a batch evenly.
    """

    def __init__(
        self, pictures: Pictures, augment: Augmentation, batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if not 1 <= batch_size <= len(pictures):
            raise CallError(f"a batch of {batch_size} pictures cannot be taken from {len(pictures)}")
        if batch_size % world:
            raise CallError(f"a batch of {batch_size} pictures cannot be shared by {world} processes evenly")
        self.pictures, self.augment = pictures, augment
        self.batch_size, self.seed = batch_size, seed
        self.rank, self.world = rank, world
        self._order: tuple[int, numpy.ndarray] = (-1, numpy.empty(0))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.pictures) // self.batch_size

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, numpy.random.default_rng((self.seed, epoch)).permutation(len(self.pictures)))
        chosen = self._order[1][place * self.batch_size : (place + 1) * self.batch_size][self.rank :: self.world]
        seen = [
            self.augment(self.pictures.pixels(int(index)), numpy.random.default_rng((self.seed, epoch, int(index))))
            for index in chosen
        ]
        return torch.from_numpy(numpy.stack(seen)), torch.from_numpy(numpy.asarray(self.pictures.targets[chosen]))


def read_in_order(items: torch.utils.data.Dataset[T], order: Iterable[int], workers: int) -> Iterator[T]:
    """The items of these numbers, in that order, read ahead by so many worker processes, or by this one if 0.

    Raises
    ------
    ReconstructError : an item cannot be read; the message is the item's own.
    """
    loader = torch.utils.data.DataLoader(items, batch_size=None, sampler=order, num_workers=workers)
    try:
        yield from loader
    except ReconstructError as error:
        # The error's frames would hold on to the workers, whose end would then wait for a timeout.
        traceback.clear_frames(error.__traceback__)
        # From a worker it comes with its traceback as text, and its message as the last line of that.
        last = str(error).strip().splitlines()[-1]
        raise type(error)(last.removeprefix(f"{type(error).__module__}.{type(error).__qualname__}: ")) from None


def statistics(pictures: Pictures, limit: int = 5000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in [0, 1], over pixels of up to ``limit`` pictures spread evenly."""
    total = numpy.zeros((2, 3))
    count = 0
    for index in numpy.unique(numpy.linspace(0, len(pictures) - 1, min(limit, len(pictures))).astype(int)):
        values = pictures.pixels(int(index)).reshape(3, -1) / 255.0
        total += values.sum(1), (values**2).sum(1)
        count += values.shape[1]
    mean = total[0] / count
    # A picture of one colour has no spread to divide by.
    std = numpy.sqrt(numpy.maximum(total[1] / count - mean**2, 1e-6))
    return tuple(mean.round(4).tolist()), tuple(std.round(4).tolist())


def split(pictures: Pictures, share: float, seed: int) -> tuple[Part, Part]:
    """A random part to train on and ``share`` of the pictures that is held out."""
    order = numpy.random.default_rng(seed).permutation(len(pictures))
    held = round(len(pictures) * share)
    return Part(pictures, numpy.sort(order[held:])), Part(pictures, numpy.sort(order[:held]))


def folds(pictures: Pictures, count: int, seed: int) -> list[tuple[Part, Part]]:
    """Cross-validation: for each of ``count`` folds what is trained on, and the fold itself.

    Raises
    ------
    CallError : there are to be fewer than 2 folds, or more than pictures.
    """
    if not 2 <= count <= len(pictures):
        raise CallError(
            f"{len(pictures)} pictures cannot be divided in {count} folds; 2 or more, and no more than pictures"
        )
    order = numpy.random.default_rng(seed).permutation(len(pictures))
    parts = [order[number::count] for number in range(count)]
    return [
        (
            Part(pictures, numpy.sort(numpy.concatenate(parts[:number] + parts[number + 1 :]))),
            Part(pictures, numpy.sort(parts[number])),
        )
        for number in range(count)
    ]


def pictures_below(folder: Path) -> tuple[list[Path], str]:
    """Every picture file below a folder, sorted by path, and what is left out, as a sentence."""
    held, left = files_by_kind(folder)
    paths = [folder / name for name in held["picture"]]
    there = sorted(path for path in paths if path.is_file())
    left["no plain file"] += len(paths) - len(there)
    left.update(ending(each) for kind, names in held.items() if kind != "picture" for each in names)
    return there, told_left_out(left)


_SPLITS = {"train": ("train",), "test": ("val", "validation", "test")}


def _split_folder(folder: Path, split: str) -> Path:
    """The folder of class folders: the split's own inside, or the folder itself where it has no splits."""
    # A folder of that name without folders inside is a class: COCO has trains.
    found = {name for names in _SPLITS.values() for name in names if any(map(Path.is_dir, (folder / name).glob("*")))}
    own = _own_split(folder, found, split)
    return folder if own is None else folder / own


def _own_split(where: Path, found: Collection[str], split: str) -> str | None:
    """The name of the split's folder among those that are there; None where none is a split's.

    Raises
    ------
    CallError : there are folders of other splits alone.
    """
    splits = [name for names in _SPLITS.values() for name in names if name in found]
    own = [name for name in _SPLITS[split] if name in found]
    if splits and not own:
        raise CallError(f"{where} has {', '.join(splits)}, but no {' or '.join(_SPLITS[split])} for the {split} split")
    return own[0] if own else None


def _class_folders(folder: Path) -> Files:
    classes = []
    left: Counter[str] = Counter()
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            left["hidden"] += path.name.lower().endswith(SUFFIXES)
        elif not path.is_dir():
            left[BESIDE if path.name.lower().endswith(SUFFIXES) else ending(path.name)] += 1
        elif any((path / name).exists() for name in RUN_FILES):
            left["folder of a training run"] += 1
        else:
            classes.append(path.name)
    paths: list[Path] = []
    targets: list[int] = []
    for number, name in enumerate(classes):
        held, besides = files_by_kind(folder / name)
        left += besides
        left.update(ending(each) for kind, names in held.items() if kind != "picture" for each in names)
        inside = sorted(folder / name / each for each in held["picture"])
        paths += inside
        targets += [number] * len(inside)
    if len(classes) < 2 or not paths:
        raise _no_data_set(folder)
    return Files(paths, numpy.array(targets, dtype=numpy.int64), classes, told_left_out(left))


def _archived(archive: Path, split: str) -> Listed:
    """The pictures of an archive by their folders: the class is the first below those that all are in."""
    source = open_source(str(archive), split)
    if source.kind != "archive":
        raise CallError(f"{archive} is no folder, and no archive of pictures or of CIFAR's files")
    folders = {index: PurePosixPath(name).parts[:-1] for index, name in enumerate(source.names)}
    while len({parts[:1] for parts in folders.values()}) == 1 and any(len(parts) > 1 for parts in folders.values()):
        folders = {index: parts[1:] for index, parts in folders.items()}
    # As in a folder: where folders of classes lie in it, a split's name is no class.
    names = {parts[0] for parts in folders.values() if len(parts) > 1}
    if own := _own_split(archive, names, split):
        folders = {index: parts[1:] for index, parts in folders.items() if parts[:1] == (own,)}
    inside = {index: parts[0].removesuffix(".tar") for index, parts in folders.items() if parts}
    classes = sorted(set(inside.values()))
    if len(classes) < 2:
        raise _no_data_set(archive)
    numbers = {name: number for number, name in enumerate(classes)}
    beside = told_left_out(Counter({BESIDE: len(folders) - len(inside)}))
    said = "; ".join(each for each in (source.left_out, beside) if each)
    targets = numpy.array([numbers[name] for name in inside.values()], dtype=numpy.int64)
    return Listed(source, numpy.array(list(inside), dtype=numpy.int64), targets, classes, said)


def _no_data_set(where: Path) -> CallError:
    return CallError(
        f"{where} is no data set: it has neither CIFAR's files nor a folder of pictures for each class "
        "(pictures without classes need a teacher)"
    )


def _crops(folder: Path) -> Arrays:
    try:
        how = json.loads((folder / "crops.json").read_text())
        done, count = how["done"], how["count"]
        if done < count:
            raise CallError(f"{folder}: {done} of {count} crops are made; the same call goes on making them")
        images = numpy.load(folder / "crops.npy", mmap_mode="r")
        answers = numpy.load(folder / "answers.npy", mmap_mode="r")
        fits = images.ndim == 4 and answers.ndim == 2 and len(images) == len(answers) == count > 0
        if not fits or images.shape[1] != 3 or images.dtype != numpy.uint8 or answers.shape[1] > _MOST_CLASSES:
            raise ValueError(f"{images.shape} crops and {answers.shape} answers for a count of {count}")
        if answers.dtype.kind != "f":
            raise ValueError(f"answers of the type {answers.dtype}")
    except CallError:
        raise
    except Exception as error:  # damaged headers can raise nearly any
        raise CallError(f"{folder} holds no crops with a teacher's answers that can be read: {error}") from error
    return Arrays(images, answers, numbered(answers.shape[1]))
