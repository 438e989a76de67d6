"""`python -m benchmarks.reproduce [--size default|full] [--out FOLDER] [--jobs N] [--write FILE]`.

Everything that was measured lies in FOLDER (`.reproduce` here, or NIRVANA_BENCH_OUT); stop it and start it
again as you like. Each piece of work runs in its own process on one thread.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.reproduce import plan, report
from benchmarks.reproduce.sizes import SIZES
from benchmarks.working import work_off


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is missing, then write the tables."""
    asked = _parse(arguments)
    size, out = SIZES[asked.size], Path(asked.out)
    for name, stage in plan.stages(size, out):
        work_off(name, stage(), out, asked.jobs)
    text = report.write_up(size, out)
    if asked.write:
        Path(asked.write).write_text(text)
    else:
        print(text)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.reproduce", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--full", action="store_const", const="full", dest="size", help="the paper's budget")
    parser.add_argument("--out", default=os.environ.get("NIRVANA_BENCH_OUT") or ".reproduce")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--write", help="the file to write; default: standard output")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
