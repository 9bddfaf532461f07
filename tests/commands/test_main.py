"""The command line as a whole."""

import subprocess
import sys

from tests.builders.command_line import run


def test_help_and_version_do_not_import_torch() -> None:
    """What keeps ``reconstruct --help`` under a second."""
    script = (
        "import sys\n"
        "sys.argv = ['reconstruct', '--help']\n"
        "from reconstruct.commands.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "slow = {'torch', 'numpy', 'scipy', 'matplotlib', 'skimage', 'PIL'} & sys.modules.keys()\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "IMAGE" in done.stdout
    assert run("--version").stdout.startswith("reconstruct 0.")
    assert "Usage" in run().stdout + run().stderr
