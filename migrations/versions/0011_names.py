"""Names that cannot be taken for others: an account's skeleton, and networks under their owner's name.

Of accounts that look alike already the oldest keeps the skeleton. A network that is not the zoo's of its name
is listed as `owner/name` from now on; one that only private tickets have is named by its digest.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from app.accounts.names import skeleton
from nirvana.errors import InvalidArchitecture, NotFound
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

LONGEST = 200
ACCOUNT = sa.table("account", *map(sa.column, ("id", "name", "skeleton")))
TICKET = sa.table(
    "ticket",
    *map(sa.column, ("id", "owner_id", "architecture_id", "architecture_name", "family", "visibility")),
)
GRAPH = sa.table(
    "architecture", *map(sa.column, ("id", "digest", "name", "family")), sa.column("graph", sa.JSON)
)


def upgrade() -> None:
    with op.batch_alter_table("account") as account:
        account.add_column(sa.Column("skeleton", sa.String(length=80), nullable=True))
    connection = op.get_bind()
    seen = set[str]()
    accounts = sa.select(ACCOUNT.c.id, ACCOUNT.c.name).order_by(ACCOUNT.c.id)
    for number, name in connection.execute(accounts).all():
        shape = skeleton(name)
        if shape not in seen:
            connection.execute(sa.update(ACCOUNT).where(ACCOUNT.c.id == number).values(skeleton=shape))
        seen.add(shape)
    with op.batch_alter_table("account") as account:
        account.create_unique_constraint(op.f("uq_account_skeleton"), ["skeleton"])
    graphs = sa.select(GRAPH.c.id, GRAPH.c.digest, GRAPH.c.graph)
    for number, digest, graph in connection.execute(graphs).all():
        _bind(connection, number, digest, graph)


def _bind(connection: sa.Connection, number: int, digest: str, graph: dict[str, object]) -> None:
    """Put owners' names before the names of a graph that are not the zoo's, and name its row by them."""
    of_graph = TICKET.c.architecture_id == number
    names = connection.scalars(sa.select(TICKET.c.architecture_name).where(of_graph).distinct()).all()
    zoos = [name for name in names if _is_zoos(graph, name, digest)]
    owner = sa.select(ACCOUNT.c.name).where(ACCOUNT.c.id == TICKET.c.owner_id).scalar_subquery()
    bound = {
        name: sa.func.substr(owner + "/" + TICKET.c[name], 1, LONGEST)
        for name in ("architecture_name", "family")
    }
    others = sa.update(TICKET).where(of_graph, TICKET.c.architecture_name.not_in(zoos))
    connection.execute(others.values(bound))
    shown = sa.select(TICKET.c.architecture_name, TICKET.c.family).where(of_graph)
    if zoos:
        shown = shown.where(TICKET.c.architecture_name.in_(zoos))
    else:
        shown = shown.where(TICKET.c.visibility == "public")
    first = connection.execute(shown.order_by(TICKET.c.id).limit(1)).one_or_none() or (digest, digest)
    values = dict(zip(("name", "family"), first, strict=True))
    connection.execute(sa.update(GRAPH).where(GRAPH.c.id == number).values(values))


def _is_zoos(graph: dict[str, object], name: str, digest: str) -> bool:
    architecture = Architecture.from_manifest(graph)
    try:
        return zoo.build(name, architecture.input, architecture.output_shape[-1]).digest == digest
    except (NotFound, InvalidArchitecture):
        return False


def downgrade() -> None:
    with op.batch_alter_table("account") as account:
        account.drop_constraint(op.f("uq_account_skeleton"), type_="unique")
        account.drop_column("skeleton")
