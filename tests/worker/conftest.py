from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry import EACH, Templates
from tests.worker.arena import Arena, open_arena


@pytest.fixture(params=EACH)
def arena(request: pytest.FixtureRequest, templates: Templates, tmp_path: Path) -> Iterator[Arena]:
    """An arena of its own for a test, on each database."""
    with open_arena(templates, request.param, tmp_path) as opened:
        yield opened


@pytest.fixture(params=EACH[1:])
def postgres_arena(request: pytest.FixtureRequest, templates: Templates, tmp_path: Path) -> Iterator[Arena]:
    """An arena of its own on PostgreSQL alone, for what only a server does."""
    with open_arena(templates, request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
def sqlite_arena(templates: Templates, tmp_path: Path) -> Iterator[Arena]:
    """An arena of its own on SQLite alone, for what does not depend on the database."""
    with open_arena(templates, "sqlite", tmp_path) as opened:
        yield opened
