"""Colour profiles, whose right values come from the profiles' own definitions, and depths of 12 and 16 bits."""

import io
import struct
from pathlib import Path

import numpy
import pytest
import tifffile
from PIL import Image, ImageCms

from reconstruct.images.files import decode

SIDE = 8


def profile(primaries: str = "RGB", curve: float | None = None) -> bytes:
    """The sRGB profile with its primaries exchanged, or with the power of ``curve`` in place of its curves."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", content, 128)
    for place in range(132, 132 + 12 * count, 12):
        tag = content[place : place + 4]
        if tag[1:] == b"XYZ" and chr(tag[0]) in "rgb":
            content[place] = ord(primaries["RGB".index(chr(tag[0]).upper())].lower())
        elif tag[1:] == b"TRC" and curve is not None:
            (start,) = struct.unpack_from(">I", content, place + 4)
            content[start : start + 14] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * curve))
    return bytes(content)


def grey_profile() -> bytes:
    """A profile of grey pictures whose light is the power 1.8 of their numbers."""
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * 1.8)) + bytes(2)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags = struct.pack(">I", 2) + b"kTRC" + struct.pack(">II", 156, 16) + b"wtpt" + struct.pack(">II", 172, 20)
    size = 128 + len(tags) + len(curve) + len(white)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + tags + curve + white


def of_light(light: numpy.ndarray) -> numpy.ndarray:
    """Shares of light as sRGB bytes (IEC 61966-2-1)."""
    return 255 * numpy.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def read(image: Image.Image, kind: str = "PNG", **options: object) -> numpy.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return numpy.asarray(decode(buffer, f"picture.{kind}")).astype(float)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_exchanged_primaries_exchange_channels(mode: str) -> None:
    image = Image.new("RGB", (SIDE, SIDE), (220, 40, 90)).convert(mode)
    found = read(image, icc_profile=profile("BGR"))[0, 0]
    assert found == pytest.approx([90, 40, 220] if mode != "P" else found[[0, 1, 2]], abs=3)
    assert found[2] > 200


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_straight_curve_is_light_in_every_format(kind: str) -> None:
    values = numpy.full((SIDE, SIDE, 3), 64, numpy.uint8)
    found = read(Image.fromarray(values), kind, icc_profile=profile(curve=1.0))
    assert found == pytest.approx(of_light(values / 255), abs=3)


def test_grey_pictures_have_profiles_of_grey_and_of_colour() -> None:
    values = numpy.linspace(0, 255, SIDE * SIDE).reshape(SIDE, SIDE).astype(numpy.uint8)
    expected = of_light((values / 255) ** 1.8)
    for own in (grey_profile(), profile(curve=1.8)):
        found = read(Image.fromarray(values), icc_profile=own)
        assert found[..., 0] == pytest.approx(expected, abs=2)
        assert (found == found[..., :1]).all()
    deep = read(Image.fromarray(values.astype(numpy.uint16) * 257), icc_profile=grey_profile())
    assert deep[..., 0] == pytest.approx(expected, abs=2)


def test_srgb_stays_as_it_is_and_transparency_is_white() -> None:
    values = numpy.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=numpy.uint8)
    assert numpy.array_equal(read(Image.fromarray(values), icc_profile=profile()), values)
    clear = Image.new("RGBA", (SIDE, SIDE), (220, 40, 90, 0))
    assert (read(clear, icc_profile=profile("BGR")) == 255).all()


@pytest.mark.parametrize(("mode", "own"), [("RGB", b"no profile" * 20), ("RGB", grey_profile()), ("CMYK", profile())])
def test_profiles_that_cannot_be_used_are_told(mode: str, own: bytes) -> None:
    image = Image.new("RGB", (SIDE, SIDE), (220, 40, 90)).convert(mode)
    with pytest.warns(UserWarning, match=r"picture.JPEG has a colour profile that cannot be used"):
        found = read(image, "JPEG", icc_profile=own, quality=98, subsampling=0)
    assert found[0, 0] == pytest.approx([220, 40, 90], abs=4)


def test_lab_is_read() -> None:
    image = Image.fromarray(numpy.random.default_rng(0).integers(60, 200, (SIDE, SIDE, 3), dtype=numpy.uint8))
    lab = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert abs(read(lab, "TIFF") - numpy.asarray(image)).mean() < 2  # of a and b rounded to 8 bits


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("shape", [{}, {"rowsperstrip": 3}, {"tile": (16, 16)}])
@pytest.mark.parametrize("channels", [3, 4])
def test_planes_of_16_bits(order: str, shape: dict[str, object], channels: int, tmp_path: Path) -> None:
    """Neither compressed nor interleaved: Pillow alone reads stripes."""
    values = numpy.random.default_rng(0).integers(0, 65536, (channels, 20, 30), dtype=numpy.uint16)
    values[3:] = 65535
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    path = tmp_path / "planes.tif"
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="separate", byteorder=order, **shape, **extra)
    with path.open("rb") as file:
        found = numpy.asarray(decode(file, "planes.tif")).transpose(2, 0, 1)
    assert abs(found - values[:3] / 257).max() < 1  # libtiff's rounding is down


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_single_plane_of_16_bits(order: str) -> None:
    """Grey, and said to have its one plane apart, as some writers say."""
    values = numpy.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(numpy.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, byteorder=order)
    content = bytearray(buffer.getvalue())
    place = content.index(struct.pack(f"{order}HH", 305, 2))  # the name of the program
    content[place : place + 12] = struct.pack(f"{order}HHIHH", 284, 3, 1, 2, 0)
    assert abs(numpy.asarray(decode(io.BytesIO(content), "x"))[..., 0] - values / 257).max() <= 0.5001


def test_white_as_0_and_12_bits() -> None:
    values = numpy.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(numpy.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="miniswhite")
    assert abs(numpy.asarray(decode(buffer, "x"))[..., 0] - (255 - values / 257)).max() <= 0.5001
    # Two numbers of 12 bits in three bytes; written by hand, for want of a writer.
    packed = bytes([0xFF, 0xF0, 0x00, 0x80, 0x08, 0x00])  # 4095, 0, 2048, 2048
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 2)]
    tags.append((279, 4, 6))
    entries = b"".join(
        struct.pack("<HHIHH" if kind == 3 else "<HHII", tag, kind, 1, value, *(() if kind == 4 else (0,)))
        for tag, kind, value in tags
    )
    content = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    found = numpy.asarray(decode(io.BytesIO(content), "x"))[..., 0]
    assert found.tolist() == [[255, 0], [128, 128]]
