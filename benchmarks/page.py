"""docs/performance.md: one page, a part for each kind of processor, and their goals side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping

TITLE = "# Performance"
INTRODUCTION = (
    "Written by `make bench`, which replaces the part of the processor that it runs on; nothing here was "
    "typed in. Medians (least to most). Each part names its day, its versions and its load: the kernels of "
    "parts of different days may differ."
)
_PART = re.compile(r"^## On (.*)$", re.MULTILINE)
_PROCESSOR = re.compile(r"^\| processor \| (.*?) \|$", re.MULTILINE)
_GOAL = re.compile(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \| (yes|no) \|$", re.MULTILINE)


def put_part(page: str, run: str) -> str:
    """Return the page with what a run printed as the part of its processor.

    Args:
        page: as it was; empty: there was none.
        run: from `# Performance` on, as `python -m benchmarks` prints it.

    Raises:
        ValueError: the run does not name its processor.
    """
    named = _PROCESSOR.search(run)
    if named is None:
        raise ValueError("the run names no processor, expected a row `| processor | ... |`")
    parts = read_parts(page) | {named[1]: _demoted(run)}
    titles = [f"## On {name}\n\n{text}" for name, text in parts.items()]
    return "\n\n".join([TITLE, INTRODUCTION, *_goals(parts), *titles]) + "\n"


def read_parts(page: str) -> dict[str, str]:
    """Return processor -> its part of a page, without its heading."""
    marks = list(_PART.finditer(page))
    ends = [mark.start() for mark in marks[1:]] + [len(page)]
    return {mark[1]: page[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=False)}


def _demoted(run: str) -> str:
    """Return a run's text from its first table on, headings one level lower."""
    text = run[run.index("| what | value |") :]
    return re.sub(r"^(#+) ", r"\1# ", text, flags=re.MULTILINE).strip()


def _goals(parts: Mapping[str, str]) -> list[str]:
    """Return the goals of all parts as one table; nothing where no part has any."""
    measured = {name: {goal[0]: goal[1:] for goal in _GOAL.findall(text)} for name, text in parts.items()}
    names = {goal: least for goals in measured.values() for goal, (least, _, _) in goals.items()}
    if not names:
        return []
    rows = [f"| goal | at least | {' | '.join(parts)} |", "|---|---|" + "---|" * len(parts)]
    for goal, least in names.items():
        cells = [_cell(goals.get(goal)) for goals in measured.values()]
        rows.append(f"| {goal} | {least} | {' | '.join(cells)} |")
    return ["\n".join(rows)]


def _cell(goal: tuple[str, str, str] | None) -> str:
    if goal is None:
        return ""
    _, median, met = goal
    return median if met == "yes" else f"**{median}**, not met"
