"""A method's own options: checked by name, kept where they differ from the defaults, and only there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nirvana import lab
from nirvana.errors import InvalidJob
from nirvana.lab import FindReport, PruningTarget
from nirvana.pruning.methods import METHODS, GradualOptions, SynflowOptions, describe_options, read_options
from nirvana.torch.methods.gradual_magnitude import schedule
from tests.lab.small import SMALL


def find(method: str = "synflow", options: dict[str, Any] | None = None, **fields: Any) -> FindReport:
    return lab.find("digits", "mlp-16", method, density=0.2, recipe=SMALL, options=options, **fields)


@pytest.mark.parametrize(
    ("method", "options", "pointer", "message"),
    [
        ("synflow", {"round": 3}, "/options/round", "synflow has no option 'round', expected one of rounds"),
        ("imp", {"rounds": 3}, "/options/rounds", "expected none: the method has no options"),
        ("synflow", {"rounds": "3"}, "/options/rounds", "rounds is '3', expected a whole number from 1 to"),
        ("synflow", {"rounds": True}, "/options/rounds", "rounds is True"),
        ("synflow", {"rounds": 2.5}, "/options/rounds", "rounds is 2.5"),
        ("synflow", {"rounds": None}, "/options/rounds", "rounds is None"),
        ("synflow", {"rounds": 0}, "/options/rounds", "rounds is 0"),
        ("synflow", {"rounds": 10_001}, "/options/rounds", "from 1 to 10000"),
        ("snip", {"least_examples": 10**400}, "/options/least_examples", "expected a whole number"),
        ("grasp", {"temperature": 0}, "/options/temperature", "expected a number"),
        ("grasp", {"temperature": float("nan")}, "/options/temperature", "temperature is nan"),
        ("regularised", {"penalty": float("inf")}, "/options/penalty", "penalty is inf"),
        ("regularised", {"penalty": -1e-3}, "/options/penalty", "of at least 0"),
        ("distilled", {"weight": 0}, "/options/weight", "weight is 0"),
        ("distilled", {"weight": 1.5}, "/options/weight", "weight is 1.5"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_pointers(
    method: str, options: dict[str, Any], pointer: str, message: str
) -> None:
    with pytest.raises(InvalidJob) as caught:
        PruningTarget(method, density=0.1, options=options)
    (problem,) = caught.value.errors
    assert problem.pointer == pointer
    assert message in problem.detail


def test_every_wrong_option_is_named() -> None:
    with pytest.raises(InvalidJob) as caught:
        PruningTarget("gradual-magnitude", density=0.1, options={"begin": 2, "often": 1, "end": 0.5})
    assert [problem.pointer for problem in caught.value.errors] == ["/options/begin", "/options/often"]


def test_a_search_refuses_them_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InvalidJob, match="no option 'round'"):
        find(options={"round": 1}, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_whole_numbers_may_be_written_with_a_point_and_the_other_way_round() -> None:
    """JSON knows no difference."""
    assert read_options("synflow", {"rounds": 7.0}) == SynflowOptions(7)
    assert isinstance(read_options("synflow", {"rounds": 7.0}).rounds, int)
    assert isinstance(read_options("gradual-magnitude", {"begin": 0}).begin, float)


def test_every_default_is_within_its_own_range() -> None:
    for method in METHODS:
        defaults = {name: default for name, default, _ in describe_options(method)}
        assert read_options(method, defaults) == METHODS[method].options(), method
        assert PruningTarget(method, levels=1, options=defaults).options == {}, method


def test_default_options_leave_every_byte_as_it_is() -> None:
    plain, spelled = find(), find(options={"rounds": 100})
    assert [t.to_bytes() for t in plain.tickets] == [t.to_bytes() for t in spelled.tickets]
    assert "options" not in plain.tickets[-1].provenance
    assert "options" not in spelled.to_dict()["goal"]


def test_changed_options_change_the_mask_and_are_kept_in_provenance_and_report(tmp_path: Path) -> None:
    hundred, one = find(), find(options={"rounds": 1}, out=tmp_path)
    assert any(
        (one.tickets[-1].masks[name] != mask).any() for name, mask in hundred.tickets[-1].masks.items()
    )
    assert one.tickets[-1].kept == hundred.tickets[-1].kept
    assert one.tickets[-1].provenance["options"] == {"rounds": 1}
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["goal"] == {"levels": None, "density": 0.2, "options": {"rounds": 1}}


def test_a_folder_of_other_options_is_written_over_and_of_the_same_ones_taken_up(tmp_path: Path) -> None:
    events = list[dict[str, Any]]()
    one = find(options={"rounds": 1}, out=tmp_path)
    assert find(options={"rounds": 1}, out=tmp_path, progress=events.append).levels == one.levels
    assert not events
    two = find(options={"rounds": 2}, out=tmp_path)
    assert two.tickets[-1].digest != one.tickets[-1].digest


def test_a_method_that_adapts_the_recipe_does_so_by_its_options() -> None:
    target = PruningTarget("distilled", levels=1, options={"temperature": 2})
    plan = lab.plan_search("digits", "mlp-16", target, recipe=SMALL)
    assert plan.recipe.distillation == {"temperature": 2.0, "weight": 0.5}
    own = SMALL.override({"distillation": {"temperature": 9.0, "weight": 0.1}})
    assert lab.plan_search("digits", "mlp-16", target, recipe=own).recipe == own


@pytest.mark.parametrize(
    ("method", "options", "measured"),
    [
        ("regularised", {"penalty": 0.01}, ("l1", 0.01)),
        ("gradual-magnitude", {"begin": 0.5}, ("first_pruning_step", 16)),
        ("amc", {"warm_up": 3, "episodes": 2}, ("episodes", 5)),
        ("early-bird", {"looks": 2, "remembered": 2, "distance": 1.0}, ("drawn_step", 30)),
    ],
)
def test_each_method_follows_its_options(
    method: str, options: dict[str, Any], measured: tuple[str, float]
) -> None:
    report = find(method, options)
    assert report.search is not None
    assert report.search[measured[0]] == measured[1]
    assert report.tickets[-1].provenance["options"] == options


@pytest.mark.parametrize("begin", [0.0, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("end", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("every", [1e-6, 0.3, 1.0])
def test_no_gradual_schedule_prunes_after_the_trainings_end(begin: float, end: float, every: float) -> None:
    rounds = list(schedule(5, 45, GradualOptions(begin, end, every)))
    assert all(5 <= step <= 45 for step, _ in rounds)
    assert rounds[-1][1] == 1
