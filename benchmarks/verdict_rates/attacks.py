"""Whole verifications of adversaries' tickets, the table of how they ended, and the records behind it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.verdict_rates.adversaries import ADVERSARIES, HONEST
from benchmarks.verdict_rates.ends import MOST, REPLICATES, verify_alone
from benchmarks.verdict_rates.planting import ARCHITECTURE, TASK, ticket_path
from benchmarks.working import read_json, write_json
from nirvana.verification.protocol import PROTOCOL
from nirvana.verification.statistics import wilson

WINNING, MOST_FALSE = "WINNING", 0.01
PLANTED = ADVERSARIES | HONEST
Outcome = dict[str, Any]  # `Evaluation.to_dict()`, with the ticket's `prunable_density`
RECORDED = (
    *("verdict", "protocol", "reason", "replicates", "seed", "ticket"),
    *("density", "prunable_density", "live_density", "environment"),
)
"""What a record has of an outcome."""


@dataclass(frozen=True)
class Attack:
    """A ticket of one adversary, and its verification."""

    kind: str
    seed: int

    def path(self, out: Path) -> Path:
        return out / "attacks" / f"{self.kind}-{self.seed}.json"

    def is_done(self, out: Path) -> bool:
        return self.path(out).exists()

    def run(self, out: Path) -> None:
        """Plant and verify; tasks that the adversary adds lie in a home of its own, here and afterwards."""
        os.environ["NIRVANA_HOME"] = str((out / "homes" / f"{self.kind}-{self.seed}").resolve())
        adversary = PLANTED[self.kind]
        ticket = adversary.plant(self.seed)
        ticket.write(out / ticket_path(self.kind, self.seed))
        known = [("original", adversary.original(self.seed))] if adversary.original else []
        asked = ticket.provenance.get("replicates")
        counts = (asked, asked) if asked else (REPLICATES, MOST)
        ended = verify_alone(ticket, counts[0], counts[1], known)
        named = {"prunable_density": ticket.prunable_kept / ticket.prunable_total}
        write_json(self.path(out), ended.to_dict() | named)


def write_records(out: Path, attacks: Sequence[Attack], path: Path) -> None:
    """Write a line of JSON for each verification: what the table is made of."""
    lines = []
    for attack in attacks:
        outcome = read_json(attack.path(out))
        record = {name: outcome[name] for name in RECORDED}
        copies = {"gate": {"duplicates": outcome["gate"]["duplicates"]}}
        lines.append(json.dumps({"kind": attack.kind, "ticket_seed": attack.seed} | record | copies) + "\n")
    path.write_text("".join(lines))


def take_up(out: Path, path: Path) -> None:
    """Take the verifications that a file of records has, by today's protocol, for done."""
    for record in map(json.loads, path.read_text().splitlines()):
        attack = Attack(record["kind"], record["ticket_seed"])
        if record["protocol"] == PROTOCOL and not attack.is_done(out):
            write_json(attack.path(out), record)


def write_up(out: Path, attacks: Sequence[Attack]) -> str:
    """The page that `make bench-verdicts` prints."""
    ends: dict[str, list[Outcome]] = {}
    for attack in attacks:
        ends.setdefault(attack.kind, []).append(read_json(attack.path(out)))
    heads = "| kind | n | WINNING % | 95 % | other verdicts % | stopped by | density %: all, prunable, live |"
    lines = [
        "# Adversaries: how often an attack is called WINNING",
        "",
        f"Written by `make bench-verdicts`; nothing here was typed in. Protocol `{PROTOCOL}`, task {TASK}, "
        f"{ARCHITECTURE}. A line of [adversary-rates.jsonl](adversary-rates.jsonl) for each verification. "
        f"Machines and versions: {_machines(ends)}.",
        "",
        "Tickets that try to steer, buy or move their verdict (see adversaries.py), each verified whole with "
        f"{REPLICATES} to {MOST} replicates, unless its author asks for another number. Intervals: Wilson's "
        "over tickets. Stopped by: the most frequent reason of those that did not win. Digits has sealed "
        "rows; *leaked-seal* knows them, as on a task without. Every one of these tickets is brought in: no "
        "search of the registry gives its mask. Live density: without units that no path goes through. "
        "Last rows: honest tickets, pushed as they were found.",
        "",
        *(f"- **{kind}**: {PLANTED[kind].description}" for kind in ends),
        "",
        heads,
        "|---|---|---|---|---|---|---|",
        *(_row(kind, outcomes) for kind, outcomes in ends.items()),
        "",
        _goal([outcomes for kind, outcomes in ends.items() if kind in ADVERSARIES]),
    ]
    return "\n".join(lines) + "\n"


def _machines(ends: Mapping[str, Sequence[Outcome]]) -> str:
    """Name the machines, each with how many verifications ran there."""
    counts = Counter(
        ", ".join(f"{name} {value}" for name, value in outcome["environment"].items())
        for outcomes in ends.values()
        for outcome in outcomes
    )
    return "; ".join(f"{machine} ({count} verifications)" for machine, count in counts.most_common())


def _row(kind: str, outcomes: Sequence[Outcome]) -> str:
    n, counts = len(outcomes), Counter(outcome["verdict"] for outcome in outcomes)
    wins = counts.pop(WINNING, 0)
    low, high = wilson(wins, n)
    others = ", ".join(f"{verdict} {100 * count / n:.0f}" for verdict, count in counts.most_common())
    reasons = Counter(_plain(outcome["reason"]) for outcome in outcomes if outcome["verdict"] != WINNING)
    stopped = [reason for reason, _ in reasons.most_common(1)]
    if PLANTED[kind].original:
        copies = sum(bool(outcome["gate"]["duplicates"]) for outcome in outcomes)
        stopped.append(f"copies found: {copies} of {n}")
    densities = [
        f"{100 * np.mean([outcome[name] for outcome in outcomes]):.1f}" if outcomes[0][name] else "none"
        for name in ("density", "prunable_density", "live_density")
    ]
    cells = (
        kind,
        str(n),
        f"{100 * wins / n:.0f}",
        f"{100 * low:.0f} to {100 * high:.0f}",
        others,
        "; ".join(stopped),
    )
    return f"| {' | '.join(cells)} | {', '.join(densities)} |"


def _plain(reason: str) -> str:
    """Leave out what stands in brackets: numbers and names that differ from ticket to ticket."""
    return re.sub(r" \([^)]*\)", "", reason)


def _goal(ends: Iterable[Sequence[Outcome]]) -> str:
    rates = [np.mean([outcome["verdict"] == WINNING for outcome in outcomes]) for outcomes in ends]
    met = sum(rate <= MOST_FALSE for rate in rates)
    return f"{met} of {len(rates)} adversaries are called WINNING in at most {100 * MOST_FALSE:.0f} %."
