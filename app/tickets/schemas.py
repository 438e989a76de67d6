"""Bodies of tickets, and the queries of a search: REST and form have one parameter for each filter."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from datetime import date
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from app.db import Json
from app.evaluations.schemas import EVALUATION_EXAMPLE, EvaluationResponse
from app.schemas import Instant, Plain, RequestModel, ResponseModel, example
from app.tickets.models import Listing
from app.tickets.search.conditions import FACETS, Search, read_facets, read_search
from nirvana.client.filters import MAX_LENGTH, PARAMETERS, Filter, literal
from nirvana.verification.protocol import PROTOCOL

Visibility = Literal["public", "private"]
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_DIGEST = "sha256:" + "5f" * 32
_EDGE: Json = {
    "parent": "sha256:" + "4e" * 32,
    "parent_name": "ada/lenet-300-100-digits-06",
    "child": _DIGEST,
    "child_name": "ada/lenet-300-100-digits-07",
    "known_by": "job",
    "job_id": "0b8f6c1e-5f43-4c43-9c55-8b4f5c2f5d11",
    "level": 7,
    "density": 0.0717,
    "verdict": "WINNING",
}
_LAYER = {"name": "fc1.weight", "shape": [300, 64], "kept": 1290, "total": 19200, "density": 0.0672}
_EXAMS = "public exams of the ticket and its copies, by other recipes too, by the verdict that each shows"
SUMMARY_EXAMPLE: Json = {
    "owner": "ada",
    "name": "lenet-300-100-digits-07",
    "digest": _DIGEST,
    "copy_of": None,
    "origin": "attested",
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
    "kept_parameters": 4009,
    "parameters": 50610,
    "flops": 7198,
    "speedup": 13.95,
    "train_bytes": 78540,
    "initial": "seeded",
    "rewind_step": 0,
    "license": "CC-BY-4.0",
    "verdict": "WINNING",
    "protocol": PROTOCOL,
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
    "downloads": 0,
}


class TicketSummary(ResponseModel):
    """A listing of a ticket. `verdict` and `accuracy` were measured here; null: not yet."""

    model_config = ResponseModel.model_config | example(**SUMMARY_EXAMPLE)
    owner: str
    name: str
    digest: str
    copy_of: Annotated[
        str | None,
        Field(
            description="the first public listing of the same masks and values, in whatever order of units;"
            " null: this is the first"
        ),
    ]
    origin: Annotated[
        Literal["attested", "sealed", "brought-in"],
        Field(description="where its mask came from, as far as the registry knows"),
    ]
    visibility: str
    task: str
    architecture: str
    family: str
    method: str | None
    level: int | None
    density: Annotated[
        float, Field(description="kept / total, of all weights of the network, prunable or not")
    ]
    kept: int
    total: int
    compression: float
    kept_parameters: Annotated[int, Field(description="of `parameters`: biases and normalisations count")]
    parameters: int
    flops: Annotated[int, Field(description="forward, one example, kept weights alone")]
    speedup: Annotated[float, Field(description="operations of the dense network / those of the ticket")]
    train_bytes: Annotated[
        int,
        Field(description="that training keeps: parameters, gradients, Adam's moments, places of weights"),
    ]
    initial: str
    rewind_step: int
    license: str
    verdict: str | None
    protocol: Annotated[str | None, Field(description="that its verdict was measured by")]
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
    downloads: int


class LayerResponse(ResponseModel):
    """A weight or another prunable parameter, and what is kept of it."""

    model_config = ResponseModel.model_config | example(**_LAYER)
    name: str
    shape: list[int]
    kept: int
    total: int
    density: float


class LayerPage(ResponseModel):
    """A ticket's layers, in the architecture's order."""

    model_config = ResponseModel.model_config | example(items=[_LAYER], next_cursor=None)
    items: list[LayerResponse]
    next_cursor: str | None = None


class DownloadDay(ResponseModel):
    """Downloads of a file on a day (UTC)."""

    model_config = ResponseModel.model_config | example(day="2026-11-28", count=3)
    day: date
    count: int


class DownloadPage(ResponseModel):
    """Downloads of a listing's file, the newest day first."""

    model_config = ResponseModel.model_config | example(
        total=3, items=[{"day": "2026-11-28", "count": 3}], next_cursor=None
    )
    total: Annotated[int, Field(description="of all time")]
    items: list[DownloadDay]
    next_cursor: str | None = None


class Lineage(ResponseModel):
    """The tickets that this one was pruned from, and those pruned from it."""

    model_config = ResponseModel.model_config | example(
        parent=_DIGEST, is_claim=False, ancestors=[SUMMARY_EXAMPLE], children=[SUMMARY_EXAMPLE]
    )
    parent: Annotated[str | None, Field(description="digest, published here or not")]
    is_claim: Annotated[bool, Field(description="its file says so, and the registry did not see it")]
    ancestors: Annotated[list[TicketSummary], Field(description="the nearest first")]
    children: list[TicketSummary]


class LineageEdge(ResponseModel):
    """A ticket and the one that it was pruned from."""

    model_config = ResponseModel.model_config | example(**_EDGE)
    parent: Annotated[str, Field(description="digest")]
    parent_name: Annotated[str | None, Field(description="null: not here, or only claimed of a stranger's")]
    child: str
    child_name: str
    known_by: Annotated[
        Literal["job", "claim"], Field(description="the registry's own search saw it, or a file says so")
    ]
    job_id: Annotated[str | None, Field(description="the search that saw it")]
    level: int | None
    density: Annotated[float, Field(description="of the child, as are level and verdict")]
    verdict: str | None


class LineageTree(Lineage):
    """The tree that a ticket stands in."""

    model_config = ResponseModel.model_config | example(
        parent=_DIGEST, is_claim=False, ancestors=[SUMMARY_EXAMPLE], children=[SUMMARY_EXAMPLE], edges=[_EDGE]
    )
    edges: Annotated[
        list[LineageEdge],
        Field(description="from the first ancestor down to all descendants, at most 200"),
    ]


_TICKET_EXAMPLE: Json = SUMMARY_EXAMPLE | {
    "size_bytes": 7410,
    "file_sha256": _DIGEST,
    "exam": "7c" * 32,
    "exams": {"WINNING": 1},
    "description": None,
    "card": None,
    "warnings": [],
    "claims": [],
    "layers": [_LAYER],
    "manifest": {"format": "nirvana.ticket/1"},
    "evaluations": [EVALUATION_EXAMPLE],
    "lineage": {"parent": None, "is_claim": False, "ancestors": [], "children": []},
}


class TicketResponse(TicketSummary):
    """A listing, whole."""

    model_config = ResponseModel.model_config | example(**_TICKET_EXAMPLE)
    size_bytes: int
    file_sha256: str
    exam: Annotated[str, Field(description="its verdict is that of its evaluations of this exam")]
    exams: Annotated[
        dict[str, int],
        Field(description=_EXAMS),
    ]
    description: str | None
    card: str | None
    warnings: list[str]
    claims: Annotated[list[Json], Field(description="what the submitter says; nobody measured it")]
    layers: list[LayerResponse]
    manifest: Json
    evaluations: Annotated[list[EvaluationResponse], Field(description="the newest 25, measured here")]
    lineage: Lineage


class PublishedResponse(TicketResponse):
    """A listing, as it is after its file was published."""

    model_config = ResponseModel.model_config | example(**_TICKET_EXAMPLE, left_out=["description"])
    left_out: Annotated[
        list[str],
        Field(description="members of this file that the listing keeps from the file that came first"),
    ]


_OF_DIGEST: Json = SUMMARY_EXAMPLE | {"exam": "7c" * 32, "file_sha256": _DIGEST, "is_first": True}


class DigestListing(TicketSummary):
    """A listing of a digest. Two of them may differ in laws, values of pruned weights, recipe, task, claims
    and so in their exam and their file."""

    model_config = ResponseModel.model_config | example(**_OF_DIGEST)
    exam: Annotated[str, Field(description="listings of one exam have one verdict")]
    file_sha256: str
    is_first: Annotated[bool, Field(description="what is asked for by digest is of this listing")]


class DigestResponse(ResponseModel):
    """What a digest determines, and the listings that have it."""

    model_config = ResponseModel.model_config | example(
        digest=_DIGEST,
        architecture=_DIGEST,
        fingerprint=_DIGEST,
        density=0.0717,
        kept=3599,
        total=50200,
        kept_parameters=4009,
        parameters=50610,
        flops=7198,
        rewind_step=0,
        layers=[_LAYER],
        exams={"WINNING": 1},
        listings=[_OF_DIGEST],
        next_cursor=None,
    )
    digest: str
    architecture: Annotated[str, Field(description="digest of its graph: /api/v1/architectures/{digest}")]
    fingerprint: Annotated[str | None, Field(description="the same for every order of its units")]
    density: float
    kept: int
    total: int
    kept_parameters: int
    parameters: int
    flops: int
    rewind_step: int
    layers: list[LayerResponse]
    exams: Annotated[dict[str, int], Field(description=_EXAMS)]
    listings: Annotated[list[DigestListing], Field(description="that you may see, the first one first")]
    next_cursor: str | None


class FoundTicket(TicketSummary):
    """A listing that a search found."""

    model_config = ResponseModel.model_config | example(**SUMMARY_EXAMPLE | {"more": 0})
    more: Annotated[int, Field(description="with `collapse`: others of its search that match as well")] = 0


class SimilarTicket(TicketSummary):
    """A listing of another ticket whose masks are like a ticket's."""

    model_config = ResponseModel.model_config | example(**SUMMARY_EXAMPLE | {"shared": 0.8125})
    shared: Annotated[
        float,
        Field(description="of the sketch, 16 least hashes of the first layer's units: 1 is a near-copy"),
    ]


class SimilarPage(ResponseModel):
    """The tickets whose masks are most like a ticket's, the most alike first."""

    model_config = ResponseModel.model_config | example(
        items=[SUMMARY_EXAMPLE | {"shared": 0.8125}], next_cursor=None
    )
    items: list[SimilarTicket]
    next_cursor: str | None = None


class TicketPage(ResponseModel):
    """One page of a search."""

    model_config = ResponseModel.model_config | example(
        items=[SUMMARY_EXAMPLE | {"more": 0}],
        next_cursor=None,
        previous_cursor=None,
        total=1,
        total_is_exact=True,
        facets={"task": {"digits": 1}},
        facets_are_exact=True,
    )
    items: list[FoundTicket]
    next_cursor: str | None
    previous_cursor: str | None
    total: Annotated[int | None, Field(description="of all pages; on the first page only")]
    total_is_exact: Annotated[
        bool, Field(description="false: an estimate, from kept counts and the newest listings")
    ]
    facets: Annotated[
        dict[str, dict[str, int]], Field(description="counts by value, each without its own filter")
    ]
    facets_are_exact: Annotated[
        bool, Field(description="false: estimates, from the hits among the newest listings")
    ]


class LintResponse(ResponseModel):
    """The result of checking a ticket file."""

    model_config = ResponseModel.model_config | example(
        ok=True,
        digest=_DIGEST,
        density=0.0717,
        kept=3599,
        total=50200,
        kept_parameters=4009,
        parameters=50610,
        warnings=[],
        errors=[],
    )
    ok: bool
    digest: str | None
    density: float | None
    kept: int | None
    total: int | None
    kept_parameters: int | None
    parameters: int | None
    warnings: list[str]
    errors: list[Json]


class NewListing(RequestModel):
    """The place of a new ticket in the registry: form fields beside its file, or the query of a raw body."""

    model_config = RequestModel.model_config | example(name="lenet-300-100-digits-07", visibility="public")
    name: Annotated[Plain, Field(max_length=140, description="with or without `owner/` before it")]
    visibility: Annotated[Visibility | None, Field(description="by default public")] = None


class CardChange(RequestModel):
    """Changes to a listing by its owner; leave out what stays."""

    model_config = RequestModel.model_config | example(card="Found on a laptop.", tags=["small", "teaching"])
    card: Annotated[Plain | None, Field(max_length=65_536, description="markdown")] = None
    tags: list[Plain] = Field(default_factory=list, max_length=100)
    visibility: Annotated[Visibility | None, Field(description="by default as it is")] = None


class Yank(RequestModel):
    """A reason to hide a ticket from search."""

    model_config = RequestModel.model_config | example(
        reason="superseded", detail="See lenet-300-100-digits-08."
    )
    reason: Literal["broken", "duplicate", "license", "privacy", "superseded", "withdrawn", "other"]
    detail: Annotated[Plain | None, Field(max_length=2000)] = None


def summarise(rows: Iterable[Listing], copies: Mapping[int, str]) -> list[TicketSummary]:
    """Return the summaries of listings, whose owners must be loaded.

    Args:
        copies: of `find_copies`.
    """
    return [TicketSummary.model_validate(summary_of(row, copies)) for row in rows]


_SAME = tuple(
    TicketSummary.model_fields.keys()
    - {"copy_of", "owner", "architecture", "compression", "initial", "parent"}
)  # that a listing has under the same name


def summary_of(row: Listing, copies: Mapping[int, str]) -> Json:
    """Return a summary's fields."""
    renamed = {
        "copy_of": copies.get(row.id),
        "owner": row.owner.name,
        "architecture": row.architecture_name,
        "compression": row.total / row.kept if row.kept else 1.0,
        "initial": row.initial_kind,
        "parent": row.parent_digest,
    }
    loaded = vars(row)  # an attribute of SQLAlchemy's costs twenty times a look at what it holds
    return renamed | {name: loaded[name] if name in loaded else getattr(row, name) for name in _SAME}


def _query_parameter(row: Filter) -> inspect.Parameter:
    """Return the query parameter of a filter."""
    if row.kind in ("flag", "choice"):
        query = Query(default=row.default or (False if row.kind == "flag" else None), description=row.help)
    else:
        examples = [row.example] if row.kind == "range" else None
        query = Query(default=None, max_length=MAX_LENGTH, description=row.help, examples=examples)
    return inspect.Parameter(row.name, _KEYWORD, default=query, annotation=row.annotation)


async def query_search(**query: str | bool | None) -> Search:
    """Return the search that the query parameters ask for, one for each filter. Raises: InvalidQuery."""
    return read_search(query)


async def query_facets(
    facets: Annotated[
        str | None, Query(max_length=MAX_LENGTH, description=f"comma-separated: {', '.join(FACETS)}")
    ] = None,
) -> tuple[str, ...]:
    """Return the facets to count. Raises: InvalidQuery."""
    return read_facets(facets)


def form_names(row: Filter) -> tuple[str, ...]:
    """Return the names of a filter's fields in the form."""
    if row.kind == "range":
        return (f"min_{row.percent}", f"max_{row.percent}") if row.percent else row.ends
    return (row.name,)


def _form_parameters(row: Filter) -> Iterator[inspect.Parameter]:
    """Yield the query parameters of a filter's fields in the form, each of which may be empty."""
    annotation: object = str
    query = Query(default="", max_length=MAX_LENGTH)
    if row.kind == "flag":
        annotation, query = bool, Query(default=False)
    elif row.kind == "choice":
        annotation, query = literal((*row.choices, "")), Query(default=row.default or "")
    elif row.percent:
        query = Query(default="", max_length=20, pattern=r"^\d*\.?\d*$")
    for name in form_names(row):
        own = copy(query)  # FastAPI writes the name into it
        yield inspect.Parameter(name, _KEYWORD, default=own, annotation=annotation)


async def form_search(**fields: str | bool) -> Search:
    """Return the search that the form asks for. Raises: InvalidQuery."""
    ranges = [row for row in PARAMETERS if row.kind == "range"]
    return read_search(fields | {row.name: ",".join(_read_ends(row, fields)) for row in ranges})


def _read_ends(row: Filter, fields: Mapping[str, str | bool]) -> Iterator[str]:
    """Yield the ends of a range in the form, as the query parameter has them."""
    for name, end in zip(form_names(row), ("min", "max"), strict=True):
        text = str(fields[name])
        if not row.percent and text:
            yield f"{end}:{text}"
        elif any(character.isdigit() for character in text):
            yield f"{end}:{float(text) / 100}"


# FastAPI reads a function's parameters from its signature, and these two have one parameter for each row.
query_search.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [_query_parameter(row) for row in PARAMETERS]
)
form_search.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [parameter for row in PARAMETERS for parameter in _form_parameters(row)]
)
