"""Bodies of tickets."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from app.evaluations.schemas import EVALUATION_EXAMPLE, EvaluationShown
from app.schemas import Answer, Body, Instant, Plain, example
from app.tickets.models import Ticket

_DIGEST = "sha256:" + "5f" * 32
_LAYER = {"name": "fc1.weight", "shape": [300, 64], "kept": 1290, "total": 19200, "density": 0.0672}
SUMMARY_EXAMPLE: dict[str, Any] = {
    "owner": "ada",
    "name": "lenet-300-100-digits-07",
    "digest": _DIGEST,
    "visibility": "public",
    "task": "digits",
    "architecture": "lenet-300-100",
    "family": "lenet",
    "method": "imp",
    "level": 7,
    "density": 0.0717,
    "kept": 3599,
    "total": 50200,
    "compression": 13.95,
    "parameters": 50610,
    "flops": 7198,
    "initial": "seeded",
    "rewind_step": 0,
    "license": "CC-BY-4.0",
    "verdict": "WINNING",
    "accuracy": 0.9721,
    "accuracy_gap": 0.0016,
    "replicates": 5,
    "evaluated_at": "2026-11-21T09:03:00Z",
    "tags": [],
    "parent": "sha256:" + "4e" * 32,
    "job_id": None,
    "created_at": "2026-11-21T09:00:00Z",
    "yanked_at": None,
    "yank_reason": None,
    "yank_detail": None,
}


class TicketSummary(Answer):
    """A listing of a ticket. `verdict` and `accuracy` were measured here; null: not yet."""

    model_config = Answer.model_config | example(**SUMMARY_EXAMPLE)
    owner: str
    name: str
    digest: str
    visibility: str
    task: str
    architecture: str
    family: str
    method: str | None
    level: int | None
    density: Annotated[float, Field(description="kept / total, of the prunable weights")]
    kept: int
    total: int
    compression: float
    parameters: int
    flops: Annotated[int, Field(description="forward, one example, kept weights alone")]
    initial: str
    rewind_step: int
    license: str
    verdict: str | None
    accuracy: Annotated[float | None, Field(description="measured mean test accuracy, in [0, 1]")]
    accuracy_gap: Annotated[float | None, Field(description="the same less the dense baseline's")]
    replicates: int | None
    evaluated_at: Instant | None
    tags: list[str]
    parent: str | None
    job_id: str | None
    created_at: Instant
    yanked_at: Instant | None
    yank_reason: str | None
    yank_detail: str | None


class LayerShown(Answer):
    """A prunable parameter and what is kept of it."""

    model_config = Answer.model_config | example(**_LAYER)
    name: str
    shape: list[int]
    kept: int
    total: int
    density: float


class LayerPage(Answer):
    """A ticket's layers, in the architecture's order."""

    model_config = Answer.model_config | example(items=[_LAYER], next_cursor=None)
    items: list[LayerShown]
    next_cursor: str | None = None


class Lineage(Answer):
    """Where a ticket comes from, and what was pruned from it."""

    model_config = Answer.model_config | example(
        parent=_DIGEST, ancestors=[SUMMARY_EXAMPLE], children=[SUMMARY_EXAMPLE]
    )
    parent: Annotated[str | None, Field(description="digest, published here or not")]
    ancestors: Annotated[list[TicketSummary], Field(description="the nearest first")]
    children: list[TicketSummary]


class TicketShown(TicketSummary):
    """A listing, whole."""

    model_config = Answer.model_config | example(
        **SUMMARY_EXAMPLE
        | {
            "size_bytes": 7410,
            "file_sha256": _DIGEST,
            "description": None,
            "card": None,
            "warnings": [],
            "claims": [],
            "layers": [_LAYER],
            "manifest": {"format": "nirvana.ticket/1"},
            "evaluations": [EVALUATION_EXAMPLE],
            "lineage": {"parent": None, "ancestors": [], "children": []},
        }
    )
    size_bytes: int
    file_sha256: str
    description: str | None
    card: str | None
    warnings: list[str]
    claims: Annotated[list[dict[str, Any]], Field(description="what the submitter says; nobody measured it")]
    layers: list[LayerShown]
    manifest: dict[str, Any]
    evaluations: Annotated[list[EvaluationShown], Field(description="the newest 25, measured here")]
    lineage: Lineage


class TicketPage(Answer):
    """One page of a search."""

    model_config = Answer.model_config | example(
        items=[SUMMARY_EXAMPLE], next_cursor=None, total=1, facets={"task": {"digits": 1}}
    )
    items: list[TicketSummary]
    next_cursor: str | None
    total: Annotated[int | None, Field(description="of all pages; on the first page only")]
    facets: Annotated[
        dict[str, dict[str, int]], Field(description="counts by value, each without its own filter")
    ]


class LintShown(Answer):
    """What the checks of a ticket file found."""

    model_config = Answer.model_config | example(
        ok=True, digest=_DIGEST, density=0.0717, kept=3599, total=50200, warnings=[], errors=[]
    )
    ok: bool
    digest: str | None
    density: float | None
    kept: int | None
    total: int | None
    warnings: list[str]
    errors: list[dict[str, Any]]


class CardChange(Body):
    """What an owner may change of a listing; leave out what stays."""

    model_config = Body.model_config | example(card="Found on a laptop.", tags=["small", "teaching"])
    card: Annotated[Plain | None, Field(max_length=65_536, description="markdown")] = None
    tags: list[Plain] = Field(default_factory=list, max_length=100)


class Yank(Body):
    """Why a ticket is hidden from search."""

    model_config = Body.model_config | example(reason="superseded", detail="See lenet-300-100-digits-08.")
    reason: Literal["broken", "duplicate", "license", "privacy", "superseded", "withdrawn", "other"]
    detail: Annotated[Plain | None, Field(max_length=2000)] = None


def summarise(row: Ticket) -> TicketSummary:
    """The summary of a listing (its owner must be loaded)."""
    return TicketSummary.model_validate(summary_of(row))


def summary_of(row: Ticket) -> dict[str, Any]:
    """A summary's fields."""
    renamed = {
        "owner": row.owner.name,
        "architecture": row.architecture_name,
        "compression": row.total / row.kept,
        "initial": row.initial_kind,
        "parent": row.parent_digest,
    }
    same = TicketSummary.model_fields.keys() - renamed.keys()
    return renamed | {name: getattr(row, name) for name in same}
