"""Logs and metrics.

Logs are one JSON object a line on stderr; no header, no query string and no body is ever logged. Metrics have
Prometheus' text form: requests as they come, and gauges that are read from the database when asked for.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from app.db import Database

LOG_FIELDS = ("request_id", "method", "path", "status", "seconds", "client", "job_id")
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in LOG_FIELDS if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logs(level: str) -> None:
    """Send every log of this process to stderr as JSON, from `level` on."""
    out = logging.StreamHandler(sys.stderr)
    out.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[out], force=True)
    logging.getLogger("uvicorn.access").disabled = True  # `app.middleware` logs requests, without their query


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
    """The counters of one app."""

    def __init__(self, database: Database, readers: Iterable[Reader]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nirvana_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "nirvana_request_seconds", "Time to answer", ["route"], buckets=BUCKETS, registry=self.registry
        )
        self._gauges = _DatabaseCollector(database, readers)
        self.registry.register(self._gauges)

    def text(self) -> bytes:
        """Return every metric in Prometheus' text form: of all processes, where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self.registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        shared.register(self._gauges)
        return generate_latest(shared)
