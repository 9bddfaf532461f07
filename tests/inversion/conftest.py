from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module")
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def image(photograph: torch.Tensor) -> torch.Tensor:
    """A detail of the photograph, 1 x 3 x 63 x 63."""
    return photograph[:, :, 60:123, 70:133]
