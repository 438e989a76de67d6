"""Server-rendered pages: the templates' environment, and errors as pages for those who read HTML."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nirvana.verification.protocol import PROTOCOL

HERE = Path(__file__).parent
VERDICTS = {
    "WINNING": "it trains from its own initial values to the dense accuracy, and no control does",
    "MATCHING": "matches the dense baseline and beats every control, but not from initialisation",
    "MATCHING_UNRESOLVED": "matches the dense baseline; some control is undecided",
    "STRUCTURE_ONLY": "the mask matters, its initial values do not",
    "INIT_ONLY": "the initial values matter, the mask does not",
    "LAYER_RATIO_ONLY": "only the share of weights kept in each layer matters",
    "TRIVIAL": "any random mask of this density does as well",
    "INCONCLUSIVE": "too few replicates to tell",
    "NOT_MATCHING": "it is worse than the dense baseline",
    "INVALID": "the check before any training refuses it",
}


def _percent(value: float | None, digits: int = 2) -> str:
    return "—" if value is None else f"{100 * value:.{digits}f} %"


def _points(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:+.2f} pp"


def _size(value: int) -> str:
    return f"{value:,} bytes" if value < 10_000 else f"{value / 1000:,.1f} kB"


def _moment(value: datetime | None) -> str:
    return "—" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _environment() -> Environment:
    loader = FileSystemLoader(HERE / "templates")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"percent": _percent, "points": _points, "size": _size, "moment": _moment}
    made.globals |= {"verdicts": VERDICTS, "protocol_of_today": PROTOCOL}
    return made


def install(app: FastAPI) -> None:
    """Give the app its templates."""
    app.state.templates = _environment()


def render(
    request: Request,
    template: str,
    context: Mapping[str, object],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """Render a page."""
    templates: Environment = request.app.state.templates
    if not hasattr(request.state, "signed_in"):
        request.state.signed_in = None
    html = templates.get_template(template).render(request=request, **context)
    return HTMLResponse(html, status, headers={"Cache-Control": "no-cache", **(headers or {})})


def wants_page(request: Request) -> bool:
    """Tell whether the request is for no API, and its sender reads HTML."""
    is_page = not request.url.path.startswith(("/api/", "/static/", "/openapi.json"))
    return is_page and "text/html" in request.headers.get("accept", "")
