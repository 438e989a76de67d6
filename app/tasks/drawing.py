"""The picture of a frontier: accuracy upwards, kept weights to the right by their logarithm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.tasks.boards import Entry, Estimate

WIDTH, HEIGHT = 600, 240
FINE_ABOVE = 0.75  # of the lowest accuracy that is drawn: lines at each 5 %, else at each 25 %


@dataclass(frozen=True)
class Mark:
    """A place in the picture; `top` and `bottom` are the ends of its interval, `text` its tooltip."""

    kind: str
    text: str
    x: float
    y: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Drawing:
    """A frontier as marks, its line, and the places and texts of the ticks."""

    marks: list[Mark]
    line: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class _Scale:
    """From weights and accuracies to places: powers of ten `left` to `right`, accuracies from `lowest` up."""

    left: int
    right: int
    lowest: float

    def x(self, weights: int) -> float:
        share = (math.log10(max(1, weights)) - self.left) / (self.right - self.left)
        return round(WIDTH * share, 1)

    def y(self, accuracy: float) -> float:
        share = (max(self.lowest, accuracy) - self.lowest) / (1 - self.lowest)
        return round(HEIGHT * (1 - share), 1)


def draw(points: Sequence[Entry]) -> Drawing | None:
    """Return the picture of a frontier with its dense networks and its controls; None of no points."""
    figures = list(_figures(points))
    if not figures:
        return None
    powers = [math.log10(max(1, weights)) for _, _, weights, _ in figures]
    least = min(one.mean if one.low is None else one.low for kind, _, _, one in figures if kind != "control")
    scale = _Scale(math.floor(min(powers)), math.floor(max(powers)) + 1, math.floor(least * 19.9) / 20)
    marks = [_mark(scale, *figure) for figure in figures]
    line = " ".join(f"{mark.x},{mark.y}" for mark in marks if mark.kind == "ticket")
    x_ticks = [(scale.x(10**power), f"{10**power:,}") for power in range(scale.left, scale.right + 1)]
    step = 5 if scale.lowest >= FINE_ABOVE else 25
    percents = range(step * math.ceil(round(100 * scale.lowest) / step), 101, step)
    return Drawing(marks, line, x_ticks, [(scale.y(one / 100), f"{one} %") for one in percents])


def _figures(points: Sequence[Entry]) -> Iterator[tuple[str, str, int, Estimate]]:
    """Yield kind, text, weights and accuracy of all that is drawn, the frontier in its order."""
    dense: dict[tuple[str, int], Estimate] = {}
    for point in points:
        row = point.row
        if point.accuracy is not None:
            yield "ticket", f"{row.owner.name}/{row.name}", row.kept, point.accuracy
        if point.dense is not None:
            dense.setdefault((row.architecture_name, row.total), point.dense)
        for name, control in point.controls.items():
            yield "control", f"{name} of {row.name}", row.kept, control
    for (network, total), one in dense.items():
        yield "dense", f"dense {network}", total, one


def _mark(scale: _Scale, kind: str, text: str, weights: int, one: Estimate) -> Mark:
    top, bottom = (one.mean if end is None else end for end in (one.high, one.low))
    return Mark(kind, text, scale.x(weights), scale.y(one.mean), scale.y(top), scale.y(bottom))
