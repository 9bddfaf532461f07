"""Pictures as publishers of weights make them."""

import numpy
import pytest
from PIL import Image

from reconstruct import ImageError, load_image, load_model
from reconstruct.images.files import fit, model_input
from reconstruct.images.prepare import prepare
from reconstruct.network.preprocessing import Preprocessing
from tests.builders.command_line import SAMPLE

COORDINATES = numpy.stack(numpy.meshgrid(range(60), range(40), range(1)), -1).squeeze(2).astype(numpy.uint8)
"""40 rows and 60 columns: each pixel holds its own column and row."""
PICTURE = Image.fromarray(COORDINATES)


def how(size: int, resize: int, squashed: bool = False, interpolation: str = "nearest") -> Preprocessing:
    return Preprocessing("somebody", (0.5,) * 3, (0.2,) * 3, size, resize, interpolation, squashed)


@pytest.mark.parametrize(
    ("turned", "size", "corner"),
    [
        (False, 40, (10, 0)),  # 60 - 40 columns are cut, ten on the left
        (False, 37, (12, 2)),  # 11.5 columns and 1.5 rows: halves go to the even one
        (True, 37, (2, 12)),
        (False, 39, (10, 0)),  # 10.5 and 0.5
    ],
)
def test_the_middle_is_cut_out(turned: bool, size: int, corner: tuple[int, int]) -> None:
    """Nothing is resized where the shorter side fits already."""
    picture = PICTURE.transpose(Image.Transpose.TRANSPOSE) if turned else PICTURE
    found = numpy.asarray(prepare(picture, how(size, 40)))
    left, top = corner
    wanted = numpy.asarray(picture)[top : top + size, left : left + size]
    assert numpy.array_equal(found, wanted)


def test_sides_after_resizing() -> None:
    """The longer side is in proportion and rounded down, 22 * 60 / 40 = 33; a squashed picture is a square."""
    left = (33 - 20) // 2
    plain = PICTURE.resize((33, 22), Image.Resampling.BICUBIC).crop((left, 1, left + 20, 21))
    assert prepare(PICTURE, how(20, 22, interpolation="bicubic")).tobytes() == plain.tobytes()
    squashed = PICTURE.resize((22, 22), Image.Resampling.BILINEAR).crop((1, 1, 21, 21))
    assert prepare(PICTURE, how(20, 22, True, "bilinear")).tobytes() == squashed.tobytes()


def test_what_is_smaller_than_the_cut_is_black_around() -> None:
    found = numpy.asarray(prepare(PICTURE, how(50, 40)))
    assert found.shape == (50, 50, 3)
    assert not found[:5].any()
    assert not found[45:].any()
    assert numpy.array_equal(found[5:45], numpy.asarray(PICTURE)[:, 5:55])


def test_networks_with_a_publisher_prepare_pictures_as_it_does() -> None:
    """Unless a call names another size."""
    net = load_model("convpool_cnn_c")
    net.preprocessing = how(30, 36, interpolation="bilinear")
    picture = Image.open(SAMPLE)
    prepared = prepare(picture, net.preprocessing)
    assert model_input(picture, "it", net, ["conv1"], None, False).tobytes() == prepared.tobytes()
    assert model_input(picture, "it", net, ["conv1"], 30, False).tobytes() == fit(picture, 30).tobytes()
    assert prepared.tobytes() != fit(picture, 30).tobytes()
    assert load_image(SAMPLE, net.preprocessing).shape == (3, 30, 30)


def test_pictures_far_longer_than_wide_are_refused() -> None:
    """Resized so that their shorter side is the publisher's they would have a billion pixels: one sentence, at once."""
    picture = Image.new("RGB", (1, 60_000))
    with pytest.raises(ImageError, match=r"cannot be resized as .* asks: 15360000 x 256 is 3,932,160,000 pixels"):
        prepare(picture, how(224, 256))
    assert prepare(picture, how(224, 256, True)).size == (224, 224)
    net = load_model("convpool_cnn_c")
    net.preprocessing = how(224, 256)
    with pytest.raises(ImageError, match=r"^long\.png: it cannot be resized"):
        model_input(Image.new("RGB", (4, 60_000)), "long.png", net, ["conv1"], None, False)
