"""The verification protocol: its names, its looks and their work (docs/verification.md)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from nirvana.errors import Invalid

PROTOCOL = "nirvana-verify/3"
CONTROLS = ("reinit", "rescaled", "shuffle", "random")  # what a winning ticket must beat
REFERENCE = "reference"  # the pool of the registry's own dense trainings
BASELINES = ("dense", REFERENCE)  # the ticket must match the better one
ARMS = (*BASELINES, "ticket", *CONTROLS, "magnitude", "signs")  # the last two decide nothing
POOL_RUNS, POOL_GROWTH = 20, 8  # trainings of a pool at last; those that a look adds to all pools together
VERDICTS = (
    "INVALID",
    "NOT_MATCHING",
    "INCONCLUSIVE",
    "TRIVIAL",
    "LAYER_RATIO_ONLY",
    "STRUCTURE_ONLY",
    "INIT_ONLY",
    "MATCHING_UNRESOLVED",
    "MATCHING",
    "WINNING",
)
OPEN_VERDICTS = ("INCONCLUSIVE", "MATCHING_UNRESOLVED")  # more replicates may still decide
LOOKS = (1, 2, 4)  # a verification is judged after so many times its replicates, none past the cap
TRANSFER_VERDICTS = ("TRANSFERS", "TRANSFERS_NOT", "UNRESOLVED")
BADGES = ("REPRODUCED", "STABLE", "FAST", "TRAINABLE", "BYTE-REPRODUCIBLE")
STANDARD_REPLICATES, STANDARD_CAP = 5, 20  # where neither is said
SEEDS_APART = 1000  # between the seeds that may be drawn; a multiple of every stack of replicates
_SEEDS = 2**52 // SEEDS_APART  # a seed and what is added to it are exact in JSON


@dataclass(frozen=True)
class Look:
    """One look at the replicates so far.

    Attributes:
        first: the first replicate that is new. n: replicates in all.
        alpha: nominal one-sided level.
    """

    first: int
    n: int
    alpha: float

    @property
    def replicates(self) -> range:
        """The new replicates."""
        return range(self.first, self.n)


def alpha_of(look: int) -> float:
    """Return the nominal one-sided level of an exam's look, counted from 0 over all its verifications.

    0.02, 0.015, 0.0075, 0.0025, 0.00125, ...: the rest of 0.05 over 1/2, 1/6, 1/12, ... without an end. The
    levels sum to 0.05, so by the union bound no statement about an exam is wrong with a higher probability,
    whoever asks for looks, how often, and however they depend on each other.
    """
    return (0.02, 0.015)[look] if look < 2 else 0.015 / ((look - 1) * look)


def plan_looks(
    replicates: int, max_replicates: int | None = None, earlier: tuple[Look, ...] = ()
) -> list[Look]:
    """Return the looks of a verification: after n, 2n and 4n new replicates, none past the cap, one at the
    cap.

    Args:
        earlier: looks of the same exam's verifications before this one; replicates go on after theirs.

    Raises:
        Invalid: no replicates, or a cap below them or above four times as many.
    """
    cap = replicates if max_replicates is None else max_replicates
    if replicates < 1:
        raise Invalid(f"replicates is {replicates}, expected at least 1")
    if not replicates <= cap <= LOOKS[-1] * replicates:
        raise Invalid(
            f"max_replicates is {cap}, expected {replicates} to {LOOKS[-1] * replicates}: "
            f"replicates to {LOOKS[-1]} times as many"
        )
    before = earlier[-1].n if earlier else 0
    sizes = [before + size for size in sorted({min(factor * replicates, cap) for factor in LOOKS})]
    levels = [alpha_of(len(earlier) + place) for place in range(len(sizes))]
    return [Look(*numbers) for numbers in zip([before, *sizes[:-1]], sizes, levels, strict=True)]


def pool_size(pooled: int, look: int, pools: int) -> int:
    """Return how many runs of a pool a verification's look compares with, counted from 0.

    Args:
        pooled: how many there were when it began. pools: how many differ, 1 or 2.
    """
    return max(pooled, min(POOL_RUNS, pooled + POOL_GROWTH // pools * (look + 1)))


def draw_seed() -> int:
    """Draw the seed of an exam from the operating system's randomness: its replicate j has seed + j.

    Whoever knew it before the ticket is in could choose among tickets by luck.
    """
    return secrets.randbelow(_SEEDS) * SEEDS_APART


def choose_replicates(replicates: int | None, max_replicates: int | None) -> tuple[int, int]:
    """Return the replicates of the first look and of the last one.

    Where neither is said, 5 and 20; where `replicates` alone is said, the first look is the last one.
    """
    if replicates is None:
        return STANDARD_REPLICATES, STANDARD_CAP if max_replicates is None else max_replicates
    return replicates, replicates if max_replicates is None else max_replicates


def count_steps(looks: list[Look]) -> int:
    """Return the steps of a verification at most: gate 0, and every arm and a verdict at each look."""
    return 1 + len(looks) * (len(ARMS) + 1)
