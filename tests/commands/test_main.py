"""The command line as a whole."""

import math
import os
import subprocess
import sys

import pytest

from reconstruct import ReconstructWarning
from reconstruct.commands.main import _tell, main
from reconstruct.commands.terminal import strict
from tests.builders.command_line import SAMPLE, run


@pytest.mark.parametrize(("argument", "said"), [("--help", "IMAGE"), ("--version", "reconstruct 0.")])
def test_help_and_version_import_nothing_slow(argument: str, said: str) -> None:
    """This keeps ``reconstruct --help`` under a second."""
    script = (
        "import sys\n"
        f"sys.argv = ['reconstruct', '{argument}']\n"
        "from reconstruct.commands.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "slow = {'torch', 'numpy', 'scipy', 'matplotlib', 'skimage', 'PIL'} & sys.modules.keys()\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_the_version_and_a_call_without_arguments() -> None:
    assert run("--version").stdout.startswith("reconstruct 0.")
    assert "Usage" in run().stdout + run().stderr


def test_the_exit_status_of_a_wrong_call_and_of_a_failure() -> None:
    """Of the process: other tests make such calls in their own."""
    for image, model, status, message in (
        (SAMPLE, "crelu_conv14", 2, "did you mean crelu_conv1_4"),
        ("nowhere.jpg", "crelu_conv1_4", 1, "nowhere.jpg does not exist"),
    ):
        done = run(image, "--model", model, "--layer", "conv1")
        assert (done.returncode, done.stdout) == (status, "")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_give_up_their_core(before: str | None, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user has said otherwise."""
    monkeypatch.setattr(sys, "argv", ["reconstruct", "--version"])
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    else:
        monkeypatch.setenv("OMP_WAIT_POLICY", before)
    with pytest.raises(SystemExit):
        main()
    assert os.environ["OMP_WAIT_POLICY"] == after


def test_records_are_json_at_any_depth() -> None:
    record = {"psnr": math.inf, "rebuilt": {"switches": {"psnr": math.nan, "ssim": 1.0}}, "lines": [(1.0, -math.inf)]}
    assert strict(record) == {
        "psnr": None,
        "rebuilt": {"switches": {"psnr": None, "ssim": 1.0}},
        "lines": [[1.0, None]],
    }


def test_warnings_are_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    _tell(ReconstructWarning("red\n \x1b[31mnet"), ReconstructWarning)
    assert capsys.readouterr().err == "reconstruct: red %1B[31mnet\n"
