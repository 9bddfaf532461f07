"""The three ways to install: editable, a wheel from the tree, a wheel from the source distribution."""

import json
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

OUTSIDE = """
import importlib.util, pathlib, reconstruct
for name in ("cli", "models", "tests", "benchmarks"):
    spec = importlib.util.find_spec(name)
    assert spec is None or not str(spec.origin).startswith({root!r}), name
print(reconstruct.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_editable_install_exposes_reconstruct_alone(tmp_path: Path) -> None:
    assert "reconstruct" in run(sys.executable, "-c", OUTSIDE.format(root=str(ROOT)), cwd=tmp_path)


def contents(wheel: Path) -> dict[str, int]:
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist() if ".dist-info/" not in entry.filename}


@pytest.mark.packaging
def test_wheels_run_the_main_job_outside_the_repository(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "tree", ROOT, cwd=tmp_path)
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "sdist", ROOT, cwd=tmp_path)
    (tree,), (sdist,) = (list((tmp_path / name).glob("*.whl")) for name in ("tree", "sdist"))
    assert contents(tree) == contents(sdist)
    assert {name.split("/")[0] for name in contents(tree)} == {"reconstruct"}
    assert "reconstruct/models/weights/crelu_conv1_4.md" in contents(tree)

    env = tmp_path / "env" / "bin"
    run(sys.executable, "-m", "venv", env.parent, cwd=tmp_path)
    run(env / "python", "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", sdist, cwd=tmp_path)
    assert str(env.parent) in run(env / "python", "-c", OUTSIDE.format(root=str(env.parent)), cwd=tmp_path)
    run(env / "reconstruct", "demo", "--layer", "conv1", cwd=tmp_path)
    assert (tmp_path / "demo" / "chelsea.crelu_conv1_4.comparison.png").is_file()
    call = ("--model", "crelu_conv1_4", "--layer", "conv1,conv2", "--json", "--output", "made")
    sample = ROOT / "samples" / "coffee.jpg"
    records = json.loads(run(env / "reconstruct", sample, *call, cwd=tmp_path))
    assert records[0]["psnr"] > 40
    assert (tmp_path / "made" / "coffee.crelu_conv1_4.comparison.png").is_file()
    # The page's templates are in the wheel, too.
    call = (
        "--model",
        "convpool_cnn_c_crelu",
        "--layer",
        "conv1",
        "--method",
        "linear",
        "--output",
        "results",
        "--quiet",
    )
    run(env / "reconstruct", "evaluate", ROOT / "samples", *call, cwd=tmp_path)
    assert "conv1 by linear" in (tmp_path / "results" / "report.html").read_text()
    assert "crelu_all" in run(env / "reconstruct", "models", cwd=tmp_path)
    # What messages say of optional packages can be pasted, and leaves the installed wheel as it is.
    hint = "from reconstruct.extras import install_hint; print(install_hint('heic'))"
    words = shlex.split(run(env / "python", "-c", hint, cwd=tmp_path))
    assert words == ["env/bin/python", "-m", "pip", "install", "reconstruct-features[heic]"]
    planned = run(*words, "--dry-run", "-c", ROOT / "constraints.txt", cwd=tmp_path)
    assert re.search(r"^Would install pillow[-_]heif\S+$", planned, flags=re.MULTILINE)
