"""What one arm of a verification measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from nirvana.cost import Cost, sum_costs
from nirvana.errors import Invalid

_LISTS = (
    "seeds",
    "accuracies",
    "final_accuracies",
    "untrained_accuracies",
    "early_stop_steps",
    "failed",
    "cached",
)


@dataclass(frozen=True)
class ArmResult:
    """What one arm measured, one entry a replicate, in the order of `seeds`.

    Attributes:
        arm: one of `ARMS`.
        seeds: j of each replicate.
        accuracies: test accuracy at the early stop; a failed replicate counts as chance.
        failed: whether the replicate's loss left the finite numbers.
        paired: whether the arm starts from the ticket's own values (for dense: before any mask).
        density: of the arm's masks.
        cost: of what was trained now.
        cached: whether the replicate was taken from the run cache; empty in results of protocol 1.
        cached_cost: what the cached replicates had cost when they were trained.
        data: hex sha256 of the arrays that were trained on; empty in results of protocol 1.
        repeated: replicates that had been trained before, here, and gave the same numbers again; `differing`:
            and gave others. Only the ticket arm trains again what the cache has.
    """

    arm: str
    seeds: list[int]
    accuracies: list[float]
    final_accuracies: list[float]
    untrained_accuracies: list[float]
    early_stop_steps: list[int]
    failed: list[bool]
    paired: bool
    density: float
    cost: Cost
    environment: dict[str, Any]
    cached: list[bool] = field(default_factory=list)
    cached_cost: Cost = field(default_factory=Cost)
    data: str = ""
    repeated: int = 0
    differing: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ArmResult:
        """The result in `to_dict`'s fields, or in those of protocol 1."""
        costs = {name: Cost(**fields[name]) for name in ("cost", "cached_cost") if name in fields}
        return cls(**{**fields, **costs})

    def joined(self, more: ArmResult) -> ArmResult:
        """This arm with the replicates of a later look after its own.

        Raises:
            Invalid: another arm's, of other data, or replicates that are here already.
        """
        if more.arm != self.arm or more.data != self.data or set(more.seeds) & set(self.seeds):
            raise Invalid(
                f"replicates {more.seeds} of {more.arm} cannot follow {self.seeds} of {self.arm}: "
                "expected other replicates of the same arm on the same data"
            )
        lists = {name: getattr(self, name) + getattr(more, name) for name in _LISTS}
        return replace(
            self,
            **lists,
            cost=sum_costs([self.cost, more.cost]),
            cached_cost=sum_costs([self.cached_cost, more.cached_cost]),
            repeated=self.repeated + more.repeated,
            differing=self.differing + more.differing,
        )
