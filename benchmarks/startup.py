"""How long it takes to import and start the service and to print the help, and the service's memory."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 7

_SERVICE = """
import time
started = time.perf_counter()
import sys, os
import app.main
from app.settings import Settings
app.main.create_app(Settings(home=sys.argv[1]))
seconds = time.perf_counter() - started
resident = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(seconds, int(resident.split()[1]) / 1024, "torch" in sys.modules)
"""


def main() -> None:
    """Print min, median and max over RUNS fresh processes."""
    seconds, megabytes, torch_seen = [], [], set()
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [sys.executable, "-c", _SERVICE, home], capture_output=True, text=True, check=True
            )
        fields = done.stdout.split()
        seconds.append(float(fields[0]))
        megabytes.append(float(fields[1]))
        torch_seen.add(fields[2])
    helps = [_time_help() for _ in range(RUNS)]
    print(f"| what (n = {RUNS} processes) | min | median | max |\n|---|---|---|---|")
    print(_row("import app.main and create_app, s", seconds))
    print(_row("its resident memory, MB", megabytes))
    print(_row("nirvana --help, s", helps))
    print(f"\ntorch imported by the service: {', '.join(sorted(torch_seen))}")


def _time_help() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "nirvana.cli", "--help"], capture_output=True, check=True)
    return time.perf_counter() - started


def _row(what: str, values: list[float]) -> str:
    return f"| {what} | {min(values):.2f} | {statistics.median(values):.2f} | {max(values):.2f} |"
