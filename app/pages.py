"""Server-rendered pages: the templates' environment, and errors as pages for those who read HTML."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nirvana.verification.protocol import PROTOCOL

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

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


MOST_RENDERED = 20_000  # characters: hostile ones of these cost 0.6 s, of a whole card's 65,536 1.6 s
CARD_TAGS = {"h3", "h4", "h5", "h6", "p", "br", "hr", "blockquote", "pre", "code", "a", "ul", "ol", "li"}
CARD_TAGS |= {"em", "strong", "s"}
CARD_TAGS |= {"table", "thead", "tbody", "tr", "th", "td"}


@lru_cache(maxsize=256)
def render_card(text: str) -> Markup:
    """Render a stranger's markdown as HTML that is safe on our pages: no markup of its own, no images,
    links without our blessing; its headings stand below ours. A very long text is shown as it was written."""
    if len(text) > MOST_RENDERED:
        return Markup('<p class="text">{}</p>').format(text)
    import nh3

    cleaned = nh3.clean(
        _markdown().render(text),
        tags=CARD_TAGS,
        attributes={"a": {"href"}, "ol": {"start"}},
        link_rel="nofollow ugc noopener noreferrer",
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
    )
    return Markup(cleaned)


@cache
def _markdown() -> MarkdownIt:
    """Return the parser of cards: CommonMark and tables, without HTML and images."""
    from markdown_it import MarkdownIt  # a few per cent of the service's start, for some pages
    from markdown_it.rules_core import StateCore

    def lower_headings(state: StateCore) -> None:
        for token in state.tokens:
            if token.type in ("heading_open", "heading_close"):
                token.tag = f"h{min(6, int(token.tag[1:]) + 2)}"

    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]).disable("image")
    parser.core.ruler.push("lower_headings", lower_headings)
    return parser


def _environment() -> Environment:
    loader = FileSystemLoader(HERE / "templates")
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"percent": _percent, "points": _points, "size": _size, "moment": _moment}
    made.filters["card"] = render_card
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
