"""The script that collects photographs: its tests of a picture, without any package."""

import importlib.util
import io
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy
import pytest
from PIL import Image, ImageDraw, ImageFilter

ROOT = Path(__file__).resolve().parents[2]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("photographs", ROOT / "recipes" / "photographs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["photographs"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


photographs = script()


def scene(seed: int, size: tuple[int, int] = (384, 256)) -> Image.Image:
    """Like a photograph: noise at all scales, the coarse stronger, in three correlated channels."""
    rng = numpy.random.default_rng(seed)
    width, height = size
    total = numpy.zeros((height, width, 3))
    for cells in (3, 6, 12, 24, 48, 96):
        noise = rng.normal(size=(cells, cells, 1)) + 0.5 * rng.normal(size=(cells, cells, 3))
        for channel in range(3):
            layer = Image.fromarray(noise[..., channel].astype(numpy.float32))
            total[..., channel] += numpy.asarray(layer.resize(size, Image.Resampling.BICUBIC)) / cells**0.5
    total = 128 + 60 * total / total.std()
    return Image.fromarray(total.clip(0, 255).astype(numpy.uint8))


def gradient() -> Image.Image:
    rows, columns = numpy.mgrid[0:256, 0:384]
    return Image.fromarray(numpy.stack((rows * 0.5, columns * 0.5, 200 - rows * 0.5), axis=-1).astype(numpy.uint8))


def graphics() -> Image.Image:
    """A poster: shapes in a few colours, with antialiased edges and some small print."""
    image = Image.new("RGB", (768, 512), "white")
    draw = ImageDraw.Draw(image)
    for index in range(12):
        colour = (20 * index, 255 - 20 * index, 128)
        draw.ellipse((index * 60, index * 30, index * 60 + 150, index * 30 + 150), fill=colour)
    for row in range(20):
        draw.text((20, 20 * row), "the quick brown fox jumps over the lazy dog", fill="black")
    return image.resize((384, 256), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def judge(image: Image.Image) -> str:
    """Why a picture is no photograph, or nothing."""
    try:
        photographs.refuse_graphics(photographs.texture_of(image))
    except photographs.NotKeptError as reason:
        return str(reason)
    return ""


@pytest.mark.parametrize("seed", range(4))
def test_scenes_pass_as_photographs(seed: int) -> None:
    assert judge(scene(seed)) == ""
    assert judge(scene(seed).convert("L").convert("RGB")) == ""
    assert judge(scene(seed).filter(ImageFilter.GaussianBlur(1.5))) == ""


def test_a_thing_before_a_plain_wall_passes() -> None:
    image = Image.new("RGB", (400, 300), (200, 205, 210))
    image.paste(scene(0, (240, 200)), (80, 50))
    assert photographs.texture_of(image).flat > 0.45
    assert judge(image) == ""


def test_gradients_and_graphics_do_not() -> None:
    assert judge(gradient()) in ("flat parts", "no detail")
    assert judge(graphics()) in ("flat parts", "few colours")
    assert judge(Image.new("RGB", (256, 256), "teal")) == "few colours"
    assert judge(scene(0, (256, 200)).quantize(16).convert("RGB")) == "few colours"


@pytest.mark.parametrize("name", ["astronaut", "camera", "chelsea", "coffee", "rocket"])
def test_real_photographs_pass_and_are_held_back(name: str) -> None:
    samples = ROOT / "samples"
    out = photographs.held_back(samples)
    (path,) = samples.glob(f"{name}.*")
    image = photographs.read(path.read_bytes())
    assert judge(image) == ""
    for version in (
        image,
        image.resize((200, 140)),
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        photographs.read(encoded(image, "JPEG", quality=40)),
        image.convert("L").convert("RGB"),
    ):
        assert out.find(photographs.perceptual_hash(version), photographs.SAME_AS_SAMPLE) == path.name


def test_other_pictures_are_not_held_back() -> None:
    out = photographs.held_back(ROOT / "samples")
    assert len(out.names) == 7  # scikit-learn's two are known by their hashes
    for seed in range(20):
        assert out.find(photographs.perceptual_hash(scene(seed)), photographs.SAME_AS_SAMPLE) is None


@pytest.mark.parametrize("seed", range(3))
def test_duplicates_are_seen(seed: int) -> None:
    seen = photographs.Seen()
    for other in range(seed + 1, seed + 20):
        seen.add(photographs.perceptual_hash(scene(other)), str(other))
    image = scene(seed)
    assert seen.find(photographs.perceptual_hash(image)) is None
    seen.add(photographs.perceptual_hash(image), "it")
    copies = {
        "smaller": image.resize((192, 128), Image.Resampling.LANCZOS),
        "larger": image.resize((1000, 667), Image.Resampling.BICUBIC),
        "compressed": Image.open(io.BytesIO(encoded(image, "JPEG", quality=30))),
        "mirrored": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "brighter": image.point(lambda value: min(255, int(value * 1.1 + 10))),
        "square": image.crop((64, 0, 320, 256)),
        "upright": image.crop((120, 0, 264, 256)),
    }
    for how, copy in copies.items():
        assert seen.find(photographs.perceptual_hash(copy)) == "it", how


def test_a_hash_survives_packing() -> None:
    bits = photographs.perceptual_hash(scene(0))
    assert numpy.array_equal(photographs.unpack_hash(photographs.pack_hash(bits)), bits)


def test_the_split_is_a_fixed_share_of_the_photographs() -> None:
    digests = [photographs.hashlib.sha256(str(index).encode()).hexdigest() for index in range(5000)]
    held = [photographs.split_of(digest, "photograph") == "held_out" for digest in digests]
    assert abs(sum(held) / len(held) - 0.08) < 0.015
    assert held == [photographs.split_of(digest, "photograph") == "held_out" for digest in digests]
    assert {photographs.split_of(digest, kind) for digest in digests for kind in ("cut-out", "texture")} == {"train"}


def test_a_picture_is_prepared() -> None:
    image, kind = photographs.prepare(encoded(scene(0, (1500, 900))), "ab" * 32, "photograph")
    assert (image.size, image.mode, kind) == ((853, 512), "RGB", "photograph")
    with Image.open(io.BytesIO(photographs.to_jpeg(image))) as written:
        assert written.format == "JPEG"
        assert written.layer[1][1:3] == written.layer[0][1:3]  # chroma is sampled as luminance is
        assert not written.getexif()
    assert photographs.to_jpeg(image) == photographs.to_jpeg(image.copy())


def test_cut_outs_lie_on_one_colour_of_their_own() -> None:
    image = scene(0, (400, 400)).convert("RGBA")
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((50, 50, 349, 349), fill=255)
    image.putalpha(mask)
    first, kind = photographs.prepare(encoded(image), "00" * 32, "photograph")
    again, _ = photographs.prepare(encoded(image), "00" * 32, "photograph")
    other, _ = photographs.prepare(encoded(image), "7f" * 32, "photograph")
    assert (first.size, kind) == ((300, 300), "cut-out")
    assert first.tobytes() == again.tobytes()
    assert first.getpixel((0, 0)) == first.getpixel((299, 0)) != other.getpixel((0, 0))
    assert first.getpixel((150, 150)) == image.getpixel((200, 200))[:3]


def test_the_cameras_rotation_is_applied() -> None:
    image = scene(1)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    turned = photographs.read(encoded(image, "PNG", exif=exif))
    assert turned.tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "LA"])
def test_modes_become_rgb(mode: str) -> None:
    image = scene(2)
    if mode == "I;16":
        levels = numpy.asarray(image.convert("L"), numpy.uint16) * 257
        data = encoded(Image.fromarray(levels))
    else:
        data = encoded(image.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    read = photographs.read(data)
    assert read.mode == "RGB"
    difference = numpy.asarray(read.convert("L"), float) - numpy.asarray(image.convert("L"), float)
    assert abs(difference).mean() < 12


def test_what_is_damaged_small_or_no_picture_is_not_kept() -> None:
    whole = encoded(scene(0))
    for data in (whole[: len(whole) // 2], b"", b"GIF89a" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(50)):
        with pytest.raises(photographs.NotKeptError, match="unreadable"):
            photographs.read(data)
    for size, reason in (((127, 400), "small"), ((1000, 200), "strip")):
        with pytest.raises(photographs.NotKeptError, match=reason):
            photographs.check_size(size)
    with pytest.raises(photographs.NotKeptError, match="unreadable"):  # a format that is not asked for
        photographs.read(encoded(scene(0), "BMP"))


def test_pictures_are_found_in_resources_and_archives(tmp_path: Path) -> None:
    jpeg, png = encoded(scene(0), "JPEG"), encoded(scene(1))
    resource = b"qres" + bytes(20) + b"".join(len(data).to_bytes(4, "big") + data for data in (jpeg, b"text", png))
    assert [data for _, data in photographs.pictures_of_resource(resource)] == [jpeg, png]
    (tmp_path / "a.rcc").write_bytes(resource)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("in/it.png", png)
        archive.writestr("read.me", b"")
    (tmp_path / "c.zip").write_bytes(b"no archive")
    (tmp_path / "d.jpg").write_bytes(jpeg)
    package = photographs.Package("p", "", never=("d.*",))
    names = [name for name, _ in photographs.files_of(tmp_path, package)]
    assert names[2:] == ["b.zip!in/it.png"]
    assert [name.split("!")[0] for name in names[:2]] == ["a.rcc", "a.rcc"]


def test_names_are_plain_and_differ() -> None:
    taken: set[str] = set()
    names = [
        photographs.file_name("pack", path, taken)
        for path in ("usr/share/pack/A photo.jpg", "usr/share/pack/A_photo.png", "usr/lib/x/é!1.webp")
    ]
    assert names[0] == "pack--pack-A-photo.jpg"
    assert len(set(names)) == 3
    assert all(name.isascii() and "/" not in name for name in names)


def test_a_folder_is_collected_the_same_twice(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "large.png").write_bytes(encoded(scene(0, (900, 600))))
    (root / "again.jpg").write_bytes(encoded(scene(0, (900, 600)).resize((300, 200)), "JPEG"))
    (root / "poster.png").write_bytes(encoded(graphics()))
    (root / "icon.png").write_bytes(encoded(scene(1, (64, 64))))
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "chelsea.png").write_bytes(next((ROOT / "samples").glob("chelsea.*")).read_bytes())
    texts = []
    for _ in range(2):
        report = photographs.Report("p", "1")
        out = photographs.held_back(ROOT / "samples")
        folder = tmp_path / "out"
        package = photographs.Package("p", "")
        entries = list(photographs.collect(package, root, report, photographs.Seen(), out, set(), folder))
        assert [entry.path for entry in entries] == ["large.png"]
        assert report.found == 6
        assert report.dropped["duplicate"] == report.dropped["held-back picture"] == report.dropped["unreadable"] == 1
        assert report.dropped["small"] == 1
        assert sum(report.dropped.values()) == 5
        texts.append({path.name: path.read_bytes() for path in folder.rglob("*.jpg")})
        assert photographs.table(entries, [report], ["q"]).count("\n") == 3
    assert texts[0] == texts[1]
    assert len(texts[0]) == 1
