"""What a reproduction consists of, stage by stage: each stage needs the files of those before it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.reproduce.sizes import Size
from benchmarks.reproduce.work import ByMethod, Levels, Stability, Transfer, last_ticket
from benchmarks.working import Arm, Piece
from nirvana.pruning.methods import METHODS
from nirvana.verification.protocol import ARMS, BASELINES

RETRAINING = ("imp", "lr-rewinding", "fine-tuning")


def stages(size: Size, out: Path) -> Iterator[tuple[str, Callable[[], list[Piece]]]]:
    """Names of the stages and what each has to do; a stage is asked once the ones before it are done."""
    yield "searches", lambda: [*searches(size), *methods(size), *retraining(size)]
    yield "arms", lambda: [*lottery_arms(size), *method_arms(size, out), *retraining_arms(size, out)]
    yield "stability", lambda: list(stability(size))
    yield "transfers", lambda: list(transfers(size))


def searches(size: Size) -> list[Piece]:
    """IMP for every task and seed, and for the tasks that tickets are moved between."""
    wanted = {(task, seed) for task, seeds in size.seeds.items() for seed in seeds}
    wanted |= {(task, 0) for task in size.transfer_tasks}
    return [Levels(task, seed, size) for task, seed in sorted(wanted)]


def methods(size: Size) -> list[ByMethod]:
    """Every method once, but for those that differ from each other by a schedule with drops alone."""
    return [ByMethod(method, size) for method in METHODS if METHODS[method].retrain is None]


def retraining(size: Size) -> list[ByMethod]:
    """What comes after pruning: the initial values again, or trained ones by a schedule that starts again or
    at its end."""
    return [ByMethod(method, size, has_drops=True) for method in RETRAINING]


def ticket_path(task: str, seed: int, level: int) -> Path:
    """The file of an IMP ticket, below the folder of the reproduction."""
    return Path(f"imp-{task}-{seed}") / f"level-{level:02d}.ticket"


def lottery_arms(size: Size) -> list[Piece]:
    """Every arm of every level that the tables show."""
    tickets = [
        ticket_path(task, seed, level)
        for task, seeds in size.seeds.items()
        for seed in seeds
        for level in size.levels[1:]
    ]
    return [arm_piece(ticket, arm, size.replicates, size) for ticket in tickets for arm in ARMS]


def method_arms(size: Size, out: Path) -> list[Piece]:
    """Every arm of every method's ticket."""
    found = [last_ticket(piece.folder(out)) for piece in methods(size)]
    return [
        arm_piece(path.relative_to(out), arm, size.method_replicates, size)
        for path in found
        if path is not None
        for arm in ARMS
    ]


def retraining_arms(size: Size, out: Path) -> list[Piece]:
    """The ticket and the dense baseline of each way to retrain."""
    found = [last_ticket(piece.folder(out)) for piece in retraining(size)]
    return [
        arm_piece(path.relative_to(out), arm, size.replicates, size)
        for path in found
        if path is not None
        for arm in ("dense", "ticket")
    ]


def arm_piece(ticket: Path, arm: str, replicates: int, size: Size) -> Arm:
    """An arm with its replicates, or with the runs of its pool."""
    return Arm(ticket, arm, size.baseline_runs if arm in BASELINES else replicates)


def stability(size: Size) -> list[Stability]:
    """Every shown level of the first task's first seed, the dense one too."""
    task = next(iter(size.seeds))
    return [Stability(ticket_path(task, size.seeds[task][0], level)) for level in size.levels]


def transfers(size: Size) -> Iterator[Transfer]:
    """Every task's ticket on every other task."""
    for target in size.transfer_tasks:
        own = ticket_path(target, 0, size.transfer_level)
        for source in size.transfer_tasks:
            if source != target:
                moved = ticket_path(source, 0, size.transfer_level)
                yield Transfer(moved, own, target, size.transfer_replicates)
