"""A job kind is two modules of one name (docs/extending.md), which a service and a worker find by looking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import app.jobs.kinds
from app.jobs import service
from nirvana.errors import InvalidJob
from tests.registry import Templates
from tests.worker.arena import Arena, open_arena

SPEC = '''
from pydantic import Field
from app.jobs.kinds import Asker, Integer, Kind, Plan, Spec

class AddSpec(Spec):
    """Numbers to add up."""

    to: Integer = Field(ge=1, le=100, description="the last number")

def plan(asker: Asker, spec: AddSpec) -> Plan:
    return Plan(spec.model_dump(), 1, 0, 0)

KIND = Kind(AddSpec, plan)
'''
WORK = """
async def run(job):
    added = await job.run_round("add", {"round": "add", "to": job.spec["to"]}, {}, lambda _, result: result)
    return await job.commit("keep", lambda session: added)

def add(request, progress):
    progress({"kind": "progress", "message": "adding"})
    return {"sum": sum(range(request["to"] + 1))}

ROUNDS = {"add": add}
"""
LOOK_HERE = """
import app.jobs.kinds, worker.kinds
app.jobs.kinds.__path__.append({spec!r})
worker.kinds.__path__.append({work!r})
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Both modules, where this process and those that it starts look; yields a search path for the latter."""
    spec, work, site = (tmp_path / name for name in ("spec", "work", "site"))
    for folder, name, text in [
        (spec, "add.py", SPEC),
        (work, "add.py", WORK),
        (site, "sitecustomize.py", LOOK_HERE.format(spec=str(spec), work=str(work))),
    ]:
        folder.mkdir()
        (folder / name).write_text(text)
    monkeypatch.setattr(app.jobs.kinds, "__path__", [*app.jobs.kinds.__path__, str(spec)])
    app.jobs.kinds.kinds.cache_clear()
    yield site
    app.jobs.kinds.kinds.cache_clear()


@pytest.fixture
def arena(templates: Templates, tmp_path: Path) -> Iterator[Arena]:
    home = tmp_path / "arena"
    home.mkdir()
    with open_arena(templates, "sqlite", home) as opened:
        yield opened


def test_a_worker_does_it(added: Path, arena: Arena) -> None:
    root = Path(service.__file__).parents[2]
    arena.run(PYTHONPATH=f"{added}:{root}")
    job = arena.wait_for_end(arena.submit("add", to=10))
    assert (job.state, job.result) == ("succeeded", {"sum": 55}), job.reason
    with pytest.raises(InvalidJob) as caught:
        arena.submit("add", to=0)
    assert [(problem.pointer, problem.code) for problem in caught.value.errors] == [("/spec/to", "range")]


def test_openapi_shows_its_fields(added: Path, templates: Templates, tmp_path: Path) -> None:
    """In a process of its own: the routes of this one were made before."""
    code = "import json; from app.main import create_app; from app.settings import Settings\n"
    code += "print(json.dumps(create_app(Settings()).openapi()))"
    root = Path(service.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{added}:{root}", "NIRVANA_HOME": str(tmp_path)}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    schemas = json.loads(shown.stdout)["components"]["schemas"]
    assert schemas["AddSpec"]["properties"]["to"]["description"] == "the last number"
    assert schemas["NewAddJob"]["properties"]["kind"]["const"] == "add"
