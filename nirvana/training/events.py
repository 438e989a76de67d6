"""Progress events, and the reporter that carries them out of long work and the wish to stop into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nirvana.errors import Cancelled

Event = dict[str, Any]  # {"kind", "done", "total", "message", ...}, JSON-able
OnProgress = Callable[[Event], None]
ShouldStop = Callable[[], bool]
Point = tuple[int, float | None, float, float]  # step, training loss, validation loss, validation accuracy

SECONDS_BETWEEN_POINTS = 0.05


@dataclass(frozen=True)
class Reporter:
    """The listeners of a piece of work: to its progress, and to whether it should stop. By default nobody.

    Attributes:
        on_progress: called with each event.
        should_stop: asked before every update or round.
        fields: put into each event, over its own.
    """

    on_progress: OnProgress | None = None
    should_stop: ShouldStop | None = None
    fields: Mapping[str, object] = field(default_factory=dict)

    def report(self, event: Event) -> None:
        """Pass an event on."""
        if self.on_progress:
            self.on_progress(event | dict(self.fields))

    def check_stop(self, where: str, *places: object) -> None:
        """Stop here if asked to.

        Args:
            where: how far the work is, such as `at step {} of {}`, to be formatted with `places`.

        Raises:
            Cancelled: `should_stop` said so.
        """
        if self.should_stop and self.should_stop():
            raise Cancelled(f"cancelled {where.format(*places)}")

    def within(self, **fields: object) -> Reporter:
        """Return a reporter of a part of this work, whose events carry these fields too."""
        return Reporter(self.on_progress, self.should_stop, {**fields, **self.fields})

    @property
    def silent(self) -> Reporter:
        """The same wish to stop, but nobody hears of progress."""
        return Reporter(None, self.should_stop)


SILENT = Reporter()


def point_event(point: Point, first_step: int, steps: int) -> Event:
    """Return the event of one evaluation on the validation data."""
    step, train_loss, loss, accuracy = point
    return {
        "kind": "point",
        "done": step - first_step,
        "total": steps - first_step,
        "message": f"step {step}: validation loss {loss:.4f}, accuracy {accuracy:.4f}",
        "step": step,
        "train_loss": train_loss,
        "validation_loss": loss,
        "validation_accuracy": accuracy,
    }
