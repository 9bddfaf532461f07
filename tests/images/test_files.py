import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from reconstruct import ImageError, load_image, save_image
from reconstruct.images.files import to_pixels


@pytest.fixture
def pixels() -> numpy.ndarray:
    """45 x 60 x 3, smooth, every corner another colour."""
    rows, columns = numpy.mgrid[0:45, 0:60]
    return numpy.stack((rows * 5, columns * 4, 255 - rows * 2 - columns * 2), axis=-1).astype(numpy.uint8)


def loaded(path: Path) -> numpy.ndarray:
    return to_pixels(load_image(path))


@pytest.mark.parametrize("suffix", ["png", "tiff", "bmp", "webp", "ppm"])
def test_lossless_formats_come_back(pixels: numpy.ndarray, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    image = load_image(path)
    assert image.dtype == torch.float32
    assert tuple(image.shape) == (3, 45, 60)
    assert float(image.min()) >= 0
    assert float(image.max()) <= 1
    assert numpy.array_equal(to_pixels(image), pixels)


def test_jpeg_in_rgb_and_cmyk(pixels: numpy.ndarray, tmp_path: Path) -> None:
    for mode in ("RGB", "CMYK"):
        path = tmp_path / f"{mode}.jpg"
        Image.fromarray(pixels).convert(mode).save(path, quality=98, subsampling=0)
        assert abs(loaded(path).astype(int) - pixels).mean() < 4


def test_camera_rotation_is_undone(pixels: numpy.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # stored lying on its side: turn it a quarter clockwise to see it upright
    path = tmp_path / "rotated.png"
    Image.fromarray(numpy.rot90(pixels).copy()).save(path, exif=exif)
    assert numpy.array_equal(loaded(path), pixels)


def test_grey_palette_and_one_bit(pixels: numpy.ndarray, tmp_path: Path) -> None:
    grey = pixels[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert numpy.array_equal(loaded(tmp_path / "grey.png"), numpy.stack((grey,) * 3, axis=-1))
    few = (pixels // 128) * 255
    Image.fromarray(few.astype(numpy.uint8)).quantize(8).save(tmp_path / "palette.gif")
    assert numpy.array_equal(loaded(tmp_path / "palette.gif"), few)
    Image.fromarray(grey > 100).save(tmp_path / "bits.png")
    assert numpy.array_equal(loaded(tmp_path / "bits.png")[..., 1], (grey > 100) * 255)


def test_16_bit_keeps_its_range(tmp_path: Path) -> None:
    values = numpy.linspace(0, 65535, 45 * 60).reshape(45, 60).astype(numpy.uint16)
    for suffix in ("png", "tiff"):
        Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
        found = load_image(tmp_path / f"deep.{suffix}")[0]
        assert abs(found - torch.from_numpy(values / 65535.0)).max() <= 0.5001 / 255


def test_transparency_is_laid_on_white(pixels: numpy.ndarray, tmp_path: Path) -> None:
    alpha = numpy.zeros((45, 60, 1), numpy.uint8)
    alpha[:, 30:] = 255
    Image.fromarray(numpy.concatenate((pixels, alpha), axis=-1)).save(tmp_path / "layer.png")
    found = loaded(tmp_path / "layer.png")
    assert (found[:, :30] == 255).all()
    assert numpy.array_equal(found[:, 30:], pixels[:, 30:])
    palette = Image.fromarray(pixels).quantize(4)
    palette.save(tmp_path / "palette.png", transparency=int(numpy.asarray(palette)[0, 0]))
    assert (loaded(tmp_path / "palette.png")[0, 0] == 255).all()


def test_centre_crop_and_resize(pixels: numpy.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    assert numpy.array_equal(to_pixels(load_image(path, 45)), pixels[:, 7:52])  # the centred square itself
    assert tuple(load_image(path, (20, 30)).shape) == (3, 20, 30)
    fine = numpy.indices((400, 400)).sum(axis=0) % 2 * 255
    Image.fromarray(fine.astype(numpy.uint8)).save(path)
    assert abs(load_image(path, 40) - 0.5).max() < 0.02  # antialiased: a fine chequerboard is grey


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just text, no picture\n" * 10, "not a picture in JPEG, PNG"),
        (b"", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)
def test_what_is_no_picture(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "text.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=message):
        load_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp", "bmp"])
def test_truncated_files(pixels: numpy.ndarray, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) // 10, 20):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError, match=r"picture\."):
            load_image(path)


def test_missing_files_folders_and_pipes(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        load_image(tmp_path / "nothing.jpg")
    with pytest.raises(ImageError, match="is a folder: 'reconstruct evaluate' takes the pictures in it"):
        load_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="is not a file"):
        load_image(tmp_path / "pipe.jpg")  # and does not wait for a writer


def test_bombs_are_refused_and_large_photographs_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (100, 90)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(ImageError, match=r"too large: .*9000"):
        load_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)  # Pillow warns
    assert tuple(load_image(path).shape) == (3, 90, 100)


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(numpy.ones((20, 20), numpy.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ImageError, match="anybody's guess"):
        load_image(tmp_path / "float.tiff")


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (255, 0, 51)).save(tmp_path / "one.png")
    assert load_image(tmp_path / "one.png").flatten().tolist() == pytest.approx([1, 0, 0.2])


def test_saving_clips_and_rounds(tmp_path: Path) -> None:
    image = torch.tensor([-0.5, 0.0, 0.4999, 1.0, 7.0, float("nan")]).reshape(1, 1, 6).expand(3, 1, 6)
    save_image(image, tmp_path / "new" / "saved.png")
    assert numpy.asarray(Image.open(tmp_path / "new" / "saved.png"))[0, :, 0].tolist() == [0, 0, 127, 255, 255, 0]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    """A limit on file size stands for the disk: writing fails half-way, and the old file stays whole."""
    path = tmp_path / "kept.png"
    save_image(torch.zeros(3, 8, 8), path)
    before = path.read_bytes()
    script = (
        "import signal, torch; from pathlib import Path; from reconstruct import save_image\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"save_image(torch.rand(3, 256, 256), Path({str(path)!r}))\n"
    )
    limited = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert "File too large" in limited.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
