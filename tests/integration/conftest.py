"""What several files of these tests use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.store_values import VARIANTS, Opened, opened


@pytest.fixture(params=VARIANTS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A store, opened in each of the ways there are."""
    with opened(request.param, tmp_path) as store:
        yield store
