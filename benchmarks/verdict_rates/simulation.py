"""How the looks spend their error, simulated: normal accuracies, one control, thousands of verifications."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from nirvana.verification.protocol import CONTROLS, Look, plan_looks

RUNS, SD, MARGIN = 20_000, 0.5, 1.0  # verifications; percentage points
CASES = {"gap 2.5": (0.0, 2.5), "gap 1.5": (0.0, 1.5), "gap 0": (0.0, 0.0), "1 pp under dense": (-1.0, 2.5)}
DESIGNS = {
    "5 at once": plan_looks(5),
    "20 at once": plan_looks(20),
    "5, then 10": plan_looks(5, 10),
    "**5, then 10, then 20**": plan_looks(5, 20),
    "the same, level in equal parts": [Look(0, n, 0.05 / 3) for n in (5, 10, 20)],
    "the same, 0.03, 0.01, 0.01": [Look(0, n, alpha) for n, alpha in ((5, 0.03), (10, 0.01), (20, 0.01))],
    "the same, 0.01, 0.01, 0.03": [Look(0, n, alpha) for n, alpha in ((5, 0.01), (10, 0.01), (20, 0.03))],
}
Array = NDArray[np.float64]


def write_up() -> str:
    """The section of the page."""
    heads = " | ".join(f"WINNING %, {case}" for case in CASES)
    lines = [
        "## Looks: what topping up costs and gives, simulated",
        "",
        f"Accuracies with a standard deviation of {SD} pp a run, margin {MARGIN:g} pp; a control lies `gap` "
        "pp behind a ticket that equals dense (last case: the ticket truly lies at the margin). One control, "
        f"tested at 1 / {len(CONTROLS)} of the look's level as Holm's first; {RUNS:,} verifications each, "
        "mean replicates in brackets.",
        "",
        f"| design | levels | {heads} |",
        "|---|---|" + "---|" * len(CASES),
    ]
    return "\n".join([*lines, *(_row(name, looks) for name, looks in DESIGNS.items())])


def _row(name: str, looks: Sequence[Look]) -> str:
    cells = []
    for below, gap in CASES.values():
        wins, used = _simulate(looks, below, gap)
        cells.append(f"{100 * wins:.2f} ({used:.1f})")
    levels = ", ".join(f"{look.alpha:.4g}" for look in looks)
    return f"| {name} | {levels} | {' | '.join(cells)} |"


def _simulate(looks: Sequence[Look], below: float, gap: float) -> tuple[float, float]:
    """Share of WINNING and mean replicates."""
    draws, most = np.random.default_rng(0), looks[-1].n
    dense, ticket, control = (draws.normal(centre, SD, (RUNS, most)) for centre in (0.0, below, below - gap))
    is_open, wins, used = np.ones(RUNS, bool), np.zeros(RUNS, bool), np.full(RUNS, most)
    for look in looks:
        low, high, _ = _bounds((ticket - dense)[:, : look.n], look.alpha)
        _, control_high, statistic = _bounds((ticket - control)[:, : look.n], look.alpha)
        matches, holds = low > -MARGIN, control_high < MARGIN
        beaten = (statistic > stdtrit(look.n - 1, 1 - look.alpha / len(CONTROLS))) & ~holds
        is_decided = is_open & ((high < -MARGIN) | (matches & (holds | beaten)))
        wins |= is_decided & matches & beaten
        used[is_decided] = look.n
        is_open &= ~is_decided
    return float(wins.mean()), float(used.mean())


def _bounds(differences: Array, alpha: float) -> tuple[Array, Array, Array]:
    n = differences.shape[1]
    centre, error = differences.mean(1), differences.std(1, ddof=1) / np.sqrt(n)
    width = float(stdtrit(n - 1, 1 - alpha)) * error
    return centre - width, centre + width, centre / error
