from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from reconstruct.images.batches import in_batches, most_together

SIZES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=30)


@given(SIZES, st.integers(1, 20))
def test_batches_have_one_size_and_are_as_large_as_they_may_be(sizes: list[tuple[int, int]], pixels: int) -> None:
    items = list(enumerate(sizes))
    batches = list(in_batches(items, lambda item: item[1], pixels))
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        ((height, width),) = {size for _, size in batch}
        assert len(batch) == 1 or len(batch) * height * width <= pixels
    for batch, following in pairwise(batches):
        (_, (height, width)), (_, other) = batch[0], following[0]
        assert other != (height, width) or (len(batch) + 1) * height * width > pixels


def test_images_are_taken_one_by_one() -> None:
    taken: list[int] = []

    def images() -> object:
        for number in range(5):
            taken.append(number)
            yield number

    assert next(in_batches(images(), lambda _: (2, 2), 8)) == [0, 1]  # type: ignore[call-overload]
    assert taken == [0, 1, 2]


def test_an_image_with_too_many_pixels_goes_alone() -> None:
    assert most_together((10, 10), 99) == 1
    assert most_together((10, 10), 399) == 3
