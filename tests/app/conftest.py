from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db import Database, make_database
from app.settings import Settings
from app.storage import Storage, make_storage
from tests.registry import EACH, Templates, make_settings


@pytest.fixture(params=EACH)
def settings(request: pytest.FixtureRequest, templates: Templates, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a migrated database of the test's own, on each kind."""
    with templates.copy(request.param, tmp_path) as url:
        yield make_settings(tmp_path, database_url=url)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    made = make_database(settings)
    yield made
    made.dispose()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return make_storage(make_settings(tmp_path))
