import shutil
from itertools import chain
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reconstruct.errors import CallError, ImageError
from reconstruct.training.data import (
    ASPECT,
    BESIDE,
    Arrays,
    Augmentation,
    Batches,
    Files,
    Part,
    folds,
    load_pictures,
    random_part,
    read_in_order,
    shorter_side,
    split,
    statistics,
)
from reconstruct.training.distill import unlabelled
from tests.builders import synthetic
from tests.builders.synthetic import labels_of, noise

NAMES = {10: [f"kind{i}" for i in range(10)], 100: [f"fine{i}" for i in range(100)]}
WRITERS = {
    "cifar-10-batches-py": (synthetic.cifar10_python, 10),
    "cifar-100-python": (synthetic.cifar100_python, 100),
    "cifar-10-batches-bin": (synthetic.cifar10_binary, 10),
    "cifar-100-binary": (synthetic.cifar100_binary, 100),
}


def numbered_pictures(count: int, side: int = 8) -> Arrays:
    """Pictures whose target is their number."""
    return Arrays(noise(count, side, side), numpy.arange(count), ["a"] * count)


def coordinates(height: int, width: int) -> numpy.ndarray:
    """A picture whose pixels are their own row, column and a 7."""
    row, column = numpy.mgrid[:height, :width]
    return numpy.stack([row, column, numpy.full_like(row, 7)]).astype(numpy.uint8)


@pytest.mark.parametrize("name", WRITERS)
def test_cifar_as_it_is_published(name: str, tmp_path: Path) -> None:
    write, classes = WRITERS[name]
    train, test = (noise(120, seed=1), labels_of(120, classes)), (noise(101, seed=2), labels_of(101, classes))
    write(tmp_path, train, test, NAMES[classes])
    for which, (images, labels) in {"train": train, "test": test}.items():
        found = load_pictures(tmp_path, which)
        assert found.classes == NAMES[classes]
        assert numpy.array_equal(found.targets, labels)
        assert found.targets.dtype == numpy.int64
        assert len(found) == len(images)
        assert all(numpy.array_equal(found.pixels(i), images[i]) for i in range(len(images)))


def test_class_folders_and_their_splits(tmp_path: Path) -> None:
    images, labels = noise(12, 20, 30), labels_of(12, 3)
    names = ["n01", "n02", "n10"]
    synthetic.class_folders(tmp_path / "train", images, labels, names)
    synthetic.class_folders(tmp_path / "val", images[:6], labels[:6], names)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "n01" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / "n01" / "deeper").mkdir()
    Image.fromarray(images[0].transpose(1, 2, 0)).save(tmp_path / "train" / "n01" / "deeper" / "one.PNG")
    train, test = (load_pictures(tmp_path, which) for which in ("train", "test"))
    assert train.classes == test.classes == names
    assert (len(train), len(test)) == (13, 6)
    assert isinstance(train, Files)
    assert {path.parents[0 if path.parent.name in names else 1].name for path in train.paths} == set(names)
    for i, path in enumerate(train.paths):
        assert names[train.targets[i]] in path.parts
        number = 0 if path.stem == "one" else int(path.stem)
        assert numpy.array_equal(train.pixels(i), images[number])
    assert len(load_pictures(tmp_path / "val", "test")) == 6  # no splits inside


def test_what_is_left_out_of_a_set_is_counted(tmp_path: Path) -> None:
    synthetic.class_folders(tmp_path, noise(4), numpy.arange(4) % 2, ["a", "b"])
    for name in ("a/notes.txt", "a/.a.png", "b/x.tar", "one.png", "labels.csv", "run/log.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    said = load_pictures(tmp_path).left_out
    assert "files and folders left out: 1 " in said
    for each in (".txt", "hidden", ".tar", BESIDE, ".csv", "folder of a training run"):
        assert f"1 {each}" in said or "1 others" in said
    (tmp_path / "b" / "gone.png").symlink_to("nothing")
    assert unlabelled(tmp_path / "b").left_out in (
        "2 files left out: 1 no plain file, 1 .tar", "2 files left out: 1 .tar, 1 no plain file"
    )  # fmt: skip
    assert split(load_pictures(tmp_path), 0.5, 0)[0].left_out == load_pictures(tmp_path).left_out


@pytest.mark.parametrize("form", ["zip", "tgz", "tar"])
@pytest.mark.parametrize("splits", [False, True])
def test_archives_of_class_folders(form: str, splits: bool, tmp_path: Path) -> None:
    """As they are downloaded: a folder above, splits in it, something beside."""
    where = tmp_path / "set" / "imagenette"
    for which in ("train", "val") if splits else (".",):
        synthetic.class_folders(where / which, noise(6, 8, 8), labels_of(6, 2), ["n01", "n02"])
    (where / "readme.txt").write_text("x")
    (where / "cover.png").write_bytes(next(where.rglob("n01/*.png")).read_bytes())
    kinds = {"zip": "zip", "tgz": "gztar", "tar": "tar"}
    archive = Path(shutil.make_archive(str(tmp_path / "made"), kinds[form], tmp_path / "set"))
    for which in ("train", "test"):
        found, wanted = load_pictures(archive, which), load_pictures(where, which)
        assert (found.classes, list(found.targets)) == (wanted.classes, list(wanted.targets))
        assert all(numpy.array_equal(found.pixels(i), wanted.pixels(i)) for i in range(len(wanted)))
        assert "1 file left out: .txt" in found.left_out
        assert splits or f"1 file left out: {BESIDE}" in found.left_out


def test_a_run_among_the_classes_is_no_class(tmp_path: Path) -> None:
    """train --data DATA --output DATA/run: the same call goes on."""
    synthetic.class_folders(tmp_path, noise(4), numpy.arange(4) % 2, ["a", "zebra"])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").write_text("step\n")
    assert load_pictures(tmp_path).classes == ["a", "zebra"]


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    def said(folder: Path, which: str = "train") -> str:
        with pytest.raises(CallError) as caught:
            load_pictures(folder, which)
        return str(caught.value)

    assert "no folder" in said(tmp_path / "nowhere")
    assert "no data set" in said(tmp_path)
    assert "'train' or 'test'" in said(tmp_path, "val")
    synthetic.class_folders(tmp_path / "train", noise(2), numpy.arange(2), ["a", "b"])
    assert "no val or validation or test" in said(tmp_path, "test")
    # A class of that name is no split.
    synthetic.class_folders(tmp_path / "coco", noise(2), numpy.arange(2), ["dog", "train"])
    assert load_pictures(tmp_path / "coco").classes == ["dog", "train"]
    (tmp_path / "train" / "crops.json").write_text("{}")
    assert "no crops" in said(tmp_path / "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CallError, match="holds no pictures"):
        unlabelled(tmp_path / "empty")
    with pytest.raises(CallError, match="does not exist"):
        unlabelled(tmp_path / "nothing")


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 4), st.booleans(), st.integers(0, 2**32))
def test_crops_shifts_and_flips_keep_pixels(taller: int, wider: int, shift: int, flip: bool, seed: int) -> None:
    side, fill = 16, (250, 251, 252)
    height, width = side + taller, side + wider
    augment = Augmentation(side, shift=shift, flip=flip, fill=fill)
    seen = augment(coordinates(height, width), numpy.random.default_rng(seed)).astype(int)
    assert seen.shape == (3, side, side)
    real = seen[2] == 7
    assert real.any()
    assert (seen.transpose(1, 2, 0)[~real] == fill).all()
    row, column = numpy.argwhere(real)[0]
    top = seen[0, row, column] - row
    steps = seen[1][:, 1:] - seen[1][:, :-1]
    step = steps[real[:, 1:] & real[:, :-1]][0]
    assert step in ((1, -1) if flip else (1,))
    left = seen[1, row, column] - step * column
    rows = top + numpy.arange(side)[:, None] + numpy.zeros((1, side), int)
    columns = left + step * numpy.arange(side)[None] + numpy.zeros((side, 1), int)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    assert numpy.array_equal(real, inside)
    assert numpy.array_equal(seen[0][real], rows[real])
    assert numpy.array_equal(seen[1][real], columns[real])
    first = min(columns[0, 0], columns[0, -1])
    assert -shift <= top <= height - side + shift
    assert -shift <= first <= width - side + shift


def test_every_shift_and_both_mirrorings_come_up() -> None:
    augment = Augmentation(16, shift=2, fill=(250, 251, 252))
    draw = numpy.random.default_rng(0)
    places = set()
    for _ in range(600):
        seen = augment(coordinates(16, 16), draw).astype(int)
        places.add((int(seen[0, 8, 8]) - 8, int(seen[1, 8, 9]) - int(seen[1, 8, 8]), int(seen[1, 8, 8])))
    assert len(places) == 5 * 5 * 2


@given(st.integers(40, 90), st.integers(40, 90), st.integers(0, 2**32))
def test_a_part_has_the_area_and_shape_asked_for(height: int, width: int, seed: int) -> None:
    area = (0.06, 0.3)  # so that at no shape between 3/4 and 4/3 the border cuts it
    part = random_part(coordinates(height, width), area, numpy.random.default_rng(seed)).astype(int)
    _, tall, wide = part.shape
    slack = (tall + wide) / 2 + 0.25  # of rounding either side by half a pixel
    assert area[0] * height * width - slack <= tall * wide <= area[1] * height * width + slack
    assert ASPECT[0] * (tall - 0.5) - 0.5 <= wide <= ASPECT[1] * (tall + 0.5) + 0.5
    assert numpy.array_equal(part, coordinates(height, width)[:, part[0, 0, 0] :, part[1, 0, 0] :][:, :tall, :wide])


def test_areas_are_log_uniform() -> None:
    draw = numpy.random.default_rng(0)
    shares = [numpy.prod(random_part(coordinates(200, 200), (0.05, 0.4), draw).shape[1:]) / 4e4 for _ in range(600)]
    logarithms = (numpy.log(shares) - numpy.log(0.05)) / numpy.log(8)
    assert abs(logarithms.mean() - 0.5) < 4 * (1 / 12 / 600) ** 0.5
    assert abs(logarithms.std() - 12**-0.5) < 0.02


def test_sizes_after_resizing() -> None:
    assert shorter_side(noise(1, 40, 81)[0], 20).shape == (3, 20, 40)
    assert shorter_side(noise(1, 81, 40)[0], 60).shape == (3, 122, 60)
    draw = numpy.random.default_rng(0)
    for augment in (Augmentation(24, area=(0.1, 1)), Augmentation(24, resize=30), Augmentation(24)):
        for height, width in ((50, 37), (24, 24), (10, 13)):
            seen = augment(noise(1, height, width)[0], draw)
            assert seen.shape == (3, 24, 24)
            assert seen.dtype == numpy.uint8


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    pictures = numbered_pictures(50)
    augment = Augmentation(8, shift=2)

    def batch(step: int, seed: int = 3, rank: int = 0, world: int = 1) -> tuple[numpy.ndarray, numpy.ndarray]:
        images, targets = Batches(pictures, augment, 12, seed, rank, world)[step]
        return images.numpy(), targets.numpy()

    steps = [9, 2, 7, 2]
    alone = [batch(step) for step in steps]
    for workers in (0, 2):
        for (images, targets), (seen, classes) in zip(
            alone, read_in_order(Batches(pictures, augment, 12, 3), steps, workers), strict=True
        ):
            assert numpy.array_equal(images, seen.numpy())
            assert numpy.array_equal(targets, classes.numpy())
    for world in (2, 3, 4):
        parts = [batch(7, rank=rank, world=world) for rank in range(world)]
        order = numpy.argsort(numpy.concatenate([targets for _, targets in parts]))
        images, targets = alone[2]
        assert numpy.array_equal(numpy.concatenate([seen for seen, _ in parts])[order], images[numpy.argsort(targets)])
    assert not numpy.array_equal(alone[0][0], batch(9, seed=4)[0])


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own() -> None:
    batches = Batches(numbered_pictures(48), Augmentation(8), 12, 0)
    orders = [[batches[4 * epoch + step][1].tolist() for step in range(4)] for epoch in range(3)]
    for order in orders:
        assert sorted(chain(*order)) == list(range(48))
    assert orders[0] != orders[1] != orders[2]
    left_over = Batches(numbered_pictures(50), Augmentation(8), 12, 0)
    assert left_over.steps_per_epoch == 4
    assert len(set(chain(*(left_over[step][1].tolist() for step in range(4))))) == 48


def test_batches_that_cannot_be_made_are_refused() -> None:
    for size, world, said in ((0, 1, "cannot be taken"), (11, 1, "cannot be taken"), (5, 2, "evenly")):
        with pytest.raises(CallError, match=said):
            Batches(numbered_pictures(10), Augmentation(8), size, 0, 0, world)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_is_named_in_one_line(workers: int, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    pictures = Files([tmp_path / "broken.jpg"], numpy.zeros(1, numpy.int64), ["a"])
    with pytest.raises(ImageError) as caught:
        list(read_in_order(Batches(pictures, Augmentation(8), 1, 0), [0], workers))
    assert str(caught.value).startswith(str(tmp_path / "broken.jpg"))
    assert len(str(caught.value).splitlines()) == 1


def test_statistics_are_numpys() -> None:
    images = noise(30) // numpy.array([1, 2, 4], numpy.uint8)[:, None, None]
    mean, std = statistics(Arrays(images, numpy.zeros(30), ["a"]))
    values = images.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert numpy.allclose(mean, values.mean(1), rtol=0, atol=5.1e-5)  # they are rounded to four places
    assert numpy.allclose(std, values.std(1), rtol=0, atol=5.1e-5)
    few, _ = statistics(Arrays(images, numpy.zeros(30), ["a"]), limit=2)
    assert numpy.allclose(few, images[[0, 29]].transpose(1, 0, 2, 3).reshape(3, -1).mean(1) / 255, atol=5.1e-5)
    assert min(statistics(Arrays(numpy.full((2, 3, 4, 4), 9, numpy.uint8), numpy.zeros(2), ["a"]))[1]) > 0


@given(st.integers(2, 25), st.integers(0, 23), st.integers(0, 1000))
def test_folds_and_splits_partition_the_pictures(count: int, more: int, seed: int) -> None:
    pictures = numbered_pictures(count, 2)
    parts = folds(pictures, min(count, 2 + more), seed)
    assert sorted(chain(*(own.targets.tolist() for _, own in parts))) == list(range(count))
    sizes = [len(own) for _, own in parts]
    assert max(sizes) - min(sizes) <= 1
    for others, own in parts:
        assert sorted([*others.targets.tolist(), *own.targets.tolist()]) == list(range(count))
        assert all(numpy.array_equal(own.pixels(i), pictures.pixels(int(own.targets[i]))) for i in range(len(own)))
    trained_on, held = split(pictures, 0.25, seed)
    assert sorted([*trained_on.targets.tolist(), *held.targets.tolist()]) == list(range(count))
    assert len(held) == round(count / 4)


def test_folds_that_cannot_be_made_are_refused() -> None:
    for count in (1, 11):
        with pytest.raises(CallError, match="folds"):
            folds(numbered_pictures(10), count, 0)


def test_a_part_carries_a_teachers_answers() -> None:
    answers = torch.randn(6, 4).log_softmax(1).numpy().astype(numpy.float16)
    part = Part(Arrays(noise(6, 8, 8), answers, list("abcd")), numpy.array([4, 1]))
    _, targets = Batches(part, Augmentation(8), 2, 0)[0]
    assert sorted(map(tuple, targets.tolist())) == sorted(map(tuple, answers[[1, 4]].tolist()))
