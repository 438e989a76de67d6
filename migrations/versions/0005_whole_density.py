"""Density counts the whole network's weights, all kept parameters stand beside it, and a ticket has a
fingerprint and a sketch: the same for every order of its units, so that copies are found.

What old rows need lies in their manifests and layers. Their fingerprints need the files, and stay empty until
the same ticket is published again or `python -m app fingerprint` reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TICKET = sa.table(
    "ticket",
    *(
        sa.column(name)
        for name in ("id", "density", "kept", "total", "parameters", "kept_parameters", "version")
    ),
    sa.column("manifest", sa.JSON()),
    sa.column("layers", sa.JSON()),
)
Layers = list[dict[str, Any]]


def upgrade() -> None:
    with op.batch_alter_table("ticket") as ticket:
        ticket.add_column(sa.Column("kept_parameters", sa.BigInteger(), nullable=True))
        ticket.add_column(sa.Column("fingerprint", sa.String(length=71), nullable=True))
        ticket.create_index("ix_ticket_fingerprint_id", ["fingerprint", "id"], unique=False)
    op.create_table(
        "ticket_sketch",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("ticket_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["ticket_id"], ["ticket.id"], name=op.f("fk_ticket_sketch_ticket_id_ticket")),
        sa.PrimaryKeyConstraint("number", "ticket_id", name=op.f("pk_ticket_sketch")),
    )
    op.create_index("ix_ticket_sketch_ticket_id", "ticket_sketch", ["ticket_id"], unique=False)
    _recount(_whole)
    with op.batch_alter_table("ticket") as ticket:
        ticket.alter_column("kept_parameters", existing_type=sa.BigInteger(), nullable=False)


def downgrade() -> None:
    _recount(_prunable)
    op.drop_table("ticket_sketch")
    with op.batch_alter_table("ticket") as ticket:
        ticket.drop_index("ix_ticket_fingerprint_id")
        ticket.drop_column("fingerprint")
        ticket.drop_column("kept_parameters")


def _recount(layers_of: Any) -> None:
    """Give each listing the counts of the layers that a function lists for it, one row at a time."""
    connection = op.get_bind()
    for (number,) in connection.execute(sa.select(TICKET.c.id).order_by(TICKET.c.id)).all():
        row = connection.execute(sa.select(TICKET).where(TICKET.c.id == number)).mappings().one()
        layers, counted = layers_of(row["manifest"], row["layers"])
        kept, total = (sum(layer[key] for layer in counted) for key in ("kept", "total"))
        values = {"kept": kept, "total": total, "density": kept / total if total else 1.0, "layers": layers}
        values["version"] = row["version"] + 1
        values["kept_parameters"] = row["parameters"] - sum(x["total"] - x["kept"] for x in row["layers"])
        connection.execute(sa.update(TICKET).where(TICKET.c.id == number).values(values))


def _whole(manifest: Mapping[str, Any], layers: Layers) -> tuple[Layers, Layers]:
    """List every weight and every other prunable parameter; count the weights."""
    known = {layer["name"]: layer for layer in layers}
    weights = dict(_weights(manifest["architecture"]["nodes"]))
    whole = {name: _whole_layer(name, shape) for name, shape in weights.items()}
    order = _parameter_order(manifest["architecture"]["nodes"])
    listed = sorted((whole | known).values(), key=lambda layer: order[layer["name"]])
    return listed, [layer for layer in listed if layer["name"] in weights]


def _prunable(manifest: Mapping[str, Any], layers: Layers) -> tuple[Layers, Layers]:
    """List and count the prunable parameters."""
    prunable = set(manifest["prunable"])
    listed = [layer for layer in layers if layer["name"] in prunable]
    return listed, listed


def _whole_layer(name: str, shape: list[int]) -> dict[str, Any]:
    size = math.prod(shape)
    return {"name": name, "shape": shape, "kept": size, "total": size, "density": 1.0}


def _weights(nodes: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, list[int]]]:
    """Yield the weights of layers with their shapes, as format 1 had them (docs/format.md, section 2)."""
    for node in nodes:
        name, features = node["name"], node.get("features", 0)
        if node["op"] == "linear":
            yield f"{name}.weight", [node["out"], node["in"]]
        elif node["op"] in ("conv1d", "conv2d"):
            kernel, sides = node["kernel"], int(node["op"][4])
            cells = [kernel] * sides if isinstance(kernel, int) else list(kernel)
            yield f"{name}.weight", [node["out"], node["in"] // node.get("groups", 1), *cells]
        elif node["op"] == "embedding":
            yield f"{name}.weight", [node["tokens"], features]
        elif node["op"] == "self_attention":
            yield f"{name}.in_proj.weight", [3 * features, features]
            yield f"{name}.out_proj.weight", [features, features]


def _parameter_order(nodes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the place of every matrix among the parameters."""
    suffixes = ("weight", "in_proj.weight", "out_proj.weight")
    names = (f"{node['name']}.{suffix}" for node in nodes for suffix in suffixes)
    return {name: place for place, name in enumerate(names)}
