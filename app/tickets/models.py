"""Tables of tickets. A row is a listing: one owner/name that names one ticket for ever."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship

from app.accounts.models import Account
from app.db import Base, Exact, Json, UtcDateTime, one_of, utc_now
from app.evaluations.models import UNMEASURED, UNMEASURED_BAND
from nirvana.networks.architecture import Architecture

ORDERS = ("sort_accuracy", "sort_gap", "density", "kept", "created_at", "downloads", "speedup")
"""Columns that lists go by: each has an index by itself, by task and by group (`ListingGroup`)."""
VISIBILITIES = ("public", "private")
IS_PRIVATE = text("visibility = 'private'")
"""Of a listing: as text, because neither database takes the index `ix_ticket_private` for a parameter."""
INITIAL_KINDS = ("seeded", "stored")
ORIGINS = ("attested", "sealed", "brought-in")
THINNEST_BAND = 60
CLASSES_OF_TWO = 8  # of kept weights: each class has 9 % more than the one before
ON_BOARD = "visibility = 'public' AND yanked_at IS NULL AND NOT is_copy AND accuracy IS NOT NULL"
"""SQL: the listings of an index of their own, which the frontier asks in these very words."""
YANK_REASONS = ("broken", "duplicate", "license", "privacy", "superseded", "withdrawn", "other")


def band_of_density(density: float) -> int:
    """Return the coarse band of a density: each is thinner than the one before by the square root of 2."""
    return min(THINNEST_BAND, math.floor(-2 * math.log2(density))) if density > 0 else THINNEST_BAND


def class_of_kept(kept: int) -> int:
    """Return the class of a number of kept weights, 0 for 1 and `CLASSES_OF_TWO` more for twice as many."""
    return math.floor(CLASSES_OF_TWO * math.log2(max(1, kept)))


def _own_class(context: Any) -> int:
    return class_of_kept(context.get_current_parameters()["kept"])


def bytes_to_train(kept_parameters: int, kept: int) -> int:
    """Return what training keeps: each parameter with its gradient and Adam's two moments, in 4 bytes each,
    and where each weight stands. The examples of a batch come on top."""
    return 16 * kept_parameters + 4 * kept


class Blob(Base):
    """A file in the blob store that some row needs."""

    __tablename__ = "blob"
    __table_args__ = (UniqueConstraint("digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(String(71))
    """sha256:hex of the bytes."""
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    media_type: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Listing(Base):
    """A listing of a ticket. Statistics are computed from the file; verdict and accuracy from evaluations."""

    __tablename__ = "ticket"
    __table_args__ = (
        UniqueConstraint("owner_id", "name"),
        one_of("visibility", VISIBILITIES),
        one_of("initial_kind", INITIAL_KINDS),
        one_of("yank_reason", YANK_REASONS),
        one_of("origin", ORIGINS),
        *(Index(f"ix_ticket_{name}_id", name, "id") for name in ORDERS),
        *(Index(f"ix_ticket_task_{name}_id", "task", name, "id") for name in ORDERS),
        *(Index(f"ix_ticket_group_id_{name}_id", "group_id", name, "id") for name in ORDERS),
        Index("ix_ticket_task_accuracy_band_kept_id", "task", "accuracy_band", "kept", "id"),
        Index("ix_ticket_task_density_band_sort_accuracy_id", "task", "density_band", "sort_accuracy", "id"),
        Index(
            "ix_ticket_board",
            "task",
            "kept_class",
            "origin",
            "sort_accuracy",
            "id",
            sqlite_where=text(ON_BOARD),
            postgresql_where=text(ON_BOARD),
        ),
        Index("ix_ticket_owner_id_created_at_id", "owner_id", "created_at", "id"),
        Index("ix_ticket_fingerprint_id", "fingerprint", "id"),
        Index("ix_ticket_private", "owner_id", sqlite_where=IS_PRIVATE, postgresql_where=IS_PRIVATE),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    name: Mapped[str] = mapped_column(String(100))
    digest: Mapped[str] = mapped_column(String(71), index=True)
    exam_key: Mapped[str] = mapped_column(String(64), index=True)
    """`app.evaluations.service.exam_key`: the listing's verdict is that of this exam alone."""
    fingerprint: Mapped[str | None] = mapped_column(String(71))
    """The same for every order of the ticket's units; None where an op has no rule for it."""
    visibility: Mapped[str] = mapped_column(String(10), default="public")
    group_id: Mapped[int | None] = mapped_column(ForeignKey("listing_group.id"))
    """Of its `ListingGroup`; a trigger keeps it (`app.tickets.search.counts`)."""
    is_copy: Mapped[bool] = mapped_column(default=False)
    """An earlier public listing that is not yanked is of the same ticket, in whatever order of its units."""
    origin: Mapped[str] = mapped_column(String(12))
    """Where its mask came from: `attested` by the registry's own search, `sealed`: of a task with rows that
    nobody has seen, or `brought-in`."""
    blob_id: Mapped[int] = mapped_column(ForeignKey("blob.id"), index=True)
    job_id: Mapped[str | None] = mapped_column(String(40), index=True)
    """The job that found it; no foreign key, because a job's row may be purged and its tickets stay."""

    task: Mapped[str] = mapped_column(String(100))
    architecture_id: Mapped[int] = mapped_column(ForeignKey("architecture.id"), index=True)
    architecture_name: Mapped[str] = mapped_column(String(200))
    family: Mapped[str] = mapped_column(String(200))
    method: Mapped[str | None] = mapped_column(String(100))
    level: Mapped[int | None]
    parent_digest: Mapped[str | None] = mapped_column(String(71), index=True)
    license: Mapped[str] = mapped_column(String(200))
    description: Mapped[str | None] = mapped_column(Text)
    initial_kind: Mapped[str] = mapped_column(String(10))
    rewind_step: Mapped[int] = mapped_column(BigInteger)
    density: Mapped[float]
    """kept / total: of the weights of the whole network, whatever the ticket calls prunable."""
    kept: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[int] = mapped_column(BigInteger)
    kept_parameters: Mapped[int] = mapped_column(BigInteger)
    """Of `parameters`, biases and normalisations among them."""
    parameters: Mapped[int] = mapped_column(BigInteger)
    flops: Mapped[int] = mapped_column(BigInteger)
    speedup: Mapped[float]
    """Operations of a forward pass of the dense network / those of the ticket: theory."""
    downloads: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    train_bytes: Mapped[int] = column_property(16 * kept_parameters + 4 * kept)
    """`bytes_to_train`, computed by the database."""
    density_band: Mapped[int]
    """`band_of_density`: coarse, so that a range of densities is a few bands of an index."""
    kept_class: Mapped[int] = mapped_column(
        default=_own_class, server_default="0", deferred=True, deferred_raiseload=True
    )
    """`class_of_kept`; read from its index alone, for it lies behind the wide columns."""
    layers: Mapped[list[Json]] = mapped_column(deferred=True, deferred_raiseload=True)
    manifest: Mapped[Json] = mapped_column(deferred=True, deferred_raiseload=True)
    warnings: Mapped[list[str]]

    card: Mapped[str | None] = mapped_column(Text)
    tags: Mapped[list[str]]
    version: Mapped[int] = mapped_column(default=1)
    """Raised by everything that changes what a page of it shows."""
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    yanked_at: Mapped[datetime | None]
    yank_reason: Mapped[str | None] = mapped_column(String(20))
    yank_detail: Mapped[str | None] = mapped_column(Text)
    quarantined_at: Mapped[datetime | None]
    """An admin hid it from everybody; then it is yanked as well."""

    verdict: Mapped[str | None] = mapped_column(String(30))
    protocol: Mapped[str | None] = mapped_column(String(100))
    """That its verdict was measured by."""
    accuracy: Mapped[float | None]
    """Mean measured test accuracy of the ticket arm."""
    accuracy_gap: Mapped[float | None]
    """The same less the dense arm's."""
    replicates: Mapped[int | None]
    evaluated_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sort_accuracy: Mapped[float] = mapped_column(default=UNMEASURED)
    """accuracy, and UNMEASURED where there is none: a null has no place in the order of a keyset."""
    sort_gap: Mapped[float] = mapped_column(default=UNMEASURED)
    accuracy_band: Mapped[int] = mapped_column(default=UNMEASURED_BAND)
    """`app.evaluations.models.band_of_accuracy`."""

    owner: Mapped[Account] = relationship(lazy="raise")
    blob: Mapped[Blob] = relationship(lazy="raise")

    @property
    def architecture(self) -> Architecture:
        """The graph, from the manifest (which must be loaded)."""
        return Architecture.from_manifest(self.manifest["architecture"], max_parameters=self.parameters)

    @property
    def recipe(self) -> Json:
        """The recipe, from the manifest (which must be loaded)."""
        recipe: Json = self.manifest["recipe"]
        return recipe


class BlobCount(Base):
    """The number of blobs and their bytes, by the first digit of the digest, so that publishers rarely wait
    for each other. Triggers keep it, as those of `ListingGroup`."""

    __tablename__ = "blob_count"

    digit: Mapped[str] = mapped_column(String(1), primary_key=True)
    blobs: Mapped[int] = mapped_column(BigInteger)
    size_bytes: Mapped[int] = mapped_column(BigInteger)


class ListingGroup(Base):
    """The number of listings of each combination of values that lists are filtered and counted by.

    Triggers keep it with every change of a listing, and `python -m app recount` writes it anew. Absent
    methods and verdicts are "", because nulls are never the same.
    """

    __tablename__ = "listing_group"
    __table_args__ = (
        UniqueConstraint(
            "visibility",
            "is_yanked",
            "task",
            "architecture_name",
            "family",
            "method",
            "verdict",
            "origin",
            "license",
            "is_copy",
            name="uq_listing_group_key",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    visibility: Mapped[str] = mapped_column(String(10))
    """The listings' own, and `hidden` of those in quarantine."""
    is_yanked: Mapped[bool]
    is_copy: Mapped[bool]
    task: Mapped[str] = mapped_column(String(100))
    architecture_name: Mapped[str] = mapped_column(String(200))
    family: Mapped[str] = mapped_column(String(200))
    method: Mapped[str] = mapped_column(String(100))
    verdict: Mapped[str] = mapped_column(String(30))
    origin: Mapped[str] = mapped_column(String(12))
    license: Mapped[str] = mapped_column(String(200))
    listings: Mapped[int] = mapped_column(BigInteger)


class TicketSketch(Base):
    """A number of a listing's sketch: tickets that share some may be near-copies."""

    __tablename__ = "ticket_sketch"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    ticket_id: Mapped[int] = mapped_column(ForeignKey("ticket.id"), primary_key=True, index=True)


class ExportBlob(Base):
    """A blob that can be made again: a ticket in another form."""

    __tablename__ = "export_blob"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    used_at: Mapped[datetime] = mapped_column(index=True)


class TicketTag(Base):
    """A tag of a listing."""

    __tablename__ = "ticket_tag"

    tag: Mapped[str] = mapped_column(Exact, primary_key=True)
    ticket_id: Mapped[int] = mapped_column(ForeignKey("ticket.id"), primary_key=True, index=True)


class IdempotencyKey(Base):
    """An Idempotency-Key that an account has used, and what it was used for."""

    __tablename__ = "idempotency_key"
    __table_args__ = (UniqueConstraint("account_id", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    key: Mapped[str] = mapped_column(String(200))
    request_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
