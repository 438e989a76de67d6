"""What a child process does: a level of a search, a part of a verification, a transfer.

Only the child imports this. Each round is a function (request, progress) -> result. Files lie in
`request["folder"]`, the attempt's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nirvana import tasks, zoo
from nirvana.lab.finding import find_level, first_ticket, make_recipe
from nirvana.lab.goal import Goal
from nirvana.lab.methods import Found
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from worker import transferring, verifying

Progress = Callable[[dict[str, Any]], None]
Request = dict[str, Any]
Result = dict[str, Any]


def run(request: Request, progress: Progress) -> Result:
    """Run the round that the request names, on the number of threads that its worker gave it."""
    import torch

    progress({"kind": "begun"})
    torch.set_num_threads(request["threads"])
    return ROUNDS[request["round"]](request, progress)


def level(request: Request, progress: Progress) -> Result:
    """Train a level's ticket, which is `input.ticket` or else the dense one that the search begins with.

    It leaves that ticket with its measured claims as `level.ticket` and the one after it as `next.ticket`. At
    level 0 a method that is not iterative looks for its mask instead and leaves `next.ticket` alone.
    """
    spec, folder = request["spec"], Path(request["folder"])
    data = tasks.load(spec["task"], progress)
    path = folder / "input.ticket"
    ticket = Ticket.read(path) if path.exists() else _dense(spec, data)
    found, following = find_level(ticket, data, spec["seed"], _goal(spec), progress)
    if following is not None:
        following.write(folder / "next.ticket")
    recipe = Recipe.from_dict(dict(ticket.recipe))
    last_level = {"last_level": _goal(spec).last_level(ticket, recipe.pruning)}
    if isinstance(found, Found):
        return last_level | {"level": None, "search": dict(found.measured)}
    found.ticket.write(folder / "level.ticket")
    return last_level | {"level": found.to_dict()}


def _dense(spec: dict[str, Any], data: TaskData) -> Ticket:
    task = tasks.get(spec["task"])
    architecture = zoo.build(spec["architecture"], task.input_shape, task.classes)
    recipe = make_recipe(task, architecture, Recipe.from_dict(spec["recipe"]), spec["method"])
    return first_ticket(task, architecture, recipe, spec["seed"], data=data, method=spec["method"])


def _goal(spec: dict[str, Any]) -> Goal:
    return Goal(spec["method"], spec.get("levels"), spec.get("density"))


ROUNDS: dict[str, Callable[[Request, Progress], Result]] = {
    "level": level,
    "gate": verifying.gate,
    "arm": verifying.arm,
    "judge": verifying.judge,
    "transfer": transferring.transfer,
}
