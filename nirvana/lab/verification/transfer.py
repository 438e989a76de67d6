"""The transfer track: does a ticket that was found on one task serve another?

Arms, all on the target task: the transferred ticket, the target's own ticket, re-initialised and shuffled
controls of the transferred one, and the dense network.

| verdict | rule (one-sided 95 % bounds, the target's margin) |
|---|---|
| TRANSFERS | NI(transferred, own), and it beats reinit and shuffle (Holm over both, neither holds) |
| TRANSFERS_NOT | it is worse than the own ticket by more than the margin, or reinit or shuffle holds |
| UNRESOLVED | neither, no own ticket, or one replicate |

Reference: Morcos et al. 2019, "One ticket to win them all" (arXiv 1906.02773): source masks and values, a new
output layer where the classes differ, compared with the target's own ticket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nirvana import tasks as known_tasks
from nirvana.architecture import Architecture
from nirvana.errors import Invalid, InvalidArchitecture, Problem
from nirvana.initial import draw
from nirvana.lab.verification.fitting import check_shapes
from nirvana.lab.verification.results import ArmResult
from nirvana.lab.verification.running import run_arm
from nirvana.lab.verification.runs import RunCache, home_cache
from nirvana.lab.verification.statistics import ALPHA, Difference, difference, holm, mean
from nirvana.recipe import Recipe
from nirvana.tasks import Task
from nirvana.ticket import Ticket
from nirvana.training import Progress, ShouldStop, Values

_CONTROLS = ("reinit", "shuffle")
_ARMS = ("dense", "ticket", *_CONTROLS)
Cache = RunCache | Literal["home"] | None


@dataclass(frozen=True)
class Transfer:
    """What a transfer measured.

    Attributes:
        verdict: one of `nirvana.protocol.TRANSFER_VERDICTS`.
        source, target: the tasks' names.
        density: of the ticket as it was trained, a new output layer kept whole.
        new_output: whether the classes differed, so that the output layer was drawn anew.
        arms: `dense`, `ticket`, `reinit`, `shuffle` and, where there is one, `own`.
        tests: ticket - own and ticket - control, with Holm's p values.
    """

    verdict: str
    reason: str
    source: str
    target: str
    density: float
    new_output: bool
    replicates: int
    margin: float
    arms: dict[str, ArmResult]
    tests: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        tests = {n: t.to_dict() if isinstance(t, Difference) else t for n, t in self.tests.items()}
        return fields | {"arms": {n: arm.to_dict() for n, arm in self.arms.items()}, "tests": tests}


def transfer(
    source: Ticket,
    task: str | Task,
    *,
    own: Ticket | None = None,
    replicates: int = 5,
    recipe: Recipe | None = None,
    margin: float | None = None,
    seed: int = 0,
    cache: Cache = "home",
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> Transfer:
    """Train a ticket on another task beside that task's own ticket and controls.

    Args:
        own: the target's own ticket, of the same architecture; both are trained by `recipe`.
        recipe: None is the target's default for the architecture.
        margin: None is the target's.
        seed: of a new output layer, where the ticket names none.
        cache: as in `verify`.

    Raises:
        InvalidArchitecture: the target's inputs have another shape, its classes are others and the network
            does not end in a linear layer, or the own ticket has another architecture.
        NotFound, DataMissing, InvalidRecipe, Invalid, Cancelled: as `verify`.
    """
    target = task if isinstance(task, Task) else known_tasks.get(task)
    ticket = fit_to(source, target, recipe, seed)
    own_arm = None
    if own is not None:
        own_arm = _own_arm(own, ticket, target, replicates, recipe, progress, should_stop)
    return _compare(source, ticket, target, own_arm, replicates, margin, cache, progress, should_stop)


def transfer_matrix(
    tickets_by_task: Mapping[str, Ticket],
    tasks: Sequence[str | Task],
    *,
    replicates: int = 5,
    recipes: Mapping[str, Recipe] | None = None,
    seed: int = 0,
    cache: Cache = "home",
    progress: Progress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[dict[str, Any]]:
    """Every ticket on every task: rows for a table, JSON-able.

    Args:
        tickets_by_task: task -> the ticket that was found on it.
        tasks: the targets.
        recipes: target -> recipe, where it is not the target's default.

    Returns:
        a row for each pair: source, target, density, replicates, mean accuracies `ticket`, `own`, `dense`,
        `reinit` and `shuffle` (None where there is none), verdict and reason; `OWN` on the diagonal.
    """
    targets = [task if isinstance(task, Task) else known_tasks.get(task) for task in tasks]
    fitted = {  # all of them before anything is trained: what does not fit is said at once
        (name, target.name): fit_to(source, target, (recipes or {}).get(target.name), seed)
        for target in targets
        for name, source in tickets_by_task.items()
    }
    rows = []
    for target in targets:
        recipe, own_arm = (recipes or {}).get(target.name), None
        if target.name in tickets_by_task:
            own = fitted[target.name, target.name]
            own_arm = _own_arm(own, own, target, replicates, recipe, progress, should_stop)
        for name, source in tickets_by_task.items():
            if name == target.name:
                rows.append(_own_row(source, own_arm, replicates))
                continue
            ticket = fitted[name, target.name]
            found = _compare(source, ticket, target, own_arm, replicates, None, cache, progress, should_stop)
            rows.append(_row(found))
    return rows


def fit_to(source: Ticket, target: Task, recipe: Recipe | None = None, seed: int = 0) -> Ticket:
    """The source's masks and values as a ticket of the target's: a new output layer, kept whole and drawn
    from its law, where the classes differ.

    Raises:
        InvalidArchitecture: as `transfer`.
    """
    graph = source.architecture
    fitted = _with_classes(graph, target.classes) if graph.output_shape != (target.classes,) else graph
    new = [name for name, shape in fitted.parameters.items() if shape != graph.parameters[name]]
    stored = _stored(source, fitted, new, seed) if source.start.kind == "stored" else None
    chosen = recipe or target.default_recipe(graph.name)
    ticket = Ticket.create(
        fitted,
        {name: mask for name, mask in source.masks.items() if name not in new},
        task=target.name,
        recipe=chosen.to_dict(),
        laws=source.start.laws,
        seed=source.start.seed,
        stored=stored,
        rewind_step=source.start.rewind_step,
        prunable=source.prunable,
        provenance={"method": "transfer", "parent": source.digest, "source_task": source.task},
    )
    check_shapes(ticket, target.input_shape, target.classes)
    return ticket


def _with_classes(graph: Architecture, classes: int) -> Architecture:
    """The network with as many outputs; its last node must be a linear layer."""
    last = dict(graph.nodes[-1])
    if last["op"] != "linear":
        detail = (
            f"{graph.name} has outputs of shape {list(graph.output_shape)} from {last['op']}, expected "
            f"a linear layer at its end to be replaced by one of shape [{classes}]"
        )
        raise InvalidArchitecture(detail, errors=[Problem("/architecture/nodes", "does-not-fit", detail)])
    return Architecture(graph.name, graph.input, (*graph.nodes[:-1], last | {"out": classes}))


def _stored(source: Ticket, fitted: Architecture, new: Sequence[str], seed: int) -> Values:
    """The source's stored values, and draws for the parameters that are new."""
    values = dict(source.start.stored)
    tensors = {name: tensor for tensor, name in enumerate(fitted.parameters)}
    chosen = seed if source.start.seed is None else source.start.seed
    for name in new:
        values[name] = draw(source.start.laws[name], fitted.parameters[name], chosen, tensors[name])
    return values


def _own_arm(
    own: Ticket,
    ticket: Ticket,
    target: Task,
    replicates: int,
    recipe: Recipe | None,
    progress: Progress | None,
    should_stop: ShouldStop | None,
) -> ArmResult:
    ours, theirs = own.architecture, ticket.architecture
    if ours.digest != theirs.digest:
        raise InvalidArchitecture(
            f"the own ticket is of {ours.name}, outputs {list(ours.output_shape)}, the transferred one of "
            f"{theirs.name}, outputs {list(theirs.output_shape)}: expected the same network"
        )
    chosen, data = recipe or Recipe.from_dict(dict(ticket.recipe)), known_tasks.load(target, progress)
    return run_arm(own, "ticket", data, chosen, replicates, _named(progress, "own"), should_stop)


def _compare(
    source: Ticket,
    ticket: Ticket,
    target: Task,
    own: ArmResult | None,
    replicates: int,
    margin: float | None,
    cache: Cache,
    progress: Progress | None,
    should_stop: ShouldStop | None,
) -> Transfer:
    delta, kept = target.margin if margin is None else margin, home_cache() if cache == "home" else cache
    if not 0 < delta < 1:
        raise Invalid(f"margin is {delta}, expected a fraction between 0 and 1")
    data = known_tasks.load(target, progress)
    arms = {
        arm: run_arm(ticket, arm, data, None, replicates, progress, should_stop, cache=kept) for arm in _ARMS
    }
    if own is not None:
        arms["own"] = own
    tests = _tests(arms, delta) if replicates > 1 else {}
    verdict, reason = _decide(tests, delta, replicates)
    return Transfer(
        verdict=verdict,
        reason=reason,
        source=source.task,
        target=target.name,
        density=ticket.density,
        new_output=ticket.architecture.digest != source.architecture.digest,
        replicates=replicates,
        margin=delta,
        arms=arms,
        tests=tests,
    )


def _tests(arms: Mapping[str, ArmResult], margin: float) -> dict[str, Any]:
    t = arms["ticket"].accuracies
    others = [name for name in ("own", *_CONTROLS) if name in arms]
    found: dict[str, Any] = {
        f"ticket-{name}": difference(t, arms[name].accuracies, paired=True) for name in others
    }
    adjusted = holm({name: found[f"ticket-{name}"].p_greater for name in _CONTROLS})
    holds = {name: found[f"ticket-{name}"].upper < margin for name in _CONTROLS}
    beaten = {name: adjusted[name] < ALPHA and not holds[name] for name in _CONTROLS}
    return found | {"holm": adjusted, "holds": holds, "beaten": beaten}


def _decide(tests: Mapping[str, Any], margin: float, replicates: int) -> tuple[str, str]:
    if replicates < 2:
        return "UNRESOLVED", "one replicate is a smoke test: a verdict needs at least two, better five"
    holding = [name for name in _CONTROLS if tests["holds"][name]]
    if holding:
        return "TRANSFERS_NOT", f"{' and '.join(holding)} do as well on the target: nothing was carried over"
    own = tests.get("ticket-own")
    if own is None:
        return "UNRESOLVED", "there is no ticket of the target's own to compare with"
    if own.upper < -margin:
        return "TRANSFERS_NOT", "it is worse than the target's own ticket by more than the margin"
    if own.lower > -margin and all(tests["beaten"].values()):
        return "TRANSFERS", "it is as good as the target's own ticket and beats reinit and shuffle"
    return "UNRESOLVED", "too close to tell: add replicates"


def _row(found: Transfer) -> dict[str, Any]:
    head = ("source", "target", "density", "replicates", "verdict", "reason")
    row = {name: getattr(found, name) for name in head}
    names = ("ticket", "own", "dense", *_CONTROLS)
    return row | {name: mean(found.arms[name].accuracies) if name in found.arms else None for name in names}


def _own_row(own: Ticket, arm: ArmResult | None, replicates: int) -> dict[str, Any]:
    accuracy = mean(arm.accuracies) if arm else None
    row: dict[str, Any] = {"source": own.task, "target": own.task, "density": own.density}
    row |= {"replicates": replicates, "verdict": "OWN", "reason": "the task's own ticket"}
    return row | {"ticket": accuracy, "own": accuracy, "dense": None, "reinit": None, "shuffle": None}


def _named(progress: Progress | None, arm: str) -> Progress | None:
    if progress is None:
        return None
    return lambda event: progress(event | {"arm": arm})
