"""docs/results.md from the files of a reproduction."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.reproduce import plan
from benchmarks.reproduce.shape import expected_shape
from benchmarks.reproduce.sizes import ARCHITECTURE, METHOD_DENSITY, Size
from benchmarks.reproduce.work import ByMethod, Transfer, last_ticket
from benchmarks.working import read_json
from nirvana import lab, tasks
from nirvana.format.ticket import Ticket
from nirvana.training.cost import sum_costs, training_flops
from nirvana.training.recipe import Recipe
from nirvana.verification import statistics
from nirvana.verification.protocol import ARMS, BASELINES, PROTOCOL
from nirvana.verification.statistics import Difference, mean, paired_difference, ratio_interval, variance

Arms = dict[str, lab.ArmResult]
NAMES = {"dense": "D", "ticket": "T", "reinit": "R", "rescaled": "R'", "shuffle": "S", "random": "U"}
NAMES |= {"magnitude": "M", "signs": "+-"}
COMPARED = ("dense", "reinit", "rescaled", "shuffle", "random", "magnitude", "signs")


def write_up(size: Size, out: Path) -> str:
    """The whole page."""
    parts = [
        _head(size, out),
        *(_lottery(task, size, out) for task in size.seeds),
        expected_shape(size, out, read_arms, pool),
        _stability(size, out),
        _methods(size, out),
        _retraining(size, out),
        _transfers(size, out),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def read_arms(out: Path, ticket: Path, replicates: int, size: Size) -> Arms:
    """All arms of a ticket, as measured."""
    return {arm: read_arm(out, ticket, arm, replicates, size) for arm in ARMS}


def read_arm(out: Path, ticket: Path, arm: str, replicates: int, size: Size) -> lab.ArmResult:
    """One arm of a ticket, as measured."""
    return lab.ArmResult.from_dict(read_json(plan.arm_piece(ticket, arm, replicates, size).path(out)))


def pool(found: Sequence[Arms], arm: str) -> tuple[list[float], list[float]]:
    """Accuracies and early-stop steps of an arm, over all inits and data orders; the runs of a baseline's
    pool, which all inits share, count once."""
    found = found[:1] if arm in BASELINES else found
    accuracies = [value for arms in found for value in arms[arm].accuracies]
    return accuracies, [float(step) for arms in found for step in arms[arm].early_stop_steps]


def _head(size: Size, out: Path) -> str:
    seeds = "; ".join(f"{task}: {len(seeds)} inits (seeds {seeds})" for task, seeds in size.seeds.items())
    where = ", ".join(f"{name} {value}" for name, value in lab.environment().items())
    costs = [lab.ArmResult.from_dict(read_json(path)).cost for path in sorted((out / "arms").glob("*.json"))]
    hours = sum_costs(costs).seconds / 3600
    return (
        f"# Results\n\nWritten by `make reproduce` (size {size.name}); nothing here was typed in.\n"
        f"{ARCHITECTURE}, IMP layerwise at 20 % a round (10 % of the output layer), recipe fields "
        f"{size.recipe}.\n{seeds}; {size.replicates} data orders an arm. Each arm ran on the engine that "
        f"`auto` takes. Verdicts by `{PROTOCOL}`, each init by itself, in one look. The arms took "
        f"{hours:.1f} hours on one core.\n"
        f"Machine and versions: {where}.\n\n"
        "Test accuracy in % at the early stop (least validation loss), and its step: mean +- standard "
        "deviation over inits and data orders. D dense, T ticket, R re-initialised, R' re-initialised at the "
        "scale of the density, S shuffled, U random, M largest initial values, +- re-initialised with the "
        "ticket's signs. Intervals are one-sided 95 % "
        "bounds on both sides (paired t; Welch's against D, a pool of "
        f"{size.baseline_runs} dense runs with initial values and data orders of their own); ratios of steps "
        "have 95 % bootstrap intervals. Costs are in dense trainings, all arms of the first init together, "
        "as if none had been shared."
    )


def _lottery(task: str, size: Size, out: Path) -> str:
    lines = [f"## IMP on {task}", "", _row("density %", *NAMES.values()), _rule(1 + len(NAMES))]
    lines += [_accuracies(task, level, size, out) for level in size.levels[1:]]
    lines += ["", "Early-stop steps:", "", _row("density %", *NAMES.values()), _rule(1 + len(NAMES))]
    lines += [_stops(task, level, size, out) for level in size.levels[1:]]
    heads = [f"T - {NAMES[arm]} pp" for arm in COMPARED]
    more = ("steps D / T", "steps R / T", "verdicts", "cost of one, by operations / by seconds")
    lines += ["", _row("density %", *heads, *more), _rule(len(heads) + 5)]
    lines += [_comparisons(task, level, size, out) for level in size.levels[1:]]
    return "\n".join(lines)


def _found(task: str, level: int, size: Size, out: Path) -> tuple[list[Ticket], list[Arms]]:
    paths = [plan.ticket_path(task, seed, level) for seed in size.seeds[task]]
    return [Ticket.read(out / path) for path in paths], [
        read_arms(out, path, size.replicates, size) for path in paths
    ]


def _accuracies(task: str, level: int, size: Size, out: Path) -> str:
    tickets, found = _found(task, level, size, out)
    cells = [spread([100 * a for a in pool(found, arm)[0]], 2) for arm in NAMES]
    return _row(f"{100 * tickets[0].density:.2f}", *cells)


def _stops(task: str, level: int, size: Size, out: Path) -> str:
    tickets, found = _found(task, level, size, out)
    return _row(f"{100 * tickets[0].density:.2f}", *(spread(pool(found, arm)[1], 0) for arm in NAMES))


def _comparisons(task: str, level: int, size: Size, out: Path) -> str:
    tickets, found = _found(task, level, size, out)
    accuracies, stops = pool(found, "ticket")
    cells = [difference(compare(accuracies, pool(found, arm)[0], arm)) for arm in COMPARED]
    cells += [ratio(ratio_interval(pool(found, arm)[1], stops)) for arm in ("dense", "reinit")]
    verdicts = [verdict(ticket, arms) for ticket, arms in zip(tickets, found, strict=True)]
    return _row(f"{100 * tickets[0].density:.2f}", *cells, ", ".join(verdicts), cost(tickets[0], found[0]))


def verdict(ticket: Ticket, arms: Arms) -> str:
    """What the protocol says of one ticket's arms."""
    return lab.judge(ticket, arms, tasks.get(ticket.task).margin).verdict


def _stability(size: Size, out: Path) -> str:
    task = next(iter(size.seeds))
    lines = [
        f"## Stability on {task}",
        "",
        "Linear mode connectivity (Frankle et al. 2020, arXiv 1912.05671) of the first init's tickets: how "
        "much the test error rises on the line between two trainings in different data orders, at most, over "
        "the mean of its ends; a mean below 2 pp is called stable.",
        "",
        _row("density %", "barrier pp, mean", "each pair", "stable"),
        _rule(4),
    ]
    for piece in plan.stability(size):
        found = read_json(piece.path(out))
        pairs = ", ".join(f"{100 * value:.2f}" for value in found["barriers"])
        cells = [f"{100 * found['mean']:.2f}", pairs, "yes" if found["stable"] else "no"]
        lines.append(_row(f"{100 * Ticket.read(out / piece.ticket).density:.2f}", *cells))
    return "\n".join(lines)


def cost(ticket: Ticket, arms: Arms) -> str:
    """All trainings of a verification, in dense trainings: by operations on kept weights, and by seconds."""
    every = sum_costs(part for arm in arms.values() for part in (arm.cost, arm.cached_cost))
    recipe, dense, n = Recipe.from_dict(dict(ticket.recipe)), arms["dense"], len(arms["dense"].seeds)
    one = training_flops(ticket.architecture, {}, recipe.steps * recipe.batch_size)[0]
    seconds = sum_costs([dense.cost, dense.cached_cost]).seconds / n
    return f"{every.flops_sparse / one:.1f} / {every.seconds / seconds:.1f}"


def _methods(size: Size, out: Path) -> str:
    n, task = size.method_replicates, size.method_task
    lines = [
        f"## Every method at {100 * METHOD_DENSITY:.0f} % density on {task}",
        "",
        f"Seed 0, n = {n} data orders. *untrained*: accuracy of the masked initial values.",
        "",
        _row("method", "density %", "untrained %", "T %", "T - D pp", "T - R pp", "T - S pp", "verdict"),
        _rule(8),
    ]
    lines += [line for piece in plan.methods(size) for line in _method(piece, size, out)]
    return "\n".join(lines)


def _retraining(size: Size, out: Path) -> str:
    """The comparison of Renda, Frankle & Carbin 2020 (arXiv 2003.02389), who had a schedule with drops."""
    n, task = size.replicates, size.method_task
    lines = [
        f"## Retraining at {100 * METHOD_DENSITY:.0f} % density on {task}, by a schedule with drops",
        "",
        f"Seed 0, n = {n} data orders, {size.baseline_runs} dense runs. The learning rate falls to a tenth "
        f"at each of the steps {', '.join(f'{step:,}' for step in size.drops)}. After pruning, *imp* goes "
        "back to the initial values; *lr-rewinding* goes on from the trained weights and starts the schedule "
        "again; *fine-tuning* goes on from them at the schedule's last learning rate, for as many steps. "
        "*last step*: accuracy of the final weights, not of those of the least validation loss.",
        "",
        _row("method", "density %", "T %", "T, last step %", "D %", "T - D pp"),
        _rule(6),
    ]
    for piece in plan.retraining(size):
        path = last_ticket(piece.folder(out))
        if path is None:
            lines.append(_row(piece.method, "no ticket at this density", *[""] * 4))
            continue
        arms = [read_arm(out, path.relative_to(out), arm, n, size) for arm in ("ticket", "dense")]
        accuracies, dense = ([100 * value for value in arm.accuracies] for arm in arms)
        last = [100 * value for value in arms[0].final_accuracies]
        shown = [spread(values, 2) for values in (accuracies, last, dense)]
        gap = difference(compare(arms[0].accuracies, arms[1].accuracies, "dense"))
        lines.append(_row(piece.method, f"{100 * Ticket.read(path).density:.2f}", *shown, gap))
    return "\n".join(lines)


def compare(ticket: Sequence[float], other: Sequence[float], arm: str) -> Difference:
    """The ticket's accuracies less another arm's, paired over data orders unless that is a pool."""
    return statistics.difference(ticket, other, paired=arm not in BASELINES)


def _method(piece: ByMethod, size: Size, out: Path) -> Iterator[str]:
    method, path = piece.method, last_ticket(piece.folder(out))
    if path is None:
        yield _row(method, "no ticket at this density", *[""] * 6)
        return
    ticket, arms = Ticket.read(path), read_arms(out, path.relative_to(out), size.method_replicates, size)
    accuracies = arms["ticket"].accuracies
    cells = [f"{100 * ticket.density:.2f}", f"{100 * mean(arms['ticket'].untrained_accuracies):.1f}"]
    cells.append(spread([100 * value for value in accuracies], 2))
    others = ("dense", "reinit", "shuffle")
    cells += [difference(compare(accuracies, arms[arm].accuracies, arm)) for arm in others]
    yield _row(method, *cells, verdict(ticket, arms))


def _transfers(size: Size, out: Path) -> str:
    pieces = list(plan.transfers(size))
    if not pieces:
        return ""
    lines = [
        "## Transfer",
        "",
        f"Tickets of level {size.transfer_level} on other tasks, n = {size.transfer_replicates} data orders, "
        "the target's recipe. *own*: the target's own ticket of that level.",
        "",
        _row("ticket of", "on", "T %", "own %", "D %", "R %", "S %", "T - own pp", "verdict"),
        _rule(9),
    ]
    return "\n".join([*lines, *(_transfer(piece, out) for piece in pieces)])


def _transfer(piece: Transfer, out: Path) -> str:
    found = read_json(piece.path(out))
    arms = found["arms"]
    shown = ("ticket", "own", "dense", "reinit", "shuffle")
    cells = [spread([100 * value for value in arms[arm]["accuracies"]], 2) for arm in shown]
    to_own = difference(paired_difference(arms["ticket"]["accuracies"], arms["own"]["accuracies"]))
    source = piece.source.parts[0].removeprefix("imp-").rpartition("-")[0]
    return _row(source, piece.task, *cells, to_own, found["verdict"])


def spread(values: Sequence[float], digits: int) -> str:
    """mean +- sd."""
    return f"{mean(values):,.{digits}f} +- {math.sqrt(variance(values)):,.{digits}f}"


def difference(found: Difference) -> str:
    """In percentage points, with both one-sided 95 % bounds."""
    return f"{100 * found.mean:+.2f} [{100 * found.lower:+.2f}, {100 * found.upper:+.2f}]"


def ratio(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns
