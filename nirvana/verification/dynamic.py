"""A dynamic sparse baseline beside a ticket: does a network that moves its mask do better than this one?

As many weights in every layer as the ticket keeps, at random places first, values drawn anew by its laws; the
same recipe, budget and data orders. It is reported and decides nothing.
"""

from __future__ import annotations

from typing import Any

from nirvana import lazy
from nirvana.errors import Invalid
from nirvana.format import initial
from nirvana.training.events import SILENT, Reporter
from nirvana.training.spec import InitialState, TrainResult, TrainSpec
from nirvana.verification.arms import ORDER_SEED, ArmConfig
from nirvana.verification.runs import Measured
from nirvana.verification.statistics import ALPHA, difference

KINDS = ("rigl", "set")


def run_dynamic(
    config: ArmConfig, kind: str, seeds: range, ticket_accuracies: list[float], reporter: Reporter = SILENT
) -> dict[str, Any]:
    """Train a network whose mask moves for each of the ticket's replicates, and compare.

    Args:
        config: of the verification. kind: one of KINDS. seeds: of the replicates.
        ticket_accuracies: of the same seeds.

    Returns:
        JSON-able: `kind`, `accuracies`, `test`, and the `difference` ticket - dynamic, paired, with bounds.

    Raises:
        Invalid: another kind, or a recipe that begins after step 0.
        Unavailable: torch is not installed.
        Cancelled: the reporter said so.
    """
    check_dynamic(config, kind)
    train = lazy.load_function("nirvana.torch.dynamic:train")
    runs = list[Measured]()
    for seed in seeds:
        result: TrainResult = train(_spec(config, seed), kind, reporter.silent)
        runs.append(Measured.of(result))
        message = f"{kind} {len(runs)}/{len(seeds)}: accuracy {runs[-1].accuracy:.4f}"
        reporter.report(
            {"kind": "arm", "done": len(runs), "total": len(seeds), "message": message, "arm": kind}
        )
    accuracies = [run.accuracy for run in runs]
    compared = difference(ticket_accuracies, accuracies, paired=True, alpha=ALPHA) if len(seeds) > 1 else None
    return {
        "kind": kind,
        "accuracies": accuracies,
        "test": [run.test_accuracy for run in runs],
        "difference": compared and compared.to_dict(),
        "seconds": sum(run.cost.seconds for run in runs),
    }


def check_dynamic(config: ArmConfig, kind: str) -> None:
    """Refuse another kind, and a ticket that begins after step 0. Raises: Invalid."""
    if kind not in KINDS:
        raise Invalid(f"dynamic is {kind!r}, expected one of {', '.join(KINDS)}")
    if config.recipe.first_step(config.ticket.start.rewind_step):
        raise Invalid(f"{kind} trains from step 0, and the ticket begins later: nothing to compare")


def _spec(config: ArmConfig, seed: int) -> TrainSpec:
    ticket, laws = config.ticket, config.ticket.start.laws
    places = {name: place for place, name in enumerate(ticket.architecture.parameters)}
    masks = {
        name: initial.random_mask(mask.shape, int(mask.sum()), seed, places[name])
        for name, mask in ticket.masks.items()
    }
    values = initial.draw_all(ticket.architecture, laws, seed, initial.REINIT)
    start = InitialState(values, masks, ORDER_SEED + seed)
    return TrainSpec(ticket.architecture, start, config.data, config.recipe, sealed=config.sealed)
