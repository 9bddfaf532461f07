"""Names that are no text, lines, options or formulas: of pictures, of layers, of folders."""

import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch

from reconstruct import save_image
from reconstruct.commands.main import main
from tests.builders.command_line import refused
from tests.conftest import Call

SLASH = ("--model", "tests.builders.modules:slash", "--layer", "conv1/7x7_s2", "--budget", 4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(name: str) -> str:
    try:
        save_image(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), name)
    except OSError:
        pytest.skip("this file system takes no such name")
    return name


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (os.fsdecode(b"caf\xe9.png"), "caf%E9"),
        ("two\nlines.png", "two%0Alines"),
        ("-dash.png", "-dash"),
        ("$\\frac$.png", r"\$%5Cfrac\$"),
        ("写真.png", "写真"),
        ("x" * 240 + ".png", "x{40}-[0-9a-f]{12}"),
    ],
)
def test_every_name_of_a_picture_is_inverted(name: str, written: str, folder: Path, call: Call) -> None:
    status, out, err = call(picture(name), *SLASH, "--output", "out")
    assert (status, err) == (0, "")
    pattern = re.compile(rf"{written}\.padded3\.(conv1%2F7x7_s2\.map|comparison)\.png")
    found = [path.name for path in (folder / "out").iterdir()]
    assert len(found) == 2
    assert all(map(pattern.fullmatch, found)), found
    assert all(line.isprintable() for line in out.splitlines())


def test_features_of_odd_names_go_out_and_in(folder: Path, call: Call) -> None:
    status, _, _ = call("features", picture("two\nlines.png"), *SLASH[:4])
    path = "two%0Alines.padded3.conv1%2F7x7_s2.safetensors"
    assert (status, (folder / path).is_file()) == (0, True)
    status, out, _ = call("--features", path, *SLASH, "--json", "--output", "out")
    assert status == 0
    assert Path(json.loads(out)[0]["comparison"]).name == "two%0Alines.padded3.comparison.png"


def test_a_set_of_odd_names_has_its_page(folder: Path, call: Call) -> None:
    for name in (os.fsdecode(b"set/caf\xe9.png"), "set/two\nlines.png", "set/<b>$x$.png"):
        picture(name)
    status, _, err = call("evaluate", "set", *SLASH, "--output", "run", "--quiet")
    assert (status, err) == (0, "")
    page = (folder / "run" / "report.html").read_text(encoding="utf-8")
    for text in ("caf%E9.png", "two%0Alines.png", "&lt;b&gt;$x$.png", "conv1/7x7_s2 by map"):
        assert text in page
    assert len(list((folder / "run" / "thumbnails").glob("?.conv1%2F7x7_s2.map.webp"))) == 3


def test_messages_about_odd_names_are_one_printable_line(folder: Path, call: Call) -> None:
    err = refused(call, "no\n\x1b[2Jsuch.png", *SLASH, status=1)
    assert err == "reconstruct: no%0A%1B[2Jsuch.png does not exist\n"
    assert len(refused(call, "y" * 5000 + ".png", *SLASH, status=1)) < 300


def test_an_output_folder_that_is_no_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal that takes UTF-8 and nothing else."""
    picture("plain.png")
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    target = os.fsdecode(b"d\xe9")
    monkeypatch.setattr(sys, "argv", ["reconstruct", "features", "plain.png", *SLASH[:4], "--output", target])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert len(list((folder / target).iterdir())) == 1
