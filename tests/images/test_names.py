import os
from pathlib import Path

import pytest
import torch

from reconstruct import ImageError, load_image, save_image
from reconstruct.images.atomic import write_atomically
from reconstruct.images.names import LONGEST_FILE, file_name, shown, told


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("photo[copy].jpg", "photo[copy].jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf%E9.jpg"),
        ("two\nlines.png", "two%0Alines.png"),
        ("\x1b[31mred", "%1B[31mred"),
        ("写真.jpg", "写真.jpg"),
        ("right\u202eleft", "right%E2%80%AEleft"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_names_become_one_printable_line_once(name: str, text: str) -> None:
    assert shown(name) == text
    assert shown(text) == text
    assert file_name(name, "png") == f"{text}.png"


def test_names_of_files_have_no_separators_and_fit() -> None:
    assert file_name("photo", "net", "conv1/7x7_s2", "png") == "photo.net.conv1%2F7x7_s2.png"
    long = file_name("é" * 300, "net", "conv1", "png")
    assert len(long.encode()) <= LONGEST_FILE
    assert long.endswith(".net.conv1.png")
    assert long != file_name("é" * 301, "net", "conv1", "png")


def test_messages_cut_long_names() -> None:
    assert len(told("x" * 100_000)) == 160
    with pytest.raises(ImageError) as raised:
        load_image("x" * 100_000)
    assert "File name too long" in str(raised.value)
    assert len(str(raised.value)) < 250


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".png")
    write_atomically(path, b"kept")
    save_image(torch.zeros(3, 4, 4), path)
    assert load_image(path).shape == (3, 4, 4)
    assert list(tmp_path.iterdir()) == [path]
