"""From the arms' measurements to a verdict.

Protocol `nirvana-verify/1`. With margin delta (the task's) and one-sided 95 % bounds, paired over data
orders:
- NI(X, Y): the lower bound of X - Y is over -delta. The ticket matches where NI(ticket, dense).
- A control holds where NI(control, ticket); it is beaten where it does not hold and the ticket is
  significantly better (one-sided, Holm over the controls). Neither: undecided.
- The early stop is later than dense where a one-sided paired t test on the steps (5 %) says that it is later
  by more than one evaluation interval, the resolution at which the step is known. Two runs at the step limit
  tie.
- Reported besides, and deciding nothing: the relative rule error(ticket) <= 1.1 x error(dense), "within one
  sd of dense", "drop under 0.2 pp", the claim, and the trainability rate.
- A failed replicate counts as chance, at the step limit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nirvana.cost import sum_costs
from nirvana.errors import Invalid
from nirvana.lab.environment import environment
from nirvana.lab.verification.arms import ORDER_SEED, ArmResult
from nirvana.lab.verification.gate import effective_density, find_invalid, find_untestable
from nirvana.lab.verification.statistics import ALPHA, Difference, difference, holm, mean, variance
from nirvana.lab.verification.verdicts import Findings, decide
from nirvana.protocol import ARMS, CONTROLS, PROTOCOL
from nirvana.recipe import Recipe
from nirvana.ticket import Ticket

_TRAINABLE_WITHIN = 0.01  # of the dense mean (SCIENCE 4.6)


@dataclass(frozen=True)
class Evaluation:
    """A measured verdict. `measurements` is everything else that goes with it, JSON-able."""

    verdict: str
    reason: str
    replicates: int
    margin: float
    measurements: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: what `nirvana verify --json` prints."""
        head = {"verdict": self.verdict, "protocol": PROTOCOL, "reason": self.reason}
        return head | {"replicates": self.replicates, "margin": self.margin} | dict(self.measurements)


def judge(
    ticket: Ticket,
    arms: Mapping[str, ArmResult] | Sequence[ArmResult],
    margin: float,
    task: str | None = None,
) -> Evaluation:
    """The verdict on a ticket from its arms' measurements. The order of replicates does not matter.

    Args:
        arms: all five; each with the same seeds.
        margin: of accuracy, a fraction.
        task: the task's name; None is the ticket's.

    Raises:
        Invalid: arms are missing or their replicates differ.
    """
    by_name = dict(arms) if isinstance(arms, Mapping) else {arm.arm: arm for arm in arms}
    by_name = {name: _sorted(arm) for name, arm in by_name.items()}
    _check(by_name, margin)
    n = len(by_name["ticket"].seeds)
    interval = Recipe.from_dict(dict(ticket.recipe)).evaluate_every
    tests = _tests(by_name, margin, interval) if n > 1 else {}
    verdict, reason = decide(_findings(ticket, tests, n, margin))
    measurements = {
        "ticket": ticket.digest,
        "task": task or ticket.task,
        "recipe": dict(ticket.recipe),
        "density": ticket.density,
        "effective_density": effective_density(ticket),
        "arms": {name: arm.accuracies for name, arm in by_name.items()},
        "final": {name: arm.final_accuracies for name, arm in by_name.items()},
        "untrained": {name: arm.untrained_accuracies for name, arm in by_name.items()},
        "early_stop": {name: arm.early_stop_steps for name, arm in by_name.items()},
        "failed": {name: arm.failed for name, arm in by_name.items()},
        "tests": {name: _plain(test) for name, test in tests.items()},
        "cost": _cost(by_name),
        "environment": _environment(by_name),
        "seeds": {"replicates": by_name["ticket"].seeds, "order_seed": ORDER_SEED},
        "rules": _rules(ticket, by_name),
    }
    return Evaluation(verdict, reason, n, margin, measurements)


def _check(arms: Mapping[str, ArmResult], margin: float) -> None:
    if set(arms) != set(ARMS):
        raise Invalid(f"the arms are {sorted(arms)}, expected {sorted(ARMS)}")
    if any(arm.seeds != arms["ticket"].seeds for arm in arms.values()):
        raise Invalid(f"the arms' replicates differ: { {name: arm.seeds for name, arm in arms.items()} }")
    if not 0 < margin < 1:
        raise Invalid(f"margin is {margin}, expected a fraction between 0 and 1")


def _tests(arms: Mapping[str, ArmResult], margin: float, interval: int) -> dict[str, Any]:
    """Every comparison, under names such as `ticket-dense` (X - Y), and what follows from them."""
    t, d = arms["ticket"], arms["dense"]
    tests: dict[str, Any] = {"ticket-dense": _compare(t, d), "random-dense": _compare(arms["random"], d)}
    tests |= {f"ticket-{control}": _compare(t, arms[control]) for control in CONTROLS}
    tests["early_stop:ticket-dense"] = _compare_stops(t, d, 0)
    tests["early_stop:ticket-dense-interval"] = _compare_stops(t, d, interval)
    adjusted = holm({control: tests[f"ticket-{control}"].p_greater for control in CONTROLS})
    tests["holm"] = adjusted
    tests["holds"] = {control: tests[f"ticket-{control}"].upper < margin for control in CONTROLS}
    tests["beaten"] = {
        control: adjusted[control] < ALPHA and not tests["holds"][control] for control in CONTROLS
    }
    return tests


def _compare(x: ArmResult, y: ArmResult) -> Difference:
    return difference(x.accuracies, y.accuracies, paired=x.paired and y.paired)


def _compare_stops(ticket: ArmResult, dense: ArmResult, interval: int) -> Difference:
    """Early-stop steps, the ticket's counted from one evaluation interval later on."""
    steps = [float(step - interval) for step in ticket.early_stop_steps]
    return difference(steps, [float(step) for step in dense.early_stop_steps], paired=dense.paired)


def _findings(ticket: Ticket, tests: Mapping[str, Any], n: int, margin: float) -> Findings:
    invalid = find_invalid(ticket)
    if not tests:
        return Findings(n, invalid)
    return Findings(
        replicates=n,
        invalid=invalid,
        below_dense=tests["ticket-dense"].upper < -margin,
        matches_dense=tests["ticket-dense"].lower > -margin,
        random_matches_dense=tests["random-dense"].lower > -margin,
        holds=tests["holds"],
        beaten=tests["beaten"],
        rewind_step=ticket.start.rewind_step,
        stops_later=tests["early_stop:ticket-dense-interval"].p_greater < ALPHA,
        untestable=find_untestable(ticket),
    )


def _rules(ticket: Ticket, arms: Mapping[str, ArmResult]) -> dict[str, Any]:
    """Rules of the literature that are reported and decide nothing."""
    t, d = arms["ticket"].accuracies, arms["dense"].accuracies
    drop, sd = mean(d) - mean(t), math.sqrt(variance(d))
    stops = [mean([float(step) for step in arms[name].early_stop_steps]) for name in ("dense", "ticket")]
    return {
        "relative_error_within_1.1": 1 - mean(t) <= 1.1 * (1 - mean(d)),
        "within_one_sd": drop <= sd,
        "drop_under_0.2_pp": drop < 0.002,
        "trainable_share": sum(value >= mean(d) - _TRAINABLE_WITHIN for value in t) / len(t),
        "early_stop_speedup": stops[0] / stops[1] if stops[1] else None,
        "claim": _claim(ticket, t),
    }


def _claim(ticket: Ticket, measured: Sequence[float]) -> dict[str, Any] | None:
    for claim in ticket.claims:
        if claim.get("metric") == "test_accuracy" and claim.get("task") == ticket.task:
            gap = mean(measured) - float(claim["value"])
            return {"claimed": claim["value"], "measured": mean(measured), "gap": gap}
    return None


def _sorted(arm: ArmResult) -> ArmResult:
    """The replicates in the order of their seeds."""
    order = sorted(range(len(arm.seeds)), key=lambda place: arm.seeds[place])
    fields = arm.to_dict()
    lists = {name: [value[i] for i in order] for name, value in fields.items() if isinstance(value, list)}
    return ArmResult.from_dict(fields | lists)


def _plain(test: Any) -> Any:
    return test.to_dict() if isinstance(test, Difference) else test


def _cost(arms: Mapping[str, ArmResult]) -> dict[str, Any]:
    total = sum_costs(arm.cost for arm in arms.values()).to_dict()
    return total | {"arms": {name: arm.cost.to_dict() for name, arm in arms.items()}}


def _environment(arms: Mapping[str, ArmResult]) -> dict[str, Any]:
    """Where the arms ran; where they differ, `mixed` lists each arm's."""
    found = {name: arm.environment for name, arm in arms.items()}
    first = found["ticket"] or environment()
    return first if all(e == first for e in found.values()) else {**first, "mixed": found}
