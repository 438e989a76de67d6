"""Client: a Nirvana service's REST interface, one method a request."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from nirvana import environment
from nirvana.errors import NetworkError, NirvanaError
from nirvana.transport import Transport

TICKET_MEDIA_TYPE = "application/vnd.nirvana.ticket"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
_RESUMES = 20
_STREAM_PAUSE_SECONDS = 0.2

Json = dict[str, Any]


class Client:
    """A service and who asks it.

    Args:
        endpoint: its address; None: NIRVANA_ENDPOINT, by default http://127.0.0.1:8000.
        token: bearer token; None: NIRVANA_TOKEN, by default what `nirvana login` kept.

    Every method raises `NetworkError` where the service is not reached, and the same class of `NirvanaError`
    that the service raised where it refuses.
    """

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        self.endpoint = (endpoint or environment.endpoint()).rstrip("/")
        self._transport = Transport(self.endpoint, token or environment.token())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # the service

    def service(self) -> Json:
        """Version, limits, media types and links."""
        return self._get("/")

    def is_ready(self) -> bool:
        """Whether /readyz says that the service can work."""
        try:
            self._transport.request("GET", f"{self.endpoint}/readyz", retries=0)
        except NirvanaError:
            return False
        return True

    # who asks

    def whoami(self) -> Json:
        return self._get("/whoami")

    def create_account(self, name: str, **fields: Any) -> Json:
        return self._post("/accounts", json={"name": name, **fields})

    def create_token(self, **fields: Any) -> Json:
        """A new token; the secret is in this answer and never again."""
        return self._post("/tokens", json=fields)

    def tokens(self) -> Iterator[Json]:
        return self._pages("/tokens", {})

    def revoke_token(self, token_id: str) -> None:
        self._transport.request("DELETE", f"/tokens/{quote(token_id)}")

    # tickets

    def search(self, *, limit: int | None = None, **filters: Any) -> Iterator[Json]:
        """Tickets that match, page after page.

        Args:
            limit: the most to give; None: all.
            filters: the list's query parameters (task="mnist", verdict="winning" ...); `min_x` and `max_x`
                stand for the range x (max_density=0.05 is density=max:0.05). None means no filter.
        """
        return self._pages("/tickets", query_of(filters), limit)

    def ticket(self, name: str) -> Json:
        """Manifest, computed statistics, verdict, evaluations and lineage of owner/name or sha256:..."""
        return self._get(ticket_path(name))

    def download(
        self, name: str, etag: str | None = None, on_bytes: Callable[[int], None] | None = None
    ) -> bytes | None:
        """The .ticket file; a connection that breaks is taken up where it broke.

        Args:
            etag: a digest already here; None comes back when the service still has the same.
            on_bytes: called with the number of bytes so far.
        """
        body, found = bytearray(), ""
        for attempt in range(_RESUMES):
            headers = {"If-None-Match": f'"{etag}"'} if etag else {}
            if body and found:
                headers = {"Range": f"bytes={len(body)}-", "If-Range": found}
            try:
                with self._transport.stream(f"{ticket_path(name)}/file", headers=headers) as response:
                    if response.status_code == 304:
                        return None
                    if response.status_code != 206:
                        body.clear()
                    found = response.headers.get("ETag", "")
                    for chunk in response.iter_bytes():
                        body += chunk
                        if on_bytes:
                            on_bytes(len(body))
                return bytes(body)
            except NetworkError:
                if not body or attempt == _RESUMES - 1:
                    raise
                time.sleep(min(0.1 * 2**attempt, 5.0))
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
        """The service's checks of a .ticket file; nothing is kept."""
        return self._post("/tickets:lint", content=data, headers={"Content-Type": TICKET_MEDIA_TYPE})

    def yank(self, name: str, reason: str, detail: str | None = None) -> Json:
        fields = {"reason": reason} | ({"detail": detail} if detail else {})
        return self._post(f"{ticket_path(name)}/yank", json=fields)

    def unyank(self, name: str) -> Json:
        return self._post(f"{ticket_path(name)}/unyank")

    def export(self, name: str, format: str) -> bytes:
        """A ticket in another form: safetensors, numpy, csr, onnx or script."""
        return self._transport.request(
            "GET", f"{ticket_path(name)}/export", params={"format": format}
        ).content

    def evaluations(self, name: str) -> Iterator[Json]:
        return self._pages(f"{ticket_path(name)}/verifications", {})

    def verify(self, name: str, **fields: Any) -> Json:
        """Ask for a verification of a ticket: the job that does it."""
        return self._post(f"{ticket_path(name)}/verifications", json=fields)

    # tasks and architectures

    def tasks(self) -> Iterator[Json]:
        return self._pages("/tasks", {})

    def task(self, name: str) -> Json:
        return self._get(f"/tasks/{quote(name)}")

    def architectures(self) -> Iterator[Json]:
        return self._pages("/architectures", {})

    # jobs

    def submit_job(
        self,
        kind: str,
        spec: Mapping[str, Any],
        budget: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> Json:
        """Queue a job; `key` is an Idempotency-Key, so that a repeated call submits once."""
        fields: Json = {"kind": kind, "spec": dict(spec)} | ({"budget": dict(budget)} if budget else {})
        return self._post("/jobs", json=fields, headers={"Idempotency-Key": key} if key else {})

    def jobs(self, limit: int | None = None, **filters: Any) -> Iterator[Json]:
        return self._pages("/jobs", query_of(filters), limit)

    def job(self, job_id: str) -> Json:
        return self._get(f"/jobs/{quote(job_id)}")

    def cancel_job(self, job_id: str) -> Json:
        return self._post(f"/jobs/{quote(job_id)}/cancel")

    def job_events(self, job_id: str, last_event_id: str | None = None) -> Iterator[Json]:
        """A job's events, {"id", "event", "data"}, from `last_event_id` until the job has ended.

        A connection that breaks is taken up after the last event that arrived.
        """
        failures = 0
        while True:
            headers = {"Accept": "text/event-stream"} | (
                {"Last-Event-ID": last_event_id} if last_event_id else {}
            )
            try:
                with self._transport.stream(f"/jobs/{quote(job_id)}/events", headers=headers) as response:
                    for event in parse_events(response.iter_lines()):
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
                time.sleep(min(0.2 * 2**failures, 5.0))

    def _get(self, path: str, **arguments: Any) -> Json:
        return dict(self._transport.json("GET", path, **arguments))

    def _post(self, path: str, **arguments: Any) -> Json:
        return dict(self._transport.json("POST", path, **arguments))

    def _pages(self, path: str, query: Mapping[str, Any], limit: int | None = None) -> Iterator[Json]:
        left, query = limit, dict(query)
        while left is None or left > 0:
            page = self._get(path, params=query | ({"limit": min(left, 100)} if left is not None else {}))
            yield from page["items"]
            left = None if left is None else left - len(page["items"])
            if not page.get("next_cursor"):
                return
            query["cursor"] = page["next_cursor"]


def ticket_path(name: str) -> str:
    """The path of owner/name, or of sha256:hex."""
    return f"/tickets/{quote(name, safe='/:')}"


def query_of(filters: Mapping[str, Any]) -> dict[str, str]:
    """Query parameters of keyword filters: min_x and max_x become the range x."""
    query: dict[str, str] = {}
    for name, value in filters.items():
        if value is None:
            continue
        bound, _, field = name.partition("_")
        if bound in ("min", "max") and field:
            query[field] = ",".join(filter(None, [query.get(field), f"{bound}:{value}"]))
        else:
            query[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return query


def parse_events(lines: Iterator[str]) -> Iterator[Json]:
    """Server-sent events as {"id", "event", "data"}; data is JSON. Comments (heartbeats) are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "data" in fields:
                data = json.loads(fields["data"])
                yield {"id": fields.get("id", ""), "event": fields.get("event", "message"), "data": data}
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields['data']}\n{value}" if name == "data" and "data" in fields else value
