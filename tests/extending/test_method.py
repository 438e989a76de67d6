"""A method is two places (docs/extending.md): a row of the table, and a function."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from app.jobs.kinds import parse
from app.jobs.kinds.prune import PruneSpec, plan_search_job
from nirvana import lab, tasks
from nirvana.cli import main
from nirvana.errors import InvalidJob
from nirvana.pruning import methods
from nirvana.pruning.methods import Method, option
from nirvana.pruning.ranking import keep_global, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch

SHORT = {"steps": 20, "evaluate_every": 10}


@dataclass(frozen=True)
class SmallestOptions:
    """Options of `smallest`."""

    power: float = option(1.0, "of the magnitude", least=0.5, most=4)


def find_smallest(search: MaskSearch) -> MaskResult:
    """Keep the smallest initial values."""
    power = search.options_as(SmallestOptions).power
    scores = {name: -(np.abs(search.values[name]) ** power) for name in search.shapes}
    return MaskResult(keep_global(scores, whole_masks(search.shapes), search.keep), {"power": power})


@pytest.fixture(autouse=True)
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The method: its module, and its row."""
    module = ModuleType("smallest")
    module.find = find_smallest  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "smallest", module)
    row = Method("keep the smallest initial values", "nobody", code="smallest:find", options=SmallestOptions)
    monkeypatch.setitem(methods.METHODS, "smallest", row)


def test_the_lab_finds_by_it_and_keeps_its_options(tmp_path: Path) -> None:
    options = {"power": 2}
    report = lab.find(
        "digits", "mlp-16", "smallest", density=0.3, recipe=SHORT, options=options, out=tmp_path
    )
    (ticket,) = report.tickets
    assert ticket.density == pytest.approx(0.3, abs=0.001)
    assert ticket.provenance["method"] == "smallest"
    assert ticket.provenance["options"] == {"power": 2.0}
    values = np.abs(np.concatenate([array.ravel() for array in ticket.initial_values().values()]))
    assert 0 < values.max() < 0.2  # the largest of a whole layer is 0.27
    assert json.loads((tmp_path / "report.json").read_text())["search"] == {"power": 2.0}


def test_the_service_plans_it_and_refuses_what_it_does_not_know() -> None:
    task = tasks.get("digits")
    spec = {"task": "digits", "architecture": "mlp-16", "method": "smallest", "density": 0.3}
    plan = plan_search_job(parse(PruneSpec, spec | {"options": {"power": 3}}, "/spec"), task, 10**6)
    assert (plan.rounds, plan.spec["options"]) == (2, {"power": 3.0})
    with pytest.raises(InvalidJob) as caught:
        plan_search_job(parse(PruneSpec, spec | {"options": {"force": 1}}, "/spec"), task, 10**6)
    assert [problem.pointer for problem in caught.value.errors] == ["/spec/options/force"]


def test_the_command_line_lists_it_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["methods", "--json"])
    assert ended.value.code == 0
    (shown,) = [one for one in json.loads(capsys.readouterr().out)["items"] if one["name"] == "smallest"]
    assert shown["options"] == [{"name": "power", "default": 1.0, "help": "of the magnitude"}]
