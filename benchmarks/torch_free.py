"""Training a ticket where `nirvana[sparse]` alone is installed: disk, memory, seconds and accuracy.

    python -m benchmarks.torch_free [--ticket FILE] [--runs N] [--venv FOLDER]

An empty virtual environment is made and `.[sparse]` is installed into it from this checkout. The ticket is
LeNet-300-100 on MNIST at 3.6 %; without --ticket, `nirvana find` makes it here first. Each run is a process
of its own on one core; the first one compiles the kernels, the others find them in their cache. NIRVANA_DATA
says where MNIST is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import row, table

REPOSITORY = Path(__file__).resolve().parents[1]
RUNS = 6  # the first compiles
MOST_DISK_MB, MOST_RESIDENT_MB, MOST_SECONDS, LEAST_ACCURACY = 350, 300, 15, 0.978

# Runs a command on one core, from a process that is small: a child's peak counts what it was forked from.
_RUN = """
import json, os, resource, subprocess, sys, time
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
started = time.perf_counter()
done = subprocess.run(sys.argv[1:], capture_output=True, text=True)
seconds = time.perf_counter() - started
if done.returncode:
    sys.exit(done.stderr)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
taken = {"seconds": seconds, "processor": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * 1024}
print(json.dumps(taken | {"answer": json.loads(done.stdout)}))
"""


@dataclass(frozen=True)
class Measured:
    """One process: its time by the clock and of the processor, its largest resident size, what it printed."""

    seconds: float
    processor: float
    peak_bytes: int
    answer: dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description="Train a ticket without torch, and measure it.")
    parser.add_argument("--ticket", type=Path, help="a .ticket of LeNet-300-100 on MNIST at 3.6 %%")
    parser.add_argument("--runs", type=int, default=RUNS, help="processes, the first of which compiles")
    parser.add_argument("--venv", type=Path, help="where to make the environment; default: thrown away")
    chosen = parser.parse_args([] if arguments is None else arguments)
    with tempfile.TemporaryDirectory() as folder:
        place = chosen.venv or Path(folder) / "venv"
        before, after = make_environment(place)
        ticket = chosen.ticket or find_ticket(Path(folder) / "tickets")
        print(table(["what", "n", "min / median / max", "target"]))
        print(
            row(
                [
                    "packages that the install added, MB",
                    1,
                    f"{(after - before) / 1e6:.1f}",
                    f"under {MOST_DISK_MB}",
                ]
            )
        )
        print(row(["... with the environment's own pip and setuptools", 1, f"{after / 1e6:.0f}", ""]))
        report(place, ticket, Path(folder), chosen.runs)


def make_environment(place: Path) -> tuple[int, int]:
    """Make an empty virtual environment with this checkout's `nirvana[sparse]` in pinned versions.

    Returns:
        bytes of its packages before and after the install.
    """
    _call([sys.executable, "-m", "venv", "--clear", str(place)])
    pins, wanted = REPOSITORY / "constraints.txt", f"{REPOSITORY}[sparse]"
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    before = disk_bytes(place)
    _call([*pip, "--disable-pip-version-check", "-c", str(pins), wanted])
    return before, disk_bytes(place)


def find_ticket(folder: Path) -> Path:
    """Return the ticket of the 15th level of IMP on MNIST; this process's own environment finds it."""
    network = ("--task", "mnist", "--architecture", "lenet-300-100", "--levels", "15", "--seed", "0")
    _call([sys.executable, "-m", "nirvana.cli", "find", *network, "--out", str(folder), "--quiet"])
    return folder / "level-15.ticket"


def report(place: Path, ticket: Path, folder: Path, runs: int) -> None:
    """Train with seeds 0 to runs - 1, predict the test set once, and print time, memory and accuracy."""
    nirvana, weights = str(place / "bin" / "nirvana"), folder / "weights.npz"
    train = [nirvana, "train", str(ticket.resolve()), "--out", str(weights), "--json", "--quiet", "--seed"]
    cold, *warm = (measure(place, [*train, str(seed)], folder) for seed in range(runs))
    predicted = measure(place, [nirvana, "predict", str(weights), "--task", "mnist", "--json"], folder)
    for cells in _rows(cold, warm):
        print(row(cells))
    print(row(["`nirvana predict` of 10,000 images, wall seconds", 1, f"{predicted.seconds:.1f}", ""]))
    print(row(["... peak resident, MB", 1, f"{predicted.peak_bytes / 1e6:.0f}", ""]))
    print(f"\n{_describe(place, cold.answer)}")


def _rows(cold: Measured, warm: list[Measured]) -> list[list[object]]:
    """Return the table's rows on training."""
    trained = [cold, *warm]
    peaks, memory = _spread([run.peak_bytes / 1e6 for run in warm], ".0f"), f"under {MOST_RESIDENT_MB}"
    wall = _spread([run.seconds for run in warm], ".1f")
    first = f"{cold.seconds:.1f}, {cold.processor:.1f} of the processor"
    within = _spread([run.answer["seconds"] for run in warm], ".1f")
    accuracies = _spread([100 * run.answer["test_accuracy"] for run in trained], ".2f")
    seconds, n = f"under {MOST_SECONDS}", len(warm)
    return [
        ["peak resident of `nirvana train`, first run, MB", 1, f"{cold.peak_bytes / 1e6:.0f}", memory],
        ["... later runs", n, peaks, memory],
        ["wall seconds of it, first run (compiles)", 1, first, seconds],
        ["... later runs", n, wall, seconds],
        ["... of these, training", n, within, ""],
        ["test accuracy, %, seeds 0 on", n + 1, accuracies, f">= {100 * LEAST_ACCURACY:.1f}"],
    ]


def measure(place: Path, command: list[str], folder: Path) -> Measured:
    """Run a command of the environment on one core, in a home of its own."""
    environment = dict(os.environ) | {"NIRVANA_HOME": str(folder / "home"), "NIRVANA_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    if data := environment.get("NIRVANA_DATA"):
        environment["NIRVANA_DATA"] = str(Path(data).absolute())
    run = [str(place / "bin" / "python"), "-c", _RUN, *command]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return Measured(**json.loads(done.stdout))


def disk_bytes(place: Path) -> int:
    """Return the disk space of an environment's packages, their compiled .pyc files included."""
    packages = next((place / "lib").glob("python*")) / "site-packages"
    return sum(path.lstat().st_blocks * 512 for path in packages.rglob("*") if path.is_file())


def _spread(values: list[float], form: str) -> str:
    """min / median / max."""
    if not values:
        return "not run"
    three = (min(values), statistics.median(values), max(values))
    return " / ".join(format(value, form) for value in three)


def _describe(place: Path, answer: dict[str, Any]) -> str:
    """Return a line on the ticket, the engine and the installed packages."""
    listed = [str(place / "bin" / "python"), "-m", "pip", "list", "--format", "json"]
    packages = json.loads(_call([*listed, "--disable-pip-version-check"]))
    versions = {package["name"]: package["version"] for package in packages}
    heavy = ", ".join(f"{name} {versions[name]}" for name in ("numpy", "numba", "llvmlite"))
    absent = ", ".join(name for name in ("torch", "scipy") if name not in versions)
    return (
        f"Ticket {answer['digest'][:19]}..., density {answer['density']:.4f}, engine {answer['engine']}; "
        f"one core; {len(versions)} packages: {heavy}; not installed: {absent}."
    )


def _call(command: list[str]) -> str:
    """Return what a command prints; it must exit with 0."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1:])
