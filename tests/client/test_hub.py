"""Tickets on the Hugging Face Hub, against a Hub of our own on loopback that speaks its REST interface."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from safetensors.numpy import load as load_safetensors

import nirvana
from nirvana.client.hub import write_card
from nirvana.errors import (
    Forbidden,
    Invalid,
    InvalidName,
    InvalidTicket,
    NetworkError,
    NotFound,
    Unauthenticated,
)
from tests.factories import make_ticket

TICKET = make_ticket()
COMMIT = "c0ffee" + "0" * 34
FORBIDDEN = "closed/repo"


class Hub(BaseHTTPRequestHandler):
    """Repositories in memory: created, committed to, and read."""

    repositories: dict[str, dict[str, bytes]]
    token = "Bearer hf_test"
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != self.token:
            return self.say(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            fields = json.loads(body)
            name = f"{fields['organization']}/{fields['name']}"
            if name == FORBIDDEN:
                return self.say(403, {"error": "You don't have the rights to create a model there."})
            self.repositories.setdefault(name, {})
            return self.say(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name})
        if self.path == "/api/validate-yaml":
            return self.say(200, {"warnings": [], "errors": []})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", self.path)
        assert match is not None, self.path
        if match[2] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.say(200, {"files": files})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.repositories[match[1]][entry["value"]["path"]] = content
        self.say(
            200,
            {"commitOid": COMMIT, "commitUrl": f"http://{self.headers['Host']}/{match[1]}/commit/{COMMIT}"},
        )

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if match is None:
            return self.say(404, {"error": "Not found"})
        files = self.repositories.get(match[1])
        if files is None or match[3] not in files:
            kind = "RepoNotFound" if files is None else "EntryNotFound"
            return self.say(404, {"error": "Not found"}, {"X-Error-Code": kind})
        content = files[match[3]]
        etag = {"ETag": f'"{sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self.answer(200, content, etag)

    def say(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.answer(status, content, {"Content-Type": "application/json"} | (headers or {}))

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    """A Hub of its own for a test; nothing leaves loopback."""

    class Own(Hub):
        repositories: dict[str, dict[str, bytes]] = {}  # noqa: RUF012 (one for each test)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield Own
    server.shutdown()
    server.server_close()


def test_a_ticket_comes_back_from_the_hub_byte_for_byte(hub: type[Hub]) -> None:
    pushed = nirvana.push(TICKET, to="hf://ada/lenet")["hub"]
    assert (pushed["repository"], pushed["digest"], pushed["commit"]) == ("ada/lenet", TICKET.digest, COMMIT)
    files = hub.repositories["ada/lenet"]
    assert set(files) == {"ticket.ticket", "model.safetensors", "README.md"}
    assert files["ticket.ticket"] == TICKET.to_bytes()
    loaded = nirvana.load("hf://ada/lenet")
    assert loaded.digest == TICKET.digest
    assert nirvana.load("hf://ada/lenet@main").digest == TICKET.digest
    arrays = load_safetensors(files["model.safetensors"])
    for name, values in TICKET.initial.items():
        assert (arrays[name] == values).all()
    for name, mask in TICKET.masks.items():
        assert (arrays[f"mask/{name}"] == mask).all()


def test_the_card_says_what_it_is_and_claims_no_verdict(hub: type[Hub]) -> None:
    nirvana.push(TICKET, to="hf://ada/lenet")
    card = hub.repositories["ada/lenet"]["README.md"].decode()
    for line in ("library_name: nirvana", "license: cc-by-4.0", "- lottery-ticket", TICKET.digest):
        assert line in card
    assert 'nirvana.load("hf://ada/lenet")' in card
    assert "WINNING" not in card.upper().replace("WHETHER IT WINS", "")


def test_nothing_in_a_ticket_writes_the_card_s_metadata() -> None:
    mean = make_ticket(license="x\n---\nlibrary_name: evil", provenance={"method": "a\n---\n# Heading\nb: c"})
    head, body = write_card(mean, "ada/mean").removeprefix("---\n").split("\n---\n", 1)
    keys = [line.partition(":")[0] for line in head.splitlines() if line[0] not in "- "]
    known = "datasets library_name license license_name model_name nirvana_density nirvana_digest tags"
    assert sorted(keys) == known.split()
    assert "license: other" in head
    assert "# Heading" not in body


def test_the_hub_s_refusals_are_said_in_our_words(hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="hf://ada/none"):
        nirvana.load("hf://ada/none")
    hub.repositories["ada/other"] = {"README.md": b"no ticket here"}
    with pytest.raises(NotFound, match="hf://ada/other"):
        nirvana.load("hf://ada/other")
    with pytest.raises(Forbidden, match="HF_TOKEN"):
        nirvana.push(TICKET, to=f"hf://{FORBIDDEN}")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Unauthenticated, match="HF_TOKEN"):
        nirvana.push(TICKET, to="hf://ada/lenet")


def test_a_repository_that_holds_a_broken_ticket_is_refused(hub: type[Hub]) -> None:
    hub.repositories["ada/broken"] = {"ticket.ticket": TICKET.to_bytes()[:-1]}
    with pytest.raises(InvalidTicket):
        nirvana.load("hf://ada/broken")


def test_what_was_loaded_is_there_when_the_hub_is_not(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    nirvana.push(TICKET, to="hf://ada/lenet")
    nirvana.load("hf://ada/lenet")
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    assert nirvana.load("hf://ada/lenet").digest == TICKET.digest
    with pytest.raises(NetworkError, match="not in its cache"):
        nirvana.load("hf://ada/never")
    with pytest.raises(NetworkError, match="NIRVANA_OFFLINE"):
        nirvana.push(TICKET, to="hf://ada/lenet")


def test_a_hub_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    with pytest.raises(NetworkError, match=r"127\.0\.0\.1:9 was not reached"):
        nirvana.push(TICKET, to="hf://ada/lenet")
    with pytest.raises(NetworkError):
        nirvana.load("hf://ada/lenet")


@pytest.mark.parametrize(
    "name", ["hf://ada", "hf://a/b/c", "hf://../x", "hf://a/b@../../etc", "hf://a b/c", "hf://"]
)
def test_a_name_that_is_none_is_refused_before_anything_is_asked(name: str) -> None:
    with pytest.raises(InvalidName, match="hf://org/name"):
        nirvana.load(name)
    with pytest.raises(InvalidName, match="hf://org/name"):
        nirvana.push(TICKET, to=name)


def test_a_ticket_without_a_place_is_refused() -> None:
    with pytest.raises(Invalid, match="needs a place"):
        nirvana.push(TICKET)
