"""The rounds of a verification: gate 0, one arm of a look, the verdict. Only the child imports this.

Between rounds everything is JSON. The ticket is `input.ticket`, known ones are `known/*.ticket` with their
names in `known/names.json`, and runs that were measured before are in `runs/` as the run cache has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from nirvana import tasks
from nirvana.lab.verification.duplicates import Overlap
from nirvana.lab.verification.evaluation import judge as find_evaluation
from nirvana.lab.verification.evaluation import refuse
from nirvana.lab.verification.fitting import check_fit, check_shapes
from nirvana.lab.verification.gate import Gate, check_gate
from nirvana.lab.verification.rates import plan_looks
from nirvana.lab.verification.results import ArmResult
from nirvana.lab.verification.running import arm_keys, run_arm
from nirvana.lab.verification.runs import RunCache
from nirvana.lab.verification.verifying import next_look
from nirvana.protocol import ARMS
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket

Progress = Callable[[dict[str, Any]], None]
Json = dict[str, Any]


def gate(request: Json, progress: Progress) -> Json:
    """Look at the ticket without training it.

    Returns:
        `refused`: the evaluation of a ticket that gate 0 refuses, else None. Then also `gate`, what it found;
        `look`, the first one; and `about`, what the ticket's runs are kept with.
    """
    ticket, folder = _ticket(request), Path(request["folder"])
    task, recipe = tasks.get(ticket.task), Recipe.from_dict(dict(ticket.recipe))
    check_shapes(ticket, task.input_shape, task.classes)
    progress({"kind": "gate", "message": "gate 0: the ticket without training"})
    found = check_gate(ticket, _known(folder / "known"))
    if found.invalid is not None:
        return {"refused": refuse(ticket, found, task.margin).to_dict()}
    data = tasks.load(task, progress)
    check_fit(ticket, data, recipe)
    first = _looks(request)[0]
    digests = {"architecture_digest": ticket.architecture.digest, "recipe_digest": recipe.digest}
    return {
        "refused": None,
        "gate": found.to_dict(),
        "look": _look(ticket, data, 0, first.n, first.alpha, progress),
        "about": {"task": task.name} | digests,
    }


def arm(request: Json, progress: Progress) -> Json:
    """Train the replicates `first` to `n` - 1 of one arm, or take them from the runs in `runs/`.

    Returns:
        `arm`, what was measured, and `runs`, the records that are new.
    """
    ticket, folder = _ticket(request), Path(request["folder"]) / "runs"
    data, recipe = tasks.load(ticket.task, progress), Recipe.from_dict(dict(ticket.recipe))
    replicates = range(request["first"], request["n"])
    place = {"first": replicates[0], "replicates": len(replicates)}
    before = _read(folder)
    result = run_arm(
        ticket,
        request["arm"],
        data,
        recipe,
        replicates,
        lambda event: progress(event | place),
        cache=RunCache(folder),
    )
    runs = [_record(text) for path, text in _read(folder).items() if before.get(path) != text]
    return {"arm": result.to_dict(), "runs": runs}


def judge(request: Json, progress: Progress) -> Json:
    """Give the verdict on what the arms measured in all looks so far.

    Returns:
        `evaluation`, and `look`, the next one, or None where this was the last.
    """
    ticket, looks = _ticket(request), _looks(request)
    task = tasks.get(ticket.task)
    arms = {name: reduce(ArmResult.joined, map(ArmResult.from_dict, parts)) for name, parts in _arms(request)}
    found = find_evaluation(
        ticket,
        arms,
        task.margin,
        alpha=request["alpha"],
        looks=request["looks"],
        gate=_gate(request["gate"]),
    )
    following = next_look(looks, found)
    look = None
    if following is not None:
        data = tasks.load(task, progress)
        look = _look(ticket, data, found.replicates, following.n, following.alpha, progress)
    return {"evaluation": found.to_dict(), "look": look}


def _look(ticket: Ticket, data: TaskData, first: int, n: int, alpha: float, progress: Progress) -> Json:
    """A look to take: replicates `first` to `n` - 1 of each arm, and the keys of the runs that it can use."""
    recipe, keys = Recipe.from_dict(dict(ticket.recipe)), dict[str, list[str]]()
    for name in ARMS:
        progress({"kind": "keys", "arm": name})
        keys[name] = arm_keys(ticket, name, data, recipe, range(first, n))
    return {"first": first, "n": n, "alpha": alpha, "keys": keys}


def _ticket(request: Json) -> Ticket:
    return Ticket.read(Path(request["folder"]) / "input.ticket")


def _looks(request: Json) -> list[Any]:
    return plan_looks(request["replicates"], request["max_replicates"])


def _arms(request: Json) -> Iterator[tuple[str, list[Json]]]:
    parts: Mapping[str, list[Json]] = request["arms"]
    yield from parts.items()


def _known(folder: Path) -> Iterator[tuple[str, Ticket]]:
    """The known tickets, one in memory at a time."""
    if not folder.exists():
        return
    for file, name in json.loads((folder / "names.json").read_text()).items():
        yield name, Ticket.read(folder / file)


def _gate(fields: Json) -> Gate:
    """What `Gate.to_dict` wrote."""
    overlaps = (Overlap(**one | {"same_layers": tuple(one["same_layers"])}) for one in fields["duplicates"])
    return Gate(**fields | {"duplicates": tuple(overlaps)})


def _read(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(folder.glob("*/*.json"))}


def _record(text: str) -> Json:
    """A record of the run cache without the fields that its key is the sha256 of: those of a deep network are
    a hundred times longer than what was measured."""
    return {name: value for name, value in json.loads(text).items() if name != "fields"}
