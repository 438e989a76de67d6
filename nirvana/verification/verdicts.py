"""The verdict table (SCIENCE 4.5), from top to bottom: the first rule that fits gives the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nirvana import tasks
from nirvana.verification.protocol import CONTROLS, REFERENCE

LEAST_REPLICATES = 2
_BASELINES = {
    "dense": "the dense network by the same recipe",
    REFERENCE: "the registry's dense networks by the reference recipe",
}


@dataclass(frozen=True)
class Findings:
    """The statements that the measurements allow, before they get a name.

    Attributes:
        replicates: n of every arm.
        invalid: why gate 0 fails; None where it holds.
        dense_failed: share of the dense runs by the ticket's recipe whose loss left the finite numbers.
        alike: all replicates of the ticket have the same validation loss, to the last bit.
        below: the baselines (dense, reference) of which the upper one-sided bound of ticket - baseline is
            under -margin.
        matches: NI(ticket, baseline) for both: the lower bound of ticket - baseline is over -margin.
        random_matches: NI(random, baseline) for both.
        starved: the dense network by the ticket's recipe is worse than the reference by more than the margin.
        holds: control -> NI(control, ticket): within the margin it is as good as the ticket.
        beaten: control -> the ticket is significantly better (Holm) and the control does not hold.
        rewind_step: k.
        stops_later: the ticket's early stop is significantly later than the dense one's, by more than one
            evaluation interval.
        cut_off: layers that the mask cuts off, where they hold much of the network.
        mostly_uncovered: most of its kept weights lie in layers that no mask covers.
        needs_no_training: untrained it is within the margin of the dense network, or better.
        untestable: why nobody can tell the initial values from trained weights; None where a seed draws them.
    """

    replicates: int
    invalid: str | None = None
    dense_failed: float = 0.0
    alike: bool = False
    below: tuple[str, ...] = ()
    matches: bool = False
    random_matches: bool = False
    starved: bool = False
    holds: Mapping[str, bool] = field(default_factory=dict)
    beaten: Mapping[str, bool] = field(default_factory=dict)
    rewind_step: int = 0
    stops_later: bool = False
    cut_off: tuple[str, ...] = ()
    mostly_uncovered: bool = False
    needs_no_training: bool = False
    untestable: str | None = None


def explain_measurement(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words by which seeds, beside which dense runs and on which rows a verdict was measured; less
    of an evaluation of an old protocol."""
    if "seed" in evaluation:
        seed = evaluation["seed"]
        yield f"seed {seed}, drawn after the ticket was in: replicate j trains with {seed} + j"
    pools = evaluation.get("pools")
    if pools:
        words = {name: f"{pool['runs']} runs from seed {pool['seed']}" for name, pool in pools.items()}
        own, reference = words["dense"], words[REFERENCE]
        if own == reference:
            yield f"dense baseline: a pool of {reference}; the ticket's recipe is the registry's too"
        else:
            yield f"dense baselines: pools of {own} by the ticket's recipe and {reference} by the registry's"
    yield from explain_examples(evaluation)
    if "sealed_rows" in evaluation:
        yield _explain_rows(evaluation["task"], evaluation["sealed_rows"])


def _explain_rows(task: str, sealed_rows: int) -> str:
    if not sealed_rows:
        return "measured on the task's test set, which is public"
    seal = tasks.get(task).seal if task in tasks.names() else None
    public = ", but which are public elsewhere" if seal and seal.is_public else ""
    return f"measured on {sealed_rows:,} sealed rows, which no download has{public}"


def explain_examples(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words that a ticket's recipe takes more than the reference recipe does."""
    examples = evaluation.get("examples")
    if examples and examples["ticket"] > examples["reference"]:
        times = examples["ticket"] / examples["reference"]
        yield f"trained on {times:.1f} times the examples of the reference recipe"


def decide(findings: Findings) -> tuple[str, str]:
    """Return the verdict and its reason in words."""
    verdict = _against_dense(findings) or _against_controls(findings)
    return verdict or _of_a_ticket(findings)


def _against_dense(findings: Findings) -> tuple[str, str] | None:
    if findings.invalid is not None:
        return "INVALID", findings.invalid
    if findings.replicates < LEAST_REPLICATES:
        return "INCONCLUSIVE", "one replicate is a smoke test: a verdict needs at least two, better five"
    if findings.dense_failed > 0.5:
        failed = f"{100 * findings.dense_failed:.0f} % of the dense trainings left the finite numbers"
        return "INCONCLUSIVE", f"{failed}: by this recipe there is no baseline to compare with"
    if findings.alike:
        return "INCONCLUSIVE", (
            "all replicates of the ticket are the same run, to the last bit: by this recipe the data's order "
            "changes nothing, and nothing can be said of the next one"
        )
    if findings.below:
        worse = " and ".join(_BASELINES[name] for name in findings.below)
        return "NOT_MATCHING", f"the ticket is worse by more than the margin than {worse}"
    if not findings.matches:
        return "INCONCLUSIVE", "ticket and dense baseline are too close to the margin to tell: add replicates"
    if findings.random_matches and findings.holds["random"]:
        return "TRIVIAL", "a random mask of this density does as well, and matches the dense baseline too"
    return None


def _against_controls(findings: Findings) -> tuple[str, str] | None:
    holds, beaten = findings.holds, findings.beaten
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


def _of_a_ticket(findings: Findings) -> tuple[str, str]:
    beats = "it matches the dense baseline and beats every control"
    if findings.starved:
        return "MATCHING", (
            f"{beats}, but by its recipe the dense network stays below the registry's reference by more than "
            "the margin, and so may the controls"
        )
    if findings.rewind_step > 0:
        return "MATCHING", f"{beats}, from step {findings.rewind_step}"
    if findings.cut_off:
        layers = ", ".join(findings.cut_off)
        return "MATCHING", f"{beats}, but no path goes through {layers}: it is a ticket of a smaller network"
    if findings.mostly_uncovered:
        return "MATCHING", f"{beats}, but most of its kept weights lie in layers that no mask covers"
    if findings.needs_no_training:
        return "MATCHING", f"{beats}, but needs no training: untrained it is as good as the dense network"
    if findings.untestable is not None:
        return "MATCHING", f"{beats}, but {findings.untestable}"
    if findings.stops_later:
        return "MATCHING", f"{beats}, but its early stop is significantly later than the dense baseline's"
    return "WINNING", f"{beats}, from initialisation, and its early stop is not later"
