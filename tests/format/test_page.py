"""docs/format.md says what the code does: its tables, its limits, its codes and its example."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import NotRequired, get_origin, get_type_hints

import numpy as np
import pytest

from nirvana.format import masks, reader
from nirvana.format.container import MAX_HEADER_BYTES
from nirvana.format.initial import INITIAL, LAWS, REINIT, SCHEMES, SHUFFLE, words
from nirvana.format.manifest import (
    FORMAT,
    MAX_DESCRIPTION_BYTES,
    OPTIONAL,
    REQUIRED,
    TASK_NAME,
    InitialFields,
    MaskFields,
)
from nirvana.format.ticket import MEDIA_TYPE, Ticket
from nirvana.networks.architecture import MAX_NODES, NODE_NAME
from nirvana.networks.ops import OPS, SAME_AS_KERNEL, Field
from nirvana.networks.ops import REQUIRED as NO_DEFAULT
from tests.format import independent_reader
from tests.format.test_refusals import MANIFEST_CHANGES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")

# A node of each op that has parameters, to ask their names.
EXAMPLES: dict[str, dict[str, object]] = {
    "linear": {"in": 2, "out": 3},
    "conv2d": {"in": 2, "out": 3, "kernel": 3},
    "conv1d": {"in": 2, "out": 3, "kernel": 3},
    "batch_norm": {"channels": 2},
    "layer_norm": {"shape": [2]},
    "embedding": {"tokens": 5, "features": 2},
    "self_attention": {"features": 4, "heads": 2},
}


def table(head: str) -> list[list[str]]:
    """The rows of the one table whose head begins with `head`."""
    (body,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in body.splitlines()]


def names(cells: list[list[str]]) -> list[str]:
    return [row[0].strip("` ") for row in cells]


def shown(name: str, field: Field) -> str:
    """A field as the page writes it."""
    text = f"`{name}`: {field.kind}"
    if field.default is NO_DEFAULT:
        return text
    if field.default is SAME_AS_KERNEL:
        return f"{text} = kernel"
    return f"{text} = {json.dumps(field.default)}"


def test_the_table_of_ops_has_every_op_with_its_fields_and_defaults() -> None:
    rows = {row[0].strip("` "): row[1] for row in table("op")}
    assert list(rows) == list(OPS)
    for op, cell in rows.items():
        fields = OPS[op].fields
        assert cell == (", ".join(shown(name, field) for name, field in fields.items()) or "-")
        assert all(field.least == (0 if name == "padding" else 1) for name, field in fields.items())


@pytest.mark.parametrize("op", list(OPS))
def test_the_table_of_ops_names_every_parameter(op: str) -> None:
    (cell,) = (row[2] for row in table("op") if row[0].strip("` ") == op)
    node = {"name": "x", "op": op} | EXAMPLES.get(op, {})
    assert re.findall(r"`([a-z_.]+)`", cell) == list(OPS[op].parameters(node))


def test_only_batch_norm_has_running_statistics() -> None:
    for op in OPS:
        buffers = list(OPS[op].buffers({"name": "x", "op": op} | EXAMPLES.get(op, {})))
        assert buffers == (["running_mean", "running_var"] if op == "batch_norm" else [])
    assert "`NODE.running_mean` and `NODE.running_var`" in PAGE


def test_the_table_of_laws_is_that_of_the_code() -> None:
    assert sorted(names(table("law"))) == sorted(LAWS)


def test_the_table_of_torchs_constructors_is_that_of_the_code() -> None:
    rows = {row[0].strip("` "): re.findall(r"`([a-z_.]+)` ([a-z_]+)", row[1]) for row in table("layer")}
    assert rows == {name: list(op.torch_inits) for name, op in OPS.items() if op.torch_inits is not None}
    drawn = [f"{word:08x}" for word in np.random.RandomState(5489).randint(0, 2**32, 4, np.uint32)]
    assert f"`{' '.join(drawn)}`" in PAGE


def test_the_limits_are_those_of_the_code() -> None:
    limits = {row[0]: int(re.sub(r"\D", "", row[1])) for row in table("limit")}
    assert limits == {
        "header": MAX_HEADER_BYTES,
        "file": reader.Limits().max_bytes,
        "parameters of the architecture": reader.Limits().max_parameters,
        "nodes of the architecture": MAX_NODES,
        "description": MAX_DESCRIPTION_BYTES,
        "window of a zstd frame": masks._MAX_WINDOW_BYTES,
    }


def test_the_manifests_fields_are_those_of_the_code() -> None:
    fields = {row[0].strip("` "): row[1] for row in table("field")}
    assert [name for name, required in fields.items() if required == "yes"] == list(REQUIRED)
    assert [name for name, required in fields.items() if required == "no"] == list(OPTIONAL)
    initial = {row[0].strip("` "): row[1] for row in table("field of `initial`")}
    hints = get_type_hints(InitialFields, include_extras=True)
    assert set(initial) == set(hints)
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    assert {name for name, required in initial.items() if required != "yes"} == optional
    assert all(f"`{name}`" in PAGE for name in get_type_hints(MaskFields))


def test_the_encodings_are_those_of_the_code() -> None:
    assert tuple(names(table("encoding"))) == masks.ENCODINGS


@pytest.mark.parametrize(
    "text", [FORMAT, MEDIA_TYPE, *SCHEMES, TASK_NAME.pattern, NODE_NAME.pattern, "6627e8d5 e169c58d bc57ac4c"]
)
def test_the_page_has_the_constant(text: str) -> None:
    assert f"`{text}" in PAGE


def test_the_streams_are_those_of_the_code() -> None:
    assert all(f"`0x{stream:X}`" in PAGE for stream in (INITIAL, REINIT, SHUFFLE))


def test_every_code_of_a_refusal_is_explained_and_every_code_explained_exists() -> None:
    explained = names(table("code"))
    assert {code for _, _, code in MANIFEST_CHANGES} <= set(explained)
    files = ("format/reader.py", "format/manifest.py", "format/torch_draws.py", "networks/architecture.py")
    sources = "".join((ROOT / "nirvana" / name).read_text(encoding="utf-8") for name in files)
    assert [code for code in explained if f'"{code}"' not in sources] == []
    assert len(set(explained)) == len(explained)


def example() -> bytes:
    (text,) = re.findall(r"```base64\n(.*?)```", PAGE, re.DOTALL)
    return base64.b64decode(text)


def test_the_example_is_a_ticket_with_the_digest_and_values_that_the_page_says() -> None:
    data = example()
    ticket = Ticket.from_bytes(data)
    assert f"The file has {len(data)} bytes" in PAGE
    assert f"`{ticket.digest}`" in PAGE
    assert ticket.density == 0.5
    assert ticket.masks["fc.weight"].tolist() == [[True, False, True], [False, False, True]]
    values = np.array([[0.3706049, 0, -1.3880934], [0, 0, -1.1920938]], np.float32)
    assert np.array_equal(ticket.initial["fc.weight"], values)
    assert ticket.initial["fc.weight"].tobytes().hex(" ", 4) in PAGE
    drawn = [f"{word:08x}" for word in words(17, 0, INITIAL, np.arange(6))]
    assert f"`{' '.join(drawn[:4])}`" in PAGE
    assert f"`{' '.join(drawn[4:])}`" in PAGE


def test_the_example_is_shown_as_it_is() -> None:
    data = example()
    end = 8 + int.from_bytes(data[:8], "little")
    assert f"`{data[:8].hex(' ')}`: the header has {end - 8} bytes" in PAGE
    assert f"`{data[end:].hex(' ')}`" in PAGE
    header = json.loads(data[8:end])
    manifest = json.loads(header["__metadata__"]["manifest"])
    unfolded = PAGE[PAGE.index("The manifest, unfolded") :]
    (text,) = re.findall(r"```json\n(.*?)```", unfolded, re.DOTALL)
    assert json.loads(text) == manifest


def test_a_reader_made_from_the_page_reads_the_example() -> None:
    content = independent_reader.read(example())
    assert f"`{content['digest']}`" in PAGE
    assert content["density"] == 0.5
