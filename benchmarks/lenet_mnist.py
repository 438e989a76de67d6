"""IMP of LeNet-300-100 on MNIST, 15 levels, beside the calibration that SCIENCE 2.1 gives.

Needs MNIST under NIRVANA_DATA (or a network to download it). Takes about ten minutes on one core; the
folder named by NIRVANA_BENCH_OUT (default: a temporary one) keeps the tickets, and a second run takes it up.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from nirvana import lab
from nirvana.masks import entropy_bound_bytes
from nirvana.ticket import Ticket

SEED = 0
LEVELS = 15
# Test accuracy at early stop, %, by level: SCIENCE 2.1, own calibration, 8 runs (10,000 steps a level).
REFERENCE = {0: 97.87, 3: 98.04, 7: 98.37, 12: 98.37, 15: 98.22}


def main() -> None:
    """Find the tickets and print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(os.environ.get("NIRVANA_BENCH_OUT") or temporary)
        report = lab.find(
            "mnist", "lenet-300-100", "imp", levels=LEVELS, seed=SEED, out=out, progress=_say
        ).to_dict()
        where = ", ".join(f"{name} {value}" for name, value in report["environment"].items())
        print(f"task mnist, lenet-300-100, imp, seed {SEED}, n = 1; trained on {where}\n")
        print(
            "| level | density % | test accuracy at early stop % | reference % | step | untrained % | s | "
            "file bytes | bound bytes | file / (1.02 bound + 4096) |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        for level in report["levels"]:
            print(_row(level, out / level["ticket"]))


def _say(event: dict[str, object]) -> None:
    if event["kind"] == "level":
        print(event["message"], file=sys.stderr)


def _row(level: dict[str, float], path: Path) -> str:
    size = path.stat().st_size
    bound = entropy_bound_bytes(Ticket.read(path).masks.values())
    cells = [
        level["level"],
        f"{100 * level['density']:.2f}",
        f"{100 * level['early_stop_test_accuracy']:.2f}",
        REFERENCE.get(int(level["level"]), ""),
        level["early_stop_step"],
        f"{100 * level['untrained_test_accuracy']:.1f}",
        f"{level['seconds']:.1f}",
        size,
        f"{bound:.0f}",
        f"{size / (1.02 * bound + 4096):.3f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"
