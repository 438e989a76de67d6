"""The plan of a verification: what comes next.

`next_step` is asked again and again: by a plain loop here (`nirvana.verification.verify`), and by a durable
workflow in a worker, which may lose its process between any two steps. What passes between steps is a
`Progress`, JSON-able and complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from nirvana.verification.evaluation import Evaluation
from nirvana.verification.gate import GateReport
from nirvana.verification.protocol import ARMS, BASELINES, OPEN_VERDICTS, Look, plan_looks, pool_size
from nirvana.verification.runs import ArmResult


@dataclass(frozen=True)
class Pool:
    """The dense runs of a baseline: run i trains with seed + i. Two of one seed are the same.

    Attributes:
        runs: how many there were when a verification began.
    """

    seed: int = 0
    runs: int = 0


@dataclass(frozen=True)
class Progress:
    """A verification so far.

    Attributes:
        seed: of the exam: replicate j trains with seed + j.
        pools: of each baseline.
        looks: all that are planned, after those of the exam's earlier verifications.
        earlier: how many looks are of earlier verifications.
        gate: the report of gate 0, once it was asked.
        arms: of each arm its results, one a look.
        evaluation: of the last look that was judged, or of a ticket that gate 0 refuses.
    """

    seed: int
    looks: tuple[Look, ...]
    earlier: int = 0
    gate: GateReport | None = None
    arms: Mapping[str, tuple[ArmResult, ...]] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    pools: Mapping[str, Pool] = field(default_factory=lambda: dict.fromkeys(BASELINES, Pool()))

    def with_arms(self, results: Mapping[str, ArmResult]) -> Progress:
        """Return this with one more look's results of some arms."""
        added = {arm: (*self.arms.get(arm, ()), result) for arm, result in results.items()}
        return replace(self, arms={**self.arms, **added})

    def with_looks(self, replicates: int, max_replicates: int | None) -> Progress:
        """Return this with the looks of one more verification of the exam. Raises: Invalid."""
        done = self.looks[: len(self.judged)]
        looks = (*done, *plan_looks(replicates, max_replicates, done))
        return replace(self, looks=looks, earlier=len(done), gate=None)

    def restarted(self) -> Progress:
        """Return this without what earlier verifications measured, as when the task's data have changed."""
        first, last = self.looks[self.earlier], self.looks[-1]
        fresh = Progress(self.seed, (), pools=self.pools)
        return fresh.with_looks(first.n - first.first, last.n - first.first)

    def seeds(self, look: Look) -> range:
        """Return the seeds of a look's new replicates."""
        return range(self.seed + look.first, self.seed + look.n)

    def baselines(self, look: Look) -> dict[str, range]:
        """Return the seeds of each pool's runs that a look compares with, old and new."""
        number = self.looks.index(look) - self.earlier
        pools = len({pool.seed for pool in self.pools.values()})
        sizes = {arm: pool_size(pool.runs, number, pools) for arm, pool in self.pools.items()}
        return {arm: range(pool.seed, pool.seed + sizes[arm]) for arm, pool in self.pools.items()}

    @property
    def joined(self) -> dict[str, ArmResult]:
        """Each arm's replicates of all looks; of the baselines the pools as the last look had them."""
        joins = {arm: ArmResult.grown if arm in BASELINES else ArmResult.joined for arm in ARMS}
        return {arm: reduce(joins[arm], self.arms[arm]) for arm in ARMS if self.arms.get(arm)}

    @property
    def judged(self) -> list[dict[str, Any]]:
        """The looks that were judged, each {"n", "alpha", "verdict"}."""
        return list(self.evaluation.measurements["looks"]) if self.evaluation else []

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able; `from_dict` reads them."""
        return {
            "seed": self.seed,
            "pools": {arm: [pool.seed, pool.runs] for arm, pool in self.pools.items()},
            "earlier": self.earlier,
            "looks": [[look.first, look.n, look.alpha] for look in self.looks],
            "gate": self.gate and self.gate.to_dict(),
            "arms": {arm: [result.to_dict() for result in results] for arm, results in self.arms.items()},
            "evaluation": self.evaluation and self.evaluation.to_dict(),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Progress:
        """Read what `to_dict` wrote."""
        gate, evaluation = fields["gate"], fields["evaluation"]
        return cls(
            fields["seed"],
            tuple(Look(*look) for look in fields["looks"]),
            fields["earlier"],
            gate and GateReport.from_dict(gate),
            {arm: tuple(map(ArmResult.from_dict, parts)) for arm, parts in fields["arms"].items()},
            evaluation and Evaluation.from_dict(evaluation),
            {arm: Pool(*numbers) for arm, numbers in fields["pools"].items()},
        )


@dataclass(frozen=True)
class CheckGate:
    """Next: look at the ticket without training it."""


@dataclass(frozen=True)
class TrainArms:
    """Next: train a look's replicates of these arms, all of them or the first one."""

    look: Look
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Judge:
    """Next: give the verdict on all replicates so far, at the look's level."""

    look: Look


@dataclass(frozen=True)
class Done:
    """The verification is over."""

    evaluation: Evaluation


Step = CheckGate | TrainArms | Judge | Done


def next_step(progress: Progress) -> Step:
    """Return what a verification does next. It makes one look at least, whatever earlier ones said."""
    if progress.gate is None:
        return CheckGate()
    evaluation, judged = progress.evaluation, len(progress.judged)
    is_settled = evaluation and evaluation.verdict not in OPEN_VERDICTS and judged > progress.earlier
    if evaluation and (is_settled or progress.gate.invalid or judged == len(progress.looks)):
        return Done(evaluation)
    look = progress.looks[judged]
    waiting = tuple(arm for arm in ARMS if len(progress.arms.get(arm, ())) <= judged)
    return TrainArms(look, waiting) if waiting else Judge(look)
