"""Progress on stderr: bars and a live table on a terminal, one line a level elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from nirvana import environment
from nirvana.cli.output import Output, console, make_table, percent

_COLUMNS = ("level", "density", "kept", "test accuracy", "early stop", "seconds")
# Events of these kinds move a bar of their own; `point` and `step` are the steps of one training.
_BARS = {"level": "levels", "arm": "arms", "progress": "job", "download": "download"}


class Watch:
    """Shows events as they come: {"kind", "done", "total", "message", ...}. Call it with each one.

    Nothing is shown when quiet; NIRVANA_DISABLE_PROGRESS_BARS or a stderr that is no terminal leaves one
    line for each finished level or arm.
    """

    def __init__(self, output: Output, title: str = "") -> None:
        self._output, self._title = output, title
        self._levels: dict[int, tuple[str, ...]] = {}
        self._bars: dict[str, Any] = {}
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

    def __call__(self, event: dict[str, Any]) -> None:
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
        on = console(stderr=True)
        self._progress = Progress(*columns, console=on)
        self._live = Live(self._view(), console=on, refresh_per_second=8, transient=True)
        self._live.start()

    def _show(self, event: dict[str, Any]) -> None:
        name = _BARS.get(str(event.get("kind")), "steps")
        done, total = event.get("done"), event.get("total")
        if done is not None:
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=None, message="")
            said = str(event.get("message", ""))
            self._progress.update(self._bars[name], completed=done, total=total or None, message=said)
        self._live.update(self._view())

    def _view(self) -> Any:
        from rich.console import Group

        if not self._levels:
            return self._progress
        rows = [self._levels[level] for level in sorted(self._levels)]
        return Group(make_table(_COLUMNS, rows, self._title or None), self._progress)


def _level_line(event: dict[str, Any]) -> str:
    accuracy = percent(event.get("early_stop_test_accuracy"))
    return f"level {event['level']}: density {percent(event['density'])}, test accuracy {accuracy}"


def _level_row(event: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(event["level"]),
        percent(event["density"]),
        str(event.get("kept", "")),
        percent(event.get("early_stop_test_accuracy")),
        str(event.get("early_stop_step", "")),
        f"{event['seconds']:.1f}" if "seconds" in event else "",
    )
