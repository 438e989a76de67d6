"""The measures of an evaluation that decide nothing: rules of the literature, speed, trainability, the
supermask track, badges and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from nirvana import tasks
from nirvana.errors import NotFound
from nirvana.format.ticket import Ticket
from nirvana.training.cost import sum_costs, training_flops
from nirvana.training.recipe import Recipe
from nirvana.verification.connectivity import Barrier
from nirvana.verification.runs import ArmResult
from nirvana.verification.statistics import difference, mean, ratio_interval, variance, wilson

TRAINABLE_WITHIN = 0.01  # of the dense mean (SCIENCE 4.6)
TRAINABLE_SHARE = 0.5  # the badge: Wilson's lower bound is above it, as with 5 of 5
NEAR_CHANCE = 0.10  # untrained controls of a supermask may lie this much above chance
_EXACT = 1e-9  # an untrained accuracy has no noise: a claim of the same number is met

Arms = Mapping[str, ArmResult]


def everything(
    ticket: Ticket, arms: Arms, margin: float, task: str, stability: Barrier | None
) -> dict[str, Any]:
    """Return the members of an evaluation that decide nothing, JSON-able."""
    members: dict[str, Any] = {
        "rules": _rules(ticket, arms, task),
        "speed": _speed(arms),
        "trainability": _trainability(arms),
        "stability": stability and stability.to_dict(),
        "tracks": _tracks(ticket, arms, margin, task),
        "examples": _examples(ticket, task),
        "cost": _cost(ticket, arms, stability),
    }
    return members | {"badges": _badges(members, arms, margin)}


def _rules(ticket: Ticket, arms: Arms, task: str) -> dict[str, Any]:
    """Apply rules of the literature."""
    t, d, tested = arms["ticket"].accuracies, arms["dense"].accuracies, arms["ticket"].test_accuracies
    drop, sd = mean(d) - mean(t), math.sqrt(variance(d))
    return {
        "relative_error_within_1.1": 1 - mean(t) <= 1.1 * (1 - mean(d)),
        "within_one_sd": drop <= sd,
        "drop_under_0.2_pp": drop < 0.002,
        "trainable_share": _trainability(arms)["share"],
        "early_stop_speedup": _speed(arms)["ratio"],
        "claim": _claim(ticket, task, tested),
    }


def _examples(ticket: Ticket, task: str) -> dict[str, int] | None:
    """Return the training examples, repeats counted, of the ticket's recipe and of the reference recipe; None
    of a task that is not known here."""
    try:
        reference = tasks.get(task).reference_recipe(ticket.architecture)
    except NotFound:
        return None
    own = Recipe.from_dict(dict(ticket.recipe))
    return {
        name: recipe.steps * recipe.batch_size for name, recipe in (("ticket", own), ("reference", reference))
    }


def _claim(ticket: Ticket, task: str, measured: Sequence[float]) -> dict[str, Any] | None:
    claimed = _claimed(ticket, task, "test_accuracy")
    if claimed is None:
        return None
    error = 2 * math.sqrt(variance(measured) / len(measured))
    centre = mean(measured)
    return {"claimed": claimed, "measured": centre, "gap": centre - claimed, "two_errors": error}


def _claimed(ticket: Ticket, task: str, metric: str) -> float | None:
    for claim in ticket.claims:
        if claim.get("metric") == metric and claim.get("task") == task:
            return float(claim["value"])
    return None


def _speed(arms: Arms) -> dict[str, Any]:
    """Return dense early stop / the ticket's, with its bootstrap interval: above 1 is sooner."""
    stops = [[float(step) for step in arms[name].early_stop_steps] for name in ("dense", "ticket")]
    ratio, low, high = ratio_interval(stops[0], stops[1])
    return {"ratio": ratio, "interval": [low, high]}


def _trainability(arms: Arms) -> dict[str, Any]:
    """Return the share of the ticket's replicates that trained to within a point of the dense mean, with
    Wilson's interval."""
    least = mean(arms["dense"].accuracies) - TRAINABLE_WITHIN
    t, failed = arms["ticket"].accuracies, arms["ticket"].failed
    count = sum(value >= least and not is_lost for value, is_lost in zip(t, failed, strict=True))
    return {"count": count, "of": len(t), "share": count / len(t), "interval": list(wilson(count, len(t)))}


def _tracks(ticket: Ticket, arms: Arms, margin: float, task: str) -> dict[str, Any]:
    claimed = _claimed(ticket, task, "untrained_test_accuracy")
    return {} if claimed is None else {"supermask": _supermask(ticket, arms, margin, claimed)}


def _supermask(ticket: Ticket, arms: Arms, margin: float, claimed: float) -> dict[str, Any]:
    """SUPERMASK: the untrained ticket reaches its claim and is better than random and shuffled masks on
    untrained values by more than the margin (one-sided 95 % bound), and those stay near chance.

    Reference: Zhou et al. 2019 (arXiv 1905.01067).
    """
    t, limit = arms["ticket"].untrained_accuracies, 1 / ticket.architecture.output_shape[-1] + NEAR_CHANCE
    reached = mean(arms["ticket"].untrained_test_accuracies)
    controls = {name: arms[name].untrained_accuracies for name in ("random", "shuffle")}
    reasons = []
    if reached < claimed - _EXACT:
        reasons.append(f"untrained test accuracy is {reached:.4f}, claimed is {claimed:.4f}")
    for name, values in controls.items():
        if len(values) < 2 or difference(t, values, paired=True).lower <= margin:
            reasons.append(f"it is not clearly better than {name} masks by the margin")
        if mean(values) > limit:
            reasons.append(f"{name} masks reach {mean(values):.4f} untrained, more than {limit:.2f}")
    return {
        "verdict": "NOT_SUPERMASK" if reasons else "SUPERMASK",
        "reason": "; ".join(reasons)
        or "untrained it reaches its claim, and random and shuffled masks do not",
        "claimed": claimed,
        "measured": mean(t),
        "controls": {name: mean(values) for name, values in controls.items()},
    }


def _badges(members: Mapping[str, Any], arms: Arms, margin: float) -> dict[str, bool | None]:
    """Return badge -> earned or not; None where it was not measured."""
    claim, stability, ticket = members["rules"]["claim"], members["stability"], arms["ticket"]
    repeated = ticket.repeated > 0 and not ticket.differing
    return {
        "REPRODUCED": claim and abs(claim["gap"]) <= max(margin, claim["two_errors"]),
        "STABLE": stability and stability["stable"],
        "FAST": members["speed"]["interval"][0] > 1,
        "TRAINABLE": members["trainability"]["interval"][0] > TRAINABLE_SHARE,
        "BYTE-REPRODUCIBLE": repeated if ticket.repeated or ticket.differing else None,
    }


def _cost(ticket: Ticket, arms: Arms, stability: Barrier | None) -> dict[str, Any]:
    costs = [arm.cost for arm in arms.values()] + ([stability.cost] if stability else [])
    total, cached = sum_costs(costs), sum_costs(arm.cached_cost for arm in arms.values())
    recipe = Recipe.from_dict(dict(ticket.recipe))
    one = training_flops(ticket.architecture, {}, recipe.steps * recipe.batch_size)[0]
    dense = arms["dense"]
    seconds = (dense.cost.seconds + dense.cached_cost.seconds) / len(dense.seeds)
    return total.to_dict() | {
        "arms": {name: arm.cost.to_dict() for name, arm in arms.items()},
        "cached": asdict(cached),
        "trainings": sum(len(arm.seeds) - sum(arm.cached) for arm in arms.values()),
        "dense_trainings": {
            "by_flops": total.flops_sparse / one if one else None,
            "by_seconds": total.seconds / seconds if seconds else None,
        },
    }
