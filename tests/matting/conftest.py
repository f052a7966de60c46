"""Fixtures shared by the tests of `matting`."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def data() -> Path:
    """The folder of small test data."""
    return Path(__file__).parents[1] / "data"


@pytest.fixture
def random() -> np.random.Generator:
    """A seeded source of random numbers."""
    return np.random.default_rng(0)
