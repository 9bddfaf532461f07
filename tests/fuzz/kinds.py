"""The kinds of hostile input: how one is made from a random number, and what reads it."""

import contextlib
import gzip
import io
import json
import math
import os
import random
import struct
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import torch
from safetensors.torch import save

from reconstruct.evaluation.results import SCHEMA
from reconstruct.images.features import read_features, recorded_noise
from reconstruct.images.files import load_image
from reconstruct.images.sources import digest, open_source
from reconstruct.report.pages.write import numbers, write_report
from reconstruct.training.checkpoint import Run
from reconstruct.training.data import load_pictures
from reconstruct.zoo.import_onnx import import_onnx
from reconstruct.zoo.import_torchvision import import_checkpoint
from reconstruct.zoo.load import load_network
from reconstruct.zoo.registry import class_names
from tests.fuzz import mutations, seeds

Make = Callable[[Path, random.Random], None]
"""Writes an input into a folder."""
Read = Callable[[Path], None]
"""Reads it; what it writes is in the folder ``out`` beside."""


def _maybe(content: bytes, rng: random.Random, other: bytes = b"", share: float = 0.8) -> bytes:
    return mutations.bytes_of(content, rng, other) if rng.random() < share else content


# Pictures


def make_picture(folder: Path, rng: random.Random) -> None:
    name, content = rng.choice(list(seeds.pictures().items()))
    if name.endswith(".png") and rng.random() < 0.4:
        content = _png_chunk(content, rng)
    else:
        content = mutations.bytes_of(content, rng, rng.choice(list(seeds.pictures().values())))
    (folder / name).write_bytes(content)


def _png_chunk(content: bytes, rng: random.Random) -> bytes:
    """A chunk changed, or one more, with its sum right."""
    at, chunks = 8, []
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    place = rng.randrange(len(chunks))
    if rng.random() < 0.5:
        kind = rng.choice((b"tEXt", b"iTXt", b"zTXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE", b"acTL", b"gAMA", b"sRGB"))
        packed = zlib.compress(bytes(rng.choice((100, 10**6, 10**7)))) if rng.random() < 0.3 else rng.randbytes(30)
        chunks.insert(max(1, place), (kind, b"XML\0\0" + packed))
    else:
        kind, body = chunks[place]
        chunks[place] = (kind, mutations.bytes_of(body, rng))
    written = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return content[:8] + b"".join(written)


def read_picture(folder: Path) -> None:
    for path in folder.iterdir():
        image = load_image(path, 24)
        assert image.shape == (3, 24, 24)
        assert bool(image.isfinite().all())


# Sets


def make_set(folder: Path, rng: random.Random) -> None:
    png = seeds.pictures()["RGB.png"]
    names = ["a.png", "b/c.jpg", "b/.d.png", "e", "notes.txt", "run.json", "rows/x", "x.tar", "f.heic", "é.png"]
    for name in rng.sample(names, rng.randrange(1, len(names))):
        seeds.write(folder, {name: _maybe(png if rng.random() < 0.7 else rng.randbytes(600), rng, share=0.3)})
    if rng.random() < 0.2:
        with contextlib.suppress(OSError):
            (folder / os.fsdecode(b"caf\xe9\n.png")).write_bytes(png)
    if rng.random() < 0.7:
        lines = [rng.choice([*names, *mutations.WORDS, "a.png 3", "# x", str(folder / "a.png")]) for _ in range(6)]
        text = rng.choice(("\n", "\r\n", "\r", "")).join(lines).encode("utf-8", "surrogatepass")
        mark = rng.choice((b"", b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))
        text = text.decode("utf-8", "replace").encode("utf-16-le") if mark == b"\xff\xfe" else text
        (folder / "list.txt").write_bytes(mark + _maybe(text, rng, share=0.3))


def read_set(folder: Path) -> None:
    for path in (folder, folder / "list.txt"):
        _look(str(path))


def _look(path: str) -> None:
    """List a set and read its first pictures; those that cannot be read are a sentence each."""
    with _told():
        source = open_source(path)
        digest(source.names)
        for index in range(min(3, len(source.names))):
            with _told():
                source.picture(index)


def make_archive(folder: Path, rng: random.Random) -> None:
    content = rng.choice(seeds.archives())
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = mutations.tar_header(content, rng) if rng.random() < 0.6 else mutations.bytes_of(content, rng)
    if rng.random() < 0.15:
        records = b"".join(
            b"%d %s=%s\n" % (len(key) + len(word) + 5, key, word)
            for key in (b"size", b"path", b"GNU.sparse.map", b"GNU.sparse.major", b"hdrcharset", b"mtime")
            for word in (rng.choice(mutations.WORDS).encode("utf-8", "surrogatepass")[:40],)
        )
        content = (
            seeds.tar([("x", records)]).replace(b"\0" * 8 + b"0" + b"\0" * 8, b"\0" * 8 + b"x" + b"\0" * 8, 1) + content
        )
    if rng.random() < 0.2:
        content = _maybe(gzip.compress(content, mtime=0), rng, share=0.5)
    elif rng.random() < 0.25:
        content = mutations.bytes_of(seeds.zipped(rng.random() < 0.7), rng)
        if rng.random() < 0.5:  # in the table of contents
            at = max(0, content.find(b"PK\1\2"))
            content = content[:at] + mutations.bytes_of(content[at:], rng)
    (folder / rng.choice(("a.tar", "a.tar", "a", "a.tar.gz", "a.zip"))).write_bytes(content)


def read_archive(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        _look(str(path))


# CIFAR


def make_cifar(folder: Path, rng: random.Random) -> None:
    names = ["test_batch"] if rng.random() < 0.6 else [f"data_batch_{each}" for each in range(1, 6)]
    objects = numpy.empty(1, dtype=object)
    odd = [
        objects, numpy.zeros((4, 3072)), numpy.zeros((4, 3072), ">u2"), numpy.zeros(0, "u1"), [2**31 - 1] * 4,
        [2**63] * 4, [[0]] * 4, [-1] * 4, [True] * 4, b"x" * 3072, None, numpy.zeros(3, "M8[s]"), [10**400] * 4,
        numpy.zeros(4, "U9"),
    ]  # fmt: skip
    for name in names:
        changes = {rng.choice(("data", "labels")): rng.choice(odd)} if rng.random() < 0.4 else {}
        content = seeds.batch(protocol=rng.choice((2, 2, 3, 4)), **changes)
        if rng.random() < 0.7:
            at = rng.choice((120, 60))
            # The end, or the beginning: the pictures in the middle are bytes, whatever they are.
            head, tail = content[:at], content[-at:]
            content = mutations.bytes_of(head, rng) + content[at:-at] + mutations.bytes_of(tail, rng)
        (folder / name).write_bytes(content)
    if rng.random() < 0.5:
        meta = seeds.python2_pickle({"label_names": [f"c{each}" for each in range(10)]})
        (folder / "batches.meta").write_bytes(_maybe(meta, rng, share=0.5))
    if rng.random() < 0.3:
        rows = rng.randbytes(2 * 3073) if rng.random() < 0.5 else bytes(2 * 3073)
        (folder / "test_batch.bin").write_bytes(_maybe(rows, rng, share=0.3))
        (folder / "batches.meta.txt").write_bytes(_maybe(b"a b c d e f g h i j", rng, share=0.5))
    if rng.random() < 0.3:
        members = [(f"cifar-10-batches-py/{path.name}", path.read_bytes()) for path in folder.iterdir()]
        packed = gzip.compress(_maybe(seeds.tar(members), rng, share=0.3), 1, mtime=0)
        (folder / "cifar-10-python.tar.gz").write_bytes(_maybe(packed, rng, share=0.3))


def read_cifar(folder: Path) -> None:
    for path in (folder, *folder.glob("*.gz")):
        _look(str(path))
        for split in ("train", "test"):
            with _told():
                pictures = load_pictures(path, split)
                assert pictures.pixels(0).shape == (3, 32, 32)
                assert 0 <= int(pictures.targets.max()) < len(pictures.classes)


# Models


def make_specification(folder: Path, rng: random.Random) -> None:
    table: Any = seeds.SPECIFICATION
    if rng.random() < 0.15:
        table = {"base": "b.toml", "crelu": ["conv1"], "source": "q", "classes": 3}
    for _ in range(rng.choice((1, 1, 2))):
        table = mutations.tree(table, rng)
    text = seeds.toml(table if isinstance(table, dict) else {"layers": table}).encode("utf-8", "replace")
    if rng.random() < 0.1:
        text = mutations.bytes_of(text, rng)
    weights = _weights(rng)
    (folder / "x.toml").write_bytes(text)
    (folder / "w.safetensors").write_bytes(weights)
    (folder / "b.toml").write_text(seeds.toml(seeds.SPECIFICATION if rng.random() < 0.8 else {"base": "x.toml"}))
    if rng.random() < 0.1:
        for number in range(200):
            (folder / f"{number}.toml").write_text(f'base = "{number + 1}.toml"\n')
        (folder / "b.toml").write_text('base = "0.toml"\n')
    (folder / "x.classes.json").write_bytes(seeds.as_json(mutations.tree(["a", "b"], rng)))


def _weights(rng: random.Random) -> bytes:
    """Weights that fit, that are not what float32 holds, or that are damaged."""
    if rng.random() < 0.5:
        return seeds.weights()
    if rng.random() < 0.5:
        key = rng.choice(list(seeds.state()))
        value = seeds.state()[key].double()
        value.view(-1)[0] = rng.choice((1e300, 1e-320, math.inf, math.nan, 3e38, -1e39))
        return save(seeds.state() | {key: value})
    return _safetensors(seeds.weights(), rng)


def _safetensors(content: bytes, rng: random.Random) -> bytes:
    """Another header, as long as it says."""
    if rng.random() < 0.4:
        return mutations.bytes_of(content, rng)
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(mutations.tree(json.loads(content[8 : 8 + length]), rng)).encode()
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def read_specification(folder: Path) -> None:
    path = str(folder / "x.toml")
    _use(path)
    with _told():
        class_names(path)


def make_config(folder: Path, rng: random.Random) -> None:
    config: Any = seeds.CONFIG
    for _ in range(rng.choice((1, 1, 2))):
        config = mutations.tree(config, rng)
    text = seeds.as_json(config)
    (folder / "config.json").write_bytes(mutations.bytes_of(text, rng) if rng.random() < 0.1 else text)
    (folder / "model.safetensors").write_bytes(_weights(rng))


def read_config(folder: Path) -> None:
    _use(str(folder))
    with _told():
        class_names(str(folder))


def _use(name: str) -> None:
    """Load a model, and ask it for features; nothing of it may be infinite."""
    with _told():
        net = load_network(name)
        assert all(bool(each.isfinite().all()) for each in net.state_dict().values() if each.is_floating_point())
        last = net.layer_names[-1]
        net.architecture.receptive_field(last)
        side = net.input_size
        if side <= 64 and net.architecture.parameters() < 10**6:
            net.features(torch.full((1, net.channels, side, side), 0.5), last)


def make_checkpoint(folder: Path, rng: random.Random) -> None:
    state: dict[str, Any] = dict(seeds.state(names=("f.0", "f.1", "f.2")))
    if rng.random() < 0.5:
        key = rng.choice(list(state))
        state[key] = rng.choice(_tensors(state[key]))
    prefix = rng.choice(("", "", "module.", "_orig_mod.", "model.", "a" * 3000))
    whole: Any = {prefix + name: each for name, each in state.items()}
    if rng.random() < 0.3:
        whole = {"epoch": 1, rng.choice(("state_dict", "model", "x")): whole, "args": [1, "a"]}
    if rng.random() < 0.1:
        whole = mutations.tree(dict.fromkeys(state, 1), rng)
    if rng.random() < 0.2 and all(isinstance(each, torch.Tensor) for each in state.values()):
        with contextlib.suppress(Exception):  # what it does not save
            (folder / "c.pth").write_bytes(_safetensors(save(state), rng))
            return
    content = seeds.saved(whole, _use_new_zipfile_serialization=rng.random() < 0.8)
    (folder / "c.pth").write_bytes(_maybe(content, rng, share=0.5))


def _tensors(like: torch.Tensor) -> list[Any]:
    return [
        torch.nested.nested_tensor([torch.rand(2, 3), torch.rand(4, 3)]), like.to_sparse(),
        torch.zeros(1).expand(10**6, 10**6), like.to(torch.complex64), like.double() * 1e300, like.to(torch.bfloat16),
        like * torch.nan, torch.zeros(0), 3, "a", like[None], torch.quantize_per_tensor(like, 0.1, 0, torch.qint8),
        torch.zeros(1, dtype=torch.bool), [like], None, like.t() if like.ndim == 2 else like.flip(0),
        torch.empty(3, device="meta"), torch.zeros(4, dtype=torch.int8),
    ]  # fmt: skip


def read_checkpoint(folder: Path) -> None:
    specification = folder / "base.toml"
    specification.write_text(seeds.toml({key: each for key, each in seeds.SPECIFICATION.items() if key != "weights"}))
    written = import_checkpoint(folder / "c.pth", str(specification), folder / "out")
    load_network(str(written))


def make_onnx(folder: Path, rng: random.Random) -> None:
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(_onnx())
    for _ in range(rng.randrange(3)):
        node = rng.choice(list(model.graph.node))
        match rng.randrange(5):
            case 0:
                node.op_type = rng.choice(("Relu", "Conv", "Gemm", "Concat", "Neg", "Loop", "MaxPool", "a" * 5000))
            case 1:
                node.input.append(rng.choice(("x", "w", "y", *mutations.WORDS[:6])))
            case 2 if node.attribute:
                attribute = rng.choice(list(node.attribute))
                attribute.ints[:] = [rng.choice((0, -1, 1, 2**31, 2**62)) for _ in range(rng.randrange(5))]
            case 3:
                tensor = rng.choice(list(model.graph.initializer))
                tensor.dims[:] = [rng.choice((0, 1, 3, 2**31, 2**62)) for _ in range(rng.randrange(6))]
            case _:
                tensor = rng.choice(list(model.graph.initializer))
                tensor.raw_data = mutations.bytes_of(tensor.raw_data, rng)
    content = model.SerializeToString()
    (folder / "m.onnx").write_bytes(_maybe(content, rng, share=0.6))


def _onnx() -> Any:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(numpy.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("MaxPool", ["z"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "v"], ["o"], kernel_shape=[1, 1]),
    ]
    values = {"w": weight, "b": numpy.zeros(4, numpy.float32), "v": numpy.ones((2, 4, 1, 1), numpy.float32)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 2, 8, 8])],
        [numpy_helper.from_array(each, name) for name, each in values.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=onnx.IR_VERSION)


def read_onnx(folder: Path) -> None:
    load_network(str(import_onnx(folder / "m.onnx", folder / "out").path))


# Features


def make_features(folder: Path, rng: random.Random) -> None:
    values = numpy.abs(numpy.random.default_rng(0).normal(size=(1, 4, 5, 6))).astype(numpy.float32)
    tensor = torch.from_numpy(values)
    match rng.randrange(6):
        case 0:
            kind = rng.choice(("<f4", ">f4", "<f2", "i1", "<i4", "c8", "O", "U3", "M8[s]", "V2", "f8"))
            content = seeds.npy(values.astype(kind) if kind not in ("O", "V2") else numpy.zeros((1, 2, 3, 3), kind))
            (folder / "f.npy").write_bytes(_maybe(content, rng))
        case 1:
            arrays = {"features": rng.choice((values, (values * 20).astype("i1"), numpy.zeros((1, 2, 3, 3), "O")))}
            arrays |= rng.choice(
                ({}, {"scale": numpy.float32(0.1)}, {"scale": numpy.ones(3)}, {"zero_point": numpy.zeros((2, 2))},
                 {"scale": numpy.array(rng.choice((0.0, -1.0, math.inf, 1e300)))}, {"a" * 3000: values})
            )  # fmt: skip
            (folder / "f.npz").write_bytes(_maybe(seeds.npz(arrays, rng.random() < 0.5), rng, share=0.6))
        case 2 if rng.random() < 0.05:
            (folder / "f.npz").write_bytes(seeds.bomb())
        case 3 | 4:
            said = {rng.choice(("noise", "size", "scale", "x" * 2000)): rng.choice(("1", "nan", "é", "1e999", "0.1"))}
            kind = rng.choice((torch.float32, torch.bfloat16, torch.int8, torch.float8_e4m3fn, torch.int64, torch.bool))
            content = save({"features": tensor.to(kind)}, metadata=said)
            (folder / "f.safetensors").write_bytes(_safetensors(content, rng))
        case _:
            whole: Any = rng.choice(_tensors(tensor))
            wrap = rng.choice((lambda each: each, lambda each: {"features": each, "scale": 0.1}, lambda each: [[each]]))
            content = seeds.saved(wrap(whole), _use_new_zipfile_serialization=rng.random() < 0.8)
            (folder / "f.pt").write_bytes(_maybe(content, rng, share=0.5))


def read_feature_file(folder: Path) -> None:
    for path in folder.iterdir():
        for name in (str(path), f"{path}:features"):
            with _told():
                stored = read_features(name)
                assert stored.values.ndim == 4
                recorded_noise(stored)


# Results


def make_results(folder: Path, rng: random.Random) -> None:
    for name in ("one", "two"):
        run: Any = seeds.run()
        table = pyarrow.Table.from_pylist(seeds.rows(), schema=SCHEMA)
        if rng.random() < 0.6:
            run = mutations.tree(run, rng)
        if rng.random() < 0.6:
            table = _odd_rows(rng)
        sink = io.BytesIO()
        pyarrow.parquet.write_table(table, sink)
        text = seeds.as_json(run)
        files = {
            f"{name}/run.json": mutations.bytes_of(text, rng) if rng.random() < 0.1 else text,
            f"{name}/rows/part-000000.parquet": _maybe(sink.getvalue(), rng, share=0.2),
        }
        for picture in ("0", "0.conv1.map", "1", "1.conv1.map"):
            content = seeds.pictures()["e.webp"]
            files[f"{name}/thumbnails/{picture}.webp"] = _maybe(content, rng, share=0.2)
        seeds.write(folder, files)


def _odd_rows(rng: random.Random) -> pyarrow.Table:
    """Rows with values in them that evaluate never writes, as far as their columns take them, or other columns."""
    rows = [dict(row) for row in seeds.rows()[: rng.choice((0, 1, 2, 24))]]
    schema = SCHEMA
    for row in rng.sample(rows, min(len(rows), rng.choice((1, 3, 24)))):
        name = rng.choice(SCHEMA.names)
        words = name in ("image", "model", "layer", "method", "status", "device", "output", "error")
        row[name] = rng.choice(
            [*mutations.WORDS, None] if words else [0.0, -1.0, 1e308, -1e308, math.inf, math.nan, None, 5e-324]
        )
        if name == "index":
            row[name] = rng.choice((-1, 2**63 - 1, None))
    if rng.random() < 0.2:
        field = rng.choice(SCHEMA.names)
        schema = pyarrow.schema([each for each in SCHEMA if each.name != field])
        rows = [{key: each for key, each in row.items() if key != field} for row in rows]
    loose = pyarrow.schema([each.with_nullable(True) for each in schema])
    return pyarrow.Table.from_pylist(rows, schema=loose)


def read_results(folder: Path) -> None:
    one, two = folder / "one", folder / "two"
    for folders in ([one], [one, two]):
        with _told():
            write_report(folders, folder / "out" / f"{len(folders)}.html")
        with _told():
            json.dumps(numbers(folders), allow_nan=False)


# Training


def _run(folder: Path) -> Run:
    net = torch.nn.Linear(3, 2)
    return Run(
        folder, {"seed": 1}, net, torch.optim.SGD(net.parameters(), lr=0.1), torch.amp.GradScaler("cpu", enabled=False)
    )


def make_run(folder: Path, rng: random.Random) -> None:
    run = _run(folder)
    run.add(0.5)
    run.save()
    if rng.random() < 0.4:
        saved = torch.load(folder / "checkpoint.pt", weights_only=True)
        key = rng.choice(list(saved))
        content = seeds.saved(
            saved | {key: rng.choice([*_tensors(torch.zeros(2, 3)), mutations.value(rng), {}, [[1]]])}
        )
    else:
        content = mutations.bytes_of((folder / "checkpoint.pt").read_bytes(), rng)
    (folder / "checkpoint.pt").write_bytes(content)


def read_run(folder: Path) -> None:
    _run(folder).restore()


def make_crops(folder: Path, rng: random.Random) -> None:
    how = {"done": 2, "count": 2, "side": 8}
    text = seeds.as_json(mutations.tree(how, rng) if rng.random() < 0.5 else how)
    crops = seeds.npy(numpy.zeros((2, 3, 8, 8), rng.choice(("u1", "u1", "f4", "O"))))
    answers = seeds.npy(numpy.zeros((2, 5), rng.choice(("f2", "f2", "i4"))))
    files = {
        "crops.json": text,
        "crops.npy": _maybe(crops, rng, share=0.4),
        "answers.npy": _maybe(answers, rng, share=0.4),
    }
    seeds.write(folder, files)


def read_crops(folder: Path) -> None:
    pictures = load_pictures(folder)
    assert pictures.pixels(0).ndim == 3
    assert len(pictures.classes) < 10**7


@contextlib.contextmanager
def _told() -> Any:
    """An error of the package's own is what is right."""
    from tests.fuzz.children import check_message

    try:
        yield
    except Exception as error:
        check_message(error)


KINDS: dict[str, tuple[Make, Read]] = {
    "picture": (make_picture, read_picture),
    "set": (make_set, read_set),
    "archive": (make_archive, read_archive),
    "cifar": (make_cifar, read_cifar),
    "specification": (make_specification, read_specification),
    "config": (make_config, read_config),
    "checkpoint": (make_checkpoint, read_checkpoint),
    "features": (make_features, read_feature_file),
    "results": (make_results, read_results),
    "run": (make_run, read_run),
    "crops": (make_crops, read_crops),
}
SLOW = ("results",)
"""Kinds of which an input takes longer than of all others: half as many are made."""
if find_spec("onnx") is not None:  # an optional package
    KINDS["onnx"] = (make_onnx, read_onnx)
ORDER = [*KINDS, *(kind for kind in KINDS if kind not in SLOW)]
"""The kinds of inputs 0, 1, 2, ..., over and over."""
