"""Fixtures shared by the tests of `matting`."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from matting.images import ImageError

NOBODY = 65534


@pytest.fixture
def data() -> Path:
    """The folder of small test data."""
    return Path(__file__).parents[1] / "data"


@pytest.fixture
def random() -> np.random.Generator:
    """A seeded source of random numbers."""
    return np.random.default_rng(0)


@pytest.fixture
def photo(random: np.random.Generator) -> np.ndarray:
    """A smooth H x W x 3 picture with three different channels."""
    return cv2.resize(random.integers(0, 256, (6, 9, 3), dtype=np.uint8), (90, 60))


@pytest.fixture
def unprivileged_folder() -> Iterator[Path]:
    """Provide a folder, and give up root for the test, to whom permissions mean nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            if was_root:
                os.seteuid(0)
            folder.chmod(0o777)


@pytest.fixture
def refusal() -> Callable[..., str]:
    """Provide a function that makes a call and returns the one line of its ImageError."""

    def line(function: Callable, *arguments: object) -> str:
        with pytest.raises(ImageError) as caught:
            function(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return line
