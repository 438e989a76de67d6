"""One table of filters: a row makes a filter in REST, on the page, in the client and on the command line."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from app.tickets.search.conditions import COLUMNS, CONDITIONS, FACETS
from nirvana.cli.tickets import search
from nirvana.client.filters import FILTERS, PARAMETERS, SORTS, query_of
from nirvana.client.rest import Client
from nirvana.errors import InvalidQuery
from tests.factories import make_ticket
from tests.registry import Registry


def test_every_filter_has_a_column_or_a_condition_of_its_own() -> None:
    assert len({row.name for row in PARAMETERS}) == len(PARAMETERS)
    assert COLUMNS.keys().isdisjoint(CONDITIONS)
    assert COLUMNS.keys() | CONDITIONS.keys() == {row.name for row in FILTERS}
    assert set(FACETS) == {"task", "architecture", "family", "method", "verdict", "license"}
    sort = next(row for row in PARAMETERS if row.name == "sort")
    assert list(sort.choices) == list(SORTS)


def test_every_parameter_of_the_search_is_an_option_and_a_keyword() -> None:
    """Held against OpenAPI, so that neither can be left behind."""
    document = json.loads((Path(__file__).parent / "openapi.json").read_text())
    parameters = document["paths"]["/api/v1/tickets"]["get"]["parameters"]
    names = {one["name"] for one in parameters if one["in"] == "query"} - {"limit", "cursor"}
    assert names == {row.name for row in PARAMETERS} | {"facets"}
    options = inspect.signature(search).parameters.keys()
    keywords = inspect.signature(Client.search).parameters.keys() - {"self", "filters"}
    assert keywords == {"limit", "cursor"}
    for row in PARAMETERS:
        own = row.ends if row.kind == "range" else (row.name,)
        assert options >= set(own), row.name
        for keyword in {*own, row.name}:
            assert list(query_of({keyword: "1"})) == [row.name]
    assert options >= {"facets", "limit"}


def test_a_keyword_that_is_none_is_refused_before_anybody_is_asked() -> None:
    with pytest.raises(InvalidQuery, match="densty"):
        query_of({"densty": "max:0.1"})
    assert query_of({"density": "max:0.1", "q": None}) == {"density": "max:0.1"}


def test_the_page_takes_every_filter(registry: Registry) -> None:
    for name, density in (("sparse", 0.1), ("denser", 0.4)):
        registry.publish(make_ticket(density=density).to_bytes(), name)
    for query, names in (
        ("max_left=20", {"sparse"}),
        ("owner=ada&max_left=20&init=&sort=kept&order=desc&min_left=.", {"sparse"}),
        ("min_left=20&max_left=50", {"denser"}),
        ("min_kept=1000000", set()),
        ("init=seeded&include_yanked=true", {"sparse", "denser"}),
        ("license=none", set()),
    ):
        text = registry.http.get(f"/?{query}").text
        assert {name for name in ("sparse", "denser") if f"/tickets/ada/{name}" in text} == names, query
    for query in ("density=max:0.2", "max_left=.2e", "min_kept=1.5", "sort=size", "init=drawn"):
        assert registry.http.get(f"/?{query}").status_code == 422, query
