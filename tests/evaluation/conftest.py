"""Fixtures of the tests of evaluations: a small network and a folder of small pictures."""

from pathlib import Path

import pytest
from PIL import Image

from reconstruct import load_model
from reconstruct.network.network import Network
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def small() -> Network:
    """A network for 32 x 32 images."""
    return load_model("convpool_cnn_c_crelu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve parts of the samples, 48 x 40, as PNG."""
    where = tmp_path_factory.mktemp("images")
    for number in range(12):
        with Image.open(sorted((ROOT / "samples").glob("*.jpg"))[number % 5]) as image:
            image.crop((20 * number, 60, 20 * number + 40, 108)).save(where / f"{number:02d}.png")
    return where
