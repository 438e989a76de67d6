"""How every verb speaks: JSON or a table on stdout, talk on stderr, one line for an error."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nirvana import errors as tree
from nirvana.errors import NirvanaError

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No talk and no progress.")]

_NUMBER = re.compile(r"(-?[\d.]+( \+- [\d.]+)?( %)?)?\Z")

# The first line that fits decides.
_EXIT_CODES: tuple[tuple[int, tuple[type[NirvanaError], ...]], ...] = (
    (4, (tree.InvalidTicket, tree.DataDamaged)),
    (2, (tree.Invalid, tree.Malformed)),
    (3, (tree.NotFound, tree.Gone)),
    (5, (tree.NetworkError, tree.Unavailable)),
    (6, (tree.VerdictNotReached,)),
    (130, (tree.Cancelled,)),
    (4, (tree.Conflict, tree.Unauthenticated, tree.Forbidden, tree.TooLarge, tree.UnsupportedMedia)),
    (4, (tree.PreconditionFailed, tree.RangeNotSatisfiable, tree.QuotaExceeded)),
)


def exit_code(error: NirvanaError) -> int:
    """The exit code that an error leaves with."""
    return next((code for code, kinds in _EXIT_CODES if isinstance(error, kinds)), 1)


def report_error(error: NirvanaError, as_json: bool) -> int:
    """Say what went wrong, in one line on stderr and as a problem on stdout with --json; its exit code."""
    if as_json:
        print(json.dumps(error.to_dict(), default=str))
    print(f"nirvana: {error.detail}", file=sys.stderr)
    for problem in error.errors:
        if problem.detail not in error.detail:
            print(f"  {problem.pointer}: {problem.detail} [{problem.code}]", file=sys.stderr)
    return exit_code(error)


@dataclass(frozen=True)
class Output:
    """Where a verb's words go.

    Attributes:
        json: data as JSON.
        quiet: no talk and no progress.
    """

    json: bool = False
    quiet: bool = False

    def data(self, value: Any, human: Callable[[], None]) -> None:
        """Print the verb's result: `value` as JSON, or whatever `human` prints."""
        if self.json:
            print(json.dumps(value, indent=2, default=str))
        else:
            human()

    def say(self, text: str) -> None:
        """Talk: to stderr, unless quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
        """A table on stdout; columns after the first that hold numbers are aligned to the right."""
        console().print(make_table(columns, rows, title))


def console(*, stderr: bool = False) -> Console:
    """A rich console; where the output is no terminal, lines are long enough not to be cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 160
    return Console(stderr=stderr, width=width, highlight=False)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> Any:
    """A rich table of plain text; nothing in it is read as markup."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    cells = [["" if value is None else str(value) for value in row] for row in rows]
    for index, column in enumerate(columns):
        numbers = bool(cells) and all(_NUMBER.match(row[index]) for row in cells)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def percent(share: float | None, digits: int = 2) -> str:
    """A share in [0, 1] for people."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def mean_and_sd(values: Sequence[float]) -> str:
    """Accuracies in [0, 1] as `97.15 +- 0.23 %`."""
    from statistics import fmean, stdev

    if not values:
        return ""
    spread = f" +- {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.2f}{spread} %"
