from pathlib import Path

from reconstruct.report.pages.thumbnails import Album
from tests.builders.results_folder import (
    picture,
)


def test_album_gives_one_picture_a_file(tmp_path: Path) -> None:
    picture(tmp_path / "0.webp", 1)
    album = Album()
    found = album.find(tmp_path / "0.webp")
    assert found is not None
    assert found is album.find(tmp_path / "0.webp")
    assert (found.width, found.height, found.small) == (32, 32, True)
    assert album.find(tmp_path / "1.webp") is None
