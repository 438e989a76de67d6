"""How much a run of the benchmarks does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Sizes of one run.

    Attributes:
        name: `quick` (does it run at all), `default` or `full`.
        pairs: of measurements, in turn.
        slice_seconds: the least length of one measurement of an update's time.
        imp_steps: updates a level of the whole IMP.
        verification_steps: updates of each of a verification's trainings.
        accuracy_seeds: trainings an engine; accuracy_steps: updates of each on MNIST.
        has_full_length: one pair of the IMP and of the verification with the recipe's own steps besides.
    """

    name: str
    pairs: int
    slice_seconds: float
    imp_steps: int
    verification_steps: int
    accuracy_seeds: int
    accuracy_steps: int
    has_full_length: bool = False

    @property
    def is_quick(self) -> bool:
        return self.name == "quick"


QUICK = Effort("quick", 2, 0.02, 20, 10, 3, 10)
DEFAULT = Effort("default", 5, 0.12, 1000, 500, 10, 1000)
FULL = Effort("full", 5, 0.12, 1000, 500, 10, 1000, has_full_length=True)
