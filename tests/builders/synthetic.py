"""Data sets that tests write: CIFAR's files byte for byte as they are published, folders of pictures, and noise."""

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch
from PIL import Image

COLOURS = numpy.array([[200, 60, 50], [60, 190, 70], [60, 80, 200], [200, 190, 60], [170, 60, 180]])


def patterns(count: int, side: int, classes: int, seed: int = 0) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Noisy pictures whose colour and stripes tell their class: N x 3 x side x side bytes, and N classes."""
    draw = numpy.random.default_rng(seed)
    labels = numpy.arange(count) % classes
    phase = draw.uniform(0, 2 * numpy.pi, count)
    angle = numpy.pi * labels / classes
    row, column = numpy.mgrid[:side, :side]
    wave = numpy.cos(angle)[:, None, None] * column + numpy.sin(angle)[:, None, None] * row
    stripes = 40 * numpy.sin(0.9 * wave + phase[:, None, None])
    images = COLOURS[labels % len(COLOURS)][:, :, None, None] + stripes[:, None]
    images = images + draw.normal(0, 10, (count, 3, side, side))
    return images.clip(0, 255).astype(numpy.uint8), labels


CIFAR_MEAN, CIFAR_STD = numpy.array([0.4914, 0.4822, 0.4465]), numpy.array([0.2470, 0.2435, 0.2616])


def cifar_like(count: int, seed: int = 0) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Pictures with CIFAR-10's size, mean and deviation of each channel, and ten classes that can be learned.

    As in photographs most of the power is in low frequencies. A class is a tint, and waves of one of five colours and
    two lengths somewhere in the picture, in any direction: a mirrored or shifted picture is still of its class.

    Returns
    -------
    N x 3 x 32 x 32 bytes, and N classes.
    """
    draw = numpy.random.default_rng(seed)
    labels = draw.permutation(numpy.arange(count) % 10)
    rows, columns = numpy.fft.fftfreq(32)[:, None], numpy.fft.rfftfreq(32)
    spectrum = 1 / numpy.maximum(numpy.hypot(rows, columns), 1 / 64)
    grounds = numpy.fft.irfft2(numpy.fft.rfft2(draw.normal(size=(count, 3, 32, 32))) * spectrum, s=(32, 32))
    # Photographs are more grey than coloured: each channel is mostly what all have in common.
    grounds = grounds[:, :1] + 0.3 * grounds
    grounds /= grounds.std()
    colours = numpy.array([[1, -1, 0], [1, 0, -1], [0, 1, -1], [1, 1, -2], [1, 1, 1]])
    colours = colours / numpy.linalg.norm(colours, axis=1, keepdims=True)
    turn, phase = draw.uniform(0, 2 * numpy.pi, (2, count, 1, 1))
    top, left = draw.uniform(8, 24, (2, count, 1, 1))
    row, column = numpy.mgrid[:32, :32]
    frequency = numpy.where(labels < 5, 0.8, 1.6)[:, None, None]
    waves = numpy.sin(frequency * (numpy.cos(turn) * column + numpy.sin(turn) * row) + phase)
    waves *= numpy.exp(-((row - top) ** 2 + (column - left) ** 2) / (2 * 7**2))
    tint = numpy.where(labels < 5, 1, -1)[:, None, None, None]
    images = grounds + colours[labels % 5][:, :, None, None] * (tint + 4 * waves[:, None])
    images = (images - images.mean((0, 2, 3), keepdims=True)) / images.std((0, 2, 3), keepdims=True)
    images = 255 * (CIFAR_MEAN[:, None, None] + CIFAR_STD[:, None, None] * images)
    return images.round().clip(0, 255).astype(numpy.uint8), labels


def noise(count: int, height: int = 32, width: int = 32, seed: int = 0) -> numpy.ndarray:
    """N x 3 x height x width bytes."""
    return numpy.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=numpy.uint8)


def labels_of(count: int, classes: int) -> numpy.ndarray:
    """Class numbers, each as often as any other, in random order."""
    return numpy.random.default_rng(count).permutation(numpy.arange(count) % classes)


class _Python2(pickle._Pickler):  # type: ignore[name-defined]
    """Pickles as Python 2 wrote them with protocol 2: text and bytes are both its plain strings."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: Any) -> None:
        raw = value.encode("latin-1") if isinstance(value, str) else bytes(value)
        short = len(raw) < 256
        self.write((b"U" + bytes([len(raw)]) if short else b"T" + struct.pack("<i", len(raw))) + raw)
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        if getattr(value, "__name__", "") == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(value)
        else:
            super().save_global(value, name)

    dispatch[str] = dispatch[bytes] = save_string
    dispatch[type(numpy.ndarray.__reduce__)] = save_global
    dispatch[type(numpy.empty(0).__reduce__()[0])] = save_global


def python2_pickle(value: Any) -> bytes:
    """What Python 2's ``cPickle.dumps(value, 2)`` gave, but for the numbers of its memo."""
    buffer = io.BytesIO()
    _Python2(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def cifar10_python(folder: Path, train: tuple[Any, Any], test: tuple[Any, Any], names: list[str]) -> None:
    """``cifar-10-batches-py``: five training batches, one test batch and the names."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (images, labels) in enumerate(zip(*(numpy.array_split(part, 5) for part in train), strict=True), 1):
        _python_batch(folder / f"data_batch_{number}", f"training batch {number} of 5", images, {"labels": labels})
    _python_batch(folder / "test_batch", "testing batch 1 of 1", test[0], {"labels": test[1]})
    meta = {"num_cases_per_batch": 10000, "label_names": names, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))


def cifar100_python(folder: Path, train: tuple[Any, Any], test: tuple[Any, Any], names: list[str]) -> None:
    """``cifar-100-python``: one file a split, with fine and coarse labels, and the names of both."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in {"train": train, "test": test}.items():
        both = {"fine_labels": labels, "coarse_labels": numpy.asarray(labels) % 20}
        _python_batch(folder / split, f"{split}ing batch 1 of 1", images, both)
    meta = {"fine_label_names": names, "coarse_label_names": [f"coarse{i}" for i in range(20)]}
    (folder / "meta").write_bytes(python2_pickle(meta))


def _python_batch(path: Path, label: str, images: numpy.ndarray, labels: dict[str, Any]) -> None:
    content = {
        "batch_label": label,
        **{key: [int(each) for each in values] for key, values in labels.items()},
        "data": numpy.ascontiguousarray(images.reshape(len(images), 3072)),
        "filenames": [f"picture_{number:06}.png" for number in range(len(images))],
    }
    path.write_bytes(python2_pickle(content))


def cifar10_binary(folder: Path, train: tuple[Any, Any], test: tuple[Any, Any], names: list[str]) -> None:
    """``cifar-10-batches-bin``: a byte of the label, then 3,072 of the pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (images, labels) in enumerate(zip(*(numpy.array_split(part, 5) for part in train), strict=True), 1):
        (folder / f"data_batch_{number}.bin").write_bytes(_rows(images, labels))
    (folder / "test_batch.bin").write_bytes(_rows(*test))
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")  # as published, with an empty line


def cifar100_binary(folder: Path, train: tuple[Any, Any], test: tuple[Any, Any], names: list[str]) -> None:
    """``cifar-100-binary``: bytes of the coarse and the fine label, then the pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in {"train": train, "test": test}.items():
        (folder / f"{split}.bin").write_bytes(_rows(images, numpy.asarray(labels) % 20, labels))
    (folder / "fine_label_names.txt").write_text("\n".join(names) + "\n")
    (folder / "coarse_label_names.txt").write_text("\n".join(f"coarse{i}" for i in range(20)) + "\n")


def _rows(images: numpy.ndarray, *labels: Any) -> bytes:
    columns = [numpy.asarray(each, numpy.uint8)[:, None] for each in labels]
    return numpy.concatenate([*columns, images.reshape(len(images), 3072)], axis=1).tobytes()


def class_folders(folder: Path, images: numpy.ndarray, labels: numpy.ndarray, names: list[str]) -> None:
    """A folder a class of PNG files, as ImageNet's of JPEG files."""
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        inside = folder / names[label]
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(inside / f"{number:05}.png")


def smooth_noise(count: int, size: tuple[int, int], generator: torch.Generator, width: float = 2.0) -> torch.Tensor:
    """Noise blurred by a Gaussian of this standard deviation in pixels, in [0, 1], float64."""
    reach = torch.arange(-15, 16, dtype=torch.float64)
    blur = (-(reach**2) / (2 * width**2)).exp()
    kernel = (blur[:, None] * blur[None] / blur.square().sum()).expand(3, 1, 31, 31)
    noise = torch.randn(count, 3, size[0] + 30, size[1] + 30, generator=generator, dtype=torch.float64)
    return (0.5 + 0.2 * torch.nn.functional.conv2d(noise, kernel, groups=3)).clamp(0, 1)
