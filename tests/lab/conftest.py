"""What tests of the lab share."""

from __future__ import annotations

import pytest

from nirvana.tasks import Task
from tests.lab.small import SMALL


@pytest.fixture
def brief_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the reference recipe as brief as the tests' own, so that their networks match it."""
    monkeypatch.setattr(Task, "reference_recipe", lambda *_: SMALL.override({"steps": 20}))
