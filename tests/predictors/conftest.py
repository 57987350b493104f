"""Experiments in which lines may be rows."""

from collections.abc import Iterator

import pytest

from tests.predictors import kinds


@pytest.fixture
def lines() -> Iterator[None]:
    """Within a test, rows may be lines."""
    kinds.register()
    yield
    kinds.forget()
