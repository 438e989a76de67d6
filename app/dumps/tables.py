"""Tables of a dump in columns (Parquet), for whoever asks questions of all tickets at once.

Columns have fixed types; what is an object in the JSON lines is its JSON as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from app.db import Json

ROWS_AT_ONCE = 5_000
_TEXTS = ("owner", "name", "digest", "fingerprint", "origin", "task", "architecture", "family", "method")
_MORE_TEXTS = ("initial", "license", "verdict", "protocol", "parent", "job_id", "yank_reason", "yank_detail")
_INSTANTS = ("evaluated_at", "created_at", "yanked_at")
_WHOLE = ("listing", "level", "kept", "total", "kept_parameters", "parameters", "flops", "rewind_step")
_REAL = ("density", "accuracy", "accuracy_gap", "compression")

TICKET_COLUMNS: Mapping[str, str] = (
    dict.fromkeys((*_TEXTS, *_MORE_TEXTS, "description", "card", "file_sha256", "exam"), "string")
    | dict.fromkeys(_INSTANTS, "string")
    | dict.fromkeys((*_WHOLE, "replicates", "size_bytes"), "int64")
    | dict.fromkeys(_REAL, "float64")
    | dict.fromkeys(("tags", "manifest"), "json")
)
EVALUATION_COLUMNS: Mapping[str, str] = (
    dict.fromkeys(
        ("ticket", "exam", "job_id", "task", "protocol", "verdict", "reason", "created_at"), "string"
    )
    | dict.fromkeys(("id", "replicates"), "int64")
    | dict.fromkeys(("margin", "accuracy", "accuracy_sd", "dense_accuracy"), "float64")
    | {"arms": "json"}
)


def write_parquet(path: Path, items: Iterable[Json], columns: Mapping[str, str]) -> int:
    """Write items as rows; return how many there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"string": pa.string(), "json": pa.string(), "int64": pa.int64(), "float64": pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
    count, rows = 0, (dict(_row(item, columns)) for item in items)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(batch, schema))
            count += len(batch)
    return count


def _row(item: Json, columns: Mapping[str, str]) -> Iterator[tuple[str, object]]:
    for name, kind in columns.items():
        value = item.get(name)
        yield name, json.dumps(value) if kind == "json" else value
