"""Client: a Nirvana service's REST interface, one method a request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Unpack
from urllib.parse import quote, urlencode

from httpx_sse import EventSource, ServerSentEvent

from nirvana import environment
from nirvana.client.filters import Value, query_of
from nirvana.client.transport import RETRIES, Arguments, Transport, wait_seconds, with_jitter
from nirvana.errors import JsonObject as Json
from nirvana.errors import (
    NetworkError,
    NirvanaError,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    Unavailable,
)

TICKET_MEDIA_TYPE = "application/vnd.nirvana.ticket"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
_RESUMES = 20
_FRESH_TRIES = 2  # of a download of which nothing has come yet
_STREAM_PAUSE_SECONDS = 0.2
_RETAGS = 5
_MAKING_SECONDS = 600.0  # of an upload that is read whole before it is answered


class Client:
    """A service and who asks it.

    Args:
        endpoint: its address; None: NIRVANA_ENDPOINT, by default http://127.0.0.1:8000.
        token: bearer token; None: NIRVANA_TOKEN, by default what `nirvana login` kept; "": nobody's.

    Every method raises `NetworkError` where the service is not reached, and the same class of `NirvanaError`
    that the service raised where it refuses.
    """

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        self.endpoint = (endpoint or environment.endpoint()).rstrip("/")
        self._transport = Transport(self.endpoint, environment.token() if token is None else token)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # the service

    def service(self) -> Json:
        """Return version, limits, media types and links."""
        return self._get("/")

    def is_ready(self) -> bool:
        """Tell whether /readyz says that the service can work."""
        try:
            self._transport.request("GET", f"{self.endpoint}/readyz", retries=0)
        except NirvanaError:
            return False
        return True

    # who asks

    def whoami(self) -> Json:
        return self._get("/whoami")

    def create_account(self, name: str, **fields: object) -> Json:
        return self._post("/accounts", json={"name": name, **fields})

    def create_token(self, **fields: object) -> Json:
        """Create a token; the secret is in this answer and never again."""
        return self._post("/tokens", json=fields)

    def create_device_code(self, **fields: object) -> Json:
        """Ask for a token that a user grants in a browser: `user_code` is for them to type."""
        return self._post("/device-codes", json=fields)

    def fetch_device_token(self, device_code: str) -> Json | None:
        """Return the token that was granted; None while nobody has answered.

        Raises:
            Forbidden: it was denied. NotFound: the code is over.
        """
        path = "/device-codes/token"
        response = self._transport.request("POST", path, json={"device_code": device_code})
        return None if response.status_code == 202 else dict(response.json())

    def set_password(self, password: str, old_password: str | None = None) -> None:
        """Give the account a password to sign in by in a browser."""
        body = {"password": password, "old_password": old_password}
        self._transport.request("PUT", "/password", json=body)

    def tokens(self) -> Iterator[Json]:
        return self._pages("/tokens", {})

    def revoke_token(self, token_id: str) -> None:
        self._transport.request("DELETE", f"/tokens/{quote(token_id)}")

    def create_organisation(self, name: str) -> Json:
        return self._post("/organisations", json={"name": name})

    def members(self, organisation: str) -> Json:
        """Members of an organisation as `items`, and to its owners `invitations`."""
        return self._get(f"{_organisation(organisation)}/members")

    def invite(self, organisation: str, account: str, role: str) -> Json:
        """Invite somebody, who is no member until they accept."""
        body = {"account": account, "role": role}
        return self._post(f"{_organisation(organisation)}/invitations", json=body)

    def accept_invitation(self, organisation: str) -> Json:
        return self._post(f"{_organisation(organisation)}/accept")

    def drop_invitation(self, organisation: str, account: str) -> None:
        """Decline an own invitation, or withdraw one of an own organisation."""
        self._transport.request("DELETE", f"{_organisation(organisation)}/invitations/{quote(account)}")

    def change_role(self, organisation: str, account: str, role: str) -> Json:
        path = f"{_organisation(organisation)}/members/{quote(account)}"
        changed: Json = self._transport.request("PATCH", path, json={"role": role}).json()
        return changed

    def remove_member(self, organisation: str, account: str) -> None:
        """Remove a member of an own organisation, or leave one."""
        self._transport.request("DELETE", f"{_organisation(organisation)}/members/{quote(account)}")

    # tickets

    def search(
        self, *, limit: int | None = None, cursor: str | None = None, **filters: Value
    ) -> Iterator[Json]:
        """Yield tickets that match, page after page.

        Args:
            limit: the most to yield; None: all.
            cursor: `next_cursor` of a page, to go on after it.
            filters: names of `nirvana.client.filters.PARAMETERS` (task="mnist", sort="kept"), and the ends of
                their ranges (max_density=0.05). None means no filter.

        Raises:
            InvalidQuery: a filter that is none.
        """
        query = query_of(filters) | ({} if cursor is None else {"cursor": cursor})
        return self._pages("/tickets", query, limit)

    def ticket(self, name: str) -> Json:
        """Return manifest, statistics, verdict, evaluations and lineage of owner/name or sha256:..."""
        return self._get(ticket_path(name))

    def facets(self, names: Sequence[str], **filters: Value) -> Json:
        """Return the counts of a search: `total`, and `facets`, of each of these names value -> count, with
        `total_is_exact` and `facets_are_exact`."""
        query = query_of(filters) | {"facets": ",".join(names), "limit": "1"}
        page = self._get("/tickets", params=query)
        return {name: page[name] for name in ("total", "total_is_exact", "facets", "facets_are_exact")}

    def similar(self, name: str, limit: int = 10) -> list[Json]:
        """Return the tickets whose masks are most like a ticket's, each with the part that they `shared`."""
        return list(self._get(f"{ticket_path(name)}/similar", params={"limit": limit})["items"])

    def lineage(self, name: str) -> Json:
        """Return the tree that a ticket stands in: `edges`, each known by a job or claimed by a file."""
        return self._get(f"{ticket_path(name)}/lineage")

    def versioned(self, name: str) -> tuple[Json, str]:
        """Return a listing, and the ETag that a change of it is made on."""
        response = self._transport.request("GET", ticket_path(name))
        return dict(response.json()), response.headers.get("ETag", "")

    def update(self, name: str, etag: str | None = None, **changes: object) -> Json:
        """Change the `card`, the `tags` or the `visibility` of your listing.

        Args:
            etag: the version that you looked at; None: whichever it is now.

        Raises:
            PreconditionFailed: somebody changed it since.
        """
        headers = {"If-Match": etag} if etag else {}
        return self._transport.json("PATCH", ticket_path(name), json=changes, headers=headers)

    def retag(self, name: str, add: Collection[str] = (), remove: Collection[str] = ()) -> Json:
        """Add tags to your listing and take others away, whoever else does so at once.

        Raises:
            NotFound: it has not a tag that is to be taken away.
        """
        for _ in range(_RETAGS):
            listing, etag = self.versioned(name)
            if missing := sorted(set(remove) - set(listing["tags"])):
                raise NotFound(f"{name} has no tag {missing[0]!r}; it has {listing['tags']}.")
            tags = sorted((set(listing["tags"]) - set(remove)) | set(add))
            try:
                return self.update(name, etag, tags=tags)
            except PreconditionFailed as error:  # the tags are read again
                lost = error
        raise lost

    def download(
        self, name: str, etag: str | None = None, on_bytes: Callable[[int], None] | None = None
    ) -> bytes | None:
        """Download the .ticket file; a connection that breaks is resumed where it broke.

        Args:
            etag: sha256:hex of a file already here; None comes back when the service still has the same.
            on_bytes: called with the number of bytes so far.
        """
        return self._resumed(f"{ticket_path(name)}/file", etag, on_bytes)

    def download_file(self, file_digest: str, on_bytes: Callable[[int], None] | None = None) -> bytes:
        """Download a .ticket file by the sha256 of its bytes, as `download` does."""
        content = self._resumed(f"/files/{quote(file_digest, safe=':')}", None, on_bytes)
        assert content is not None  # nobody asked whether it is still the same
        return content

    def _resumed(self, path: str, etag: str | None, on_bytes: Callable[[int], None] | None) -> bytes | None:
        body, validator = bytearray(), ""
        for attempt in range(_RESUMES):
            headers = {"If-None-Match": f'"{etag}"'} if etag else {}
            if body and validator:
                headers = {"Range": f"bytes={len(body)}-", "If-Range": validator}
            try:
                with self._transport.stream(path, headers=headers) as response:
                    if response.status_code == 304:
                        return None
                    if response.status_code != 206:
                        body.clear()
                    validator = response.headers.get("ETag", "")
                    for chunk in response.iter_bytes():
                        body += chunk
                        if on_bytes:
                            on_bytes(len(body))
                return bytes(body)
            except NetworkError:
                if (not body and attempt >= _FRESH_TRIES) or attempt == _RESUMES - 1:
                    raise
                time.sleep(with_jitter(min(0.1 * 2**attempt, 5.0)))
            except (Unavailable, QuotaExceeded) as busy:
                if attempt >= RETRIES:
                    raise
                time.sleep(wait_seconds(str(busy.extra.get("retry_after", "")), attempt))
        raise AssertionError("unreachable")

    def publish(self, data: bytes, name: str, idempotency_key: str | None = None, **fields: str) -> Json:
        """Publish a .ticket file under your own `name`; the same file and name again is no error."""
        return self._post(
            "/tickets",
            files={"file": ("upload.ticket", data, TICKET_MEDIA_TYPE)},
            data={"name": name, **fields},
            headers={"Idempotency-Key": idempotency_key} if idempotency_key else {},
        )

    def lint(self, data: bytes) -> Json:
        """Return the service's checks of a .ticket file; nothing is kept."""
        return self._post("/tickets:lint", content=data, headers={"Content-Type": TICKET_MEDIA_TYPE})

    def yank(self, name: str, reason: str, detail: str | None = None) -> Json:
        fields = {"reason": reason} | ({"detail": detail} if detail else {})
        return self._post(f"{ticket_path(name)}/yank", json=fields)

    def unyank(self, name: str) -> Json:
        return self._post(f"{ticket_path(name)}/unyank")

    def export(self, name: str, format: str) -> bytes:
        """Return a ticket in another form: safetensors, numpy, csr, onnx or script; resumed as a download."""
        content = self._resumed(f"{ticket_path(name)}/export?{urlencode({'format': format})}", None, None)
        assert content is not None  # nobody asked whether it is still the same
        return content

    def evaluations(self, name: str) -> Iterator[Json]:
        return self._pages(f"{ticket_path(name)}/verifications", {})

    def signed_verdict(self, name: str, evaluation_id: int) -> Json:
        """Return one evaluation of a ticket, signed: `nirvana.client.signatures` checks it."""
        return self._get(f"{ticket_path(name)}/verifications/{evaluation_id}/signed")

    def keys(self) -> Json:
        """Return the public keys that the registry's verdicts are signed with."""
        return self._get(f"{self.endpoint}/.well-known/jwks.json")

    def diff(self, name: str, other: str) -> Json:
        """Return how the masks and values of two tickets differ, layer by layer."""
        return self._get(f"{ticket_path(name)}/diff/{quote(other, safe='/:')}")

    def citation(self, name: str, format: str) -> str:
        """Return how to cite a ticket: bibtex, cff, csl or datacite."""
        path = f"{ticket_path(name)}/cite"
        return self._transport.request("GET", path, params={"format": format}).text

    def verify(self, name: str, **fields: object) -> Json:
        """Ask for a verification of a ticket; return the job that does it."""
        return self._post(f"{ticket_path(name)}/verifications", json=fields)

    def attestations(self, name: str) -> Iterator[Json]:
        return self._pages(f"{ticket_path(name)}/attestations", {})

    def transfers(self, name: str) -> Iterator[Json]:
        """Yield what came out when a ticket was tried on other tasks."""
        return self._pages("/transfers", {"ticket": name})

    def attest(self, name: str) -> Json:
        """Ask for a ticket's search to be run again; return the job that does it."""
        return self._post(f"{ticket_path(name)}/attestations")

    def changes(self, since: int = 0, limit: int = 1000) -> Json:
        """Return a page of what happened to listings after a serial: `items`, `last_serial`, `has_more`."""
        return self._get("/changes", params={"since": since, "limit": limit})

    def webhooks(self) -> Iterator[Json]:
        return self._pages("/webhooks", {})

    def create_webhook(self, url: str, kinds: Sequence[str] = ()) -> Json:
        """Have changes sent to an address; the secret is in this answer and never again."""
        return self._post("/webhooks", json={"url": url, "kinds": list(kinds)})

    def delete_webhook(self, webhook_id: int) -> None:
        self._transport.request("DELETE", f"/webhooks/{webhook_id}")

    def replay_webhook(self, webhook_id: int, since: int) -> Json:
        """Have every change after a serial sent again."""
        return self._post(f"/webhooks/{webhook_id}/replay", json={"since": since})

    # tasks and architectures

    def tasks(self, owner: str | None = None) -> Iterator[Json]:
        return self._pages("/tasks", {} if owner is None else {"owner": owner})

    def task(self, name: str) -> Json:
        return self._get(task_path(name))

    def create_task(self, file: Path, fields: Mapping[str, object]) -> Json:
        """Make a task of a table, arrays or a zip file of images.

        Args:
            fields: of the form; None is left out, and a list is a field that is repeated.
        """
        form = {
            name: [str(one) for one in value] if isinstance(value, list) else str(value)
            for name, value in fields.items()
            if value is not None
        }
        if not file.is_file():
            raise NotFound(f"no such file: {file}")
        with file.open("rb") as stream:
            files = {"file": (file.name, stream, "application/octet-stream")}
            return self._post("/tasks", files=files, data=form, timeout=_MAKING_SECONDS)

    def download_task(self, name: str) -> bytes:
        """Return the .npz of a task's public examples; a connection that breaks is resumed where it broke."""
        content = self._resumed(f"{task_path(name)}/data", None, None)
        assert content is not None  # nobody asked whether it is still the same
        return content

    def leaderboard(self, name: str, *, brought_in: bool = False, limit: int | None = None) -> Iterator[Json]:
        """Yield the tickets of a task by measured accuracy, with intervals."""
        return self._pages(f"{task_path(name)}/leaderboard", _flag(brought_in), limit)

    def frontier(self, name: str, *, brought_in: bool = False) -> Json:
        """Return the frontier of accuracy against kept weights."""
        return self._get(f"{task_path(name)}/frontier", params=_flag(brought_in))

    def croissant(self, name: str) -> Json:
        """Return a task's Croissant metadata."""
        return self._get(f"{task_path(name)}/croissant")

    def yank_task(self, name: str, reason: str, detail: str | None = None) -> Json:
        fields = {"reason": reason} | ({"detail": detail} if detail else {})
        return self._post(f"{task_path(name)}/yank", json=fields)

    def unyank_task(self, name: str) -> Json:
        return self._post(f"{task_path(name)}/unyank")

    def delete_task(self, name: str) -> None:
        """Take the data of a task of yours away, as long as nothing depends on it."""
        self._transport.request("DELETE", task_path(name))

    def architectures(self) -> Iterator[Json]:
        return self._pages("/architectures", {})

    # jobs

    def submit_job(
        self,
        kind: str,
        spec: Mapping[str, object],
        budget: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> Json:
        """Queue a job; `key` is an Idempotency-Key, so that a repeated call submits once."""
        fields: Json = {"kind": kind, "spec": dict(spec)} | ({"budget": dict(budget)} if budget else {})
        return self._post("/jobs", json=fields, headers={"Idempotency-Key": key} if key else {})

    def jobs(self, limit: int | None = None, **filters: str | None) -> Iterator[Json]:
        query = {name: value for name, value in filters.items() if value is not None}
        return self._pages("/jobs", query, limit)

    def job(self, job_id: str) -> Json:
        return self._get(f"/jobs/{quote(job_id)}")

    def cancel_job(self, job_id: str) -> Json:
        return self._post(f"/jobs/{quote(job_id)}/cancel")

    def job_events(self, job_id: str, last_event_id: str | None = None) -> Iterator[Json]:
        """Follow a job's events, {"id", "event", "data"}, from `last_event_id` until the job has ended.

        A connection that breaks is resumed after the last event that arrived.
        """
        failures = 0
        while True:
            headers = {"Accept": "text/event-stream"} | (
                {"Last-Event-ID": last_event_id} if last_event_id else {}
            )
            try:
                with self._transport.stream(f"/jobs/{quote(job_id)}/events", headers=headers) as response:
                    for event in map(_event_of, EventSource(response).iter_sse()):
                        failures, last_event_id = 0, event["id"] or last_event_id
                        yield event
                        if event["event"] == "state" and event["data"].get("state") in FINAL_STATES:
                            return
                if self.job(job_id)["state"] in FINAL_STATES:
                    return
                time.sleep(_STREAM_PAUSE_SECONDS)
            except NetworkError:
                failures += 1
                if failures > _RESUMES:
                    raise
                time.sleep(with_jitter(min(0.2 * 2**failures, 5.0)))

    def _get(self, path: str, **arguments: Unpack[Arguments]) -> Json:
        return self._transport.json("GET", path, **arguments)

    def _post(self, path: str, **arguments: Unpack[Arguments]) -> Json:
        return self._transport.json("POST", path, **arguments)

    def _pages(self, path: str, query: Mapping[str, str | int], limit: int | None = None) -> Iterator[Json]:
        left, params = limit, dict(query)
        while left is None or left > 0:
            page = self._get(path, params=params | ({"limit": min(left, 100)} if left is not None else {}))
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            if not page.get("next_cursor"):
                return
            params["cursor"] = page["next_cursor"]


def _organisation(name: str) -> str:
    return f"/organisations/{quote(name, safe='')}"


def ticket_path(name: str) -> str:
    """Return the path of owner/name, or of sha256:hex."""
    return f"/tickets/{quote(name, safe='/:')}"


def _event_of(sent: ServerSentEvent) -> Json:
    """Return a server-sent event as {"id", "event", "data"}, data being JSON. Raises: NetworkError."""
    try:
        return {"id": sent.id, "event": sent.event, "data": json.loads(sent.data)}
    except ValueError as error:
        raise NetworkError(f"event {sent.id!r}: expected JSON, found {sent.data[:100]!r}") from error


def task_path(name: str) -> str:
    """Return the path of a task, `name` or `owner/name`."""
    return f"/tasks/{quote(name, safe='/')}"


def _flag(brought_in: bool) -> dict[str, str | int]:
    return {"brought_in": "true"} if brought_in else {}
