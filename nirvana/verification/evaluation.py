"""From the arms' measurements to a verdict.

Protocol `nirvana-verify/3` (docs/verification.md). With margin delta (the task's), level alpha of the
look and one-sided bounds at that level, paired over data orders:
- NI(X, Y): the lower bound of X - Y is over -delta. The ticket matches where NI(ticket, dense) and
  NI(ticket, reference): by its own recipe, and the registry's pool of dense runs (Welch).
- A control holds where NI(control, ticket); it is beaten where it does not hold and the ticket is
  significantly better (one-sided, Holm over the four controls). Neither: undecided.
- The early stop is later than dense where a one-sided paired t test on the steps (always at 5 %: it can only
  take a WINNING away) says that it is later by more than one evaluation interval, the resolution at which the
  step is known. Two runs at the step limit tie.
- A failed replicate counts as chance, at the step limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nirvana.errors import Invalid
from nirvana.format.ticket import Ticket
from nirvana.training.cost import environment
from nirvana.training.recipe import Recipe
from nirvana.verification import reported
from nirvana.verification.arms import ORDER_SEED
from nirvana.verification.connectivity import Barrier
from nirvana.verification.gate import GateReport, check_gate
from nirvana.verification.protocol import ARMS, BASELINES, CONTROLS, PROTOCOL, REFERENCE
from nirvana.verification.runs import ArmResult
from nirvana.verification.statistics import ALPHA, Difference, difference, holm, mean
from nirvana.verification.verdicts import Findings, decide

MOST_CUT_OFF = 0.1  # of all weights, those of layers that a winning ticket may leave without a path
MOST_UNCOVERED = 0.5  # of its kept weights, those in layers that no mask of a winning ticket covers


@dataclass(frozen=True)
class Evaluation:
    """A measured verdict. `measurements` is everything else that goes with it, JSON-able."""

    verdict: str
    reason: str
    replicates: int
    margin: float
    measurements: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return what `nirvana verify --json` prints, JSON-able; `from_dict` reads it."""
        head = {"verdict": self.verdict, "protocol": PROTOCOL, "reason": self.reason}
        return head | {"replicates": self.replicates, "margin": self.margin} | dict(self.measurements)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Evaluation:
        """Read what `to_dict` wrote."""
        own = {name: fields[name] for name in ("verdict", "reason", "replicates", "margin")}
        rest = {name: value for name, value in fields.items() if name not in (*own, "protocol")}
        return cls(**own, measurements=rest)


def judge(
    ticket: Ticket,
    arms: Mapping[str, ArmResult] | Sequence[ArmResult],
    margin: float,
    task: str | None = None,
    alpha: float = ALPHA,
    *,
    looks: Sequence[Mapping[str, Any]] = (),
    gate: GateReport | None = None,
    stability: Barrier | None = None,
) -> Evaluation:
    """Return the verdict on a ticket from its arms' measurements. The order of replicates does not matter.

    Args:
        arms: all of `ARMS`; each with the same seeds.
        margin: of accuracy, a fraction.
        task: the task's name; None is the ticket's.
        alpha: one-sided level of this look (`nirvana.verification.protocol.alpha_of`).
        looks: those before this one, each {"n", "alpha", "verdict"}.
        gate: the report of gate 0; None looks now.
        stability: the barrier between two trainings, where it was measured.

    Raises:
        Invalid: arms are missing, their replicates or data differ, or margin or alpha is no fraction.
    """
    by_name = dict(arms) if isinstance(arms, Mapping) else {arm.arm: arm for arm in arms}
    by_name = {name: _sorted(arm) for name, arm in by_name.items()}
    _check(by_name, margin, alpha)
    gate = gate or check_gate(ticket)
    n = len(by_name["ticket"].seeds)
    verdict, reason, tests = find_verdict(ticket, gate, by_name, margin, alpha)
    measurements = {
        **_head(ticket, gate, task),
        "alpha": alpha,
        "looks": [*map(dict, looks), {"n": n, "alpha": alpha, "verdict": verdict}],
        **_replicates(by_name),
        "tests": {name: _plain(test) for name, test in tests.items()},
        "environment": _environment(by_name),
        "seeds": {"replicates": by_name["ticket"].seeds, "order_seed": ORDER_SEED},
        "seed": by_name["ticket"].seeds[0],
        "pools": {
            name: {"seed": by_name[name].seeds[0], "runs": len(by_name[name].seeds)} for name in BASELINES
        },
        "sealed_rows": by_name["ticket"].sealed_rows,
        "data": by_name["ticket"].data,
        **reported.everything(ticket, by_name, margin, task or ticket.task, stability),
    }
    return Evaluation(verdict, reason, n, margin, measurements)


def find_verdict(
    ticket: Ticket, gate: GateReport, arms: Mapping[str, ArmResult], margin: float, alpha: float = ALPHA
) -> tuple[str, str, dict[str, Any]]:
    """Return the verdict, its reason and the tests behind it. Arguments as in `judge`, the arms' replicates
    in one order."""
    n = len(arms["ticket"].seeds)
    interval = Recipe.from_dict(dict(ticket.recipe)).evaluate_every
    tests = _tests(arms, margin, interval, alpha) if n > 1 else {}
    return *decide(_findings(ticket, gate, tests, arms, margin)), tests


def refuse(ticket: Ticket, gate: GateReport, margin: float, task: str | None = None) -> Evaluation:
    """Return the evaluation of a ticket that gate 0 refuses: INVALID, with nothing trained.

    Raises:
        Invalid: the gate does not refuse it.
    """
    if gate.invalid is None:
        raise Invalid("gate 0 found nothing against the ticket, expected a reason to refuse it")
    empty: dict[str, Any] = {
        name: {} for name in ("arms", "final", "untrained", "early_stop", "failed", "tests", "rules")
    }
    rest = {"alpha": ALPHA, "looks": [], "badges": {}, "tracks": {}, "environment": environment()}
    rest |= {"cost": {"seconds": 0.0, "images": 0, "flops_dense": 0, "flops_sparse": 0, "arms": {}}}
    return Evaluation("INVALID", gate.invalid, 0, margin, _head(ticket, gate, task) | empty | rest)


def _head(ticket: Ticket, gate: GateReport, task: str | None) -> dict[str, Any]:
    return {
        "ticket": ticket.digest,
        "task": task or ticket.task,
        "recipe": dict(ticket.recipe),
        "density": ticket.density,
        "effective_density": gate.effective_density,
        "live_density": gate.live_density,
        "gate": gate.to_dict(),
    }


def _replicates(arms: Mapping[str, ArmResult]) -> dict[str, Any]:
    return {
        "arms": {name: arm.accuracies for name, arm in arms.items()},
        "final": {name: arm.final_accuracies for name, arm in arms.items()},
        "untrained": {name: arm.untrained_accuracies for name, arm in arms.items()},
        "test": {name: arm.test_accuracies for name, arm in arms.items()},
        "early_stop": {name: arm.early_stop_steps for name, arm in arms.items()},
        "failed": {name: arm.failed for name, arm in arms.items()},
        "cached": {name: sum(arm.cached) for name, arm in arms.items()},
        "engines": {name: arm.engine for name, arm in arms.items()},
    }


def _check(arms: Mapping[str, ArmResult], margin: float, alpha: float) -> None:
    if set(arms) != set(ARMS):
        raise Invalid(f"the arms are {sorted(arms)}, expected {sorted(ARMS)}")
    if any(arm.seeds != arms["ticket"].seeds for name, arm in arms.items() if name not in BASELINES):
        raise Invalid(f"the arms' replicates differ: { {name: arm.seeds for name, arm in arms.items()} }")
    if len({arm.data for arm in arms.values()}) > 1:
        digests = {name: arm.data[:12] for name, arm in arms.items()}
        raise Invalid(f"the arms were trained on different data: {digests}, expected one task's, unchanged")
    if not 0 < margin < 1:
        raise Invalid(f"margin is {margin}, expected a fraction between 0 and 1")
    if not 0 < alpha <= ALPHA:
        raise Invalid(f"alpha is {alpha}, expected above 0 and at most {ALPHA}")


def _tests(arms: Mapping[str, ArmResult], margin: float, interval: int, alpha: float) -> dict[str, Any]:
    """Return every comparison, under names such as `ticket-dense` (X - Y), and what follows from them."""
    t, d = arms["ticket"], arms["dense"]
    tests: dict[str, Any] = {"ticket-dense": _compare(t, d, alpha)}
    for name in BASELINES:
        tests[f"random-{name}"] = _compare(arms["random"], arms[name], alpha)
    tests["dense-reference"] = _compare(d, arms[REFERENCE], alpha)
    others = (name for name in ARMS if name not in ("dense", "ticket"))
    tests |= {f"ticket-{name}": _compare(t, arms[name], alpha) for name in others}
    tests["early_stop:ticket-dense"] = _compare_stops(t, d, 0)
    tests["early_stop:ticket-dense-interval"] = _compare_stops(t, d, interval)
    adjusted = holm({control: tests[f"ticket-{control}"].p_greater for control in CONTROLS})
    tests["holm"] = adjusted
    tests["holds"] = {control: tests[f"ticket-{control}"].upper < margin for control in CONTROLS}
    tests["beaten"] = {
        control: adjusted[control] < alpha and not tests["holds"][control] for control in CONTROLS
    }
    return tests


def _compare(x: ArmResult, y: ArmResult, alpha: float) -> Difference:
    return difference(x.accuracies, y.accuracies, paired=x.paired and y.paired, alpha=alpha)


def _compare_stops(ticket: ArmResult, dense: ArmResult, interval: int) -> Difference:
    steps = [float(step) for step in ticket.early_stop_steps]
    limits = [float(step + interval) for step in dense.early_stop_steps]
    return difference(steps, limits, paired=dense.paired)


def _findings(
    ticket: Ticket, gate: GateReport, tests: Mapping[str, Any], arms: Mapping[str, ArmResult], margin: float
) -> Findings:
    n, dense = len(arms["ticket"].seeds), arms["dense"]
    if not tests:
        return Findings(n, gate.invalid)
    return Findings(
        replicates=n,
        invalid=gate.invalid,
        dense_failed=sum(dense.failed) / len(dense.failed),
        alike=len(set(arms["ticket"].validation_losses)) == 1,
        below=tuple(name for name in BASELINES if tests[f"ticket-{name}"].upper < -margin),
        matches=all(tests[f"ticket-{name}"].lower > -margin for name in BASELINES),
        random_matches=all(tests[f"random-{name}"].lower > -margin for name in BASELINES),
        starved=tests["dense-reference"].upper < -margin,
        holds=tests["holds"],
        beaten=tests["beaten"],
        rewind_step=ticket.start.rewind_step,
        stops_later=tests["early_stop:ticket-dense-interval"].p_greater < ALPHA,
        untestable=gate.untestable,
        cut_off=gate.cut_off if gate.cut_off_share > MOST_CUT_OFF else (),
        mostly_uncovered=gate.uncovered_share > MOST_UNCOVERED,
        needs_no_training=mean(arms["ticket"].untrained_accuracies) > mean(dense.accuracies) - margin,
    )


def _sorted(arm: ArmResult) -> ArmResult:
    """Return the replicates in the order of their seeds."""
    order = sorted(range(len(arm.seeds)), key=lambda place: arm.seeds[place])
    fields = arm.to_dict()
    lists = {
        name: [value[i] for i in order] for name, value in fields.items() if isinstance(value, list) and value
    }
    return ArmResult.from_dict(fields | lists)


def _plain(test: Any) -> Any:
    return test.to_dict() if isinstance(test, Difference) else test


def _environment(arms: Mapping[str, ArmResult]) -> Mapping[str, Any]:
    """Return where the arms ran; where they differ, `mixed` lists each arm's."""
    each = {name: arm.environment for name, arm in arms.items()}
    first = each["ticket"] or environment()
    return first if all(e == first for e in each.values()) else {**first, "mixed": each}
