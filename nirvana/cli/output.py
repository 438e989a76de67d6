"""The output of every verb: JSON or a table on stdout; talk, progress and one line for an error on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated

import typer

from nirvana import environment
from nirvana import errors as tree
from nirvana.errors import NirvanaError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import TaskID
    from rich.table import Table

    from nirvana.training.events import Event

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No talk and no progress.")]

_NUMBER = re.compile(r"(-?[\d.]+( \+- [\d.]+)?( %)?)?\Z")
_LEVEL_COLUMNS = ("level", "density", "kept", "test accuracy", "early stop", "seconds")
# Events of these kinds move a bar of their own; `point` and `step` are the steps of one training.
_BARS = {"level": "levels", "arm": "arms", "progress": "job", "download": "download"}

# The first line that fits decides.
_EXIT_CODES: tuple[tuple[int, tuple[type[NirvanaError], ...]], ...] = (
    (4, (tree.InvalidTicket, tree.InvalidSignature, tree.DataDamaged)),
    (2, (tree.Invalid, tree.Malformed)),
    (3, (tree.NotFound, tree.Gone)),
    (5, (tree.NetworkError, tree.Unavailable)),
    (6, (tree.VerdictNotReached,)),
    (130, (tree.Cancelled,)),
    (4, (tree.Conflict, tree.Unauthenticated, tree.Forbidden, tree.TooLarge, tree.UnsupportedMedia)),
    (4, (tree.PreconditionFailed, tree.RangeNotSatisfiable, tree.QuotaExceeded)),
)


def exit_code(error: NirvanaError) -> int:
    """Return the exit code that an error leaves with."""
    return next((code for code, kinds in _EXIT_CODES if isinstance(error, kinds)), 1)


def report_error(error: NirvanaError, as_json: bool) -> int:
    """Print an error, in one line on stderr and as a problem on stdout with --json; return its exit code."""
    if as_json:
        print(json.dumps(error.to_dict(), default=str))
    print(f"nirvana: {error.detail}", file=sys.stderr)
    for problem in error.errors:
        if problem.detail not in error.detail:
            print(f"  {problem.pointer}: {problem.detail} [{problem.code}]", file=sys.stderr)
    return exit_code(error)


@dataclass(frozen=True)
class Output:
    """The form in which a verb prints.

    Attributes:
        json: data as JSON.
        quiet: no talk and no progress.
    """

    json: bool = False
    quiet: bool = False

    def data(self, value: object, human: Callable[[], None]) -> None:
        """Print the verb's result: `value` as JSON, or in the form that `human` prints."""
        if self.json:
            print(json.dumps(value, indent=2, default=str))
        else:
            human()

    def say(self, text: str) -> None:
        """Print talk to stderr, unless quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None
    ) -> None:
        """Print a table on stdout; columns of numbers are aligned to the right."""
        console().print(make_table(columns, rows, title))


def console(*, stderr: bool = False) -> Console:
    """Return a rich console; where the output is no terminal, lines are long enough not to be cut."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else 160
    return Console(stderr=stderr, width=width, highlight=False)


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> Table:
    """Return a rich table of plain text; nothing in it is read as markup."""
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
    """Format a share in [0, 1] as a percentage; none as nothing."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def mean_and_sd(values: Sequence[float]) -> str:
    """Format accuracies in [0, 1] as `97.15 +- 0.23 %`, mean and standard deviation."""
    from statistics import fmean, stdev

    if not values:
        return ""
    spread = f" +- {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.2f}{spread} %"


class Watch:
    """The progress of long work, shown on stderr: call it with each event, {"kind", "done", "total", ...}.

    Nothing is shown when quiet; NIRVANA_DISABLE_PROGRESS_BARS or a stderr that is no terminal leaves one
    line for each finished level or arm.

    Args:
        title: of the table of levels.
    """

    def __init__(self, output: Output, title: str = "") -> None:
        self._output, self._title = output, title
        self._levels: dict[int, tuple[str, ...]] = {}
        self._bars: dict[str, TaskID] = {}
        self._last_line = ""
        self._is_live = not output.quiet and sys.stderr.isatty() and not environment.are_bars_disabled()

    def __enter__(self) -> Watch:
        if self._is_live:
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if event.get("kind") == "level" and "density" in event:
            self._levels[int(event["level"])] = _level_row(event)
        if self._is_live:
            self._show(event)
        elif event.get("kind") in ("level", "arm"):
            self._say(event.get("message") or _level_line(event))

    def _say(self, line: str) -> None:
        if line != self._last_line:
            self._output.say(line)
        self._last_line = line

    def _start(self) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[message]}", markup=False),
        )
        stderr = console(stderr=True)
        self._progress = Progress(*columns, console=stderr)
        self._live = Live(self._view(), console=stderr, refresh_per_second=8, transient=True)
        self._live.start()

    def _show(self, event: Event) -> None:
        name = _BARS.get(str(event.get("kind")), "steps")
        done, total = event.get("done"), event.get("total")
        if done is not None:
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=None, message="")
            message = str(event.get("message", ""))
            self._progress.update(self._bars[name], completed=done, total=total or None, message=message)
        self._live.update(self._view())

    def _view(self) -> RenderableType:
        from rich.console import Group

        if not self._levels:
            return self._progress
        rows = [self._levels[level] for level in sorted(self._levels)]
        return Group(make_table(_LEVEL_COLUMNS, rows, self._title or None), self._progress)


def _level_line(event: Event) -> str:
    accuracy = percent(event.get("early_stop_test_accuracy"))
    return f"level {event['level']}: density {percent(event['density'])}, test accuracy {accuracy}"


def _level_row(event: Event) -> tuple[str, ...]:
    return (
        str(event["level"]),
        percent(event["density"]),
        str(event.get("kept", "")),
        percent(event.get("early_stop_test_accuracy")),
        str(event.get("early_stop_step", "")),
        f"{event['seconds']:.1f}" if "seconds" in event else "",
    )
