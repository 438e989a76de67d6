"""Updates: the sparse engine beside PyTorch's ways of training a mask, by density, network and batch.

An update is all of it: batch, forward, backward, optimiser, mask. Every trainee goes on with its training
from one measurement to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.effort import Effort
from benchmarks.goals import Goal, median_ratio
from benchmarks.measuring import Timing, Trainee, race, rates, ratios, row, table
from benchmarks.peers import PEERS, csr_failures
from benchmarks.subjects import SEED, Masks, Subject, convolutional, lenet
from nirvana import sparse
from nirvana.sparse.engine import Sparse
from nirvana.torch.dense import Dense
from nirvana.torch.evaluate import deterministic
from nirvana.training.events import SILENT
from nirvana.training.loop import Loop

DENSITIES = (1.0, 0.5, 0.35, 0.17, 0.07, 0.036, 0.01)
WITH_5_PERCENT = (1.0, 0.5, 0.35, 0.17, 0.07, 0.05, 0.036, 0.01)
BATCHES = (60, 128)
OWN_DENSE = "own dense engine"
Pairs = tuple[list[Timing], list[Timing]]


@dataclass(frozen=True)
class Plan:
    """What is measured of one network.

    Attributes:
        densities: against `best`.
        all_peers: densities at which every other peer runs too, and the product's own dense engine; with
            the first batch size alone, but for LeNet.
        goals: density -> the ratio to `best` asked for, at the first batch size.
        is_uniform: each layer keeps the same share.
    """

    make: Callable[[], Subject]
    densities: Sequence[float]
    all_peers: Sequence[float]
    goals: Mapping[float, float] = field(default_factory=dict)
    batches: Sequence[int] = BATCHES
    is_uniform: bool = False


PLANS = {
    "lenet-300-100": Plan(lenet, DENSITIES, DENSITIES, {0.036: 8, 0.07: 5, 0.17: 2.5, 0.35: 1.2}),
    "conv-2": Plan(lambda: convolutional("conv-2"), WITH_5_PERCENT, (1.0, 0.05), {0.05: 3}),
    "conv-2, each layer the same density": Plan(
        lambda: convolutional("conv-2"), (0.05,), (), {0.05: 3}, is_uniform=True
    ),
    "resnet-20": Plan(lambda: convolutional("resnet-20"), DENSITIES, (1.0, 0.17)),
}
QUICK = ("lenet-300-100", "conv-2")


class SparseTrainee:
    """The sparse engine's updates."""

    def __init__(self, subject: Subject, masks: Masks, batch: int, threads: int = 1) -> None:
        spec = subject.spec(masks, batch)
        self.loop = Loop(Sparse(spec, threads), [spec], [SILENT])

    def advance(self, steps: int) -> None:
        self.loop.update_until(self.loop.step + steps)
        assert self.loop.alive, "a loss was not finite"


class DenseTrainee:
    """The product's dense engine's updates."""

    def __init__(self, subject: Subject, masks: Masks, batch: int) -> None:
        spec = subject.spec(masks, batch)
        with deterministic(SEED):
            self.loop = Loop(Dense(spec), [spec], [SILENT])

    def advance(self, steps: int) -> None:
        with deterministic(SEED):
            self.loop.update_until(self.loop.step + steps)
        assert self.loop.alive, "a loss was not finite"


def main(effort: Effort) -> list[Goal]:
    """Print two tables for each network and batch size: ratios, and thousands of samples a second."""
    print(
        f"One core, one thread, n = {effort.pairs} pairs in turn (peer, ours, next peer, ours ...), each of "
        f"at least {effort.slice_seconds} s and one update: median (min to max). Ratios are samples a "
        "second, ours / peer.\nThe peers are in `benchmarks/peers.py`; `best` is masked-dense at its best. A "
        "mask's layers have the densities that the recipe's rates of pruning leave (Frankle and Carbin's), "
        "unless said otherwise."
    )
    goals = list[Goal]()
    for name in QUICK if effort.is_quick else PLANS:
        plan = PLANS[name]
        for batch in plan.batches:
            print(f"\n### {name}, batch {batch}\n")
            measured = _print_network(plan, batch, effort)
            goals += _goals(name, plan, measured) if batch == plan.batches[0] else []
    print(
        "\nWhat a `torch.sparse` CSR tensor does as a parameter (the peer `csr` trains its values instead):\n"
    )
    for attempt, outcome in csr_failures().items():
        print(f"- `{attempt}`: {outcome}")
    return goals


def _goals(name: str, plan: Plan, measured: Mapping[float, dict[str, Pairs] | None]) -> Iterator[Goal]:
    for density, least in plan.goals.items():
        if pairs := measured.get(density):
            what = f"{name} at {_percent(density)} %, batch {plan.batches[0]}, against `best`"
            yield Goal(what, least, median_ratio(*pairs["best"]))


def _print_network(plan: Plan, batch: int, effort: Effort) -> dict[float, dict[str, Pairs] | None]:
    subject = plan.make()
    how = "largest trained weights" if subject.trained else "drawn at random"
    print(
        f"{subject.recipe.optimizer}, {subject.pixels} (no engine here skips an activation that is 0); "
        f"masks: {how}.\n"
    )
    measured, reason = dict[float, dict[str, Pairs] | None](), None
    for density in (1.0, 0.05) if effort.is_quick else plan.densities:
        masks = subject.masks(density, is_uniform=plan.is_uniform)
        reason = sparse.find_unsupported(subject.architecture, subject.with_batch(batch), masks)
        measured[density] = None if reason else _measure(plan, subject, masks, density, batch, effort)
    _print_ratios(measured)
    print()
    _print_rates(measured, batch)
    if reason:
        print(f"\nnot supported: {reason}")
    return measured


def _measure(
    plan: Plan, subject: Subject, masks: Masks, density: float, batch: int, effort: Effort
) -> dict[str, Pairs]:
    is_everywhere = batch == plan.batches[0] or plan.make is lenet
    has_all = effort.is_quick or (density in plan.all_peers and is_everywhere)
    peers: dict[str, Trainee] = {
        name: PEERS[name](subject, masks, batch) for name in (PEERS if has_all else ["best"])
    }
    if has_all:
        peers[OWN_DENSE] = DenseTrainee(subject, masks, batch)
    return race(SparseTrainee(subject, masks, batch), peers, effort.pairs, effort.slice_seconds)


def _print_ratios(measured: Mapping[float, dict[str, Pairs] | None]) -> None:
    names = [*PEERS, OWN_DENSE]
    print(table(["density %", *(f"ours / {name}" for name in names)]))
    for density, pairs in measured.items():
        print(row([_percent(density), *(_cell(pairs, name) for name in names)]), flush=True)


def _cell(pairs: Mapping[str, Pairs] | None, name: str) -> str:
    if pairs is None:
        return "not supported"
    return ratios(*pairs[name]) if name in pairs else "not measured"


def _print_rates(measured: Mapping[float, dict[str, Pairs] | None], batch: int) -> None:
    """Thousands of samples a second."""
    names = [*PEERS, OWN_DENSE]
    print(table(["density %", "ours, thousand samples/s", *names]))
    for density, pairs in measured.items():
        if pairs is None:
            print(row([_percent(density), *["not supported"] * (1 + len(names))]))
            continue
        mine = [timing for _, ours in pairs.values() for timing in ours]
        theirs = [rates(pairs[name][0], batch) if name in pairs else "not measured" for name in names]
        print(row([_percent(density), rates(mine, batch), *theirs]), flush=True)


def _percent(density: float) -> str:
    return f"{100 * density:g}"
