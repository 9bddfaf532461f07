"""``reconstruct evaluate`` and ``reconstruct report``."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from reconstruct.evaluation.results import read_rows, read_run
from tests.builders.command_line import refused, run
from tests.builders.synthetic import patterns
from tests.conftest import ROOT, Call

SMALL = ("--model", "convpool_cnn_c_crelu", "--layer", "conv1")
TIMES = ("seconds", "prepare_seconds", "prepare_passes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifty pictures, 32 x 32, that differ."""
    where = tmp_path_factory.mktemp("val")
    for number, image in enumerate(patterns(50, 32, 5)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(where / f"{number:03d}.png")
    return where


def rows(output: Path) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if name not in TIMES} for row in read_rows(output).to_pylist()]


def bomb() -> bytes:
    """A PNG of some 50 kB that says it is 30,000 x 30,000."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    head = (30_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(10_000_000)))
        + chunk(b"IEND", b"")
    )


def test_bad_files_among_good_ones(call: Call, folder: Path, tmp_path: Path) -> None:
    where, output = tmp_path / "val", tmp_path / "results"
    where.mkdir()
    for path in folder.iterdir():
        (where / path.name).write_bytes(path.read_bytes())
    with Image.open(ROOT / "samples" / "chelsea.jpg") as image:
        image.save(where / "truncated.jpg")
    content = (where / "truncated.jpg").read_bytes()
    (where / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (where / "text.jpg").write_text("this is no picture\n")
    Image.new("RGB", (1, 1)).save(where / "one_pixel.png")
    (where / "bomb.png").write_bytes(bomb())
    os.mkfifo(where / "pipe.png")
    bad = {"truncated.jpg", "text.jpg", "one_pixel.png", "bomb.png", "pipe.png"}
    job = ("evaluate", where, "--model", "convpool_cnn_c_crelu", "--layer", "conv2", "--method", "linear")
    status, _, err = call(*job, "--output", output, "--budget", "10")
    assert status == 0, err
    assert "5 of 55 images failed: bomb.png: " in err
    assert "Traceback" not in err
    written = rows(output)
    assert len(written) == 55
    assert {row["image"] for row in written if row["error"] is not None} == bad
    good = [row for row in written if row["error"] is None]
    assert len(good) == 50
    assert all(row["psnr"] > 5 and row["method"] == "linear" for row in good)
    errors = {row["image"]: row["error"] for row in written if row["error"] is not None}
    for name, reason in (
        ("truncated.jpg", "cannot be read"), ("text.jpg", "is not a picture"), ("one_pixel.png", "1 x 1"),
        ("bomb.png", "too large"), ("pipe.png", "is not a file"),
    ):  # fmt: skip
        assert reason in errors[name]
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["images"], summary["failed"]) == (55, 5)
    page = (output / "report.html").read_text()
    assert all(name in page for name in bad)
    # Mended files are tried again on demand, and only they.
    (where / "text.jpg").write_bytes((ROOT / "samples" / "chelsea.jpg").read_bytes())
    _, _, err = call(*job, "--output", output, "--budget", "10")
    assert "55 of 55 images are done already" in err
    _, out, _ = call(*job, "--output", output, "--budget", "10", "--retry-failed", "--json")
    assert json.loads(out)["failed"] == 4
    assert [row for row in rows(output) if row["image"] not in bad] == good
    # Under --strict the first of them ends the run.
    status, _, err = call(*job, "--output", tmp_path / "strict", "--budget", "10", "--strict", "--batch-size", "10")
    assert status == 1
    assert "bomb.png" in err
    assert "Traceback" not in err
    # All of them alone are a failed run.
    for path in folder.iterdir():
        (where / path.name).unlink()
    (where / "text.jpg").unlink()
    status, _, err = call(*job, "--output", tmp_path / "none", "--quiet")
    assert status == 1
    assert "4 of 4 images failed" in err


def test_the_summary_as_json_and_the_files(call: Call, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    job = [
        "evaluate", str(folder), *SMALL, "--method", "linear,map", "--budget", "10", "--sample", "6", "--seed", "4",
        "--output", str(output), "--json", "--batch-size", "4", "--gallery", "1",
    ]  # fmt: skip
    status, out, err = call(*job)
    assert (status, err) == (0, "")
    summary = json.loads(out)
    assert summary == json.loads((output / "summary.json").read_text())
    written = rows(output)
    for each in summary["results"]:
        values = numpy.array([row["psnr"] for row in written if row["method"] == each["method"]])
        assert each["count"] == len(values) == 6
        assert each["psnr"]["mean"] == pytest.approx(values.mean())
        assert each["psnr"]["median"] == pytest.approx(numpy.median(values))
    run_ = read_run(output)
    assert run_["call"] == "reconstruct " + " ".join(job)
    assert run_["selection"] == {"limit": None, "sample": 6, "seed": 4, "images": 6}
    assert run_["settings"]["source"]["images"] == 50
    assert "1,305 pictures" in run_["trained_on"]
    (session,) = run_["sessions"]
    assert (session["engine"], session["batch_size"], session["images"], session["finished"]) == ("local", 4, 6, True)
    # Two methods, three images of each at most, and their originals.
    assert 2 * 3 <= len(list((output / "thumbnails").iterdir())) <= 2 * 3 + 6
    assert call("report", output, "--output", tmp_path / "page.html")[0] == 0
    assert (tmp_path / "page.html").read_text() == (output / "report.html").read_text()


def test_a_larger_limit_goes_on_and_other_settings_do_not(call: Call, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    job = ("evaluate", folder, *SMALL, "--method", "linear", "--budget", "10", "--output", output, "--quiet")
    assert call(*job, "--limit", "5")[0] == 0
    first = rows(output)
    assert call(*job, "--limit", "9")[0] == 0
    assert rows(output)[:5] == first
    assert len(rows(output)) == 9
    assert "4 images that this call does not evaluate" in refused(call, *job, "--limit", "5")
    assert "budget was 10.0, is 20.0" in refused(call, *job, "--limit", "9", "--budget", "20")
    assert "another call" in refused(call, *job, "--limit", "9", "--random-weights", "1")
    assert rows(output)[:5] == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "spark"], "--engine is local or ray"),
        (["--batch-size", "0"], "--batch-size is 'auto' or a number"),
        (["--batch-size", "many"], "--batch-size is 'auto' or a number"),
        (["--limit", "3", "--sample", "3"], "give one of them"),
        (["--size", "40", "--native"], "give one of them"),
        (["--budget", "0.5"], "budget is a finite number"),
        (["--layer", "conv77"], "no layer 'conv77'"),
        (["--split", "val"], "a split is 'train' or 'test'"),
        (["--noise", "2"], "--noise is a share"),
        (["--damping", "much"], "--damping is 'auto' or a number"),
    ],
)
def test_wrong_calls_write_nothing(
    arguments: list[str], message: str, call: Call, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "results"
    assert message in refused(call, "evaluate", folder, *SMALL, "--output", output, *arguments)
    assert not output.exists()


def test_a_full_disk_costs_nothing_that_was_written(call: Call, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    job = ["evaluate", str(folder), *SMALL, "--method", "linear", "--budget", "10", "--output", str(output), "--quiet"]
    assert call(*job, "--limit", "20")[0] == 0
    first = rows(output)

    def limited() -> None:  # no file may be larger: run.json fits, a part with forty rows does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    full = subprocess.run(
        [sys.executable, "-m", "reconstruct", *job], check=False, capture_output=True, text=True, preexec_fn=limited
    )
    assert full.returncode == 1
    assert full.stderr == f"reconstruct: {output}: File too large; the same call goes on where it stopped\n"
    assert "Traceback" not in full.stderr
    assert rows(output) == first
    assert not list((output / "rows").glob(".*"))
    assert call(*job)[0] == 0
    assert rows(output)[:20] == first
    assert len(rows(output)) == 50


def test_a_scheduler_may_end_a_run_and_the_same_call_goes_on(call: Call, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    job = [
        "evaluate", str(folder), *SMALL, "--budget", "60",
        "--output", str(output), "--batch-size", "2", "--save-seconds", "0",
    ]  # fmt: skip
    command = [sys.executable, "-m", "reconstruct", *job]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        began = time.monotonic()
        while len(list(output.glob("rows/part-*"))) < 2 and time.monotonic() - began < 60:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == f"stopped; the same call goes on in {output}"
    done = len(rows(output))
    assert 4 <= done < 50
    assert not read_run(output)["sessions"][0]["finished"]
    first = rows(output)
    status, _, err = call(*job)
    assert status == 0, err
    assert rows(output)[:done] == first
    assert len(rows(output)) == 50


@pytest.mark.slow
def test_killed_at_random_moments_the_rows_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    kills, count = 10, 120
    where = tmp_path / "val"
    where.mkdir()
    for number, image in enumerate(patterns(count, 32, 7)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(where / f"{number:03d}.png")
    (where / "broken.png").write_bytes(b"broken")
    call = ["evaluate", str(where), *SMALL, "--budget", "10", "--batch-size", "2", "--save-seconds", "0", "--quiet"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert run(*call, "--output", str(undisturbed)).returncode == 0
    parts = len(list((undisturbed / "rows").iterdir()))
    killing = [sys.executable, str(ROOT / "tests" / "builders" / "killing.py"), str(kills), "5", str(parts)]
    done = subprocess.run(
        [*killing, *call, "--output", str(killed)], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    reached = [int(line) for line in done.stdout.splitlines() if line.strip().isdigit()]
    assert len(reached) == kills
    assert reached == sorted(reached)
    assert 0 < reached[-1] <= count
    assert rows(killed) == rows(undisturbed)
    assert len({row["index"] for row in rows(killed)}) == count + 1 == len(rows(killed))
    assert len(read_run(killed)["sessions"]) > 1
    summaries = [json.loads((each / "summary.json").read_text())["results"][0] for each in (killed, undisturbed)]
    assert summaries[0]["psnr"] == summaries[1]["psnr"]
    names = [{path.name for path in (each / "thumbnails").iterdir()} for each in (killed, undisturbed)]
    assert names[0] == names[1]
