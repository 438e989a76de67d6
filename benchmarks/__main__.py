"""`python -m benchmarks [NAME ...] [--write FILE] [--quick | --full]`: the tables of docs/performance.md.

Without names it runs the suite; `--list` says what there is. None is a test: a timing asserts nothing.
Threads are bound to one core, but where a table says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

import torch

from benchmarks import (
    accuracy,
    cost_model,
    digits_verdicts,
    first_update,
    registry,
    replicates,
    roofline,
    serving,
    startup,
    threads,
    throughput,
    torch_free,
    verification_cost,
    whole_imp,
)
from benchmarks.effort import DEFAULT, FULL, QUICK, Effort
from benchmarks.goals import Goal, print_goals
from benchmarks.machine import LAST_CORE, describe, pinned
from benchmarks.page import put_part
from benchmarks.subjects import SEED
from nirvana.files import write_atomically

Benchmark = Callable[[Effort], Sequence[Goal] | None]  # what it measured of what was asked for


def _whole(measure: Callable[[], None]) -> Benchmark:
    """A benchmark of one size."""

    def run(effort: Effort) -> None:
        if effort.is_quick:
            print("not measured in a quick run")
        else:
            measure()

    return run


SUITE: dict[str, tuple[str, Benchmark]] = {
    "throughput": ("Updates, by density", throughput.main),
    "whole_imp": ("A whole search of 16 levels", whole_imp.main),
    "verification_cost": ("A verification", verification_cost.main),
    "accuracy": ("Accuracy", accuracy.main),
    "roofline": ("Roofline", roofline.main),
    "first_update": ("From nothing to the first update", first_update.main),
    "threads": ("Several threads at one update", threads.main),
    "replicates": ("Replicates in one batch", _whole(replicates.main)),
    "torch_free": ("Without torch", _whole(torch_free.main)),
    "startup": ("The service's start", _whole(startup.main)),
}
OTHERS: dict[str, tuple[str, Benchmark]] = {
    "cost_model": ("The choice of engine (long)", cost_model.main),
    "digits_verdicts": ("Verdicts on digits (long)", _whole(digits_verdicts.main)),
    "publishing": ("Publishes a second", _whole(serving.publishing)),
    "downloads": ("Downloads a second", _whole(serving.downloads)),
    "registry": ("Search among 100,000 listings (long)", _whole(lambda: registry.main([]))),
}


class Tee(io.TextIOBase):
    """Text that is shown as it comes, and kept."""

    def __init__(self, shown: TextIO) -> None:
        self.shown, self.kept = shown, io.StringIO()

    def write(self, text: str) -> int:
        self.shown.write(text)
        self.shown.flush()
        return self.kept.write(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite or what is named, and write the page."""
    asked = _parse(arguments)
    known = SUITE | OTHERS
    if asked.list:
        print("\n".join(f"{name:20}{title}" for name, (title, _) in known.items()))
        return 0
    unknown = [name for name in asked.names if name not in known]
    if unknown:
        print(f"no benchmark {unknown[0]!r}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    page = Tee(sys.stdout)
    with contextlib.redirect_stdout(page), pinned(LAST_CORE):
        failed = _run(asked.names or list(SUITE), asked.effort)
    if asked.write:
        path = Path(asked.write)
        before = path.read_text() if path.exists() else ""
        write_atomically(path, put_part(before, page.kept.getvalue()).encode())
    return 1 if failed else 0


def _run(names: Sequence[str], effort: Effort) -> list[str]:
    """Print the page; the names of those that failed, which the page says too: the others go on."""
    torch.set_num_threads(1)
    started, known = time.monotonic(), SUITE | OTHERS
    failed, goals = list[str](), list[Goal]()
    print("# Performance\n\nWritten by `make bench`; nothing here was typed in. Medians (least to most).\n")
    print(describe(f"{SEED} unless a table says otherwise; sizes: {effort.name}"))
    for name in names:
        title, benchmark = known[name]
        print(f"\n## {title}\n")
        try:
            goals += benchmark(effort) or ()
        except (Exception, SystemExit) as error:
            print(f"\n**failed**: {type(error).__name__}: {error}")
            traceback.print_exc()
            failed.append(name)
    if goals:
        print("\n## Goals\n")
        print_goals(goals)
    print(f"\nThe whole run took {(time.monotonic() - started) / 60:.1f} minutes.")
    return failed


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run; default: the suite")
    parser.add_argument("--list", action="store_true", help="the names")
    parser.add_argument("--write", metavar="FILE", help="the page whose part of this processor is replaced")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_const", const=QUICK, dest="effort", help="does it run at all")
    sizes.add_argument(
        "--full", action="store_const", const=FULL, dest="effort", help="searches of full length too"
    )
    parser.set_defaults(effort=DEFAULT)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
