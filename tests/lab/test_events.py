"""The reporter: events out of long work, and the wish to stop into it."""

from __future__ import annotations

from typing import Any

import pytest

from nirvana.errors import Cancelled
from nirvana.training.events import SILENT, Reporter, point_event


def test_events_reach_the_listener_with_the_reporters_fields_over_their_own() -> None:
    events = list[dict[str, Any]]()
    reporter = Reporter(events.append).within(level=2)
    event = {"kind": "point", "level": 9}
    reporter.report(event)
    assert events == [{"kind": "point", "level": 2}]
    assert event == {"kind": "point", "level": 9}, "the sender's event is its own"


def test_the_whole_names_its_parts_and_not_the_other_way_round() -> None:
    """A part that reports by the same field as the whole does not hide which part of the whole it is."""
    events = list[dict[str, Any]]()
    whole = Reporter(events.append).within(arm="ticket")
    whole.within(replicate=3).within(arm="inner", replicate=0, level=1).report({"kind": "point"})
    whole.report({"kind": "arm"})
    assert events == [
        {"kind": "point", "arm": "ticket", "replicate": 3, "level": 1},
        {"kind": "arm", "arm": "ticket"},
    ]


def test_a_wish_to_stop_names_the_place_and_reaches_every_part() -> None:
    asked = list[int]()

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > 2

    reporter = Reporter(None, should_stop)
    reporter.check_stop("at training step {} of {}", 1, 20)
    reporter.within(level=1).check_stop("at training step {} of {}", 2, 20)
    with pytest.raises(Cancelled, match=r"^cancelled at training step 3 of 20$"):
        reporter.silent.check_stop("at training step {} of {}", 3, 20)
    assert len(asked) == 3, "each is asked once"


def test_silence_hears_nothing_and_still_stops() -> None:
    events = list[dict[str, Any]]()
    silent = Reporter(events.append, lambda: True).within(level=1).silent
    silent.report({"kind": "point"})
    silent.within(arm="dense").report({"kind": "point"})
    assert events == []
    with pytest.raises(Cancelled):
        silent.check_stop("here")


def test_nobody_listens_and_nobody_stops_by_default() -> None:
    SILENT.report({"kind": "point"})
    SILENT.check_stop("at {}", 1)
    assert Reporter() == SILENT


def test_a_points_event_counts_from_the_first_step() -> None:
    event = point_event((15, 0.5, 0.25, 0.75), 10, 30)
    assert (event["kind"], event["done"], event["total"], event["step"]) == ("point", 5, 20, 15)
    assert event["message"] == "step 15: validation loss 0.2500, accuracy 0.7500"
    assert (event["train_loss"], event["validation_loss"], event["validation_accuracy"]) == (0.5, 0.25, 0.75)
