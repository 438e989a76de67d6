"""A page is a route that renders a template, under a router in PAGES (docs/extending.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from jinja2 import FileSystemLoader

from app import main, pages
from tests.http.conftest import MakeRegistry

TEMPLATE = """{% extends "base.html" %}
{% block title %}Margins{% endblock %}
{% block main %}<p>{{ remark }}</p>{% endblock %}
"""


def test_a_page_is_a_route_and_a_template(
    make_registry: MakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "margins.html").write_text(TEMPLATE)
    both = FileSystemLoader([pages.HERE / "templates", tmp_path])
    monkeypatch.setattr(pages, "FileSystemLoader", lambda _folder: both)
    router = APIRouter()

    @router.get("/margins", response_class=HTMLResponse)
    def show_margins(request: Request) -> HTMLResponse:
        return pages.render(request, "margins.html", {"remark": "0.3 < 0.5"})

    monkeypatch.setattr(main, "PAGES", (*main.PAGES, router))
    registry = make_registry()
    page = registry.http.get("/margins")
    assert page.status_code == 200
    assert "<p>0.3 &lt; 0.5</p>" in page.text
    assert "Nirvana" in page.text
    assert "/margins" not in registry.http.get("/openapi.json").json()["paths"]
