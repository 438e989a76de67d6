"""The verdict table (SCIENCE 4.5), from top to bottom: the first rule that fits gives the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nirvana.protocol import CONTROLS

LEAST_REPLICATES = 2


@dataclass(frozen=True)
class Findings:
    """What the measurements say, before they get a name.

    Attributes:
        replicates: n of every arm.
        invalid: why gate 0 fails; None where it holds.
        dense_failed: replicates of the dense baseline whose loss left the finite numbers.
        below_dense: the upper one-sided bound of ticket - dense is under -margin.
        matches_dense: NI(ticket, dense): the lower bound of ticket - dense is over -margin.
        random_matches_dense: NI(random, dense).
        holds: control -> NI(control, ticket): within the margin it is as good as the ticket.
        beaten: control -> the ticket is significantly better (Holm) and the control does not hold.
        rewind_step: k.
        stops_later: the ticket's early stop is significantly later than the dense one's, by more than one
            evaluation interval.
        untestable: why nobody can tell the initial values from trained weights; None where one can.
    """

    replicates: int
    invalid: str | None = None
    dense_failed: int = 0
    below_dense: bool = False
    matches_dense: bool = False
    random_matches_dense: bool = False
    holds: Mapping[str, bool] = field(default_factory=dict)
    beaten: Mapping[str, bool] = field(default_factory=dict)
    rewind_step: int = 0
    stops_later: bool = False
    untestable: str | None = None


def decide(found: Findings) -> tuple[str, str]:
    """The verdict and its reason in words."""
    verdict = _against_dense(found) or _against_controls(found)
    return verdict or _of_a_ticket(found)


def _against_dense(found: Findings) -> tuple[str, str] | None:
    if found.invalid is not None:
        return "INVALID", found.invalid
    if found.replicates < LEAST_REPLICATES:
        return "INCONCLUSIVE", "one replicate is a smoke test: a verdict needs at least two, better five"
    if 2 * found.dense_failed > found.replicates:
        failed = f"{found.dense_failed} of {found.replicates} dense trainings left the finite numbers"
        return "INCONCLUSIVE", f"{failed}: by this recipe there is no baseline to compare with"
    if found.below_dense:
        return "NOT_MATCHING", "the ticket is worse than the dense baseline by more than the margin"
    if not found.matches_dense:
        return "INCONCLUSIVE", "ticket and dense baseline are too close to the margin to tell: add replicates"
    if found.random_matches_dense and found.holds["random"]:
        return "TRIVIAL", "a random mask of this density does as well, and matches the dense baseline too"
    return None


def _against_controls(found: Findings) -> tuple[str, str] | None:
    holds, beaten = found.holds, found.beaten
    redrawn = " and ".join(name for name in ("reinit", "rescaled") if holds[name])
    both_beaten = beaten["reinit"] and beaten["rescaled"]
    if redrawn and holds["shuffle"]:
        return "LAYER_RATIO_ONLY", (
            f"new values ({redrawn}) and shuffled positions do as well: only layer densities matter"
        )
    if redrawn and beaten["shuffle"]:
        return "STRUCTURE_ONLY", (
            f"new values ({redrawn}) do as well, shuffled positions do not: the mask matters alone"
        )
    if holds["shuffle"] and both_beaten:
        return "INIT_ONLY", "shuffled positions do as well, new values do not: rare, check the shuffle first"
    undecided = [control for control in CONTROLS if not beaten[control]]
    if undecided:
        return "MATCHING_UNRESOLVED", (
            f"it matches the dense baseline, but is not clearly better than: {', '.join(undecided)}"
        )
    return None


def _of_a_ticket(found: Findings) -> tuple[str, str]:
    beats = "it matches the dense baseline and beats every control"
    if found.rewind_step > 0:
        return "MATCHING", f"{beats}, from step {found.rewind_step}"
    if found.untestable is not None:
        return "MATCHING", f"{beats}, but {found.untestable}"
    if found.stops_later:
        return "MATCHING", f"{beats}, but its early stop is significantly later than the dense baseline's"
    return "WINNING", f"{beats}, from initialisation, and its early stop is not later"
