"""Rates of verdicts, with intervals, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.verdict_rates.drawing import POOL, Drawn, draws, share
from benchmarks.verdict_rates.ends import WholeVerification
from benchmarks.verdict_rates.planting import (
    ARCHITECTURE,
    DENSITY,
    KINDS,
    LOSERS,
    MILD_DENSITY,
    STRONG,
    TASK,
    ticket_path,
)
from benchmarks.working import Arm, read_json
from nirvana import lab, tasks
from nirvana.format.initial import words
from nirvana.format.ticket import Ticket
from nirvana.training.cost import sum_costs
from nirvana.verification.gate import check_gate
from nirvana.verification.protocol import ARMS, PROTOCOL, plan_looks
from nirvana.verification.statistics import wilson

WINNING = "WINNING"
DESIGNS = {
    "5, then 10, then 20": (5, 20),
    "5 at once": (5, 5),
    "10 at once": (10, 10),
    "20 at once": (20, 20),
}
MOST_FALSE, LEAST_TRUE = 0.01, 0.90
_RESAMPLES = 1000
_STREAM = 0x434C5553  # "CLUS"
Ends = dict[Path, list[Drawn]]


def pooled(out: Path, seeds: Sequence[int]) -> list[Path]:
    """The planted tickets that gate 0 lets pass, so that their arms have to be trained."""
    paths = [ticket_path(kind, seed) for kind in KINDS for seed in seeds]
    return [path for path in paths if check_gate(Ticket.read(out / path)).invalid is None]


def write_up(out: Path, seeds: Sequence[int], count: int, whole: Sequence[WholeVerification]) -> str:
    """The page that `make bench-verdicts` prints."""
    margin = tasks.get(TASK).margin
    parts = [_head(seeds, count, margin)]
    for name, (least, most) in DESIGNS.items():
        found = {kind: _ends(out, kind, seeds, count, margin, least, most) for kind in KINDS}
        parts.append(_table(name, found))
        if most == 20 and least == 5:
            parts += [_goals(found), _whole(out, whole, found)]
    parts.append(_cost(out))
    return "\n\n".join(parts) + "\n"


def _head(seeds: Sequence[int], count: int, margin: float) -> str:
    where = ", ".join(f"{name} {value}" for name, value in lab.environment().items())
    return (
        "# Error rates of the verdict\n\n"
        f"Written by `make bench-verdicts`; nothing here was typed in. Protocol `{PROTOCOL}`, task {TASK} "
        f"(margin {100 * margin:.1f} pp), {ARCHITECTURE}, IMP at {100 * DENSITY:.0f} % density "
        f"(mild: {100 * MILD_DENSITY:.0f} %), seeds {seeds[0]} to {seeds[-1]}: {len(seeds)} tickets "
        f"of each kind (see planting.py). "
        f"Every arm of every ticket that gate 0 lets pass was trained with {POOL} data orders; {count} "
        f"verifications were drawn for each ticket, {count * len(seeds)} a kind.\n"
        f"Machine and versions: {where}.\n\n"
        "Intervals: 95 %, Wilson's over the drawn verifications, and a bootstrap over tickets (verifications "
        "of one ticket are alike)."
    )


def _ends(
    out: Path, kind: str, seeds: Sequence[int], count: int, margin: float, least: int, most: int
) -> Ends:
    looks, found = plan_looks(least, most), Ends()
    for seed in seeds:
        path = ticket_path(kind, seed)
        ticket = Ticket.read(out / path)
        gate = check_gate(ticket)
        arms = {} if gate.invalid else _pool(out, path)
        found[path] = list(draws(ticket, gate, arms, margin, looks, count))
    return found


def _pool(out: Path, path: Path) -> dict[str, lab.ArmResult]:
    return {arm: lab.ArmResult.from_dict(read_json(Arm(path, arm, POOL).path(out))) for arm in ARMS}


def _counts(found: Ends) -> dict[Path, Counter[str]]:
    return {path: Counter(end.verdict for end in ends) for path, ends in found.items()}


def _table(design: str, found: Mapping[str, Ends]) -> str:
    heads = "| kind | WINNING % | over draws | over tickets | other verdicts % | replicates, mean |"
    lines = [f"## Replicates: {design}", "", heads, "|---|---|---|---|---|---|"]
    return "\n".join([*lines, *(_row(kind, ends) for kind, ends in found.items())])


def _row(kind: str, found: Ends) -> str:
    counts = _counts(found)
    total = sum(sum(c.values()) for c in counts.values())
    wins = sum(c[WINNING] for c in counts.values())
    others = sum(counts.values(), Counter[str]())
    del others[WINNING]
    listed = ", ".join(f"{verdict} {100 * n / total:.1f}" for verdict, n in others.most_common())
    replicates = sum(end.replicates for ends in found.values() for end in ends) / total
    over_draws, over_tickets = (_interval(i) for i in (wilson(wins, total), _clustered(counts)))
    return (
        f"| {kind} | {100 * wins / total:.2f} | {over_draws} | {over_tickets} | {listed} | {replicates:.1f} |"
    )


def _interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}"


def _clustered(counts: Mapping[Path, Counter[str]]) -> tuple[float, float]:
    """95 % of the rate when tickets are drawn again."""
    rates = np.array([c[WINNING] / sum(c.values()) for c in counts.values()])
    n = len(rates)
    index = (words(0, 0, _STREAM, np.arange(_RESAMPLES * n)) % n).reshape(_RESAMPLES, n)
    low, high = np.quantile(rates[index].mean(1), [0.025, 0.975])
    return float(low), float(high)


def _goals(found: Mapping[str, Ends]) -> str:
    rates = {kind: share(_counts(ends), WINNING) for kind, ends in found.items()}
    worst = max(LOSERS, key=lambda kind: rates[kind])
    false, true = rates[worst], rates[STRONG]
    return (
        "| goal | measured | met |\n|---|---|---|\n"
        f"| a planted loser is called WINNING in at most {100 * MOST_FALSE:.0f} % | {100 * false:.2f} % "
        f"(the worst kind: {worst}) | {'yes' if false <= MOST_FALSE else 'no'} |\n"
        f"| a strong ticket in at least {100 * LEAST_TRUE:.0f} % | {100 * true:.2f} % | "
        f"{'yes' if true >= LEAST_TRUE else 'no'} |"
    )


def _whole(out: Path, pieces: Sequence[WholeVerification], found: Mapping[str, Ends]) -> str:
    heads = "| ticket | verdict | replicates | drawn verifications of its kind with that verdict % |"
    lines = [
        f"Whole verifications of {len(pieces)} other tickets, as a check of the drawing:",
        "",
        heads,
        "|---|---|---|---|",
    ]
    for piece in pieces:
        ended = read_json(piece.path(out))
        alike = share(_counts(found[piece.kind]), ended["verdict"])
        cells = [piece.ticket.stem, ended["verdict"], str(ended["replicates"]), f"{100 * alike:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cost(out: Path) -> str:
    arms = [lab.ArmResult.from_dict(read_json(path)) for path in sorted((out / "arms").glob("*.json"))]
    seconds = sum_costs(arm.cost for arm in arms).seconds
    trained = sum(len(arm.seeds) - sum(arm.cached) for arm in arms)
    taken = sum(sum(arm.cached) for arm in arms)
    return (
        f"Cost of the pools: {trained} trainings ({taken} more were shared with other tickets), "
        f"{seconds / 60:.1f} minutes on one core."
    )
