"""A filter is one row (docs/extending.md): REST, the page, the client and the command line have it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.factories import make_ticket
from tests.registry import Registry, pointers, problem

WITH_ONE_MORE = """
import io, json, os, sys
from contextlib import redirect_stdout
from pathlib import Path
from nirvana.client import filters

row = filters.Filter("level", "range", "pruning round", type=int, label="level")
filters.FILTERS = (*filters.FILTERS, row)
filters.PARAMETERS = filters.FILTERS + filters.ORDERS

from nirvana.cli import main
from nirvana.client.rest import Client
from tests.factories import make_ticket
from tests.registry import make_settings, run_registry

settings = make_settings(Path(sys.argv[1]), database_url=sys.argv[2])
with run_registry(settings) as registry:
    for level in range(3):
        provenance = {"method": "imp", "level": level}
        registry.publish(make_ticket(seed=level, provenance=provenance).to_bytes(), f"t{level}")
    page = registry.http.get("/", params={"min_level": "2", "max_level": ""})
    with Client(registry.url) as client:
        hits = [hit["name"] for hit in client.search(min_level=1, max_level=1)]
    os.environ["NIRVANA_ENDPOINT"] = registry.url
    output = io.StringIO()
    try:
        with redirect_stdout(output):
            main(["search", "--max-level", "0", "--json"])
    except SystemExit as ended:
        assert not ended.code
    print(json.dumps({
        "rest": registry.search(level="min:1", sort="created_at", order="asc"),
        "refused": registry.http.get("/api/v1/tickets?level=min:1.5").status_code,
        "openapi": "level" in registry.http.get("/openapi.json").text,
        "form": 'name="min_level" value="2"' in page.text and "Least level" in page.text,
        "page": ["/tickets/ada/t%d\\"" % level in page.text for level in range(3)],
        "client": hits,
        "command line": [hit["name"] for hit in json.loads(output.getvalue())["items"]],
    }))
"""


def test_a_filter_is_one_row(registry: Registry, tmp_path: Path) -> None:
    """The service on a registry's database, in a process whose table has one row more from the beginning."""
    environment = os.environ | {"NIRVANA_HOME": str(tmp_path), "NIRVANA_TOKEN": ""}
    command = [sys.executable, "-c", WITH_ONE_MORE, str(tmp_path), registry.settings.database_url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "rest": ["t1", "t2"],
        "refused": 422,
        "openapi": True,
        "form": True,
        "page": [False, False, True],
        "client": ["t1"],
        "command line": ["t0"],
    }
    registry.publish(make_ticket().to_bytes(), "first")
    assert pointers(problem(registry.http.get("/api/v1/tickets?level=min:1"), 422, "invalid-query")) == [
        "/query/level"
    ]
