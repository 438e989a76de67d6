"""The transfer track: a ticket that was found on one task, tried on another.

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
from typing import Any

from nirvana import tasks as known_tasks
from nirvana.errors import Invalid, InvalidArchitecture, Problem
from nirvana.format.initial import SCHEME, draw_parameter
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS
from nirvana.tasks import Task
from nirvana.training.events import OnProgress, Reporter, ShouldStop
from nirvana.training.recipe import Recipe
from nirvana.training.spec import Values
from nirvana.verification.arms import ArmConfig
from nirvana.verification.gate import check_shapes
from nirvana.verification.running import run_arms
from nirvana.verification.runs import ArmResult, Cache, RunCache, find_cache
from nirvana.verification.statistics import ALPHA, Difference, difference, holm, mean

_CONTROLS = ("reinit", "shuffle")
_ARMS = ("dense", "ticket", *_CONTROLS)


@dataclass(frozen=True)
class Transfer:
    """A measured transfer.

    Attributes:
        verdict: one of `nirvana.verification.protocol.TRANSFER_VERDICTS`.
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
    progress: OnProgress | None = None,
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
    trial = _Trial(target, recipe, replicates, find_cache(cache), Reporter(progress, should_stop))
    ticket = fit_to(source, target, recipe, seed)
    own_arm = trial.own_arm(own, ticket) if own is not None else None
    return trial.compare(source, ticket, own_arm, margin)


def transfer_matrix(
    tickets_by_task: Mapping[str, Ticket],
    tasks: Sequence[str | Task],
    *,
    replicates: int = 5,
    recipes: Mapping[str, Recipe] | None = None,
    seed: int = 0,
    cache: Cache = "home",
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> list[dict[str, Any]]:
    """Try every ticket on every task.

    Args:
        tickets_by_task: task -> the ticket that was found on it.
        tasks: the targets.
        recipes: target -> recipe, where it is not the target's default.

    Returns:
        a row for each pair, JSON-able: source, target, density, replicates, mean accuracies `ticket`, `own`,
        `dense`, `reinit` and `shuffle` (None where there is none), verdict and reason; `OWN` on the diagonal.
    """
    targets = [task if isinstance(task, Task) else known_tasks.get(task) for task in tasks]
    fitted = {  # all of them before anything is trained: what does not fit is said at once
        (name, target.name): fit_to(source, target, (recipes or {}).get(target.name), seed)
        for target in targets
        for name, source in tickets_by_task.items()
    }
    rows, reporter = [], Reporter(progress, should_stop)
    for target in targets:
        recipe, own_arm = (recipes or {}).get(target.name), None
        trial = _Trial(target, recipe, replicates, find_cache(cache), reporter)
        if target.name in tickets_by_task:
            own = fitted[target.name, target.name]
            own_arm = trial.own_arm(own, own)
        for name, source in tickets_by_task.items():
            if name == target.name:
                rows.append(_own_row(source, own_arm, replicates))
            else:
                rows.append(_row(trial.compare(source, fitted[name, target.name], own_arm)))
    return rows


def fit_to(source: Ticket, target: Task, recipe: Recipe | None = None, seed: int = 0) -> Ticket:
    """Return the source's masks and values as a ticket of the target's: a new output layer, kept whole and
    drawn from its law, where the classes differ.

    Raises:
        InvalidArchitecture: as `transfer`.
    """
    graph = source.architecture
    fitted = _with_classes(graph, target.classes) if graph.output_shape != (target.classes,) else graph
    new = [name for name, shape in fitted.parameters.items() if shape != graph.parameters[name]]
    start = source.start
    moves = bool(new) and start.scheme != SCHEME  # a new layer moves the draws of those constructed after it
    stored = _stored(source, fitted, new, seed) if start.kind == "stored" or moves else None
    chosen = recipe or target.default_recipe(graph.name)
    ticket = Ticket.create(
        fitted,
        {name: mask for name, mask in source.masks.items() if name not in new},
        task=target.name,
        recipe=chosen.to_dict(),
        laws=start.laws,
        seed=None if moves else start.seed,
        scheme=start.scheme,
        order=() if moves else start.order,
        stored=stored,
        rewind_step=start.rewind_step,
        prunable=source.prunable,
        provenance={"method": "transfer", "parent": source.digest, "source_task": source.task},
    )
    check_shapes(ticket, target.input_shape, target.classes)
    return ticket


def _with_classes(graph: Architecture, classes: int) -> Architecture:
    """Return the network with as many outputs; its last node must be a linear layer."""
    last = dict(graph.nodes[-1])
    if OPS[last["op"]].unit_axis != -1:
        detail = (
            f"{graph.name} has outputs of shape {list(graph.output_shape)} from {last['op']}, expected "
            f"a linear layer at its end to be replaced by one of shape [{classes}]"
        )
        raise InvalidArchitecture(detail, errors=[Problem("/architecture/nodes", "does-not-fit", detail)])
    return Architecture(graph.name, graph.input, (*graph.nodes[:-1], last | {"out": classes}))


def _stored(source: Ticket, fitted: Architecture, new: Sequence[str], seed: int) -> Values:
    """Return the source's values, and draws of our own scheme for the parameters that are new."""
    start = source.start
    values = dict(start.stored) if start.kind == "stored" else source.values_of_seed()
    chosen = seed if start.seed is None else start.seed
    for name in new:
        values[name] = draw_parameter(fitted, name, start.laws[name], chosen)
    return values


@dataclass(frozen=True)
class _Trial:
    """Trainings on one target task.

    Attributes:
        recipe: None is that of the ticket, which is the target's default.
    """

    target: Task
    recipe: Recipe | None
    replicates: int
    cache: RunCache | None
    reporter: Reporter

    def own_arm(self, own: Ticket, ticket: Ticket) -> ArmResult:
        """Train the target's own ticket.

        Raises:
            InvalidArchitecture: it is of another network than the transferred one.
        """
        ours, theirs = own.architecture, ticket.architecture
        if ours.digest != theirs.digest:
            raise InvalidArchitecture(
                f"the own ticket is of {ours.name}, outputs {list(ours.output_shape)}, the transferred one "
                f"of {theirs.name}, outputs {list(theirs.output_shape)}: expected the same network"
            )
        recipe = self.recipe or Recipe.from_dict(dict(ticket.recipe))
        return self._run(own, "ticket", recipe, self.reporter.within(arm="own"), None)

    def compare(
        self, source: Ticket, ticket: Ticket, own: ArmResult | None, margin: float | None = None
    ) -> Transfer:
        """Train the ticket and its controls, and judge.

        Raises:
            Invalid: the margin is no fraction.
        """
        delta = self.target.margin if margin is None else margin
        if not 0 < delta < 1:
            raise Invalid(f"margin is {delta}, expected a fraction between 0 and 1")
        recipe = Recipe.from_dict(dict(ticket.recipe))
        arms = {arm: self._run(ticket, arm, recipe, self.reporter, self.cache) for arm in _ARMS}
        if own is not None:
            arms["own"] = own
        tests = _tests(arms, delta) if self.replicates > 1 else {}
        verdict, reason = _decide(tests, delta, self.replicates)
        return Transfer(
            verdict=verdict,
            reason=reason,
            source=source.task,
            target=self.target.name,
            density=ticket.density,
            new_output=ticket.architecture.digest != source.architecture.digest,
            replicates=self.replicates,
            margin=delta,
            arms=arms,
            tests=tests,
        )

    def _run(
        self, ticket: Ticket, arm: str, recipe: Recipe, reporter: Reporter, cache: RunCache | None
    ) -> ArmResult:
        data = known_tasks.load(self.target, self.reporter.on_progress)
        config = ArmConfig(ticket, arm, data, recipe)
        return run_arms(config, [arm], range(self.replicates), reporter, cache=cache)[arm]


def _tests(arms: Mapping[str, ArmResult], margin: float) -> dict[str, Any]:
    t = arms["ticket"].accuracies
    others = [name for name in ("own", *_CONTROLS) if name in arms]
    tests: dict[str, Any] = {
        f"ticket-{name}": difference(t, arms[name].accuracies, paired=True) for name in others
    }
    adjusted = holm({name: tests[f"ticket-{name}"].p_greater for name in _CONTROLS})
    holds = {name: tests[f"ticket-{name}"].upper < margin for name in _CONTROLS}
    beaten = {name: adjusted[name] < ALPHA and not holds[name] for name in _CONTROLS}
    return tests | {"holm": adjusted, "holds": holds, "beaten": beaten}


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


def _row(transfer: Transfer) -> dict[str, Any]:
    head = ("source", "target", "density", "replicates", "verdict", "reason")
    row = {name: getattr(transfer, name) for name in head}
    names = ("ticket", "own", "dense", *_CONTROLS)
    return row | {
        name: mean(transfer.arms[name].accuracies) if name in transfer.arms else None for name in names
    }


def _own_row(own: Ticket, arm: ArmResult | None, replicates: int) -> dict[str, Any]:
    accuracy = mean(arm.accuracies) if arm else None
    row: dict[str, Any] = {"source": own.task, "target": own.task, "density": own.density}
    row |= {"replicates": replicates, "verdict": "OWN", "reason": "the task's own ticket"}
    return row | {"ticket": accuracy, "own": accuracy, "dense": None, "reinit": None, "shuffle": None}
