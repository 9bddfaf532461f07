"""What Pillow refuses, gets wrong or says aloud, and files that are made to hurt."""

import contextlib
import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from reconstruct import CallError, ImageError, load_image
from reconstruct.images import pillow
from reconstruct.images.files import decode, fit, quiet_pillow, to_pixels
from reconstruct.images.limits import MOST_PIXELS

PIXELS = numpy.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=numpy.uint8)


def saved(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def refused(content: bytes, name: str = "picture") -> str:
    with pytest.raises(ImageError) as raised, quiet_pillow():
        decode(io.BytesIO(content), name)
    return str(raised.value)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_every_orientation_is_undone(orientation: int, kind: str) -> None:
    turned = {
        1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1], 5: PIXELS.transpose(1, 0, 2),
        6: numpy.rot90(PIXELS), 7: PIXELS[::-1, ::-1].transpose(1, 0, 2), 8: numpy.rot90(PIXELS, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    buffer = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(turned.copy()).save(buffer, kind, exif=exif, **lossless)
    found = numpy.asarray(decode(buffer, "x"))
    assert found.shape == PIXELS.shape
    assert abs(found.astype(int) - PIXELS).mean() <= (3 if kind == "JPEG" else 0)


def exif_of(tags: list[tuple[int, int, int, bytes]]) -> bytes:
    """EXIF with these tags: number, type, count and four bytes."""
    entries = b"".join(struct.pack(">HHI", *each[:3]) + each[3] for each in tags)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(tags)) + entries + bytes(4)


def test_odd_exif_leaves_a_picture_as_it_lies() -> None:
    """An orientation that is a fraction, text, or none of the eight; one beside a tag that cannot be written again."""
    upright = PIXELS.astype(int)
    for tag in ((274, 3, 1, b"\0\x2a\0\0"), (274, 2, 4, b"six\0"), (274, 5, 1, b"\0\0\0\x08")):
        found = numpy.asarray(decode(io.BytesIO(saved("PNG", exif=exif_of([tag]))), "x"))
        assert numpy.array_equal(found, upright)
    # A name whose bytes are no text, and the turn by a quarter.
    odd = exif_of([(271, 3, 2, b"\xff\xfe\xfd\xfc"), (274, 3, 1, b"\0\x06\0\0")])
    assert numpy.array_equal(numpy.asarray(decode(io.BytesIO(saved("PNG", exif=odd)), "x")), numpy.rot90(upright, -1))


def test_exif_that_cannot_be_read_is_told() -> None:
    with pytest.warns(UserWarning, match=r"x has EXIF that cannot be read \(.*\): it is taken as it lies"):
        found = decode(io.BytesIO(saved("PNG", exif=b"Exif\0\0XX no header of TIFF's")), "x")
    assert numpy.array_equal(numpy.asarray(found), PIXELS)


def overlapping(tags: int) -> bytes:
    """A TIFF file of one pixel, of which each further tag says that it holds the same 100 kB at the end."""
    needed = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    needed += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 1)]
    entries = needed + [(1000 + number, 1, 100_000, 400) for number in range(tags)]
    table = b"".join(struct.pack("<HHII", *each) for each in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(100_400)


def test_tags_that_lie_over_each_other_are_not_copied() -> None:
    """A file of a megabyte whose tags each hold all of it would take gigabytes."""
    assert numpy.asarray(decode(io.BytesIO(overlapping(1)), "x")).shape == (1, 1, 3)
    assert "whose tags lie over each other" in refused(overlapping(50))
    with pytest.warns(UserWarning, match="its tags lie over each other"):
        decode(io.BytesIO(saved("PNG", exif=b"Exif\0\0" + overlapping(50))), "x")


def test_big_tiff_is_read() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PIXELS, photometric="rgb", bigtiff=True)
    assert numpy.array_equal(numpy.asarray(decode(buffer, "x")), PIXELS)


def test_exif_as_text_of_png_turns_a_picture() -> None:
    """As ImageMagick wrote it once."""
    exif = exif_of([(274, 3, 1, b"\0\x03\0\0")])
    text = f"\nexif\n{len(exif):8d}\n{exif.hex()}\n".encode()
    content = saved("PNG")
    place = content.index(b"IDAT") - 4
    added = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
    found = decode(io.BytesIO(content[:place] + added + content[place:]), "x")
    assert numpy.array_equal(numpy.asarray(found), PIXELS[::-1, ::-1])


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("before", [True, False])
def test_long_texts_of_png_files_do_not_matter(before: bool, tmp_path: Path) -> None:
    """Before the picture's data or behind them, packed and not; beside them a turn, said by XMP."""
    content = saved("PNG")
    long = b"workflow\0" + bytes([0]) + zlib.compress(b"{}" * 2_000_000)
    plain = b"script\0" + b"print(1)\n" * 200_000
    turned = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>'
    texts = chunk(b"zTXt", long) + chunk(b"tEXt", plain) + chunk(b"iTXt", turned)
    place = content.index(b"IDAT") - 4 if before else content.index(b"IEND") - 4
    path = tmp_path / "long.png"
    path.write_bytes(content[:place] + texts + content[place:])
    with pytest.raises(ValueError, match="too large"), Image.open(path) as alone:
        alone.load()  # why the texts are taken out
    assert numpy.array_equal(to_pixels(load_image(path)), PIXELS[::-1, ::-1])
    assert PngImagePlugin.MAX_TEXT_CHUNK == 1 << 20  # as it was for everybody else


def test_a_png_files_size_is_asked_before_its_bytes_are_held() -> None:
    """With texts to take out, too: of 16 MiB the headers alone are read."""

    class Counted(io.BytesIO):
        passed = 0

        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            self.passed += len(content)
            return content

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0))
    text, data = chunk(b"tEXt", b"script\0" + bytes(100)), chunk(b"IDAT", bytes(1 << 20))
    file = Counted(b"\x89PNG\r\n\x1a\n" + header + text + 16 * data)
    with pytest.raises(ImageError, match="is too large"):
        decode(file, "large.png")
    assert file.passed < 100_000


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("JPEG", "jfif"),
        ("JPEG", "jpe"),
        ("MPO", "mpo"),
        ("PPM", "pgm"),
        ("PPM", "pbm"),
        ("PPM", "pnm"),
        ("PNG", "apng"),
    ],
)
def test_other_suffixes(kind: str, suffix: str, tmp_path: Path) -> None:
    image = Image.new({"pgm": "L", "pbm": "1"}.get(suffix, "RGB"), (17, 13), 1)
    more = {"save_all": True, "append_images": [image.rotate(180)]} if kind == "MPO" else {}
    image.save(tmp_path / f"a.{suffix}", kind, **more)
    assert load_image(tmp_path / f"a.{suffix}").shape == (3, 13, 17)


@pytest.mark.skipif("AVIF" not in pillow.formats(), reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_reads_it(tmp_path: Path) -> None:
    image = Image.new("RGB", (32, 24), (200, 100, 50))
    image.save(tmp_path / "a.avif", quality=95)
    assert to_pixels(load_image(tmp_path / "a.avif"))[12, 16] == pytest.approx([200, 100, 50], abs=6)


@pytest.mark.extras
def test_heic_is_read_with_its_package(tmp_path: Path) -> None:
    plugin = pytest.importorskip("pillow_heif")
    plugin.register_heif_opener()
    Image.new("RGB", (32, 24), (200, 100, 50)).save(tmp_path / "a.heic", quality=95)
    assert to_pixels(load_image(tmp_path / "a.heic"))[12, 16] == pytest.approx([200, 100, 50], abs=6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf", "is an AVIF picture, which Pillow 11.3 or newer reads"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf", "pip install 'reconstruct-features[heic]'"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "is not a picture in JPEG"),
        (b"II*\0" + bytes(40), "begins as a TIFF file does"),
        (b"GIF89a", "begins as a GIF file does"),
    ],
)
def test_what_a_file_is_that_is_not_read(content: bytes, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("files", "pillow"):
        monkeypatch.setattr(f"reconstruct.images.{module}.formats", lambda: pillow.FORMATS)
    assert message in refused(content)


@pytest.mark.parametrize(("brand", "form"), [(b"avif", "AVIF"), (b"heic", "HEIF")])
def test_a_damaged_file_is_not_told_to_install_what_is_there(
    brand: bytes, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow, "formats", lambda: (*pillow.FORMATS, form))
    assert "what follows is damaged" in pillow.what_it_is(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1miaf")


def claimed(kind: str, height: int, width: int) -> bytes:
    """A file of some hundred bytes that says it is so large."""
    content = bytearray(
        saved(kind, **({"save_all": True, "append_images": [Image.new("RGB", (17, 13))]} if kind == "WEBP" else {}))
    )
    if kind == "GIF":
        content[6:10] = struct.pack("<HH", width, height)
    elif kind == "WEBP":
        place = content.index(b"VP8X") + 12
        content[place : place + 6] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    elif kind == "BMP":
        content[18:26] = struct.pack("<ii", width, height)
    elif kind == "PPM":
        content = bytearray(b"P6 %d %d 255\n" % (width, height))
    else:
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "BMP", "PPM"])
def test_claims_of_size_are_refused_before_anything_is_decoded(kind: str) -> None:
    message = refused(claimed(kind, 3328, 47377), "small.file")
    assert message == (
        f"small.file is too large: 3328 x 47377 is 157,670,656 pixels, and at most {MOST_PIXELS:,} are read at once"
    )


def test_tiles_are_no_larger_than_pictures() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer, numpy.zeros((20, 30, 3), numpy.uint8), photometric="rgb", tile=(16, 16), compression="zlib"
    )
    content = bytearray(buffer.getvalue())
    for tag in (322, 323):
        place = content.index(struct.pack("<H", tag))
        content[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 30_000)
    assert "is cut into tiles of 30000 x 30000 pixels" in refused(bytes(content))


def test_no_picture_is_resized_beyond_the_limit() -> None:
    with pytest.raises(CallError, match="999999 x 999999 is 999,998,000,001 pixels"):
        fit(Image.fromarray(PIXELS), 999_999)
    with pytest.raises(CallError, match="at least 1 pixel, not 5 x 0"):
        fit(Image.fromarray(PIXELS), (5, 0))


def test_whatever_pillow_raises_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved("BMP")
    for error in (IndexError("index out of range"), struct.error("x" * 9999), RecursionError(), MemoryError()):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Image.Image, "load", fail)
        monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
        message = refused(content)
        assert message.startswith("picture ")
        assert len(message) < 300


def test_mutated_files_are_read_or_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """Bytes changed at random, of every format: a picture or an ``ImageError``, and nothing on standard error."""
    deep = io.BytesIO()
    tifffile.imwrite(deep, PIXELS.transpose(2, 0, 1).astype(numpy.uint16), photometric="rgb", planarconfig="separate")
    exif = Image.Exif()
    exif[274], exif[271] = 6, "maker"
    sound = [saved(kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP")]
    sound += [saved(kind) for kind in ("GIF", "BMP", "PPM")]
    sound += [saved("TIFF", compression=each) for each in (None, "tiff_lzw", "jpeg", "packbits")] + [deep.getvalue()]
    generator = numpy.random.default_rng(0)
    read = 0
    with quiet_pillow():
        for number in range(600):
            content = bytearray(sound[number % len(sound)])
            for _ in range(generator.integers(1, 6)):
                place = int(generator.integers(min(len(content), 64 if generator.random() < 0.5 else 1 << 20)))
                content[place : place + 1] = bytes([int(generator.choice([0, 255, 127, 128, generator.integers(256)]))])
            with contextlib.suppress(ImageError), warnings.catch_warnings(action="ignore"):
                decode(io.BytesIO(bytes(content)), "mutated")
                read += 1
    assert 60 < read < 540
    assert capfd.readouterr().err == ""


def test_libtiff_keeps_its_words_to_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(saved("TIFF", compression="tiff_lzw"))
    content[40:80] = b"\xff" * 40
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    # What the test would not notice otherwise: alone, in a process of its own, Pillow has it write.
    aloud = f"from PIL import Image\ntry: Image.open({str(path)!r}).load()\nexcept OSError: print('told')"
    loud = subprocess.run([sys.executable, "-c", aloud], check=True, capture_output=True, text=True)
    assert loud.stdout == "told\n"
    assert "not yet in table" in loud.stderr
    assert "decoder error" in refused(bytes(content))
    assert capfd.readouterr().err == ""
