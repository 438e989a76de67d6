"""Kept counts: how many listings there are of each `ListingGroup`, and how many blobs.

Triggers keep them in the transaction that publishes, yanks, verifies or attests, whoever writes, so a list
asks them instead of counting tickets. `migrations/env.py` installs the triggers after every migration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, Connection, func, inspect, select, text
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.tickets.models import ListingGroup

KEY = (
    "task",
    "architecture_name",
    "family",
    "method",
    "verdict",
    "origin",
    "license",
    "visibility",
    "is_yanked",
    "is_copy",
)
_OF_ROW = {"method": "coalesce({}.method, '')", "verdict": "coalesce({}.verdict, '')"}
_OF_ROW["is_yanked"] = "{}.yanked_at IS NOT NULL"
_OF_ROW["visibility"] = "CASE WHEN {0}.quarantined_at IS NULL THEN {0}.visibility ELSE 'hidden' END"
_CHANGING = ", ".join("yanked_at" if name == "is_yanked" else name for name in (*KEY, "quarantined_at"))
_COLUMNS = ", ".join(KEY)


def _values(row: str) -> str:
    """Return the SQL of the key of a row of `ticket`."""
    return ", ".join(_OF_ROW.get(name, f"{{}}.{name}").format(row) for name in KEY)


_TO_GROUP = f"""
    INSERT INTO listing_group ({_COLUMNS}, listings) VALUES ({_values("NEW")}, 1)
        ON CONFLICT ({_COLUMNS}) DO UPDATE SET listings = listings + 1;
    UPDATE ticket SET group_id = (SELECT id FROM listing_group WHERE ({_COLUMNS}) = ({_values("NEW")}))
        WHERE id = NEW.id;"""
_FROM_GROUP = "UPDATE listing_group SET listings = listings - 1 WHERE id = OLD.group_id;"
_LOCK = 0x6E76616E  # of those who count
_BLOB = """
    INSERT INTO blob_count (digit, blobs, size_bytes) VALUES (substr(NEW.digest, 8, 1), 1, NEW.size_bytes)
        ON CONFLICT (digit) DO UPDATE SET blobs = blob_count.blobs + 1,
            size_bytes = blob_count.size_bytes + excluded.size_bytes;"""
_NO_BLOB = """
    UPDATE blob_count SET blobs = blobs - 1, size_bytes = size_bytes - OLD.size_bytes
        WHERE digit = substr(OLD.digest, 8, 1);"""
_SQLITE = {
    "ticket_insert": f"AFTER INSERT ON ticket BEGIN {_TO_GROUP} END",
    "ticket_update": f"AFTER UPDATE OF {_CHANGING} ON ticket BEGIN {_FROM_GROUP} {_TO_GROUP} END",
    "ticket_delete": f"AFTER DELETE ON ticket BEGIN {_FROM_GROUP} END",
    "blob_insert": f"AFTER INSERT ON blob BEGIN {_BLOB} END",
    "blob_delete": f"AFTER DELETE ON blob BEGIN {_NO_BLOB} END",
}
# PostgreSQL fires BEFORE INSERT for rows that a conflict keeps out, too, so AFTER INSERT does the counting.
# It waits until the transaction is about to commit, and then goes one by one: so no writer waits for a count
# while another one waits for what he holds.
_POSTGRES = f"""
CREATE OR REPLACE FUNCTION group_ticket() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    SELECT id INTO NEW.group_id FROM listing_group WHERE ({_COLUMNS}) = ({_values("NEW")});
    IF NEW.group_id IS NULL THEN
        INSERT INTO listing_group ({_COLUMNS}, listings) VALUES ({_values("NEW")}, 0)
            ON CONFLICT ({_COLUMNS}) DO NOTHING;
        SELECT id INTO NEW.group_id FROM listing_group WHERE ({_COLUMNS}) = ({_values("NEW")});
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION count_ticket() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'UPDATE' AND OLD.group_id IS NOT DISTINCT FROM NEW.group_id THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock({_LOCK});
    IF TG_OP <> 'INSERT' THEN
        UPDATE listing_group SET listings = listings - 1 WHERE id = OLD.group_id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE listing_group SET listings = listings + 1 WHERE id = NEW.group_id;
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER ticket_grouped BEFORE INSERT OR UPDATE OF {_CHANGING} ON ticket
    FOR EACH ROW EXECUTE FUNCTION group_ticket();
DROP TRIGGER IF EXISTS ticket_counted ON ticket;
CREATE CONSTRAINT TRIGGER ticket_counted AFTER INSERT OR DELETE OR UPDATE OF {_CHANGING} ON ticket
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_ticket();
CREATE OR REPLACE FUNCTION count_blob() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    PERFORM pg_advisory_xact_lock({_LOCK});
    IF TG_OP = 'INSERT' THEN {_BLOB} ELSE {_NO_BLOB} END IF;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS blob_counted ON blob;
CREATE CONSTRAINT TRIGGER blob_counted AFTER INSERT OR DELETE ON blob
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_blob();
"""


def install_triggers(connection: Connection) -> None:
    """Write the triggers, where there are counts to keep; safe to repeat."""
    if not _has_counts(connection):
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_POSTGRES)
        return
    for name, body in _SQLITE.items():
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS counted_{name}")
        connection.exec_driver_sql(f"CREATE TRIGGER counted_{name} {body}")


def remove_triggers(connection: Connection) -> None:
    """Take the triggers away, so that migrations may change the columns that they name."""
    if not inspect(connection).has_table("listing_group"):
        return
    if connection.dialect.name == "postgresql":
        for name, of in (
            ("ticket_grouped", "ticket"),
            ("ticket_counted", "ticket"),
            ("blob_counted", "blob"),
        ):
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name} ON {of}")
        return
    for name in _SQLITE:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS counted_{name}")


def _has_counts(connection: Connection) -> bool:
    """Tell whether the schema is new enough: an older one may be here for a while, after a downgrade."""
    there = inspect(connection)
    if not there.has_table("listing_group"):
        return False
    return any(column["name"] == "quarantined_at" for column in there.get_columns("ticket"))


def recount(connection: Connection) -> None:
    """Write every count anew, from the listings, where there are counts; safe to repeat."""
    if not _has_counts(connection):
        return
    grouped = f"SELECT {_values('ticket')}, 0 FROM ticket WHERE true GROUP BY {_values('ticket')}"
    same = f"SELECT id FROM listing_group WHERE ({_COLUMNS}) = ({_values('ticket')})"
    listed = "SELECT group_id, count(*) AS listings FROM ticket GROUP BY group_id"
    insert = f"INSERT INTO listing_group ({_COLUMNS}, listings) {grouped}"
    connection.execute(text(f"{insert} ON CONFLICT ({_COLUMNS}) DO NOTHING"))
    connection.execute(text(f"UPDATE ticket SET group_id = ({same}) WHERE coalesce(group_id, 0) <> ({same})"))
    connection.execute(text("UPDATE listing_group SET listings = 0"))
    connection.execute(
        text(
            f"UPDATE listing_group SET listings = counted.listings FROM ({listed}) AS counted "
            "WHERE counted.group_id = listing_group.id"
        )
    )
    connection.execute(text("DELETE FROM blob_count"))
    connection.execute(
        text(
            "INSERT INTO blob_count (digit, blobs, size_bytes) SELECT substr(digest, 8, 1), count(*), "
            "sum(size_bytes) FROM blob GROUP BY substr(digest, 8, 1)"
        )
    )


SHOWN = (ListingGroup.visibility == "public", ListingGroup.is_yanked.is_(False))
"""The conditions of the groups that a list shows."""


def count_by(
    session: Session, name: str, conditions: Iterable[ColumnElement[bool]], limit: int | None = None
) -> dict[str, int]:
    """Count listings by the value of a column of the groups, the most frequent ones first.

    Args:
        name: of ListingGroup's column.
        conditions: of the groups that count.
        limit: the most values to give; None: all.
    """
    column: InstrumentedAttribute[str] = getattr(ListingGroup, name)
    count = func.sum(ListingGroup.listings)
    query = select(column, count).where(*conditions, ListingGroup.listings > 0).group_by(column)
    rows = session.execute(query.order_by(count.desc(), column).limit(limit))
    return {value: int(number) for value, number in rows}


def find_groups(
    session: Session, conditions: Iterable[ColumnElement[bool]], most: int
) -> tuple[Sequence[int], int]:
    """Return the ids of the groups that fulfil the conditions, at most so many, and their listings in all."""
    total = func.sum(ListingGroup.listings).over()
    query = select(ListingGroup.id, total).where(*conditions, ListingGroup.listings > 0).limit(most)
    rows = session.execute(query).all()
    return [number for number, _ in rows], int(rows[0][1]) if rows else 0
