"""What a child process does: one level of a search, one arm of a verification. Only the child imports this.

Each round is a function (request, progress) -> result. Files lie in `request["folder"]`, the attempt's own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nirvana import tasks, zoo
from nirvana.lab.finding import find_level, first_ticket
from nirvana.lab.goal import Goal
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket

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

    It leaves that ticket with its measured claim as `level.ticket` and the one after it as `next.ticket`.
    """
    spec, folder = request["spec"], Path(request["folder"])
    recipe = Recipe.from_dict(spec["recipe"])
    data = tasks.load(spec["task"], progress)
    path = folder / "input.ticket"
    ticket = Ticket.read(path) if path.exists() else _dense(spec, recipe, data)
    found, following = find_level(ticket, data, recipe, spec["seed"], _goal(spec), progress)
    found.ticket.write(folder / "level.ticket")
    if following is not None:
        following.write(folder / "next.ticket")
    return {"level": found.to_dict(), "last_level": _goal(spec).last_level(ticket, recipe.pruning)}


def arm(request: Request, progress: Progress) -> Result:
    """Train one arm of a verification of `input.ticket`, every replicate of it."""
    from nirvana.lab import run_arm

    ticket = Ticket.read(Path(request["folder"]) / "input.ticket")
    data = tasks.load(ticket.task, progress)
    recipe = Recipe.from_dict(dict(ticket.recipe))
    replicates = request["replicates"]

    def tell(event: dict[str, Any]) -> None:
        progress(event | {"replicates": replicates})

    result = run_arm(ticket, request["arm"], data, recipe, replicates, tell)
    return {"arm": result.to_dict()}


def judge(request: Request, progress: Progress) -> Result:
    """Give the verdict on what the arms measured."""
    from nirvana.lab import ArmResult, judge

    ticket = Ticket.read(Path(request["folder"]) / "input.ticket")
    arms = {name: ArmResult.from_dict(measured) for name, measured in request["arms"].items()}
    return {"evaluation": judge(ticket, arms, tasks.get(ticket.task).margin).to_dict()}


def _dense(spec: dict[str, Any], recipe: Recipe, data: TaskData) -> Ticket:
    task = tasks.get(spec["task"])
    architecture = zoo.build(spec["architecture"], task.input_shape, task.classes)
    return first_ticket(task, architecture, recipe, spec["seed"], data=data, method=spec["method"])


def _goal(spec: dict[str, Any]) -> Goal:
    return Goal(spec["method"], spec.get("levels"), spec.get("density"))


ROUNDS: dict[str, Callable[[Request, Progress], Result]] = {
    "level": level,
    "arm": arm,
    "judge": judge,
}
