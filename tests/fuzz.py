"""Fuzz the service by its OpenAPI document, on each database: `make fuzz`, or `ARGS="--seconds 3600"`.

schemathesis makes requests that the document allows, and requests that it does not, and holds every answer
against it: its status, its media type, its headers and its body. What it finds is printed as a curl.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.jobs.service import end_job
from tests.factories import make_ticket
from tests.registry import DATABASES, Registry, Templates, make_settings, run_registry

ROOT = Path(__file__).parents[1]
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "negative_data_rejection",
)
TICKET = "lenet-300-100-digits-07"  # that the document's examples ask for
OTHERS_TOKENS = 90  # so that no revoking by number ends the token that asks


@contextmanager
def fuzzed_registry(templates: Templates, kind: str, home: Path) -> Iterator[Registry]:
    """A registry with a ticket, and a job that has ended."""
    with (
        templates.copy(kind, home) as url,
        run_registry(
            make_settings(home, database_url=url, max_open_jobs_per_account=10**6, limits="off")
        ) as registry,
    ):
        for _ in range(OTHERS_TOKENS):
            registry.token("other")
        assert registry.publish(make_ticket("lenet-300-100").to_bytes(), TICKET).status_code == 201
        spec = {"kind": "verify", "spec": {"ticket": f"ada/{TICKET}"}}
        job = registry.http.post("/api/v1/jobs", json=spec, headers=registry.bearer("ada")).json()["id"]
        with registry.database.write() as session:
            end_job(session, job, "cancelled")
        yield registry


def fuzz(registry: Registry, seconds: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against a registry for so long; its exit code is 0 where it found nothing."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{registry.url}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--max-time", str(seconds), "--request-timeout", "10"]
    command += ["--header", f"Authorization:{registry.bearer('ada')['Authorization']}"]
    command += ["--phases", "coverage,fuzzing,stateful"]  # test_openapi.py tries the examples
    command += ["--continue-on-failure", "--warnings", "off", "--no-color", *more]
    with tempfile.TemporaryDirectory() as folder:  # it keeps a database of examples where it runs
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "tests.fuzz_hooks", "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )


def main() -> int:
    """Fuzz a registry on each database; return the worse exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="on each database")
    parser.add_argument("--database", choices=DATABASES, action="append", help="these alone")
    parser.add_argument("--seed", type=int, help="of an earlier run")
    args = parser.parse_args()
    more = [] if args.seed is None else ["--seed", str(args.seed)]
    worst = 0
    for kind in args.database or DATABASES:
        home = Path(tempfile.mkdtemp())
        templates = Templates(home)
        try:
            (home / kind).mkdir()
            with fuzzed_registry(templates, kind, home / kind) as registry:
                done = fuzz(registry, args.seconds, *more)
            print(f"{kind}:", done.stdout, done.stderr, sep="\n")
            worst = max(worst, done.returncode)
        finally:
            templates.drop()
            shutil.rmtree(home)
    return worst


if __name__ == "__main__":
    sys.exit(main())
