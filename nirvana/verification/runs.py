"""The run cache: the numbers of one training of an arm, kept under the sha256 of all that it follows from.

The key is over the canonical JSON of architecture, data, recipe (without pruning), masks, values, data order,
first step, teacher and engine; no protocol, ticket or arm is in it, so tickets that share a dense baseline
share its runs. One small JSON file a run: `<folder>/<first two digits>/<key>.json`. Nothing is ever removed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nirvana import environment
from nirvana.errors import Invalid, StorageFailed, StorageFull
from nirvana.files import write_atomically
from nirvana.training.cost import Cost, sum_costs
from nirvana.training.keys import run_key
from nirvana.training.spec import TestAccuracies, TrainResult

FORMAT = "nirvana-run/2"
_MOST_BYTES = 2**20  # a file that is longer was not written here


@dataclass(frozen=True)
class Measured:
    """The numbers of one training: accuracies in [0, 1], steps counted from initialisation.

    Attributes:
        accuracy, final_accuracy, untrained_accuracy: on the rows that decide: sealed ones where there are
            any, else the test set.
        test_accuracy, untrained_test_accuracy: on the test set, as claims are.
        validation_loss: the least one; None where the training failed.
    """

    accuracy: float
    final_accuracy: float
    untrained_accuracy: float
    early_stop_step: int
    failed: bool
    cost: Cost
    test_accuracy: float
    untrained_test_accuracy: float
    validation_loss: float | None
    engine: str = "dense"

    @classmethod
    def of(cls, result: TrainResult) -> Measured:
        """Return the numbers of a training."""
        untrained, early_stop = result.untrained_test_accuracy, result.early_stop_test_accuracy
        test = TestAccuracies(untrained, early_stop, result.final_test_accuracy)
        decides = result.sealed or test
        return cls(
            decides.early_stop,
            decides.final,
            decides.untrained,
            result.early_stop_step,
            result.failed,
            result.cost,
            early_stop,
            untrained,
            result.early_stop_validation_loss,
            result.engine,
        )

    def equals(self, other: Measured) -> bool:
        """Return whether every number but the cost is the same."""
        return {**asdict(self), "cost": 0} == {**asdict(other), "cost": 0}


@dataclass(frozen=True)
class RunCache:
    """Runs that were measured before, in a folder."""

    folder: Path

    def get(self, key: str, where: Mapping[str, Any]) -> Measured | None:
        """Return the run of this key, if it was measured in environment `where`; a broken file is none."""
        try:
            with self.path(key).open("rb") as stream:
                text = stream.read(_MOST_BYTES + 1)
            record = json.loads(text if len(text) <= _MOST_BYTES else b"")
            if record["format"] != FORMAT or record["key"] != key or record["environment"] != where:
                return None
            return _checked(record["run"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, fields: Mapping[str, Any], where: Mapping[str, Any], run: Measured) -> None:
        """Keep a run; a folder that cannot be written keeps none, and the verification goes on."""
        key = run_key(dict(fields))
        record = {
            "format": FORMAT,
            "key": key,
            "fields": dict(fields),
            "environment": dict(where),
            "run": asdict(run),
        }
        with contextlib.suppress(StorageFailed, StorageFull):
            write_atomically(self.path(key), json.dumps(record, sort_keys=True, allow_nan=False).encode())

    def path(self, key: str) -> Path:
        """Return the file of a key, there or not."""
        return self.folder / key[:2] / f"{key}.json"


def join_engines(names: Iterable[str]) -> str:
    """Return the engines of some runs as one text."""
    return "+".join(sorted(set(names) - {""}))


Cache = RunCache | Literal["home"] | None


def find_cache(cache: Cache) -> RunCache | None:
    """Return the cache that is meant: "home" is that in NIRVANA_HOME/runs."""
    return RunCache(environment.home() / "runs") if cache == "home" else cache


def _checked(run: Any) -> Measured:
    """Read a run from JSON.

    Raises:
        ValueError, TypeError: a number is missing, of another kind or impossible.
    """
    measured = Measured(**{**run, "cost": Cost(**run["cost"])})
    shares = [measured.accuracy, measured.final_accuracy, measured.untrained_accuracy]
    shares += [measured.test_accuracy, measured.untrained_test_accuracy]
    numbers = (measured.early_stop_step, *asdict(measured.cost).values())
    if not all(isinstance(share, float) and 0 <= share <= 1 for share in shares):
        raise ValueError("an accuracy is no share")
    if not all(type(number) in (int, float) and number >= 0 for number in numbers):
        raise ValueError("a count is no number")
    if not (isinstance(measured.failed, bool) and isinstance(measured.engine, str)):
        raise TypeError("failed and engine are of other kinds")
    if not isinstance(measured.validation_loss, float | None):
        raise TypeError("the validation loss is no number")
    return measured


_LISTS = (
    "seeds",
    "accuracies",
    "final_accuracies",
    "untrained_accuracies",
    "early_stop_steps",
    "failed",
    "cached",
    "test_accuracies",
    "untrained_test_accuracies",
    "validation_losses",
)


@dataclass(frozen=True)
class ArmResult:
    """The measurements of one arm, one entry a replicate, in the order of `seeds`.

    Attributes:
        arm: one of `ARMS`.
        seeds: j of each replicate.
        accuracies: at the early stop, on the rows that decide (see `Measured`); a failed replicate counts as
            chance.
        test_accuracies, untrained_test_accuracies: on the test set; the same where nothing is sealed.
        validation_losses: the least of each replicate; None where it failed.
        failed: whether the replicate's loss left the finite numbers.
        paired: whether the arm starts from the ticket's own values or masks, in the ticket's data orders.
        density: of the arm's masks.
        cost: of what was trained now.
        cached: whether the replicate was taken from the run cache; empty in results of protocol 1.
        cached_cost: what the cached replicates had cost when they were trained.
        sealed_rows: that decided; 0 where the test set did.
        data: hex sha256 of the arrays that were trained and tested on; empty in results of protocol 1.
        repeated: replicates that had been trained before, here, and gave the same numbers again; `differing`:
            and gave others. Only the ticket arm trains again what the cache has.
        engine: that trained them; several are joined by a plus, and "" is not known.
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
    environment: Mapping[str, Any]
    cached: list[bool] = field(default_factory=list)
    cached_cost: Cost = field(default_factory=Cost)
    test_accuracies: list[float] = field(default_factory=list)
    untrained_test_accuracies: list[float] = field(default_factory=list)
    validation_losses: list[float | None] = field(default_factory=list)
    sealed_rows: int = 0
    data: str = ""
    repeated: int = 0
    differing: int = 0
    engine: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ArmResult:
        """Read the result in `to_dict`'s fields, or in those of protocol 1."""
        costs = {name: Cost(**fields[name]) for name in ("cost", "cached_cost") if name in fields}
        return cls(**{**fields, **costs})

    def grown(self, more: ArmResult) -> ArmResult:
        """Return `more`, the same runs of a pool and further ones, with what both have cost."""
        known = dict(zip(self.seeds, self.cached, strict=False))  # empty in results of protocol 1
        cached = [known.get(seed, was) for seed, was in zip(more.seeds, more.cached, strict=False)]
        return replace(more, cached=cached, cost=sum_costs([self.cost, more.cost]))

    def joined(self, more: ArmResult) -> ArmResult:
        """Return this arm with the replicates of a later look after its own.

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
            engine=join_engines([*self.engine.split("+"), *more.engine.split("+")]),
            cached_cost=sum_costs([self.cached_cost, more.cached_cost]),
            repeated=self.repeated + more.repeated,
            differing=self.differing + more.differing,
        )
