"""Requests that no honest client sends, by hand: each a line, with the answer that it must get."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nirvana.errors import JsonObject
from nirvana.networks import zoo

LONG = 10**400  # an integer of 401 digits: no float, no column
LONGER = "9" * 5000  # past what Python reads as an integer
SURROGATE = "\ud800"
NUL = "a\0b"
BEYOND = 2**53  # what no JSON reader in a browser keeps
INT64 = 2**63
DEEP = 100_000
FORM = "multipart/form-data; boundary=x"
TICKET = "/api/v1/tickets/ada/first"
JOBS, TOKENS, ACCOUNTS = "/api/v1/jobs", "/api/v1/tokens", "/api/v1/accounts"
DEVICES = "/api/v1/device-codes"
ORGANISATIONS = "/api/v1/organisations"
SPEC: JsonObject = {"task": "digits", "architecture": "mlp-16", "levels": 2}
GRAPH = zoo.build("mlp-16", (1, 8, 8), 10).to_manifest()


@dataclass(frozen=True)
class Hostile:
    """A request and its answer.

    Attributes:
        body: JSON-able, bytes as they are, or None.
        status: that the answer must have.
        pointer: of one of its problems; None: the document needs none.
    """

    name: str
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 422
    pointer: str | None = None

    @property
    def content(self) -> bytes | None:
        """The bytes of the body: ASCII, with a lone surrogate as its escape."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


def table() -> list[Hostile]:
    """Every request, in order."""
    made = [*_jobs(), *_recipes(), *_others(), *_graphs(), *_texts(), *_paths(), *_queries()]
    made += [*_cursors(), *_headers(), *_uploads(), *_tasks(), *_shapes(), *_organisations()]
    assert len({one.name for one in made}) == len(made)
    return made


def _job(name: str, pointer: str | None, change: object, kind: object = "prune", **fields: Any) -> Hostile:
    spec = SPEC | change if isinstance(change, dict) and kind == "prune" else change
    return Hostile(f"job: {name}", "POST", JOBS, {"kind": kind, "spec": spec} | fields, pointer=pointer)


def _jobs() -> Iterator[Hostile]:
    of_ticket: JsonObject = {"ticket": "ada/first"}
    yield _job("levels of 401 digits", "/spec/levels", {"levels": LONG})
    yield _job("levels below none", "/spec/levels", {"levels": -LONG})
    yield _job("a seed of 401 digits", "/spec/seed", {"seed": LONG})
    yield _job("a seed past 2^53", "/spec/seed", {"seed": BEYOND})
    yield _job("a density of 401 digits", "/spec/density", {"levels": None, "density": LONG})
    yield _job("an option of 401 digits", "/spec/options", {"options": {"share": LONG}})
    yield _job("an option that is a list", "/spec/options", {"options": {"share": [1]}})
    yield _job("options that are a list", "/spec/options", {"options": [1]})
    yield _job("an option with a surrogate", "/spec/options", {"options": {SURROGATE: 1}})
    yield _job("a task that is a list", "/spec/task", {"task": ["digits"]})
    yield _job("a task with NUL", "/spec/task", {"task": NUL})
    yield _job("a task with a surrogate", "/spec/task", {"task": SURROGATE})
    yield _job("a task of a megabyte", "/spec/task", {"task": "x" * 500_000})
    yield _job("an architecture that is an object", "/spec/architecture", {"architecture": {}})
    yield _job("an architecture with a surrogate", "/spec/architecture", {"architecture": SURROGATE})
    yield _job("an architecture of wide layers", "/spec/architecture", {"architecture": "mlp-999999-999999"})
    yield _job("a method that is a list", "/spec/method", {"method": []})
    yield _job("a method that is an object", "/spec/method", {"method": {"imp": 1}})
    yield _job("a method with a surrogate", "/spec/method", {"method": SURROGATE})
    yield _job("a name with U+202E", "/spec/name", {"name": "a\u202eb"})
    yield _job("a name that is a number", "/spec/name", {"name": 5})
    yield _job("a field with a surrogate", "/spec/?", {SURROGATE: 1})
    yield _job("a spec that is a list", "/spec", [1, 2])
    yield _job("a spec that is null", "/spec", None)
    yield _job("a kind that is a list", "/kind", SPEC, kind=["prune"])
    yield _job("a kind that is an object", "/kind", SPEC, kind={})
    yield _job("a kind with a surrogate", "/kind", SPEC, kind=SURROGATE)
    yield _job("a kind of 401 digits", "/kind", SPEC, kind=LONG)
    for bound in ("seconds", "parameters", "flops"):
        yield _job(f"a budget of 401 digits: {bound}", f"/budget/{bound}", {}, budget={bound: LONG})
    yield _job("a budget that is a list", "/budget", {}, budget=[1])
    yield _job("a budget with a surrogate", "/budget/?", {}, budget={SURROGATE: 1})
    yield _job("replicates of 401 digits", "/spec/replicates", of_ticket | {"replicates": LONG}, "verify")
    most = of_ticket | {"max_replicates": LONG}
    yield _job("most replicates of 401 digits", "/spec/max_replicates", most, "verify")
    yield _job("a ticket that is a list", "/spec/ticket", {"ticket": []}, "verify")
    yield _job("a ticket with NUL", "/spec/ticket", {"ticket": "ada/a\0"}, "attest")
    yield _job("a ticket with a surrogate", "/spec/ticket", {"ticket": f"ada/{SURROGATE}"}, "attest")
    to = of_ticket | {"task": "digits"}
    yield _job("transfer replicates of 401 digits", "/spec/replicates", to | {"replicates": LONG}, "transfer")
    yield _job("an own ticket with NUL", "/spec/own", of_ticket | {"task": "digits", "own": NUL}, "transfer")


def _recipes() -> Iterator[Hostile]:
    def recipe(name: str, pointer: str, fields: object) -> Hostile:
        return _job(f"recipe: {name}", f"/spec/recipe{pointer}", {"recipe": fields})

    yield recipe("a list", "", [])
    yield recipe("a text", "", "adam")
    yield recipe("schedule.kind that is a list", "/schedule", {"schedule": {"kind": []}})
    yield recipe("schedule.kind that is an object", "/schedule", {"schedule": {"kind": {}}})
    yield recipe("schedule that is a list", "/schedule", {"schedule": ["cosine"]})
    drops = {"kind": "step", "at": [LONG], "factor": 0.1}
    yield recipe("a drop at a step of 401 digits", "/schedule", {"schedule": drops})
    yield recipe("a factor of 401 digits", "/schedule", {"schedule": drops | {"at": [1], "factor": LONG}})
    yield recipe("a schedule with a surrogate", "/schedule", {"schedule": {"kind": "cosine", SURROGATE: 1}})
    yield recipe("augmentation of objects", "/augmentation", {"augmentation": [{}]})
    yield recipe("augmentation of lists", "/augmentation", {"augmentation": [["crop"]]})
    yield recipe("augmentation that is an object", "/augmentation", {"augmentation": {"crop": 1}})
    yield recipe("an optimiser that is a list", "/optimizer", {"optimizer": []})
    yield recipe("an optimiser that is an object", "/optimizer", {"optimizer": {}})
    yield recipe("a law that is an object", "/initial_law", {"initial_law": {}})
    yield recipe("a rate of 401 digits", "/learning_rate", {"learning_rate": LONG})
    yield recipe("steps of 401 digits", "/steps", {"steps": LONG})
    yield recipe("a batch of 401 digits", "/batch_size", {"batch_size": LONG})
    yield recipe("pruning that is a list", "/pruning", {"pruning": [1]})
    yield recipe("a scope that is a list", "/pruning/scope", {"pruning": {"scope": []}})
    yield recipe("a criterion that is an object", "/pruning/criterion", {"pruning": {"criterion": {}}})
    rates = {"pruning": {"layer_rates": {SURROGATE: 0.1}}}
    yield recipe("a layer with a surrogate", "/pruning/layer_rates", rates)
    long_rates = {"pruning": {"layer_rates": {"fc1.weight": LONG}}}
    yield recipe("a layer's rate of 401 digits", "/pruning/layer_rates", long_rates)
    rewinding = {"pruning": {"rewind_step": LONG}}
    yield recipe("a rewind step of 401 digits", "/pruning/rewind_step", rewinding)
    taught = {"distillation": {"temperature": LONG, "weight": 0.5}}
    yield recipe("a temperature of 401 digits", "/distillation", taught)
    yield recipe(
        "distillation of lists", "/distillation", {"distillation": {"temperature": [], "weight": {}}}
    )
    yield recipe("a field with a surrogate", "/?", {SURROGATE: []})


def _others() -> Iterator[Hostile]:
    def body(name: str, path: str, fields: object, pointer: str | None, method: str = "POST") -> Hostile:
        return Hostile(f"body: {name}", method, path, fields, pointer=pointer)

    yield body("an account that is a list", ACCOUNTS, {"name": ["eve"]}, "/name")
    yield body("an account of 401 digits", ACCOUNTS, {"name": LONG}, "/name")
    yield body("an account of a megabyte", ACCOUNTS, {"name": "x" * 500_000}, "/name")
    yield body("a token's life of 401 digits", TOKENS, {"expires_in_seconds": LONG}, "/expires_in_seconds")
    yield body("a token's life before now", TOKENS, {"expires_in_seconds": -1}, "/expires_in_seconds")
    yield body("scopes that are an object", TOKENS, {"scopes": {}}, "/scopes")
    yield body("scopes of lists", TOKENS, {"scopes": [["read"]]}, "/scopes/0")
    yield body("a scope with a surrogate", TOKENS, {"scopes": [SURROGATE]}, "/scopes/0")
    yield body("a device's name of 401 digits", DEVICES, {"name": LONG}, "/name")
    yield body("a device's name with a surrogate", DEVICES, {"name": SURROGATE}, "/name")
    yield body("a device's scopes that are an object", DEVICES, {"scopes": {}}, "/scopes")
    yield body("a device's scopes of lists", DEVICES, {"scopes": [["read"]]}, "/scopes/0")
    yield body("a device that wants to be an admin", DEVICES, {"scopes": ["admin"]}, "/scopes/0")
    yield body("a device code that is a list", f"{DEVICES}/token", {"device_code": []}, "/device_code")
    yield body("a device code with NUL", f"{DEVICES}/token", {"device_code": NUL}, "/device_code")
    long_code = {"device_code": "x" * 500_000}
    yield body("a device code of half a megabyte", f"{DEVICES}/token", long_code, "/device_code")
    verify = f"{TICKET}/verifications"
    yield body("replicates of 401 digits", verify, {"replicates": LONG}, "/replicates")
    yield body("most replicates of 401 digits", verify, {"max_replicates": LONG}, "/max_replicates")
    yield body("replicates that are a list", verify, {"replicates": [5]}, "/replicates")
    yield body("a card that is a list", TICKET, {"card": []}, "/card", "PATCH")
    yield body("tags that are an object", TICKET, {"tags": {}}, "/tags", "PATCH")
    yield body("tags of 401 digits", TICKET, {"tags": [LONG]}, "/tags/0", "PATCH")
    yield body("tags that are null", TICKET, {"tags": None}, "/tags", "PATCH")
    yield body("a card of a megabyte", TICKET, {"card": "x" * 500_000}, "/card", "PATCH")
    yield body("a reason that is a list", f"{TICKET}/yank", {"reason": []}, "/reason")
    yield body("a reason with a surrogate", f"{TICKET}/yank", {"reason": SURROGATE}, "/reason")


def _graphs() -> Iterator[Hostile]:
    def graph(name: str, change: JsonObject, pointer: str) -> Hostile:
        path = "/api/v1/architectures:check"
        return Hostile(f"graph: {name}", "POST", path, GRAPH | change, pointer=pointer)

    def node(name: str, change: JsonObject, pointer: str) -> Hostile:
        return graph(name, {"nodes": [GRAPH["nodes"][0], GRAPH["nodes"][1] | change]}, pointer)

    yield graph("an input of 401 digits", {"input": [LONG]}, "/input")
    yield graph("an input that is an object", {"input": {}}, "/input")
    yield graph("a name of 401 digits", {"name": LONG}, "/name")
    yield graph("a name with a surrogate", {"name": SURROGATE}, "/name")
    yield graph("a name with NUL", {"name": NUL}, "/name")
    yield graph("a name with U+202E", {"name": "a\u202eb"}, "/name")
    yield graph("nodes that are an object", {"nodes": {}}, "/nodes")
    yield graph("a field with a surrogate", {SURROGATE: 1}, "/?")
    yield node("a width of 401 digits", {"out": LONG}, "/nodes/1/out")
    yield node("a width past int64", {"out": INT64}, "/nodes/1/out")
    yield node("a width that is an object", {"out": {}}, "/nodes/1/out")
    yield node("an op that is a list", {"op": []}, "/nodes/1/op")
    yield node("an op with a surrogate", {"op": SURROGATE}, "/nodes/1/op")
    yield node("a node whose name is a list", {"name": []}, "/nodes/1/name")
    yield node("a node whose name has a surrogate", {"name": SURROGATE}, "/nodes/1/name")
    yield node("inputs of objects", {"inputs": [{}]}, "/nodes/1/inputs")
    yield node("inputs with a surrogate", {"inputs": [SURROGATE]}, "/nodes/1/inputs")
    yield node("a bias of 401 digits", {"bias": LONG}, "/nodes/1/bias")
    yield node("a field of 401 digits", {"x": LONG}, "/nodes/1/x")


def _texts() -> Iterator[Hostile]:
    """What no database keeps, in every text that is kept."""
    fields: list[tuple[str, str, str, str, Any]] = [
        ("account", "POST", ACCOUNTS, "/name", "name"),
        ("token", "POST", TOKENS, "/name", "name"),
        ("card", "PATCH", TICKET, "/card", "card"),
        ("detail", "POST", f"{TICKET}/yank", "/detail", "detail"),
    ]
    for name, method, path, pointer, member in fields:
        for what, text in (("NUL", NUL), ("a surrogate", SURROGATE)):
            body = {member: text} | ({"reason": "other"} if member == "detail" else {})
            yield Hostile(f"text: {name} with {what}", method, path, body, pointer=pointer)
    for what, text in (("NUL", NUL), ("a surrogate", SURROGATE), ("U+202E", "a\u202eb")):
        yield Hostile(f"text: tag with {what}", "PATCH", TICKET, {"tags": [text]}, pointer="/tags/0")


def _paths() -> Iterator[Hostile]:
    def path(
        name: str, of: str, status: int = 404, method: str = "GET", pointer: str | None = None
    ) -> Hostile:
        return Hostile(f"path: {name}", method, f"/api/v1/{of}", status=status, pointer=pointer)

    yield path("a ticket with NUL", "tickets/a%00/b")
    yield path("a ticket that is no UTF-8", "tickets/%ff/b")
    yield path("a ticket with U+202E", "tickets/a%E2%80%AE/b")
    yield path("a digest with NUL", "tickets/sha256:%00")
    yield path("a digest of 401 digits", f"tickets/sha256:{LONG}", 422, pointer="/path/ticket")
    yield path("an owner of thousands", f"tickets/{'a' * 8000}/b", 422, pointer="/path/ticket")
    yield path("an architecture that is no UTF-8", "architectures/%ff")
    yield path("an architecture of a surrogate", "architectures/%ed%a0%80")
    yield path("a job that is no id", f"jobs/{LONG}", 422, pointer="/path/job_id")
    yield path("a job with NUL", "jobs/%00")
    yield path("events of a job that is no id", f"jobs/{LONGER}/events", 422, pointer="/path/job_id")
    yield path("a task with NUL", "tasks/%00")
    for number in (LONG, 2**31, BEYOND, INT64, -1):
        short = f"{number:.3g}" if number < LONG else "1e400"
        verification = f"tickets/ada/first/verifications/{number}"
        yield path(f"verification {short}", verification, 422, pointer="/path/verification_id")
        yield path(f"token {short}", f"tokens/{number}", 422, "DELETE", "/path/token_id")
    longest = f"tickets/ada/first/verifications/{LONGER}"
    yield path("a verification of 5,000 digits", longest, 422, pointer="/path/verification_id")


def _queries() -> Iterator[Hostile]:
    def query(name: str, text: str, pointer: str | None, path: str = "tickets", status: int = 422) -> Hostile:
        return Hostile(f"query: {name}", "GET", f"/api/v1/{path}?{text}", status=status, pointer=pointer)

    for name in ("kept", "rewind_step", "density"):
        yield query(f"{name} of 401 digits", f"{name}=min:{LONG}", f"/query/{name}")
        yield query(f"{name} of 5,000 digits", f"{name}=min:{LONGER}", f"/query/{name}")
    yield query("density that is no number", "density=min:nan", "/query/density")
    yield query("density without an end", "density=max:1e999", "/query/density")
    yield query("a time past the last", "created_at=min:9999-12-31T23:59:59-23:00", "/query/created_at")
    yield query("a time before the first", "created_at=min:0001-01-01T00:00:00%2B23:00", "/query/created_at")
    yield query("a limit of 401 digits", f"limit={LONG}", "/query/limit")
    yield query("a limit of 5,000 digits", f"limit={LONGER}", "/query/limit")
    yield query("a task with NUL", "task=a%00", "/query/task")
    yield query("words with NUL", "q=a%00", "/query/q")
    yield query("a name with NUL", "a%00=1", "/query/a\0")
    yield query("a name that is no UTF-8", "%ff=1", "/query/\ufffd")
    yield query("a facet with NUL", "facets=a%00", "/query/facets")
    yield query("a sort that is a list", "sort[]=kept", "/query/sort[]")
    yield query("given twice", "task=digits&task=mnist", "/query/task")
    yield query("a thousand parameters", "&".join(f"x{n}=1" for n in range(1000)), "/query/x0")
    alike = "tickets/ada/first/similar"
    yield query("similar tickets of 401 digits", f"limit={LONG}", "/query/limit", alike)
    yield query("no similar tickets", "limit=0", "/query/limit", alike)
    yield query("a cursor of similar tickets", "cursor=x", "/query/cursor", alike)
    yield query("a ticket with NUL", "ticket=a/%00", "/query/ticket", "transfers")
    yield query("a ticket of 5,000 characters", f"ticket={LONGER}", "/query/ticket", "transfers")
    yield query("a task of 5,000 characters", f"task={LONGER}", "/query/task", "transfers")
    yield query("a format that is a list", "format[]=csl", "/query/format[]", "tickets/ada/first/cite")
    yield query("a format with NUL", "format=%00", "/query/format", "tickets/ada/first/export")
    yield query("a kind with NUL", "kind=%00", "/query/kind", "jobs")
    yield query("a state that is none", "state=%ff", "/query/state", "jobs")


def _cursors() -> Iterator[Hostile]:
    def cursor(name: str, text: bytes, path: str = "tickets") -> Hostile:
        forged = base64.urlsafe_b64encode(text).decode().rstrip("=")
        where = f"/api/v1/{path}?cursor={forged}"
        return Hostile(f"cursor: {name}", "GET", where, pointer="/query/cursor")

    yield cursor("of another list", b'["x",1,2]')
    yield cursor("a number of 401 digits", f'["x",{LONG},{LONG}]'.encode())
    yield cursor("a number of 5,000 digits", f'["x",{LONGER}]'.encode())
    yield cursor("no list", b"{}")
    yield cursor("a deep one", b"[" * 3000)
    yield cursor("no JSON", b"\xff\x00")
    yield cursor("of architectures", b'["x","\\u0000",1]', "architectures")
    yield cursor("of transfers", b'["x",NaN]', "transfers")
    yield cursor("of a digest's listings", b'["x",Infinity,-1]', "tickets/ada/first/verifications")
    yield cursor("of jobs", b'["x","9999-99-99",1]', "jobs")
    yield Hostile("cursor: no base64", "GET", "/api/v1/tickets?cursor=%00", pointer="/query/cursor")
    empty = "/api/v1/tickets?cursor=%F0%9F%98%80"
    yield Hostile("cursor: of a face", "GET", empty, pointer="/query/cursor")


def _headers() -> Iterator[Hostile]:
    def header(name: str, path: str, status: int, pointer: str | None = None, **headers: str) -> Hostile:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return Hostile(f"header: {name}", "GET", path, headers=named, status=status, pointer=pointer)

    file = f"{TICKET}/file"
    yield header("a range of 5,000 digits", file, 416, Range=f"bytes={LONGER}-")
    yield header("a range of 401 digits", file, 416, Range=f"bytes={LONG}-")
    yield header("a range between 5,000 digits", file, 416, Range=f"bytes={LONGER}-{LONGER}")
    yield header(
        "a range of an export of 5,000 digits", f"{TICKET}/export?format=csr", 416, Range=f"bytes={LONGER}-"
    )
    events = f"{JOBS}/{{job}}/events"
    for what, number in (
        ("10^24", str(10**24)),
        ("5,000 digits", LONGER),
        ("2^63", str(INT64)),
        ("-1", "-1"),
    ):
        pointer = "/header/last-event-id"
        yield header(f"an event of {what}", events, 422, pointer, Last_Event_ID=number)
    yield header("an event that is none", events, 422, "/header/last-event-id", Last_Event_ID="a, b")
    yield header(
        "a token with a surrogate", "/api/v1/whoami", 401, Authorization="Bearer nvn_\udced\udca0\udc80"
    )
    yield header("a token of 8,000 characters", "/api/v1/whoami", 401, Authorization="Bearer " + "x" * 8000)
    yield header("a scheme of its own", "/api/v1/whoami", 401, Authorization="Basic YTpi")

    def key(name: str, path: str, text: str, body: object) -> Hostile:
        headers, pointer = {"Idempotency-Key": text}, "/header/idempotency-key"
        return Hostile(f"key: {name}", "POST", path, body, headers, pointer=pointer)

    job = {"kind": "prune", "spec": SPEC}
    yield key("empty, for a job", JOBS, "", job)
    yield key("of 5,000 characters, for a job", JOBS, LONGER, job)
    yield key("of 5,000 characters, for a verification", f"{TICKET}/verifications", LONGER, {})
    yield key("of 5,000 characters, for an attestation", f"{TICKET}/attestations", LONGER, None)
    match = {"If-Match": LONGER * 2}
    yield Hostile("header: If-Match of 10,000 characters", "PATCH", TICKET, {"card": "x"}, match, 422,
                  "/header/if-match")  # fmt: skip
    other = {"If-Match": '"\xff'}
    yield Hostile("header: If-Match of another version", "PATCH", TICKET, {"card": "x"}, other, 412)


def _organisations() -> Iterator[Hostile]:
    def send(
        name: str, method: str, path: str, body: object, pointer: str | None, status: int = 422
    ) -> Hostile:
        return Hostile(f"organisation: {name}", method, f"{ORGANISATIONS}{path}", body, {}, status, pointer)

    for name, text in (
        ("NUL", NUL),
        ("a surrogate", SURROGATE),
        ("U+202E", "a\u202e"),
        ("5,000 digits", LONGER),
    ):
        yield send(f"of {name}", "POST", "", {"name": text}, "/name")
        body = {"account": text, "role": "reader"}
        refused = name in ("NUL", "a surrogate", "5,000 digits")
        pointer, status = ("/account", 422) if refused else (None, 404)
        yield send(f"an invitation of {name}", "POST", "/lab/invitations", body, pointer, status)
        yield send(f"a role of {name}", "PATCH", "/lab/members/ada", {"role": text}, "/role")
    yield send("a name that is a list", "POST", "", {"name": ["lab"]}, "/name")
    yield send("an admin", "POST", "", {"name": "admin"}, "/name")
    yield send("a name of a look-alike", "POST", "", {"name": "adrnin"}, "/name")
    yield send("a member more than asked", "POST", "", {"name": "x", "owner": "eve"}, "/owner")
    yield send(
        "a role that nobody has", "POST", "/lab/invitations", {"account": "a", "role": "admin"}, "/role"
    )
    for name, path in (("NUL", "a%00"), ("no UTF-8", "%ff"), ("U+202E", "a%E2%80%AE"), ("dots", "..%2Fada")):
        yield send(f"at {name}", "GET", f"/{path}", None, None, 404)
        yield send(f"accepted at {name}", "POST", f"/{path}/accept", None, None, 404)
        yield send(f"without its member {name}", "DELETE", f"/lab/members/{path}", None, None, 404)
    yield send("at 8,000 characters", "GET", f"/{'a' * 8000}", None, "/path/organisation")
    yield send("without its member of 8,000", "DELETE", f"/lab/members/{'a' * 8000}", None, "/path/account")


def _uploads() -> Iterator[Hostile]:
    """Hostile things around a file; hostile files are in test_bad_files.py."""
    tickets = "/api/v1/tickets"

    def form(name: str, body: bytes, status: int, pointer: str | None = None, kind: str = FORM) -> Hostile:
        return Hostile(f"form: {name}", "POST", tickets, body, {"Content-Type": kind}, status, pointer)

    def part(disposition: bytes, content: bytes = b"x") -> bytes:
        return (
            b"--x\r\nContent-Disposition: form-data; "
            + disposition
            + b"\r\n\r\n"
            + content
            + b"\r\n--x--\r\n"
        )

    yield form("without a boundary", b"x", 400, kind="multipart/form-data")
    yield form(
        "with another boundary",
        part(b'name="file"; filename="a"'),
        400,
        kind="multipart/form-data; boundary=y",
    )
    yield form("of an unknown charset", part(b'name="name"'), 422, "/file", kind=f"{FORM}; charset=nope")
    yield form("without a file", part(b'name="name"'), 422, "/file")
    yield form("a part without a name", part(b"filename=a"), 400)
    yield form("a part without a disposition", b"--x\r\n\r\nx\r\n--x--\r\n", 400)
    yield form("a name that is no UTF-8", part(b'name="\xff"; filename="a"'), 422, "/file")
    yield form("a file that is none", part(b'name="file"; filename="a"'), 422)
    yield form("a body that breaks off", b"--x\r\nContent-Disposition: form-data", 422, "/file")
    yield form("ten thousand parts", b"--x\r\n" * 10_000, 400)
    yield form("no media type", b"x", 415, kind="\xff")
    raw = {"Content-Type": "application/vnd.nirvana.ticket"}
    for name, text in (
        ("NUL", "%00"),
        ("U+202E", "a%E2%80%AEb"),
        ("no UTF-8", "%ff"),
        ("5,000 digits", LONGER),
    ):
        where = f"{tickets}?name={text}"
        pointer = "/query/name" if name in ("NUL", "5,000 digits") else "/name"
        yield Hostile(f"raw: a name of {name}", "POST", where, b"x", raw, pointer=pointer)
    unseen = f"{tickets}?name=x&visibility=%F0%9F%98%80"
    yield Hostile("raw: a visibility that is none", "POST", unseen, b"x", raw, pointer="/query/visibility")


def _tasks() -> Iterator[Hostile]:
    """Forms of tasks, and what may be done to one; hostile files are in test_tasks.py."""
    tasks, rows = "/api/v1/tasks", b"a,b\n" + b"1,x\n2,y\n" * 60

    def form(of: str, status: int = 422, pointer: str | None = None, **fields: bytes | None) -> Hostile:
        known: dict[str, bytes | None] = {"name": b"x", "title": b"t", "license": b"l"}
        parts = [
            b"--x\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n" % (key.encode(), value)
            for key, value in (known | fields).items()
            if value is not None and key != "filename"
        ]
        filename = fields.get("filename") or b"t.csv"
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n' % filename
        body = b"".join(parts) + head + rows + b"\r\n--x--\r\n"
        return Hostile(f"task: {of}", "POST", tasks, body, {"Content-Type": FORM}, status, pointer)

    yield form("without a licence", pointer="/license", license=None)
    yield form("a title with NUL", pointer="/title", title=b"a\0b")
    yield form("a title with U+202E", pointer="/title", title="a\u202eb".encode())
    yield form("a title that is no UTF-8", 422, title=b"\xff" * 500)
    yield form("a name that climbs", pointer="/name", name=b"../../x")
    yield form("another's name", pointer="/name", name=b"bob/x")
    yield form("a name of the registry's", pointer="/name", name=b"leaderboard")
    yield form("a seed of 5,000 digits", pointer="/seed", seed=LONGER.encode())
    yield form("a seed past int64", pointer="/seed", seed=b"9223372036854775808")
    yield form("a share that is infinite", pointer="/sealed_share", sealed_share=b"inf")
    yield form("shares of everything", pointer="/test_share", test_share=b"0.9")
    yield form("a margin that is no number", pointer="/margin", margin=b"nan")
    yield form("an image of any size", pointer="/image_size", image_size=b"1000000")
    yield form("a column that is not there", pointer="/columns/zzz", label=b"zzz")
    yield form("a field that nobody knows", pointer="/owner", owner=b"bob")
    yield form("a file name that climbs", pointer="/file", filename=b"../../etc/passwd")
    yield form("a file name without a suffix", pointer="/file", filename=b"csv")
    yield Hostile("task: no form", "POST", tasks, b"{}", {"Content-Type": "application/json"}, 415)
    yield Hostile("task: no boundary", "POST", tasks, b"x", {"Content-Type": "multipart/form-data"}, 400)
    for name in ("digits", "nobody/x", "a%2Fb", "a%00b", "%ff"):
        status = 403 if name == "digits" else 404
        yield Hostile(f"task: remove {name}", "DELETE", f"{tasks}/{name}", status=status)
        yield Hostile(f"task: data of {name}", "GET", f"{tasks}/{name}/data", status=404)
    reason = f"{tasks}/digits/yank"
    yield Hostile("task: a reason that is a list", "POST", reason, {"reason": []}, pointer="/reason")
    for board in ("leaderboard", "frontier"):
        wrong = f"{tasks}/digits/{board}?brought_in=perhaps"
        yield Hostile(f"task: {board} of perhaps", "GET", wrong, pointer="/query/brought_in")
        yield Hostile(f"task: {board} of nothing", "GET", f"{tasks}/a/b/{board}", status=404)
    yield Hostile("task: a cursor of another list", "GET", f"{tasks}?cursor=WzFd", pointer="/query/cursor")
    yield Hostile("task: a limit of 401 digits", "GET", f"{tasks}?limit={LONG}", pointer="/query/limit")


def _shapes() -> Iterator[Hostile]:
    """Bodies of the wrong shape."""
    paths = {JOBS: "jobs", TOKENS: "tokens", ACCOUNTS: "accounts", "/api/v1/architectures:check": "graphs"}
    paths |= {ORGANISATIONS: "organisations", f"{ORGANISATIONS}/lab/invitations": "invitations"}
    for path, name in paths.items():
        yield Hostile(f"shape: {name}: a list", "POST", path, [], pointer="")
        yield Hostile(f"shape: {name}: null", "POST", path, b"null", pointer="")
        yield Hostile(f"shape: {name}: a deep list", "POST", path, b"[" * DEEP + b"]" * DEEP, status=400)
        yield Hostile(f"shape: {name}: a deep object", "POST", path, b'{"a":' * 900 + b"1" + b"}" * 900)
        yield Hostile(f"shape: {name}: 5,000 digits", "POST", path, LONGER.encode(), status=400)
        yield Hostile(f"shape: {name}: not a number", "POST", path, b'{"name": NaN, "kind": NaN}')
        yield Hostile(f"shape: {name}: no UTF-8", "POST", path, b'{"name": "\xff"}', status=400)
        yield Hostile(f"shape: {name}: UTF-16", "POST", path, '{"x": 1}'.encode("utf-16"), status=422)
