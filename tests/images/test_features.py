"""Features from outside: files, and the main job without a picture."""

import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from reconstruct import FeatureError, from_torch, load_image, load_model
from reconstruct.images import tensor_files
from reconstruct.images.features import read_features, recorded_noise, rounding, write_features
from reconstruct.network.network import Network
from reconstruct.network.protocol import AnyNetwork
from reconstruct.zoo.specification import read_architecture
from tests.builders.networks import randn
from tests.builders.user_modules import HALF, SIDE, LastChannels, tokens
from tests.conftest import ROOT, Call

SAMPLE = ROOT / "samples" / "chelsea.jpg"
SECOND = ROOT / "samples" / "coffee.jpg"
CRELU = ("--model", "convpool_cnn_c_crelu", "--layer", "conv1")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["npy", "safetensors"])
def test_what_is_written_is_read(form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    values = randn(2, 3, 4, 5).to(dtype)
    path = tmp_path / f"f.{form}"
    write_features(values, path, {"layer": "conv1"})
    stored = read_features(path)
    assert stored.values.dtype == dtype
    assert torch.equal(stored.values, values)
    assert dict(stored.said) == ({} if form == "npy" else {"layer": "conv1"})
    write_features(values[1], path, {})
    assert torch.equal(read_features(path).values, values[1:])


@pytest.mark.parametrize("kind", [">f4", ">f8", "<f2"])
def test_numpy_files_of_other_orders(kind: str, tmp_path: Path) -> None:
    """Another byte order, and Fortran's order of axes."""
    values = numpy.asfortranarray(randn(3, 4, 5).numpy().astype(kind))
    numpy.save(tmp_path / "f.npy", values)
    assert numpy.array_equal(read_features(tmp_path / "f.npy").values[0].numpy(), values)


def test_a_tensor_by_name(tmp_path: Path) -> None:
    """One tensor of several; a file whose own name has a colon is itself."""
    tensors = {"a": randn(1, 2, 3, 3), "b:c": randn(2, 2, 3, 3)}
    path = tmp_path / "f.safetensors"
    save_file(tensors, path)
    assert torch.equal(read_features(f"{path}:a").values, tensors["a"])
    with pytest.raises(FeatureError, match=r"holds 2 tensors, a, b:c: name one"):
        read_features(path)
    with pytest.raises(FeatureError, match="holds no tensor 'd'; it has a, b:c"):
        read_features(f"{path}:d")
    odd = tmp_path / "x.safetensors:a.npy"
    numpy.save(odd, tensors["a"].numpy())
    assert torch.equal(read_features(odd).values, tensors["a"])


def test_rounding_is_that_of_float16() -> None:
    """Beside the error that is made: n of them have a mean square within 5 standard errors of the one expected."""
    exact = randn(4, 16, 20, 20).double() * torch.tensor([1e-5, 1e-3, 1.0, 1e3]).view(4, 1, 1, 1)
    exact[:, :8] = 0
    rounded = exact.half()
    for one, half in zip(exact, rounded, strict=True):
        made = float((half.double() - one).norm() / one.norm())
        # e^2 of a uniform e has a standard deviation of sqrt(4/5) of its mean; unequal units only lower the count.
        assert rounding(half[None]) == pytest.approx(made, rel=5 * (4 / 5 / 3200) ** 0.5)
    assert rounding(rounded) == pytest.approx(sum(rounding(half[None]) for half in rounded) / 4)
    assert rounding(exact) == rounding(torch.zeros(1, 2, 3, 3).half()) == 0


def quantised(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    limits = torch.iinfo(kind)
    return ((values / scale).round() + zero).clamp(limits.min, limits.max).to(kind)


def test_other_files_and_types_hold_the_same_features(tmp_path: Path) -> None:
    """``.npz``, and what ``torch.save`` writes; read by their content, whatever they are called."""
    values = randn(2, 3, 4, 5).abs()
    written: dict[str, Callable[[Path], object]] = {
        "a.npz": lambda path: numpy.savez(path, features=values.numpy()),
        "b.npz": lambda path: numpy.savez_compressed(path, features=values.numpy(), other=values.numpy()),
        "c.pt": lambda path: torch.save(values, path),
        "d.pth": lambda path: torch.save({"epoch": 3, "conv1": {"out": torch.nn.Parameter(values)}}, path),
        "e.pt": lambda path: torch.save([values], path),
        "f.pt": lambda path: torch.save(values, path, _use_new_zipfile_serialization=False),
        "g.pt": lambda path: torch.save(values.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), path),
        "h.data": lambda path: save_file({"x": values}, path),
    }
    for name, write in written.items():
        write(tmp_path / name)
        stored = read_features(f"{tmp_path / name}:features" if name == "b.npz" else tmp_path / name)
        assert torch.equal(stored.values, values), name
        assert (stored.note, stored.rounded) == ("", None)
    with pytest.raises(FeatureError, match=r"b\.npz holds 2 tensors, features, other: name one"):
        read_features(tmp_path / "b.npz")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_shorter_floating_point_numbers(kind: torch.dtype, tmp_path: Path) -> None:
    exact = randn(2, 16, 20, 20).relu()
    save_file({"features": exact.to(kind)}, tmp_path / "f.safetensors")
    stored = read_features(tmp_path / "f.safetensors")
    assert stored.values.dtype == torch.float32
    assert torch.equal(stored.values, exact.to(kind).float())
    made = float(((stored.values - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).mean())
    # Beside what is made: 6,400 errors, half of them none, and as in the test of float16; e5m2 has few steps.
    assert recorded_noise(stored) == pytest.approx(made, rel=0.1)


# A file's own words have one scale for all channels.
@pytest.mark.parametrize(
    ("form", "channels"),
    [(form, False) for form in ("npz", "safetensors", "said", "pt", "torch")]
    + [(form, True) for form in ("npz", "safetensors", "pt", "torch")],
)
def test_whole_numbers_with_scale_and_zero_point(form: str, channels: bool, tmp_path: Path) -> None:
    exact = randn(2, 4, 20, 20).relu()
    scale = torch.tensor([0.01, 0.02, 0.03, 0.02]).view(4, 1, 1) if channels else torch.tensor(0.02)
    zero = torch.tensor([-128.0, -100.0, -90.0, -120.0]).view(4, 1, 1) if channels else torch.tensor(-128.0)
    whole = quantised(exact, scale, zero, torch.int8)
    path = tmp_path / f"f.{'npz' if form == 'npz' else 'pt' if form in ('pt', 'torch') else 'safetensors'}"
    match form:
        case "npz":
            numpy.savez(path, features=whole.numpy(), scale=scale.flatten().numpy(), zero_point=zero.flatten().numpy())
        case "safetensors":
            beside = {"x_scale": scale.flatten().contiguous(), "x_zero_point": zero.flatten().to(torch.int8)}
            save_file({"x": whole, **beside}, path)
        case "said":
            save_file({"x": whole}, path, metadata={"scale": "0.02", "zero_point": "-128"})
        case "pt":
            torch.save({"features": whole, "scale": scale.flatten(), "zero_point": zero.flatten()}, path)
        case _:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch means to leave these tensors off
                along = (exact, scale.flatten().double(), zero.flatten().long(), 1, torch.qint8)
                by_torch = torch.quantize_per_channel(*along) if channels else None
                torch.save(
                    torch.quantize_per_tensor(exact, 0.02, -128, torch.qint8) if by_torch is None else by_torch, path
                )
    stored = read_features(path)
    assert stored.note == ""
    torch.testing.assert_close(stored.values, (whole.float() - zero) * scale)
    inside = exact < 2.5  # no step beyond: those that are cut off have other errors
    torch.testing.assert_close(stored.values[inside & (whole < 127)], exact[inside & (whole < 127)], rtol=0, atol=0.016)
    uniform = torch.where(whole.float() == zero, 0.0, scale).flatten(1).square().sum(1).div(12).sqrt()
    share = (uniform / stored.values.flatten(1).norm(dim=1)).mean()
    assert recorded_noise(stored) == pytest.approx(float(share), rel=1e-5)


def test_whole_numbers_without_a_scale_are_taken_and_told(call: Call, tmp_path: Path) -> None:
    features = load_model("convpool_cnn_c_crelu").features(load_image(SAMPLE, 32)[None], "conv1")
    file = tmp_path / "f.npy"
    numpy.save(file, (features / features.max() * 127).round().to(torch.int8).numpy())
    said = f"{file} holds int8 and no scale: the numbers are taken as they are, by a scale of 1"
    assert read_features(file).note == said
    status, _, err = call("--features", file, *CRELU, "--method", "linear", "--output", tmp_path, "--json")
    assert (status, err) == (0, f"{said}\n")


BESIDE: dict[str, tuple[dict[str, numpy.ndarray], str]] = {
    "of another number of channels": ({"scale": numpy.ones(3)}, "is one number, or one for each of 2 channels"),
    "nothing": ({"scale": numpy.array(0.0)}, "is above 0, not 0"),
    "not in float32": ({"scale": numpy.array(1e300)}, "is not finite"),
    "no zero point": ({"scale": numpy.array(1.0), "zero_point": numpy.array(numpy.inf)}, "zero point of .* not finite"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_scales_that_are_none(name: str, tmp_path: Path) -> None:
    beside, message = BESIDE[name]
    numpy.savez(tmp_path / "f.npz", features=numpy.ones((1, 2, 3, 3), "i1"), **beside)
    with pytest.raises(FeatureError, match=message):
        read_features(tmp_path / "f.npz")


def test_what_is_packed_or_no_plain_tensor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "MOST_UNPACKED", 1 << 20)
    numpy.savez_compressed(tmp_path / "bomb.npz", features=numpy.zeros((1, 1, 850, 850), "f4"))
    with pytest.raises(FeatureError, match="unpacked it has 2,890,128 bytes"):
        read_features(tmp_path / "bomb.npz")
    numpy.savez(tmp_path / "objects.npz", features=numpy.array([[[{}]]], dtype=object))
    with pytest.raises(FeatureError, match="nothing of it was run"):
        read_features(tmp_path / "objects.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to leave these tensors off
        along = torch.quantize_per_channel(torch.rand(2, 3, 4), torch.ones(4), torch.zeros(4), 2, torch.qint8)
    for other, message in (
        (torch.zeros(1).expand(10**5, 10**5, 10**5), "is no plain tensor of numbers"),
        (torch.rand(3, 4, 4).to_sparse(), r"sparse tensor: save its to_dense\(\)"),
        (along, "for each place along axis 2, and not for each channel"),
    ):
        torch.save(other, tmp_path / "other.pt")
        with pytest.raises(FeatureError, match=message):
            read_features(tmp_path / "other.pt")
    numpy.save(tmp_path / "brain.npy", numpy.zeros((1, 2, 3, 3), "V2"))
    with pytest.raises(FeatureError, match="two bytes, as of bfloat16; features are"):
        read_features(tmp_path / "brain.npy")
    torch.save(torch.rand(1, 2, 3, 3), tmp_path / "stored.pt")
    with zipfile.ZipFile(tmp_path / "stored.pt") as stored, zipfile.ZipFile(tmp_path / "packed.pt", "w", 8) as packed:
        for each in stored.namelist():
            packed.writestr(each, stored.read(each))
    with pytest.raises(FeatureError, match=r"packed, and torch\.save packs nothing"):
        read_features(tmp_path / "packed.pt")


def npy(header: str, version: tuple[int, int] = (1, 0), data: bytes = b"", claimed: int | None = None) -> bytes:
    length = len(header) if claimed is None else claimed
    return (
        b"\x93NUMPY"
        + bytes(version)
        + struct.pack("<H" if version == (1, 0) else "<I", length)
        + header.encode()
        + data
    )


DESCR = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n"
SAFE = '{"features": {"dtype": "%s", "shape": %s, "data_offsets": [0, %d]}}'


def safetensors(header: str, data: bytes = b"", claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if claimed is None else claimed) + header.encode() + data


HOSTILE = {
    "empty.npy": (b"", "damaged"),
    "text.npy": (b"<html>404</html>", "damaged"),
    "huge.npy": (npy(DESCR % "(1, 192, 100000, 100000)"), "damaged"),
    "overflow.npy": (npy(DESCR % "(9223372036854775807, 9223372036854775807, 3, 3)"), "damaged"),
    "negative.npy": (npy(DESCR % "(-1, 2, 2, 2)", data=bytes(32)), "damaged"),
    "header.npy": (npy("", (2, 0), claimed=2**32 - 1), "header claims 4294967295 bytes"),
    "code.npy": (npy("__import__('os').mkdir('harmed')\n"), "damaged"),
    "cut.npy": (npy(DESCR % "(1, 2, 3, 3)", data=bytes(71)), "damaged"),
    "longer.npy": (npy(DESCR % "(1, 2, 3, 3)", data=bytes(73)), "1 bytes follow"),
    "flat.npy": (npy(DESCR % "(2, 3)", data=bytes(24)), r"C x h x w; .* holds 2 x 3"),
    "none.npy": (npy(DESCR % "(0, 2, 3, 3)"), "holds no features"),
    "whole.npy": (npy((DESCR % "(2, 3, 3)").replace("f4", "i4"), data=bytes(72)), "holds int32; features are float16"),
    "cut.safetensors": (safetensors(SAFE % ("F32", "[1,2,3,3]", 72), bytes(71)), "damaged"),
    "huge.safetensors": (safetensors(SAFE % ("F32", "[1,192,100000,100000]", 72), bytes(72)), "damaged"),
    "header.safetensors": (safetensors("{}", claimed=10**10), "damaged"),
    "none.safetensors": (safetensors("{}"), "holds no tensor"),
    "whole.safetensors": (safetensors(SAFE % ("I32", "[2,3,3]", 72), bytes(72)), "holds int32; features are float16"),
    "features.pt": (b"\x80\x02}.", "damaged or holds more than tensors"),
    "features.txt": (b"1 2 3", "are read from .npy, .npz, .safetensors and .pt"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(FeatureError, match=message):
        read_features(name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_pickles_and_what_is_not_finite_are_refused(tmp_path: Path) -> None:
    numpy.save(tmp_path / "pickled.npy", numpy.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(FeatureError, match="nothing of it was run"):
        read_features(tmp_path / "pickled.npy")
    values = torch.zeros(1, 2, 3, 3)
    values[0, 1, 2, 0] = torch.nan
    write_features(values, tmp_path / "nan.safetensors", {})
    with pytest.raises(FeatureError, match=r"features\[0, 1, 2, 0\] = nan is not finite"):
        read_features(tmp_path / "nan.safetensors")
    for said in ("nan", "2", "much"):
        write_features(torch.zeros(1, 2, 3, 3), tmp_path / "f.safetensors", {"noise": said})
        with pytest.raises(FeatureError, match="the file says noise = "):
            recorded_noise(read_features(tmp_path / "f.safetensors"))


def test_features_as_their_part_lays_them_out(tmp_path: Path) -> None:
    """Tokens, stages whose channels come last and vectors: of several images and of one, in either layout."""
    pictures = torch.stack([load_image(path, SIDE) for path in (SAMPLE, SECOND)])
    stages = from_torch(LastChannels(), HALF, input_size=SIDE)
    linear = load_model("convpool_cnn_c_crelu")
    cases: list[tuple[AnyNetwork, str, tuple[int, ...]]] = [
        (tokens(), "block", (0, 2, 3, 1)), (tokens(), "head", (0, 1)), (stages, "grow", (0, 2, 3, 1)),
        (stages, "head", (0, 1)), (linear, "conv1", (0, 1, 2, 3)),
    ]  # fmt: skip
    for net, layer, order in cases:
        features = net.features(pictures, layer)
        own = features.flatten(2).squeeze(2) if len(order) == 2 else features.permute(order)
        own = own.squeeze(1) if layer == "block" else own  # N x 1 x T x C
        for values, wanted in (
            (features, features),
            (features[0], features[:1]),
            (own, features),
            (own[0], features[:1]),
        ):
            numpy.save(tmp_path / "f.npy", values.numpy())
            assert torch.equal(read_features(tmp_path / "f.npy", (net, layer)).values, wanted), (layer, values.shape)
    # Each channel's own scale, wherever the channels are.
    scale = torch.linspace(0.01, 0.02, 16)
    whole = (tokens().features(pictures, "block")[:, :, 0].transpose(1, 2) / scale).round().to(torch.int8)
    numpy.savez(tmp_path / "f.npz", features=whole.numpy(), scale=scale.numpy())
    got = read_features(tmp_path / "f.npz", (tokens(), "block")).values
    assert torch.equal(got[:, :, 0].transpose(1, 2), whole * scale)


@pytest.mark.parametrize(
    ("layer", "shape", "said"),
    [
        ("block", (2, 17, 15), "block of tokens gives N x 16 x 1 x T or N x T x 16 features, not 1 x 2 x 17 x 15"),
        ("block", (5,), "block of tokens gives N x 16 x 1 x T or N x T x 16 features; {file} holds 5"),
        ("head", (2, 9), "head of tokens gives N x 10 x 1 x 1 or N x 10 features; {file} holds 2 x 9"),
        ("patch", (2, 16), "patch of tokens gives N x 16 x h x w features; {file} holds 2 x 16"),
        ("patch", (2, 1, 16, 4, 4), "patch of tokens gives N x 16 x h x w features; {file} holds 2 x 1 x 16 x 4 x 4"),
        ("block", (1, 12, 16), "features of 1 x 12 do not come from the model's own 32 x 32 images"),
    ],
)
def test_features_in_no_layout_of_their_layer(
    layer: str, shape: tuple[int, ...], said: str, call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "f.npy"
    numpy.save(file, numpy.ones(shape, numpy.float32))
    own = ("--model", "tests.builders.user_modules:tokens", "--layer", layer)
    status, _, err = call("--features", file, *own, "--output", tmp_path)
    assert status == 2
    assert said.format(file=file) in err
    assert err.count("\n") == 1


def test_tokens_and_vectors_of_others_come_back(call: Call, tmp_path: Path) -> None:
    net = tokens()
    features = net.features(load_image(SAMPLE, SIDE)[None], "block")
    own = ("--model", "tests.builders.user_modules:tokens", "--layer", "block", "--method", "gradient", "--budget", 4)
    numpy.save(tmp_path / "seen.npy", features.numpy())
    numpy.save(tmp_path / "given.npy", features[:, :, 0].transpose(1, 2).numpy())
    found = []
    for name in ("seen", "given"):
        status, out, err = call("--features", tmp_path / f"{name}.npy", *own, "--json", "--output", tmp_path)
        assert (status, err) == (0, "")
        found.append(json.loads(out)[0]["feature_residual"])
    assert found[0] == found[1] < 1


def test_vectors_of_a_layer_of_the_zoo(tmp_path: Path) -> None:
    """AlexNet's fully connected layers are convolutions here, and others write what they give as N x C."""
    with torch.device("meta"):  # its shapes alone
        net = Network(read_architecture("alexnet"))
    file = tmp_path / "f.npy"
    numpy.save(file, randn(2, 4096).numpy())
    assert read_features(file, (net, "fc6")).values.shape == (2, 4096, 1, 1)
    said = r"conv5 of alexnet gives N x 256 x h x w features; .* holds 2 x 4096"
    with pytest.raises(FeatureError, match=said):
        read_features(file, (net, "conv5"))
    numpy.save(file, randn(2, 4095).numpy())
    said = r"fc6 of alexnet gives N x 4096 x 1 x 1 or N x 4096 features; .* holds 2 x 4095"
    with pytest.raises(FeatureError, match=said):
        read_features(file, (net, "fc6"))


@pytest.mark.parametrize("sent", [(), ("--quantise", "float16"), ("--noise", "0.05", "--quantise", "int8")])
def test_a_sender_and_a_receiver(sent: tuple[str, ...], call: Call, tmp_path: Path) -> None:
    """What the receiver sees is what the main job says that he would, to the bit; the file states size and noise."""
    small = ("--size", "48x40")
    status, out, err = call("features", SAMPLE, SECOND, *CRELU, *small, *sent, "--output", tmp_path, "--json")
    assert (status, err) == (0, "")
    written = json.loads(out)
    assert [Path(each["output"]).name for each in written] == [
        f"{stem}.convpool_cnn_c_crelu.conv1.safetensors" for stem in ("chelsea", "coffee")
    ]
    net = load_model("convpool_cnn_c_crelu")
    exact = net.features(load_image(SAMPLE, (48, 40))[None], "conv1")
    values = load_file(written[0]["output"])["features"]
    assert values.dtype == (torch.float16 if "float16" in sent else torch.float32)
    assert torch.equal(values, exact) == (not sent)
    assert written[0]["noise"] == pytest.approx(float((values.float() - exact).norm() / exact.norm()), rel=1e-4)
    assert (written[0]["size"], written[0]["shape"]) == ([48, 40], [1, 192, 48, 40])

    work = ("--budget", "30", "--json", "--output")
    status, out, err = call("--features", written[0]["output"], *CRELU, *work, tmp_path / "got")
    assert (status, err) == (0, "")
    (got,) = json.loads(out)
    (said,) = json.loads(call(SAMPLE, *CRELU, *small, *sent, *work, tmp_path / "said")[1])
    assert (got["psnr"], got["ssim"], got["relative_error"]) == (None, None, None)
    assert (got["noise"], got["feature_residual"]) == (said["noise"], said["feature_residual"])
    assert got.keys() == said.keys()
    name = "chelsea.convpool_cnn_c_crelu.conv1.map.png"
    assert (tmp_path / "got" / name).read_bytes() == (tmp_path / "said" / name).read_bytes()
    # One column fewer: there is no original.
    widths = []
    for folder in ("got", "said"):
        with Image.open(tmp_path / folder / "chelsea.convpool_cnn_c_crelu.comparison.png") as figure:
            widths.append(figure.width)
    assert widths == [1 * (4 * 40 + 10) + 10, 2 * (4 * 40 + 10) + 10]


def test_several_features_in_one_file(call: Call, tmp_path: Path) -> None:
    """A table without quality; names by number; float16 without a word of noise has that of rounding."""
    net = load_model("convpool_cnn_c_crelu")
    pictures = torch.stack([load_image(path, 32) for path in (SAMPLE, SECOND)])
    file = tmp_path / "mine.npy"
    numpy.save(file, net.features(pictures, "conv1").half().numpy())
    arguments = ("--features", file, *CRELU, "--method", "map,linear", "--budget", "30", "--output", tmp_path / "out")
    status, out, err = call(*arguments)
    assert (status, err) == (0, "")
    # A long name goes on in the line below.
    rows = [line.split() for line in out.splitlines() if {"map", "linear"} & set(line.split())]
    assert [row[row.index("conv1") + 2 :][:2] for row in rows] == [["-", "-"]] * 4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        f"mine-{number}.convpool_cnn_c_crelu.{rest}.png"
        for number in (1, 2)
        for rest in ("conv1.map", "conv1.linear", "comparison")
    )
    records = json.loads(call(*arguments, "--json")[1])
    assert [record["image"] for record in records] == [f"{file}[{i}]" for i in (0, 0, 1, 1)]
    assert {record["noise"] for record in records} == {rounding(read_features(file).values)}
    told = json.loads(call(*arguments, "--noise", "0.25", "--json")[1])
    assert {record["noise"] for record in told} == {0.25}


def test_features_of_another_layer_are_noted(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "f.safetensors"
    said = {"model": "mine", "layer": "conv1", "size": "32x32"}
    values = load_model("convpool_cnn_c_crelu").features(load_image(SAMPLE, 32)[None], "conv1")
    write_features(values, file, said)
    arguments = ("--features", file, *CRELU, "--method", "linear", "--output", tmp_path)
    status, _, err = call(*arguments, "--json")
    assert status == 0
    assert err == f"{file} says that its model is mine\n"
    assert call(*arguments, "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((1, 96, 32, 32), (SAMPLE, *CRELU), "give one or the other"),
        ((1, 96, 32, 32), (*CRELU, "--quantise", "int8"), "--quantise rounds features of pictures"),
        ((1, 96, 32, 32), (*CRELU, "--native"), "--native is for pictures"),
        ((1, 96, 32, 32), (*CRELU[:3], "conv1,conv2"), "are of one layer"),
        ((1, 96, 32, 32), (*CRELU[:3], "all"), "are of one layer"),
        ((1, 96, 32, 32), (*CRELU, "--size", "32x"), "--size is a side or HxW in pixels"),
        ((1, 96, 32, 32), (*CRELU, "--size", "40x30"), "40 x 30 images give conv1 features of 40 x 30, not 32 x 32"),
        ((1, 96, 40, 32), CRELU, "give the image's size=(H, W), or --size HxW"),
        ((1, 95, 32, 32), CRELU, "gives N x 192 x h x w features, not 1 x 190 x 32 x 32"),
    ],
)
def test_wrong_calls(
    shape: tuple[int, ...], arguments: tuple[str | Path, ...], message: str, call: Call, tmp_path: Path
) -> None:
    file = tmp_path / "f.npy"
    responses = randn(*shape)
    numpy.save(file, torch.cat((responses.relu(), (-responses).relu()), dim=1).numpy())
    refused(call, file, arguments, message)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_features_that_no_activation_gives(dtype: torch.dtype, call: Call, tmp_path: Path) -> None:
    """Rounding to float16 makes no number negative, and no zero another."""
    responses = randn(1, 96, 32, 32)
    file = tmp_path / "f.npy"
    numpy.save(file, responses.to(dtype).numpy())
    refused(call, file, ("--model", "convpool_cnn_c", "--layer", "conv2"), "is negative, which relu features never are")
    numpy.save(file, torch.cat((responses.abs(), responses.abs()), dim=1).to(dtype).numpy())
    refused(call, file, CRELU, "contradict each other: not CReLU features")


def refused(call: Call, file: Path, arguments: tuple[str | Path, ...], message: str) -> None:
    """One line, exit status 2, and nothing written."""
    status, out, err = call("--features", file, *arguments, "--output", file.parent / "out")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (file.parent / "out").exists()


def test_neither_picture_nor_features(call: Call) -> None:
    status, out, err = call(*CRELU)
    assert (status, out) == (2, "")
    assert "--features FILE" in err
    status, _, err = call("--features", "nowhere.npy", *CRELU)
    assert (status, err) == (2, "reconstruct: nowhere.npy does not exist\n")


def test_what_features_refuses(call: Call, tmp_path: Path) -> None:
    assert call("features", SAMPLE, *CRELU, "--format", "pt")[0] == 2
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(SAMPLE.read_bytes()[:2000])
    status, out, err = call("features", broken, SAMPLE, *CRELU, "--format", "npy", "--output", tmp_path)
    assert status == 1
    assert "broken.jpg" in err
    assert out == f"{tmp_path}/chelsea.convpool_cnn_c_crelu.conv1.npy: 1 x 192 x 32 x 32, float32\n"
    assert numpy.load(tmp_path / "chelsea.convpool_cnn_c_crelu.conv1.npy").shape == (1, 192, 32, 32)
