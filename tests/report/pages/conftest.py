"""Folders of results that several tests of pages read."""

from pathlib import Path

import pytest

from tests.builders.results_folder import (
    HOSTILE,
    add_thumbnails,
    failure,
    random_rows,
    run_json,
    save,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = dict(enumerate(HOSTILE))
    rows = random_rows(40, ["conv1", "conv2"], ["linear", "map"], seed=3, names=names)
    rows += [failure(40 + i, f"{name}: cannot be read", image=name + "2") for i, name in enumerate(HOSTILE)]
    saved = save(tmp_path / "run", rows)
    add_thumbnails(saved)
    return saved


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    first = save(tmp_path / "first", random_rows(40, ["conv1", "conv2"], ["linear", "map"], seed=5))
    other = run_json()
    other["settings"]["model"] = other["settings"]["model"] | {"name": "large"}
    other["settings"]["options"] = other["settings"]["options"] | {"budget": 50.0}
    rows = random_rows(40, ["conv1", "conv2"], ["linear", "map"], seed=6)
    for each in rows:
        each["psnr"] += 6
    second = save(tmp_path / "second", rows, settings=other["settings"])
    for saved in (first, second):
        add_thumbnails(saved, 9)
    return first, second
