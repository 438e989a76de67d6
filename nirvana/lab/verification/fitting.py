"""Does a ticket fit a task's data? Asked before anything is trained."""

from __future__ import annotations

from nirvana.errors import InvalidArchitecture, InvalidRecipe, Problem
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.ticket import Ticket
from nirvana.training import check_start


def check_fit(ticket: Ticket, data: TaskData, recipe: Recipe) -> None:
    """Refuse what cannot be verified, before anything is trained.

    Raises:
        InvalidArchitecture: its input or outputs are not the data's; both are named.
        InvalidRecipe: a mask-0 action that leaves no ticket, or no step after the ticket's.
    """
    shape, classes = tuple(data.train_x.shape[1:]), int(max(y.max() for y in data[1::2])) + 1
    check_shapes(ticket, shape, classes, exactly=False)
    if recipe.pruning.mask_0_action != "zero":
        detail = (
            f"mask_0_action is {recipe.pruning.mask_0_action!r}, expected 'zero': pruned weights that are "
            "held at other values are an ablation, and no ticket that can be verified"
        )
        raise InvalidRecipe(detail, errors=[Problem("/recipe/pruning/mask_0_action", "no-ticket", detail)])
    check_start(recipe, recipe.first_step(ticket.start.rewind_step))


def check_shapes(ticket: Ticket, shape: tuple[int, ...], classes: int, *, exactly: bool = True) -> None:
    """Refuse a task of another input shape or, `exactly` or not, other classes than the ticket's network.

    Raises:
        InvalidArchitecture: both shapes are named.
    """
    graph = ticket.architecture
    name, outputs = graph.name or "the network", graph.output_shape
    problems = []
    if tuple(graph.input) != tuple(shape):
        detail = f"{name} takes inputs of shape {list(graph.input)}, but the task's are {list(shape)}"
        problems.append(Problem("/architecture/input", "does-not-fit", detail))
    if len(outputs) != 1 or (outputs[0] != classes if exactly else outputs[0] < classes):
        detail = f"{name} has outputs of shape {list(outputs)}, but the task has {classes} classes"
        problems.append(Problem("/architecture/nodes", "does-not-fit", detail))
    if problems:
        raise InvalidArchitecture("; ".join(problem.detail for problem in problems), errors=problems)
