"""The run cache: what one training of an arm measured, kept under the sha256 of all that it follows from.

The key is over the canonical JSON of architecture, data, recipe (without pruning), masks, values, data order,
first step, teacher and engine; no protocol, ticket or arm is in it, so tickets that share a dense baseline
share its runs. One small JSON file a run: `<folder>/<first two digits>/<key>.json`. Nothing is ever removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rfc8785

from nirvana import environment
from nirvana.cost import Cost
from nirvana.errors import StorageFailed, StorageFull
from nirvana.files import write_atomically
from nirvana.training import TrainResult

FORMAT = "nirvana-run/1"
_MOST_BYTES = 2**20  # a file that is longer was not written here


@dataclass(frozen=True)
class Measured:
    """What one training measured: accuracies in [0, 1], steps counted from initialisation."""

    accuracy: float
    final_accuracy: float
    untrained_accuracy: float
    early_stop_step: int
    failed: bool
    cost: Cost
    engine: str = "dense"

    @classmethod
    def of(cls, result: TrainResult) -> Measured:
        """The numbers of a training."""
        return cls(
            result.early_stop_test_accuracy,
            result.final_test_accuracy,
            result.untrained_test_accuracy,
            result.early_stop_step,
            result.failed,
            result.cost,
            result.engine,
        )

    def equals(self, other: Measured) -> bool:
        """Whether every number but the cost is the same."""
        return {**asdict(self), "cost": 0} == {**asdict(other), "cost": 0}


def run_key(fields: Mapping[str, Any]) -> str:
    """Hex sha256 of the fields' canonical JSON."""
    return hashlib.sha256(rfc8785.dumps(dict(fields))).hexdigest()


@dataclass(frozen=True)
class RunCache:
    """Runs that were measured before, in a folder."""

    folder: Path

    def get(self, key: str, where: Mapping[str, Any]) -> Measured | None:
        """The run of this key, if it was measured in the environment `where`; a broken file is none."""
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
        key = run_key(fields)
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
        """The file of a key, there or not."""
        return self.folder / key[:2] / f"{key}.json"


def home_cache() -> RunCache:
    """The cache in NIRVANA_HOME/runs."""
    return RunCache(environment.home() / "runs")


def _checked(run: Any) -> Measured:
    """A run from JSON.

    Raises:
        ValueError, TypeError: a number is missing, of another kind or impossible.
    """
    measured = Measured(**{**run, "cost": Cost(**run["cost"])})
    shares = (measured.accuracy, measured.final_accuracy, measured.untrained_accuracy)
    numbers = (measured.early_stop_step, *asdict(measured.cost).values())
    if not all(isinstance(share, float) and 0 <= share <= 1 for share in shares):
        raise ValueError("an accuracy is no share")
    if not all(type(number) in (int, float) and number >= 0 for number in numbers):
        raise ValueError("a count is no number")
    if not (isinstance(measured.failed, bool) and isinstance(measured.engine, str)):
        raise TypeError("failed and engine are of other kinds")
    return measured
