"""Fixtures that several test files share."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from reconstruct import load_image, load_model
from reconstruct.commands.main import main
from reconstruct.network.network import Network

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=40)
settings.load_profile("repeatable")

ROOT = Path(__file__).parent.parent
SAMPLES = sorted((ROOT / "samples").glob("*.jpg"))

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Statistics are cached in a folder of the session, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECONSTRUCT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def net() -> Network:
    """The default model."""
    return load_model("crelu_conv1_4")


@pytest.fixture(scope="session")
def photograph() -> torch.Tensor:
    """1 x 3 x 227 x 227."""
    return load_image(ROOT / "samples" / "chelsea.jpg", 227)[None]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line in this process: exit status, standard output, standard error."""

    def run(*arguments: str | Path | int | float) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["reconstruct", *map(str, arguments)])
        # A command sets the seed of torch's own generator, which other tests draw from.
        with torch.random.fork_rng(devices=[]), pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run
