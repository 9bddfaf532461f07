import contextlib
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
from PIL import Image

from reconstruct.errors import CallError, ImageError
from reconstruct.images import gzipped, zipped
from reconstruct.images.sources import digest, open_source, select
from tests.builders.synthetic import cifar10_binary, cifar10_python, cifar100_python, patterns

NAMES = [f"class {number}" for number in range(10)]


def png(value: int) -> bytes:
    """A picture of one colour, 4 x 5."""
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 2 * value, 255 - value)).save(buffer, "PNG")
    return buffer.getvalue()


def write(folder: Path, names: list[str]) -> None:
    """Pictures whose red is their place in the list."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))


def tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def reds(path: Path | str, split: str = "test") -> list[int]:
    """The red of each image's first pixel, by which tests know the image, from a copy that was sent elsewhere."""
    source = pickle.loads(pickle.dumps(open_source(str(path), split)))
    return [source.picture(index).getpixel((0, 0))[0] for index in range(len(source.names))]


def test_folders_flat_and_by_class_in_the_order_of_paths(tmp_path: Path) -> None:
    names = [
        "n02/b.JPEG",
        "n01/c.png",
        "a.jpg",
        "n01/z.tar",
        "n01/.hidden.png",
        ".git/x.png",
        "n01/notes.txt",
        "Z.webp",
    ]
    write(tmp_path, names)
    for name in ("n01/z.tar", "n01/notes.txt"):
        (tmp_path / name).write_bytes(b"no picture")
    source = open_source(str(tmp_path))
    assert source.kind == "folder"
    assert source.left_out == "3 files left out: 1 hidden, 1 .txt, 1 .tar"
    assert source.names == ["Z.webp", "a.jpg", "n01/c.png", "n02/b.JPEG"]
    assert reds(tmp_path) == [names.index(name) for name in source.names]


def test_what_is_no_regular_file_is_listed_and_says_so_when_it_is_read(tmp_path: Path) -> None:
    write(tmp_path, ["good.png"])
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    source = open_source(str(tmp_path))
    assert source.names == ["gone.png", "good.png", "pipe.png"]
    with pytest.raises(ImageError, match=r"gone\.png does not exist"):
        source.picture(0)
    with pytest.raises(ImageError, match=r"pipe\.png is not a file"):
        source.picture(2)


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    write(tmp_path / "store", ["x.png", "y.png"])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "again").symlink_to(tmp_path / "set")
    assert open_source(str(tmp_path / "set")).names == ["train/x.png", "train/y.png"]


def test_names_that_are_no_text(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")).write_bytes(png(7))
    except OSError:
        pytest.skip("this file system takes no such name")
    assert open_source(str(tmp_path)).names == ["caf%E9.png"]
    assert reds(tmp_path) == [7]


def test_lists(tmp_path: Path) -> None:
    names = ["val/one.JPEG", "val/two 2.png", "elsewhere.png"]
    write(tmp_path, names)
    listed = tmp_path / "val.txt"
    listed.write_text(
        f"# ImageNet's form\n{names[1]} 65\n\n{names[0]}\t970\n{tmp_path / names[2]}\r\nval/two 2.png.png\n"
    )
    source = open_source(str(listed))
    assert source.kind == "list"
    assert source.names == [names[1], names[0], str(tmp_path / names[2]), "val/two 2.png.png"]
    assert [source.picture(index).getpixel((0, 0))[0] for index in range(3)] == [1, 0, 2]
    listed.write_text(f"{names[0]} 1\n{names[0]} 2\n")
    with pytest.raises(CallError, match=r"lists val/one\.JPEG twice, in line 1 and in line 2"):
        open_source(str(listed))


def test_archives_one_and_several(tmp_path: Path) -> None:
    extra = [("b.cls", b"3"), ("sub/._b.jpg", b"fork"), ("broken.jpg", png(9)[:40])]
    first = tar(tmp_path / "set-0.tar", [("sub/b.png", png(1)), ("./a.png", png(2)), *extra])
    source = open_source(str(first))
    assert source.kind == "archive"
    assert source.names == ["./a.png", "broken.jpg", "sub/b.png"]
    assert source.picture(0).getpixel((0, 0)) == (2, 4, 253)
    assert source.picture(2).size == (5, 4)
    with pytest.raises(ImageError, match=r"set-0\.tar: broken\.jpg"):
        source.picture(1)
    first.unlink()
    tar(tmp_path / "s-1.tar", [("a.png", png(5)), ("a.json", b"{}")])
    tar(tmp_path / "s-0.tar", [("a.png", png(6)), (("long/" * 40) + "b.png", png(8))], "w")
    assert reds(tmp_path) == [6, 8, 5]
    assert open_source(str(tmp_path)).names[2] == "s-1.tar/a.png"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_form_of_tar_and_what_is_no_file_in_it(form: int, tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", format=form) as archive:
        for kind, name in (
            (tarfile.SYMTYPE, "link.png"),
            (tarfile.DIRTYPE, "folder.png"),
            (tarfile.FIFOTYPE, "pipe.png"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("../outside.png")
        info.size = len(png(3))
        archive.addfile(info, io.BytesIO(png(3)))
    # Read in place and never unpacked, so a name that leads outside is only a name.
    assert reds(path) == [3]


def test_archives_that_are_none(tmp_path: Path) -> None:
    whole = tar(tmp_path / "set.tar", [("a.png", png(1)), ("b.png", png(2))])
    cut = tmp_path / "cut.tar"
    # In the second header, in the first, and a second header that is damaged.
    content = whole.read_bytes()
    for part in (content[:1100], content[:1024] + b"\1" + content[1025:]):
        cut.write_bytes(part)
        for path in (str(cut), cut.as_uri()):
            with pytest.raises(
                CallError, match=r"cut\.tar (is damaged or cut off at byte 1,024, after 1|cannot be read)"
            ):
                open_source(path)
    cut.write_bytes(content[:100])
    with pytest.raises(CallError, match=r"cut\.tar cannot be read as a tar archive"):
        open_source(str(cut))
    packed = tar(tmp_path / "packed.tar", [("a.png", png(1))], "w:bz2")
    with pytest.raises(CallError, match="unpack it"):
        open_source(str(packed))
    twice = tar(tmp_path / "twice.tar", [("a.png", png(1)), ("a.png", png(2))])
    with pytest.raises(CallError, match=r"holds a\.png twice"):
        open_source(str(twice))


def linked(path: Path, links: list[tuple[bytes, str, str]]) -> None:
    """An archive of a.png and b/c.png, with links of a kind from one name to another."""
    with tarfile.open(path, "w") as archive:
        for name, value in (("./a.png", 1), ("b/c.png", 2), ("data", 3)):
            info = tarfile.TarInfo(name)
            info.size = len(png(value))
            archive.addfile(info, io.BytesIO(png(value)))
        for kind, name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)


def test_links_in_archives_are_what_they_lead_to(tmp_path: Path) -> None:
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    links = [
        (hard, "d.png", "a.png"), (hard, "e", "./b/c.png"), (soft, "b/f.png", "../a.png"), (hard, "g.png", "data"),
        (hard, "h.png", "nothing.png"), (soft, "i.png", "/etc/passwd"), (soft, "j.png", "j.png"),
    ]  # fmt: skip
    linked(tmp_path / "x.tar", links)
    source = open_source(str(tmp_path / "x.tar"))
    assert source.names == ["./a.png", "b/c.png", "b/f.png", "d.png", "data", "e", "g.png"]
    assert reds(tmp_path / "x.tar") == [1, 2, 1, 1, 3, 2, 3]
    assert source.left_out == "3 files left out: 3 link"


def test_an_archive_of_archives(tmp_path: Path) -> None:
    """ImageNet's training set: a tar archive a class, in one; a third level is left out."""
    inner = [tar(tmp_path / f"{n}.tar", [(f"{n}_0.JPEG", png(n)), ("readme", b"x")]).read_bytes() for n in (1, 2)]
    deep = tar(tmp_path / "deep.tar", [("1.tar", inner[0])]).read_bytes()
    whole = tar(tmp_path / "train.tar", [("n01.tar", inner[0]), ("n02", inner[1]), ("n03.tar", deep)])
    for path in (str(whole), whole.as_uri()):
        source = open_source(path)
        assert source.names == ["n01.tar/1_0.JPEG", "n02/2_0.JPEG"]
        assert reds(path) == [1, 2]
        assert source.left_out == "3 files left out: 2 without suffix, 1 .tar"
    cut = inner[0].replace(b"readme", b"\1eadme")
    tar(whole, [("n01.tar", cut), ("n02.tar", inner[1])])
    with pytest.raises(CallError, match="is damaged or cut off at byte 1,536"):
        open_source(str(whole))


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    """Pictures without an ending, an archive and a list with others', text that is called a picture or an archive."""
    folder = tmp_path / "set"
    write(folder, ["one", "two.dat"])
    (folder / "three.png").write_bytes(b"text")
    (folder / "notes.txt").write_text("x")
    source = open_source(str(folder))
    assert source.names == ["one", "three.png", "two.dat"]
    assert source.left_out == "1 file left out: .txt"
    with pytest.raises(ImageError, match=r"three\.png"):
        source.picture(1)
    tar(tmp_path / "images.dat", [("a", png(6)), ("b.cls", b"3")])
    assert reds(tmp_path / "images.dat") == [6]
    assert open_source(str(tmp_path / "images.dat")).left_out == "1 file left out: .cls"
    (tmp_path / "list.tsv").write_text("set/one 5\nset/two.dat\n")
    assert reds(tmp_path / "list.tsv") == [0, 1]
    (tmp_path / "x.dat").write_bytes(png(1))
    with pytest.raises(CallError, match="is a picture"):
        open_source(str(tmp_path / "x.dat"))
    (tmp_path / "x.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(CallError, match=r"x\.7z is packed, and pictures are read in place: unpack it"):
        open_source(str(tmp_path / "x.7z"))


CLASSES = {
    "set/n02/b.JPEG": png(1), "set/n01/a.png": png(2), "set/readme.txt": b"x", "set/.a.png": png(4), "set/n01/c": png(3)
}  # fmt: skip


def zip_of(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_zip_archives_as_they_are_downloaded(how: int, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "set.zip", CLASSES, how)
    for place in (str(path), path.as_uri(), str(tmp_path)):
        source = open_source(place)
        prefix = "set.zip/" if place == str(tmp_path) else ""
        assert source.names == [f"{prefix}set/{name}" for name in ("n01/a.png", "n01/c", "n02/b.JPEG")]
        assert source.left_out in ("2 files left out: 1 .txt, 1 hidden", "2 files left out: 1 hidden, 1 .txt")
        assert reds(place) == [2, 3, 1]


def test_zip_archives_with_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipped, "MOST_UNPACKED", 1 << 20)
    path = tmp_path / "set.zip"
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1), zipfile.ZIP_DEFLATED)
        archive.writestr("b.png", png(2), zipfile.ZIP_BZIP2)
        archive.writestr(link, "a.png")
        archive.writestr("c.png", bytes(3_000_000), zipfile.ZIP_DEFLATED)
        archive.writestr("d.png", png(3))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"d.png", 0, content.index(b"PK\1\2")) + 8] ^= 1  # in the picture's own bytes
    encrypted = content.index(b"PK\1\2") + 8  # of the first in the table of contents
    path.write_bytes(content)
    source = open_source(str(path))
    assert (source.names, source.left_out) == (
        ["a.png", "c.png", "d.png"], "2 files left out: 1 packed in a way that is not read, 1 link"
    )  # fmt: skip
    for index, said in (
        (1, "unpacked it has 3,000,000 bytes, and at most"),
        (2, "not those that were packed"),
    ):
        with pytest.raises(ImageError, match=said):
            source.picture(index)
    with pytest.raises(CallError, match=r"none\.zip holds no pictures"):
        open_source(str(zip_of(tmp_path / "none.zip", {})))
    content[encrypted] |= 1
    path.write_bytes(content)
    assert "encrypted" in open_source(str(path)).left_out
    path.write_bytes(content[:-30])
    with pytest.raises(CallError, match=r"set\.zip cannot be read as a zip archive: File is not a zip file"):
        open_source(str(path))


def test_archives_packed_by_gzip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read at any place, by many at once, of one stream or several; links and archives in them as of others."""
    monkeypatch.setattr(gzipped, "_BETWEEN", 1 << 12)
    monkeypatch.setattr(gzipped, "_CHUNK", 1 << 10)
    noise = numpy.random.default_rng(0).integers(0, 256, (40, 3000), "uint8")
    members = [(f"n{number % 7}/{number:02d}.png", png(number) + noise[number].tobytes()) for number in range(40)]
    plain = tar(
        tmp_path / "plain.tar", [*members, ("more.tar", tar(tmp_path / "m", [("x.png", png(40))]).read_bytes())]
    )
    content = plain.read_bytes()
    wanted = open_source(str(plain))
    pieces = [gzip.compress(content[:50_000]), gzip.compress(content[50_000:]), bytes(100)]
    for name, packed in (("one.tgz", gzip.compress(content)), ("two.tar.gz", b"".join(pieces))):
        path = tmp_path / name
        path.write_bytes(packed)
        assert reds(path) == reds(path.as_uri()) == reds(plain)
        source = open_source(str(path))
        assert (source.names, source.left_out) == (wanted.names, wanted.left_out)
        with ThreadPoolExecutor(4) as threads:
            pictures = list(threads.map(source.picture, reversed(range(41))))
        assert [picture.getpixel((0, 0))[0] for picture in reversed(pictures)] == reds(plain)  # type: ignore[index]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.tgz").write_bytes(gzip.compress(content))
    zip_of(folder / "b.zip", {"b.png": png(50)})
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"idx"))
    source = open_source(str(folder))
    assert (source.names[0], source.names[-1]) == ("a.tgz/more.tar/x.png", "b.zip/b.png")
    assert source.left_out == "1 file left out: .gz"
    assert reds(folder)[-1] == 50


def test_packed_archives_that_are_damaged_or_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipped, "MOST_UNPACKED", 1 << 22)
    packed = tar(tmp_path / "a.tgz", [(f"{number}.png", png(number)) for number in range(9)], "w:gz").read_bytes()
    wrong = packed[:-6] + b"\1" + packed[-5:]
    for name, content, said in (("cut.tgz", packed[:-40], "it is cut off"), ("bad.tgz", wrong, "incorrect data check")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CallError, match=said):
            open_source(str(tmp_path / name))
    info = tarfile.TarInfo("a.txt")
    info.size = 1 << 30
    with gzip.open(tmp_path / "bomb.tgz", "wb") as file:
        file.write(info.tobuf())
        for _ in range(5):
            file.write(bytes(1 << 20))
    with pytest.raises(CallError, match="unpacked it has more than 4,194,304 bytes"):
        open_source(str(tmp_path / "bomb.tgz"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_lists_with_a_mark_of_their_encoding(encoding: str, tmp_path: Path) -> None:
    write(tmp_path, ["caf\xe9.png", "b.png"])
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "list.txt").write_bytes(mark + "caf\xe9.png 3\r\nb.png\r\n".encode(encoding))
    assert open_source(str(tmp_path / "list.txt")).names == ["caf\xe9.png", "b.png"]
    assert reds(tmp_path / "list.txt") == [0, 1]


def test_lists_of_what_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, ["a.png"])
    listed = tmp_path / "list.txt"
    listed.write_text("b.png\nc.png\n")
    with pytest.raises(CallError, match=r"lists 2 pictures, and not one is there: the first is .*b\.png"):
        open_source(str(listed))
    listed.write_text("a.png,3\nb, c.png 4\nd,5.png\n")
    assert open_source(str(listed)).names == ["a.png", "b, c.png", "d,5.png"]
    listed.write_text(f"a.png\n{'x' * 5000}.png\n")
    with pytest.raises(ImageError, match=r"cannot be read|too long"):
        open_source(str(listed)).picture(1)


def test_results_in_the_folder_are_no_part_of_the_set(tmp_path: Path) -> None:
    """In a folder inside, whatever it is called, and in the folder itself; other pictures beside them stay."""
    for place in (tmp_path / "set" / "results", tmp_path / "own"):
        write(place, ["thumbnails/1.webp", "rows/.part", "kept.png"])
        (place / "run.json").write_text("{}")
    write(tmp_path / "set", ["a.png", "thumbnails/b.png"])
    source = open_source(str(tmp_path / "set"))
    assert source.names == ["a.png", "results/kept.png", "thumbnails/b.png"]
    assert source.left_out == "1 folder of results left out"
    assert open_source(str(tmp_path / "own")).names == ["kept.png"]


def damaged_headers() -> dict[str, bytes]:
    """Archives whose headers have the right sum and say what cannot be."""
    info = tarfile.TarInfo("a.png")
    info.size = len(png(1))
    plain = info.tobuf(tarfile.GNU_FORMAT) + png(1).ljust(512, b"\0")

    def header(**fields: bytes) -> bytes:
        place = {"size": 124, "kind": 156, "name": 0}
        changed = bytearray(plain[:512])
        for name, value in fields.items():
            changed[place[name] : place[name] + len(value)] = value
        changed[148:156] = b"%06o\0 " % (sum(changed) - sum(changed[148:156]) + 8 * 32)
        return bytes(changed)

    def extended(kind: bytes, records: bytes, size: bytes | None = None) -> bytes:
        size = b"%011o\0" % len(records) if size is None else size
        return header(kind=kind, size=size) + records.ljust(512, b"\0") + plain

    return {
        "negative": header(size=b"\xff" * 12) + plain,
        "vast": header(size=b"\x80" + b"\x7f" * 11) + plain,
        "size of a word": extended(b"x", b"12 size=vast\n"),
        "size below 0": extended(b"x", b"16 size=-1000000\n"),
        "records of another length": extended(b"x", b"99999999 size=1\n"),
        "records that are not UTF-8": extended(b"x", b"12 path=\xe8\xe9\n"),
        "a header of exabytes": extended(b"x", b"", b"\x80" + b"\0" * 3 + b"\x7f" * 8),
        "a name of exabytes": extended(b"L", b"", b"\x80" + b"\0" * 3 + b"\x7f" * 8),
        "headers of headers": header(kind=b"x", size=b"00000000000\0") * 3000 + plain,
        "sparse": extended(b"x", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"),
    }


@pytest.mark.parametrize("name", damaged_headers())
def test_damaged_headers(name: str, tmp_path: Path) -> None:
    """Read as far as they go, or a sentence; as a file, and as a stream."""
    path = tmp_path / "x.tar"
    path.write_bytes(damaged_headers()[name] + bytes(1024))
    for place in (str(path), path.as_uri()):
        with contextlib.suppress(CallError):
            assert 1 <= len(open_source(place).names) <= 2


@pytest.mark.parametrize("form", ["python", "binary", "hundred"])
def test_cifar_as_it_is_published(form: str, tmp_path: Path) -> None:
    train, test = patterns(20, 32, 10), patterns(7, 32, 10, seed=1)
    if form == "hundred":
        cifar100_python(tmp_path, train, test, [str(number) for number in range(100)])
    else:
        (cifar10_python if form == "python" else cifar10_binary)(tmp_path, train, test, NAMES)
    for split, (images, _) in (("train", train), ("test", test)):
        source = pickle.loads(pickle.dumps(open_source(str(tmp_path), split)))
        assert source.kind == "cifar"
        assert source.names[3] == f"{split}/00003"
        assert len(source.names) == len(images)
        for index, image in enumerate(images):
            assert numpy.array_equal(numpy.asarray(source.picture(index)), image.transpose(1, 2, 0))


def test_object_storage_by_pyarrows_file_systems(tmp_path: Path) -> None:
    """``file://`` goes the way of ``s3://``: everything through pyarrow's file systems."""
    write(tmp_path / "set", ["b/x.png", "a.png", ".hidden.png"])
    (tmp_path / "set" / "b" / "list.txt").write_text("x.png 3\n")
    (tmp_path / "shards").mkdir()
    tar(tmp_path / "shards" / "s.tar", [("q.png", png(4))])
    root = tmp_path.as_uri()
    assert open_source(f"{root}/set").names == ["a.png", "b/x.png"]
    assert reds(f"{root}/set") == [1, 0]
    assert reds(f"{root}/set/b/list.txt") == [0]
    assert reds(f"{root}/shards/s.tar") == reds(f"{root}/shards") == [4]
    (tmp_path / "set" / "a.png").unlink()
    source = open_source(f"{root}/set")
    (tmp_path / "set" / "b" / "x.png").unlink()
    with pytest.raises(ImageError, match=r"b/x\.png cannot be read"):
        source.picture(0)
    for uri, message in ((f"{root}/none", "does not exist"), ("nonsense://x", "cannot be opened")):
        with pytest.raises(CallError, match=message):
            open_source(uri)


def described(make: Callable[[Path], object], path: Path) -> str:
    make(path)
    with pytest.raises(CallError) as caught:
        open_source(str(path))
    return str(caught.value)


def test_what_is_no_set_of_images(tmp_path: Path) -> None:
    assert "does not exist" in described(lambda path: None, tmp_path / "nothing")
    assert "neither a folder nor a file" in described(os.mkfifo, tmp_path / "pipe")
    assert "holds no pictures" in described(Path.mkdir, tmp_path / "empty")
    assert "is a picture" in described(lambda path: path.write_bytes(png(1)), tmp_path / "one.png")
    assert "neither an archive nor a list" in described(lambda path: path.write_bytes(b"\xff\xfe\x00"), tmp_path / "x")
    packed = tmp_path / "downloads"
    packed.mkdir()
    assert "unpack cifar-10-python.tar.gz first" in described(
        lambda path: (path / "cifar-10-python.tar.gz").write_bytes(b""), packed
    )
    with pytest.raises(CallError, match="'train' or 'test'"):
        open_source(str(packed), "val")


def test_a_selection_is_stable() -> None:
    assert select(5) == select(5, limit=9) == [0, 1, 2, 3, 4]
    assert select(5, limit=2) == [0, 1]
    drawn = select(1000, sample=50, seed=3)
    assert drawn == sorted(set(drawn)) == select(1000, sample=50, seed=3)
    assert len(drawn) == 50
    assert drawn != select(1000, sample=50, seed=4)
    # A run with a larger sample goes on with a smaller one's.
    assert set(drawn) < set(select(1000, sample=80, seed=3))
    assert select(3, sample=9) == [0, 1, 2]


def test_the_digest_tells_names_and_their_order() -> None:
    assert digest(["a", "b"]) == digest(iter(["a", "b"]))
    assert len({digest(names) for names in (["a", "b"], ["b", "a"], ["a"], ["a b"])}) == 4


def test_a_lists_names_are_one_printable_line(tmp_path: Path) -> None:
    """Rows, tables and pages have them; files are found by their bytes."""
    names = [b"caf\xe9.png", "right\u202eleft.png".encode(), "a\u2028b.png".encode()]
    for name in names:
        Image.new("RGB", (8, 8), "red").save(tmp_path / os.fsdecode(name))
    (tmp_path / "list.txt").write_bytes(b"\r\n".join(names))
    source = open_source(str(tmp_path / "list.txt"))
    assert source.names == ["caf%E9.png", "right%E2%80%AEleft.png", "a%E2%80%A8b.png"]
    assert [source.picture(index).size for index in range(3)] == [(8, 8)] * 3
    binary = b"\n".join([*names, b"\x07\x01"])
    assert "neither an archive nor a list" in described(lambda path: path.write_bytes(binary), tmp_path / "binary")
