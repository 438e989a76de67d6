"""Measure the house, and bound it: `make house`.

Plain syntax trees of `nirvana`, `app` and `worker`; nothing of them is imported or run. A bound that is
broken is printed with its worst places, and the exit status is 1.

An import counts wherever it stands: at the top, inside a function, under TYPE_CHECKING. The only exceptions
are the calls upwards of LAZY, the one file whose imports are made when a function of it is called.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGES = ("nirvana", "app", "worker")
LAZY = "nirvana.lazy"
QUESTION_WORDS = ("what", "whether", "how", "which", "who", "whose", "why", "when", "where", "does", "is")
MOST_PARAMETERS = 6
SMALL_MODULE_LINES = 40
FILES_LINES = 33_000  # of the house when 220 files became its bound
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class File:
    """A source file.

    Attributes:
        module: its dotted name; a package's is that of its folder.
    """

    path: Path
    module: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


@dataclass(frozen=True)
class Measure:
    """One figure of the house.

    Attributes:
        worst: the places that make it, worst first.
    """

    name: str
    value: float
    bound: float
    worst: list[str]

    @property
    def holds(self) -> bool:
        return self.value <= self.bound


def measure(root: Path) -> list[Measure]:
    """Return every figure of the checkout at `root`."""
    files = read_files(root)
    importers = find_imports(files)
    return [
        measure_circles(importers),
        measure_body_lines(files),
        measure_parameters(files),
        measure_any(files),
        measure_docstrings(files),
        measure_small_modules(files, importers),
        measure_files(files),
    ]


def read_files(root: Path) -> list[File]:
    """Return the packages' files, in order of their paths."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return [_read(path, root) for path in paths]


def _read(path: Path, root: Path) -> File:
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return File(path.relative_to(root), module, text, ast.parse(text))


def find_imports(files: Iterable[File]) -> dict[str, set[str]]:
    """Return module -> the modules of the house that it imports, wherever the import stands."""
    listed = list(files)
    known = {file.module for file in listed}
    return {file.module: set(_imported(file, known)) - {file.module} for file in listed}


def _imported(file: File, known: set[str]) -> Iterator[str]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else str(node.module)


def find_circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one module, the largest first.

    Reference: Tarjan 1972, "Depth-first search and linear graph algorithms".
    """
    sys.setrecursionlimit(10_000)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(imports[module]):
            if target not in index:
                visit(target)
            if target in stack:
                low[module] = min(low[module], low[target])
        if low[module] == index[module]:
            place = stack.index(module)
            component, stack[place:] = stack[place:], []
            if len(component) > 1:
                circles.append(sorted(component))

    for module in sorted(imports):
        if module not in index:
            visit(module)
    return sorted(circles, key=len, reverse=True)


def measure_circles(imports: dict[str, set[str]]) -> Measure:
    """Count the files that lie on a circle of imports."""
    followed = {module: set() if module == LAZY else targets for module, targets in imports.items()}
    circles = find_circles(followed)
    worst = [f"{len(circle)} files: {', '.join(circle)}" for circle in circles]
    return Measure(f"files on a circle of imports (beyond {LAZY})", sum(map(len, circles)), 0, worst)


def body_lines(function: Function) -> int:
    """Count the lines of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def measure_body_lines(files: Iterable[File]) -> Measure:
    """Find the length that nine functions in ten do not pass."""
    lengths = [(body_lines(f), f"{file.path}:{f.lineno} {f.name}") for file in files for f in file.functions]
    lengths.sort(reverse=True)
    p90 = lengths[math.floor(0.1 * len(lengths))][0]
    median = statistics.median(length for length, _ in lengths)
    worst = [f"{length} lines: {place}" for length, place in lengths]
    return Measure(f"p90 of lines of a body (median {median:g}, most {lengths[0][0]})", p90, 20, worst)


def parameters(function: Function) -> int:
    """Count a function's parameters, without `self` and `cls`."""
    listed = function.args
    names = [a.arg for a in (*listed.posonlyargs, *listed.args, *listed.kwonlyargs)]
    return len(names) - (bool(names) and names[0] in ("self", "cls"))


def measure_parameters(files: Iterable[File]) -> Measure:
    """Count functions with more than six parameters outside the command line and the kernels."""
    wide = [
        (parameters(f), f"{file.path}:{f.lineno} {f.name}")
        for file in files
        if not file.module.startswith(("nirvana.cli", "nirvana.sparse"))
        for f in file.functions
        if parameters(f) > MOST_PARAMETERS
    ]
    worst = [f"{count} parameters: {place}" for count, place in sorted(wide, reverse=True)]
    name = f"functions with more than {MOST_PARAMETERS} parameters (outside cli and sparse)"
    return Measure(name, len(wide), 25, worst)


def measure_any(files: Iterable[File]) -> Measure:
    """Count the word `Any` per thousand lines, imports of it included, outside the kernels."""
    outside = [file for file in files if not file.module.startswith("nirvana.sparse")]
    counts = sorted(
        ((len(re.findall(r"\bAny\b", file.text)), str(file.path)) for file in outside), reverse=True
    )
    worst = [f"{count}: {path}" for count, path in counts if count]
    share = 1000 * sum(count for count, _ in counts) / sum(file.lines for file in outside)
    return Measure("Any per 1,000 lines (outside sparse)", round(share, 1), 15, worst)


def measure_docstrings(files: Iterable[File]) -> Measure:
    """Compute the share of docstrings, in percent, that open with a question word."""
    opened, total = [], 0
    for file in files:
        for node in ast.walk(file.tree):
            if isinstance(node, Function | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                total += 1
                if text.split()[0].strip(",.:;").lower() in QUESTION_WORDS:
                    opened.append(f"{file.path}:{getattr(node, 'lineno', 1)} {text.splitlines()[0]}")
    return Measure(
        "docstrings that open with a question word, %", round(100 * len(opened) / total, 1), 2, opened
    )


def measure_small_modules(files: Iterable[File], imports: dict[str, set[str]]) -> Measure:
    """Count modules of under 40 lines that one other module imports."""
    importers: dict[str, list[str]] = {}
    for module, targets in imports.items():
        for target in targets:
            importers.setdefault(target, []).append(module)
    small = [
        (file.lines, f"{file.path}, for {importers[file.module][0]}")
        for file in files
        if file.lines < SMALL_MODULE_LINES
        and file.path.name != "__init__.py"
        and len(importers.get(file.module, [])) == 1
    ]
    worst = [f"{lines} lines: {place}" for lines, place in sorted(small)]
    return Measure(f"modules under {SMALL_MODULE_LINES} lines with one importer", len(small), 10, worst)


def measure_files(files: Iterable[File]) -> Measure:
    """Count files beside the lines that they hold: a house that does more may have more of them."""
    lengths = sorted((file.lines, str(file.path)) for file in files)
    lines = sum(length for length, _ in lengths)
    worst = [f"{length} lines: {path}" for length, path in lengths]
    name = f"files for every {FILES_LINES:,} lines ({len(lengths)} files, {lines:,} lines)"
    return Measure(name, round(FILES_LINES * len(lengths) / lines, 1), 220, worst)


def print_table(measures: Iterable[Measure], most: int) -> None:
    """Print a line a figure, and the worst places of those that break their bound, or of all."""
    for one in measures:
        sign = "ok  " if one.holds else "OVER"
        print(f"{sign}  {one.value:>6g}  (at most {one.bound:g})  {one.name}")
        for place in one.worst[: most if most or one.holds else 5]:
            print(f"              {place}")


def main() -> int:
    """Print the figures; 1 where one is over its bound."""
    parser = argparse.ArgumentParser(description="Measure the structure of the code, and bound it.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--worst", type=int, default=0, help="places to list for each figure")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measures = measure(arguments.root)
    if arguments.json:
        print(json.dumps([asdict(one) for one in measures], indent=1))
    else:
        print_table(measures, arguments.worst)
    return 0 if all(one.holds for one in measures) else 1


if __name__ == "__main__":
    sys.exit(main())
