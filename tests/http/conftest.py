from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.registry import EACH, Registry, Templates, make_settings, run_registry

MakeRegistry = Callable[..., Registry]


@pytest.fixture
def make_registry(templates: Templates, tmp_path: Path) -> Iterator[MakeRegistry]:
    """Start a registry of a test's own: make_registry(kind_of_database, **settings)."""
    with ExitStack() as stack:

        def make(kind: str = "sqlite", **fields: Any) -> Registry:
            home = tmp_path / f"home-{len(list(tmp_path.iterdir()))}"
            home.mkdir()
            url = stack.enter_context(templates.copy(kind, home))
            return stack.enter_context(run_registry(make_settings(home, database_url=url, **fields)))

        yield make


@pytest.fixture
def registry(make_registry: MakeRegistry) -> Registry:
    """A registry on SQLite, for what does not depend on the database."""
    return make_registry()


@pytest.fixture(params=EACH)
def each_registry(request: pytest.FixtureRequest, make_registry: MakeRegistry) -> Registry:
    """A registry on each database."""
    return make_registry(request.param)
