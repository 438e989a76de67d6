"""Boards of a task: its tickets by measured accuracy, and the frontier of accuracy against kept weights.

A frontier costs the same however many tickets there are: kept weights fall into a few hundred classes
(`app.tickets.models.class_of_kept`), an index has the most accurate ticket of each, and the frontier is drawn
among those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, fmean, stdev

from sqlalchemy import ColumnElement, Integer, literal, select, text
from sqlalchemy.orm import Session, aliased

from app.db import Json, is_among
from app.evaluations.service import Measured, headlines
from app.pagination import Page
from app.tasks.service import get_row
from app.tickets.models import ON_BOARD, ORIGINS, Listing, ListingGroup
from app.tickets.search.conditions import Search
from app.tickets.search.counts import SHOWN, count_by
from app.tickets.search.results import load, search_tickets
from nirvana.verification.protocol import BASELINES, CONTROLS, REFERENCE

CLASSES = 320  # of kept weights: up to 2^40
KNOWN = ("attested", "sealed")
MOST_NETWORKS = 20  # whose reference is shown
_T975 = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
)
"""Student's t at 0.975 for 1 to 20 degrees of freedom: the service does without SciPy."""


@dataclass(frozen=True)
class Estimate:
    """A mean accuracy over replicates, with its 95 % interval, which needs two of them at least."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Entry:
    """A listing on a board, with what its evaluation measured.

    Attributes:
        accuracy: None: it was not measured yet. dense, reference: of the baselines of its verification.
        controls: of each control arm, which has as many weights.
        engine: that trained the ticket; "" is not known.
        cost: of the whole verification: `seconds`, `flops` (theoretical, of kept weights) and `trainings`.
    """

    row: Listing
    accuracy: Estimate | None = None
    dense: Estimate | None = None
    reference: Estimate | None = None
    controls: Mapping[str, Estimate] = field(default_factory=dict)
    engine: str = ""
    cost: Json = field(default_factory=dict)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of some accuracies with Student's 95 % interval, cut at 0 and 1; None of none."""
    n = len(values)
    if not n:
        return None
    mean = fmean(values)
    if n == 1:
        return Estimate(mean, None, None, n)
    half = student_975(n - 1) * stdev(values) / math.sqrt(n)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), n)


def student_975(degrees: int) -> float:
    """Return Student's t at 0.975, right to 4 digits beyond the table.

    Reference: the Cornish-Fisher expansion, Abramowitz & Stegun 26.7.5.
    """
    if degrees <= len(_T975):
        return _T975[degrees - 1]
    z = NormalDist().inv_cdf(0.975)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def leaderboard(
    session: Session, name: str, *, limit: int, cursor: str | None, brought_in: bool = False
) -> Page[Listing]:
    """Return the public tickets of a task by measured accuracy; those not measured yet come last.

    Args:
        brought_in: those whose masks were brought in, and copies, as well.

    Raises:
        NotFound: there is no such task.
    """
    get_row(session, name)
    search = Search({"task": name}, sort="accuracy", known_only=not brought_in)
    return search_tickets(session, search, limit=limit, cursor=cursor)


def entries(session: Session, rows: Iterable[Listing]) -> list[Entry]:
    """Return listings with what was measured of them, in their order."""
    listed = list(rows)
    measured = headlines(session, (row.exam_key for row in listed))
    return [_entry(row, measured.get(row.exam_key)) for row in listed]


def _entry(row: Listing, of: Measured | None) -> Entry:
    if of is None or row.accuracy is None:
        return Entry(row)
    arms = {name: one for name, values in of.arms.items() if (one := estimate(values)) is not None}
    cost = {"seconds": of.cost.get("seconds"), "flops": of.cost.get("flops_sparse")}
    return Entry(
        row,
        arms.get("ticket"),
        arms.get("dense"),
        arms.get(REFERENCE),
        {name: arms[name] for name in CONTROLS if name in arms},
        of.engines.get("ticket", ""),
        cost | {"trainings": of.cost.get("trainings")},
    )


def frontier(session: Session, name: str, *, brought_in: bool = False) -> list[Entry]:
    """Return the tickets of a task that no other one beats with as many kept weights or fewer, the smallest
    first: of each class of kept weights the most accurate one is asked.

    Raises:
        NotFound: there is no such task.
    """
    get_row(session, name)
    origins = ORIGINS if brought_in else KNOWN
    ids = [number for origin in origins for number in _best_of_classes(session, name, origin)]
    query = select(Listing.id, Listing.sort_accuracy).where(is_among(session, Listing.id, ids))
    best, front = -math.inf, list[int]()
    for number, accuracy in session.execute(
        query.order_by(Listing.kept, Listing.sort_accuracy.desc(), Listing.id)
    ):
        if accuracy > best:
            best = accuracy
            front.append(number)
    return entries(session, load(session, front))


def _best_of_classes(session: Session, task: str, origin: str) -> Sequence[int]:
    """Return, of each class of kept weights that has any, the id of its most accurate listing."""
    classes = select(literal(0, Integer).label("number")).cte("class", recursive=True)
    following = aliased(classes)
    classes = classes.union_all(select(following.c.number + 1).where(following.c.number < CLASSES - 1))
    of_class = (Listing.task == task, Listing.kept_class == classes.c.number, Listing.origin == origin)
    best = select(Listing.id).where(*of_class, text(ON_BOARD)).correlate(classes)
    first = best.order_by(Listing.sort_accuracy.desc(), Listing.id.desc()).limit(1).scalar_subquery()
    return [number for number in session.scalars(select(first).select_from(classes)) if number is not None]


def references(session: Session, name: str) -> list[Json]:
    """Return the registry's own dense figures on a task: of each network that has verified tickets, most
    tickets first, the pool of its reference recipe, as its newest listing's verification shows it."""
    verified = (*SHOWN, ListingGroup.task == name, ListingGroup.verdict != "")
    networks = count_by(session, "architecture_name", verified, MOST_NETWORKS)
    newest = _find_newest(session, (*verified, ListingGroup.architecture_name.in_(networks)))
    found = {row.id: row for row in load(session, list(newest.values()))}
    rows = [found[newest[network]] for network in networks if network in newest]
    measured = headlines(session, (row.exam_key for row in rows))
    return [shown for row in rows if (shown := _reference(row, measured.get(row.exam_key)))]


def _find_newest(session: Session, conditions: Iterable[ColumnElement[bool]]) -> dict[str, int]:
    """Return network -> the id of its newest listing, of the groups with these conditions."""
    newest = select(Listing.id).where(Listing.group_id == ListingGroup.id).correlate(ListingGroup)
    newest = newest.order_by(Listing.created_at.desc(), Listing.id.desc()).limit(1)
    of_each = select(newest.scalar_subquery().label("id")).where(*conditions).subquery()
    order = (Listing.created_at, Listing.id)
    query = select(Listing.architecture_name, Listing.id).join(of_each, of_each.c.id == Listing.id)
    return dict(session.execute(query.order_by(*order)).all())  # the last one of each is the newest


def _reference(row: Listing, of: Measured | None) -> Json | None:
    """Return the dense figures beside a listing's verdict; None where its protocol had no reference."""
    if of is None or not of.arms.get(REFERENCE):
        return None
    about = {"architecture": row.architecture_name, "total": row.total, "measured_at": of.created_at}
    figures = {arm: estimate(of.arms.get(arm, ())) for arm in BASELINES}
    return about | figures | {"sealed_rows": of.sealed_rows}
