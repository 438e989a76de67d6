"""Metrics in Prometheus' text form: requests as they come, and what the database says when it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from app.db import Database

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@dataclass(frozen=True)
class Gauge:
    """A number of things now, by label.

    Attributes:
        label: what `values` is keyed by; "": a single value under the key "".
    """

    name: str
    help: str
    label: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


Reader = Callable[[Session], Iterable[Gauge]]


class _DatabaseCollector(Collector):
    """Gauges that features read from the database when metrics are asked for."""

    def __init__(self, database: Database, readers: Iterable[Reader]) -> None:
        self.database, self.readers = database, tuple(readers)

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # so that registering needs no database

    def collect(self) -> Iterable[GaugeMetricFamily]:
        with self.database.read() as session:
            for gauge in (gauge for read in self.readers for gauge in read(session)):
                family = GaugeMetricFamily(
                    gauge.name, gauge.help, labels=[gauge.label] if gauge.label else []
                )
                for key, value in gauge.values.items():
                    family.add_metric([key] if gauge.label else [], value)
                yield family


class Metrics:
    """What one app counts."""

    def __init__(self, database: Database, readers: Iterable[Reader]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nirvana_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "nirvana_request_seconds", "Time to answer", ["route"], buckets=BUCKETS, registry=self.registry
        )
        self.registry.register(_DatabaseCollector(database, readers))

    def text(self) -> bytes:
        """Everything, in Prometheus' text form."""
        return generate_latest(self.registry)
