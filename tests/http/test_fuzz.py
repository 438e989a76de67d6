"""A minute of schemathesis on each database; `make fuzz` takes longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.openapi import operations
from tests.fuzz import fuzz, fuzzed_registry
from tests.registry import EACH, Templates

SECONDS = 80


@pytest.mark.parametrize("kind", EACH)
def test_no_request_finds_a_fault_or_an_answer_that_is_not_documented(
    templates: Templates, tmp_path: Path, kind: str
) -> None:
    with fuzzed_registry(templates, kind, tmp_path) as registry:
        done = fuzz(registry, SECONDS, "--seed", "14")
        count = len(list(operations(registry.http.get("/openapi.json").json())))
        assert registry.http.get("/api/v1/whoami", headers=registry.bearer("ada")).status_code == 200
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert f"Tested: {count}" in done.stdout, done.stdout
