"""What travels beside a ticket: a badge, citations, and how two tickets differ."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from app.db import Json
from app.dependencies import TICKET, Conditional, Reader, SessionDep, SettingsDep, StorageDep, TicketReference
from app.limits.service import Line
from app.schemas import ResponseModel, binary, example, problems
from app.settings import Settings
from app.storage import Storage, ticket_key
from app.tickets.files.serving import limits_of, matches
from app.tickets.models import Listing
from app.tickets.service import get_ticket
from nirvana.format.reader import Limits
from nirvana.format.ticket import Ticket
from nirvana.verification.overlaps import diff

router = APIRouter(tags=["tickets"])
COLOURS = {"WINNING": "#176639", "MATCHING": "#2b5c8a", "NOT_MATCHING": "#a33325", "INVALID": "#a33325"}
OTHER_COLOUR = "#5a5f66"
CHARACTER = 6.6  # width of one of an 11 px sans-serif, in px, about
CITATIONS = {
    "bibtex": "application/x-bibtex",
    "cff": "text/x-yaml",
    "csl": "application/vnd.citationstyles.csl+json",
    "datacite": "application/vnd.datacite.datacite+json",
}
_SPECIAL = re.compile(r"[\\{}&%$#_^~]")
_TEX = {"\\": "\\textbackslash{}", "^": "\\^{}", "~": "\\~{}", "{": "(", "}": ")"}
_COUNTS = {"kept": [3599, 5020], "both": 3400, "only_first": 199, "only_second": 1620, "jaccard": 0.65}
_COUNTS_EXAMPLE = _COUNTS | {"beyond_chance": 0.63, "same_values": True}


class SharedLayer(ResponseModel):
    """What the masks of two tickets share in a layer."""

    model_config = ResponseModel.model_config | example(name="fc1.weight", **_COUNTS_EXAMPLE)
    name: str
    kept: Annotated[list[int], Field(description="weights that the first and the second keep")]
    both: int
    only_first: int
    only_second: int
    jaccard: Annotated[float, Field(description="weights kept by both / by either")]
    beyond_chance: Annotated[
        float,
        Field(description="(jaccard - c) / (1 - c), c being what random masks of these densities share"),
    ]
    same_values: Annotated[bool, Field(description="weights that both keep start from the same values")]


class Diff(SharedLayer):
    """What two tickets share, over all layers and in each."""

    model_config = ResponseModel.model_config | example(
        first="ada/a", second="ada/b", **_COUNTS_EXAMPLE, layers=[{"name": "fc1.weight"} | _COUNTS_EXAMPLE]
    )
    name: Literal["all layers"] = "all layers"
    first: str
    second: str
    layers: list[SharedLayer]


@router.get(f"{TICKET}/diff/{{other:ticket}}", operation_id="diff_tickets", responses=problems(404, 422))
async def diff_tickets(
    request: Request,
    ticket: TicketReference,
    other: TicketReference,
    session: SessionDep,
    reader: Reader,
    storage: StorageDep,
    settings: SettingsDep,
) -> Diff:
    """How the masks of two tickets differ, layer by layer, and whether they start from the same values. Units
    are compared in the order that they have."""
    files = [get_ticket(session, name, reader).blob.digest for name in (ticket, other)]
    compare = partial(_diff_files, storage, files, limits_of(settings))
    line: Line = request.app.state.comparing
    shared = await line.run(compare)
    return Diff.model_validate({"first": ticket, "second": other} | shared)


def _diff_files(storage: Storage, digests: list[str], limits: Limits) -> Json:
    first, second = (Ticket.from_bytes(storage.get(ticket_key(digest)), limits) for digest in digests)
    return diff(first, second)


@router.get(f"{TICKET}/badge.svg", operation_id="get_ticket_badge", response_class=Response,
    dependencies=Conditional, responses={
    200: binary("image/svg+xml", "The badge."),
    304: {"description": "Not modified"},
    **problems(404),
})  # fmt: skip
def get_badge(request: Request, ticket: TicketReference, session: SessionDep, reader: Reader) -> Response:
    """The verdict of a listing as a picture, for a README: with its origin, as measured now."""
    row = get_ticket(session, ticket, reader)
    left, right = "lottery ticket", _describe(row)
    widths = [round(CHARACTER * len(text)) + 12 for text in (left, right)]
    colour = COLOURS.get(row.verdict or "", OTHER_COLOUR)
    template = request.app.state.templates.get_template("badge.svg")
    drawn: str = template.render(left=left, right=right, widths=widths, colour=colour)
    tag = f'"{hashlib.sha256(drawn.encode()).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Authorization"}
    if matches(request.headers.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(drawn, headers=headers, media_type="image/svg+xml")


def _describe(row: Listing) -> str:
    """Return verdict, density and origin in a few words."""
    parts = [row.verdict.lower().replace("_", " ") if row.verdict else "not verified"]
    parts.append(f"{100 * row.density:.3g} % of the weights")
    if row.verdict == "WINNING":
        parts.append(row.origin.replace("-", " "))
    return ", ".join(["yanked", *parts] if row.yanked_at else parts)


@router.get(f"{TICKET}/cite", operation_id="cite_ticket", response_class=Response, responses={
    200: {"description": "The citation", "content": {kind: {"example": ""} for kind in CITATIONS.values()}},
    **problems(404, 422),
})  # fmt: skip
def cite(
    ticket: TicketReference,
    format: Literal["bibtex", "cff", "csl", "datacite"],
    session: SessionDep,
    settings: SettingsDep,
    reader: Reader,
) -> Response:
    """How to cite a listing: BibTeX, a CITATION.cff, CSL-JSON, or metadata for a DOI (DataCite 4)."""
    row = get_ticket(session, ticket, reader)
    return Response(_WRITERS[format](_cited(row, settings)), media_type=CITATIONS[format])


def _cited(row: Listing, settings: Settings) -> Json:
    """Return what a citation says of a listing."""
    share = f"{100 * row.density:.3g} % of the weights of {row.architecture_name}, for {row.task}"
    name = f"{row.owner.name}/{row.name}"
    return {
        "name": name,
        "key": re.sub(r"[^a-z0-9]+", "-", f"{name}-{row.digest[7:15]}"),
        "title": f"{row.name}: a lottery ticket, {share}",
        "authors": row.manifest.get("authors") or [row.owner.name],
        "date": row.created_at.date().isoformat(),
        "url": f"{settings.public_url}/tickets/{name}",
        "digest": row.digest,
        "license": row.license,
    }


def _bibtex(cited: Json) -> str:
    fields = {
        "author": " and ".join(f"{{{_tex(name)}}}" for name in cited["authors"]),
        "title": _tex(cited["title"]),
        "year": cited["date"][:4],
        "publisher": "Nirvana",
        "note": cited["digest"],
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@misc{{{cited['key']},", *lines, f"  url = {{{cited['url']}}}", "}", ""])


def _tex(text: str) -> str:
    """Return text that BibTeX reads as one line; it counts braces, those after a backslash too."""
    return " ".join(_SPECIAL.sub(lambda found: _TEX.get(found[0], f"\\{found[0]}"), text).split())


def _cff(cited: Json) -> str:
    """A string of JSON is one of YAML 1.2, too."""
    fields = {
        "cff-version": "1.2.0",
        "message": "If you use this ticket, please cite it.",
        "type": "dataset",
        "title": cited["title"],
        "authors": [{"name": name} for name in cited["authors"]],
        "date-released": cited["date"],
        "url": cited["url"],
        "license": cited["license"],
        "identifiers": [{"type": "other", "value": cited["digest"], "description": "digest of the ticket"}],
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items())


def _csl(cited: Json) -> str:
    year, month, day = map(int, cited["date"].split("-"))
    fields = {
        "id": cited["key"],
        "type": "dataset",
        "title": cited["title"],
        "author": [{"literal": name} for name in cited["authors"]],
        "issued": {"date-parts": [[year, month, day]]},
        "publisher": "Nirvana",
        "URL": cited["url"],
        "note": cited["digest"],
    }
    return json.dumps([fields])


def _datacite(cited: Json) -> str:
    fields = {
        "types": {"resourceTypeGeneral": "Model", "resourceType": "Lottery ticket"},
        "titles": [{"title": cited["title"]}],
        "creators": [{"name": name} for name in cited["authors"]],
        "publisher": {"name": "Nirvana"},
        "publicationYear": int(cited["date"][:4]),
        "dates": [{"date": cited["date"], "dateType": "Available"}],
        "url": cited["url"],
        "alternateIdentifiers": [
            {"alternateIdentifier": cited["digest"], "alternateIdentifierType": "digest of the ticket"}
        ],
        "rightsList": [{"rights": cited["license"], "rightsIdentifier": cited["license"]}],
        "schemaVersion": "http://datacite.org/schema/kernel-4",
    }
    return json.dumps(fields)


_WRITERS = {"bibtex": _bibtex, "cff": _cff, "csl": _csl, "datacite": _datacite}
