"""Organisations: members and roles, invitations, publishing in their name, and private that means unseen."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from app.accounts.models import Account
from app.accounts.organisations.roles import Invitation, Membership
from app.accounts.service import create_token, find_account
from app.accounts.sessions import begin_session
from app.dependencies import COOKIE
from app.jobs.service import append_events, begin_job, end_job
from app.transfers.service import record_transfer
from nirvana.errors import Forbidden
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.http.test_private import OF_TICKET, OWN, plain
from tests.jobs.test_transfer import FOUND
from tests.registry import EACH, VERDICT, Registry, measure, pointers, problem

API = "/api/v1/organisations"
SECRET, NOTHING = "lab/secret", "lab/nothing"


def call(registry: Registry, method: str, path: str, by: str, body: Any = None) -> httpx.Response:
    return registry.http.request(method, f"{API}{path}", json=body, headers=registry.bearer(by))


def make(registry: Registry, name: str = "lab", **members: str) -> None:
    """Make an organisation of ada's, with members of these roles who have accepted."""
    assert call(registry, "POST", "", "ada", {"name": name}).status_code == 201
    for member, role in members.items():
        join(registry, name, member, role)


def join(registry: Registry, organisation: str, member: str, role: str, by: str = "ada") -> None:
    registry.bearer(member)
    body = {"account": member, "role": role}
    invited = call(registry, "POST", f"/{organisation}/invitations", by, body)
    assert invited.status_code == 201, invited.text
    accepted = call(registry, "POST", f"/{organisation}/accept", member)
    assert accepted.status_code == 200, accepted.text


def members(registry: Registry, by: str = "ada", name: str = "lab") -> dict[str, str]:
    answer = call(registry, "GET", f"/{name}/members", by)
    assert answer.status_code == 200, answer.text
    return {one["account"]: one["role"] for one in answer.json()["items"]}


def own(registry: Registry, by: str) -> dict[str, list[dict[str, str]]]:
    who = registry.http.get("/api/v1/whoami", headers=registry.bearer(by)).json()
    return {name: who[name] for name in ("organisations", "invitations")}


def restricted(registry: Registry, name: str, *patterns: str) -> dict[str, str]:
    secret = registry.token(name, "read", "publish", "yank", "job", names=list(patterns))
    return {"Authorization": f"Bearer {secret}"}


def post_ticket(registry: Registry, name: str, headers: dict[str, str], seed: int = 0) -> httpx.Response:
    files = {"file": ("x.ticket", make_ticket(seed=seed).to_bytes(), "application/vnd.nirvana.ticket")}
    return registry.http.post("/api/v1/tickets", files=files, data={"name": name}, headers=headers)


@pytest.fixture(params=EACH)
def lab(request: pytest.FixtureRequest, make_registry: MakeRegistry) -> Registry:
    """A registry with an organisation of an owner, a writer and a reader, which has a private ticket."""
    registry = make_registry(request.param)
    make(registry, bob="writer", carl="reader")
    ticket = make_ticket(architecture=OWN)
    answer = registry.publish(ticket.to_bytes(), SECRET, by="bob", visibility="private")
    assert answer.status_code == 201, answer.text
    assert registry.publish(make_ticket().to_bytes(), "lab/open", by="ada").status_code == 201
    with registry.database.write() as session:
        measure(session, ticket.digest, VERDICT)
    return registry


# --- members -----------------------------------------------------------------------------------------------


def test_whoever_makes_an_organisation_owns_it(each_registry: Registry) -> None:
    made = call(each_registry, "POST", "", "ada", {"name": "lab"})
    assert (made.status_code, made.headers["location"]) == (201, f"{API}/lab")
    assert made.json()["role"] == "owner"
    assert members(each_registry) == {"ada": "owner"}
    assert own(each_registry, "ada")["organisations"] == [{"organisation": "lab", "role": "owner"}]
    assert each_registry.http.get(f"{API}/lab").json()["role"] is None
    assert own(each_registry, "eve") == {"organisations": [], "invitations": []}


@pytest.mark.parametrize(
    ("name", "status"), [("ada", 409), ("1ab", 409), ("lab", 409), ("admin", 422), ("Lab", 422), ("", 422)]
)
def test_names_of_organisations_and_accounts_are_in_one_place(
    registry: Registry, name: str, status: int
) -> None:
    make(registry)
    answer = call(registry, "POST", "", "ada", {"name": name})
    assert answer.status_code == status, answer.text
    for taken in ("lab", "1ab"):
        answer = registry.http.post("/api/v1/accounts", json={"name": taken})
        assert problem(answer, 409, "name-taken")["detail"].startswith(f"The account name '{taken}' is taken")


def test_nobody_is_made_a_member_without_consent(each_registry: Registry) -> None:
    make(each_registry)
    each_registry.bearer("bob")
    invited = call(each_registry, "POST", "/lab/invitations", "ada", {"account": "bob", "role": "writer"})
    assert (invited.status_code, invited.json()["invited_by"]) == (201, "ada")
    assert members(each_registry) == {"ada": "owner"}
    problem(each_registry.publish(make_ticket().to_bytes(), "lab/x", by="bob"), 403, "forbidden")
    problem(call(each_registry, "GET", "/lab/members", "bob"), 403, "forbidden")
    assert own(each_registry, "bob")["invitations"] == [{"organisation": "lab", "role": "writer"}]
    shown = call(each_registry, "GET", "/lab/members", "ada").json()["invitations"]
    assert [(one["account"], one["role"]) for one in shown] == [("bob", "writer")]
    assert call(each_registry, "DELETE", "/lab/invitations/bob", "bob").status_code == 204
    problem(call(each_registry, "POST", "/lab/accept", "bob"), 404, "not-found")
    join(each_registry, "lab", "bob", "reader")
    assert members(each_registry, "bob") == {"ada": "owner", "bob": "reader"}
    assert own(each_registry, "bob")["invitations"] == []


def test_an_invitation_is_withdrawn_changed_and_good_once(registry: Registry) -> None:
    make(registry)
    registry.bearer("bob")
    invite = "/lab/invitations"
    assert call(registry, "POST", invite, "ada", {"account": "bob", "role": "owner"}).status_code == 201
    assert call(registry, "DELETE", f"{invite}/bob", "ada").status_code == 204
    problem(call(registry, "POST", "/lab/accept", "bob"), 404, "not-found")
    for role in ("owner", "reader"):
        assert call(registry, "POST", invite, "ada", {"account": "bob", "role": role}).status_code == 201
    assert call(registry, "POST", "/lab/accept", "bob").json()["role"] == "reader"
    problem(call(registry, "POST", "/lab/accept", "bob"), 404, "not-found")
    problem(call(registry, "POST", invite, "ada", {"account": "bob"}), 409, "conflict")
    for nobody in ("nobody", "lab", "b\u200bob"):
        answer = call(registry, "POST", invite, "ada", {"account": nobody})
        problem(answer, 404, "not-found")


def test_nobody_accepts_or_declines_for_another(registry: Registry) -> None:
    make(registry, carl="writer")
    for name in ("bob", "eve"):
        registry.bearer(name)
    call(registry, "POST", "/lab/invitations", "ada", {"account": "bob", "role": "owner"})
    for by in ("eve", "carl"):
        problem(call(registry, "POST", "/lab/accept", by), 404, "not-found")
        problem(call(registry, "DELETE", "/lab/invitations/bob", by), 403, "forbidden")


@pytest.mark.parametrize("by", ["bob", "carl", "eve"])
def test_only_owners_manage_members(lab: Registry, by: str) -> None:
    lab.bearer("dan")
    for method, path, body in (
        ("POST", "/lab/invitations", {"account": "dan", "role": "owner"}),
        ("PATCH", f"/lab/members/{by}", {"role": "owner"}),
        ("PATCH", "/lab/members/ada", {"role": "reader"}),
        ("DELETE", "/lab/members/ada", None),
    ):
        assert call(lab, method, path, by, body).status_code == 403, (method, path)
    assert members(lab) == {"ada": "owner", "bob": "writer", "carl": "reader"}
    assert call(lab, "GET", "/lab/members", by).status_code == (403 if by == "eve" else 200)
    if by != "eve":
        assert call(lab, "GET", "/lab/members", by).json()["invitations"] == []


def test_there_is_always_an_owner(lab: Registry) -> None:
    for method, body in (("PATCH", {"role": "writer"}), ("DELETE", None)):
        answer = call(lab, method, "/lab/members/ada", "ada", body)
        assert "only owner" in problem(answer, 409, "conflict")["detail"]
    assert call(lab, "PATCH", "/lab/members/bob", "ada", {"role": "owner"}).json()["role"] == "owner"
    assert call(lab, "DELETE", "/lab/members/ada", "ada").status_code == 204
    problem(call(lab, "DELETE", "/lab/members/bob", "bob"), 409, "conflict")
    problem(call(lab, "GET", "/lab/members", "ada"), 403, "forbidden")


def test_two_owners_who_remove_each_other_at_once_do_not_both_go(lab: Registry) -> None:
    assert call(lab, "PATCH", "/lab/members/bob", "ada", {"role": "owner"}).status_code == 200
    answers: list[int] = []
    together = threading.Barrier(2)

    def remove(by: str, whom: str) -> None:
        together.wait()
        answers.append(call(lab, "DELETE", f"/lab/members/{whom}", by).status_code)

    threads = [threading.Thread(target=remove, args=pair) for pair in (("ada", "bob"), ("bob", "ada"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [204, 403], "the second one is no owner any more"
    with lab.database.read() as session:
        owners = session.scalars(select(Membership).where(Membership.role == "owner")).all()
    assert len(owners) == 1


def test_what_an_owner_has_invited_lapses_with_the_ownership(registry: Registry) -> None:
    make(registry, bob="owner")
    registry.bearer("eve")
    call(registry, "POST", "/lab/invitations", "bob", {"account": "eve", "role": "owner"})
    assert call(registry, "DELETE", "/lab/members/bob", "ada").status_code == 204
    problem(call(registry, "POST", "/lab/accept", "eve"), 404, "not-found")


def test_an_organisation_signs_in_nowhere_and_has_no_tokens(registry: Registry) -> None:
    make(registry)
    body = {"name": "lab", "password": "correct horse battery"}
    problem(registry.http.post("/api/v1/sessions", json=body), 401, "unauthenticated")
    with registry.database.write() as session:
        account = find_account(session, "lab")
        assert account is not None
        with pytest.raises(Forbidden, match="its members act in its name"):
            create_token(session, account, name="x", scopes=["read"])
        with pytest.raises(Forbidden):
            begin_session(session, account)


@pytest.mark.parametrize("scopes", [("read",), ("read", "publish", "yank")])
def test_a_token_that_may_little_changes_no_members(registry: Registry, scopes: tuple[str, ...]) -> None:
    make(registry)
    registry.bearer("bob")
    small = registry.bearer("ada", *scopes)
    for headers in (small, restricted(registry, "ada", "lab/*")):
        for path, body in (("", {"name": "other"}), ("/lab/invitations", {"account": "bob"})):
            answer = registry.http.post(f"{API}{path}", json=body, headers=headers)
            problem(answer, 403, "forbidden")
        answer = registry.http.delete(f"{API}/lab/members/ada", headers=headers)
        assert "for all names" in problem(answer, 403, "forbidden")["detail"]
    headers = registry.bearer("ada", "publish")
    problem(registry.http.get(f"{API}/lab/members", headers=headers), 403, "missing-scope")


def test_organisations_are_bounded_however_they_are_left(make_registry: MakeRegistry) -> None:
    registry = make_registry(max_organisations_per_account=2)
    for name in ("one", "two"):
        make(registry, name, bob="owner")
    assert call(registry, "DELETE", "/one/members/ada", "ada").status_code == 204
    answer = call(registry, "POST", "", "ada", {"name": "three"})
    assert "2 organisations" in problem(answer, 429, "quota-exceeded")["detail"]
    registry.account("three")  # the name is still free


# --- publishing in an organisation's name ------------------------------------------------------------------


def test_a_writer_publishes_changes_and_yanks_and_a_reader_does_not(lab: Registry) -> None:
    for by, status in (("bob", 200), ("carl", 403), ("eve", 403)):
        headers = lab.bearer(by)
        answers = [
            lab.publish(make_ticket().to_bytes(), "lab/open", by=by),
            lab.http.patch("/api/v1/tickets/lab/open", json={"card": by}, headers=headers),
            lab.http.post("/api/v1/tickets/lab/open/yank", json={"reason": "withdrawn"}, headers=headers),
            lab.http.post("/api/v1/tickets/lab/open/unyank", headers=headers),
            lab.http.patch("/api/v1/tickets/lab/open", json={"visibility": "private"}, headers=headers),
            lab.http.patch("/api/v1/tickets/lab/open", json={"visibility": "public"}, headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [status] * 6, (by, answers[-1].text)
    shown = lab.http.get("/api/v1/tickets/lab/open").json()
    assert (shown["owner"], shown["card"]) == ("lab", "bob")
    assert lab.search(owner="lab", origin="any") == ["open"]


def test_who_may_not_publish_for_a_name_learns_nothing_of_it(lab: Registry) -> None:
    lab.account("dan")
    details = []
    for owner in ("lab", "dan", "nobody"):
        answer = lab.publish(make_ticket().to_bytes(), f"{owner}/x", by="eve")
        details.append(problem(answer, 403, "forbidden")["detail"].replace(owner, "?"))
    assert len(set(details)) == 1


def test_the_member_who_publishes_pays_for_the_room(make_registry: MakeRegistry) -> None:
    data = [make_ticket(seed=seed).to_bytes() for seed in range(3)]
    registry = make_registry(max_stored_bytes_per_account=len(data[0]) + len(data[1]) + 10)
    make(registry, bob="writer")
    assert registry.publish(data[0], "lab/a", by="bob").status_code == 201
    assert registry.publish(data[1], "b", by="bob").status_code == 201
    problem(registry.publish(data[2], "lab/c", by="bob"), 429, "quota-exceeded")
    assert registry.publish(data[2], "lab/c", by="ada").status_code == 201
    with registry.database.read() as session:
        stored = dict(session.execute(select(Account.name, Account.tickets)).all())
    assert stored == {"ada": 1, "bob": 2, "lab": 0}


def test_a_tokens_patterns_are_of_own_names_or_of_one_organisations(registry: Registry) -> None:
    make(registry, bob="writer")
    make(registry, "club", bob="writer")
    seeds = iter(range(100))
    allowed = {
        ("lenet-*",): {"lenet-1"},
        ("lab/lenet-*",): {"lab/lenet-1"},
        ("*",): {"lenet-1", "x"},
        ("bob/lenet-*", "club/*"): {"lenet-1", "club/x", "club/lenet-1"},
        ("eve/*",): set(),
    }
    every = ("lenet-1", "x", "lab/lenet-1", "lab/x", "club/lenet-1", "club/x")
    for patterns, names in allowed.items():
        headers = restricted(registry, "bob", *patterns)
        for name in every:
            status = post_ticket(registry, name, headers, seed=next(seeds)).status_code
            assert (status != 403) == (name in names), (patterns, name, status)


def test_a_pattern_of_several_organisations_is_refused(registry: Registry) -> None:
    for pattern in ("*/x", "lab/*/x", "l?b/x", "/x", "lab/", "Lab/x"):
        body = {"scopes": ["publish"], "names": [pattern]}
        answer = registry.http.post("/api/v1/tokens", json=body, headers=registry.bearer())
        assert pointers(problem(answer, 422, "invalid")) == ["/names/0"], pattern


def test_a_membership_that_ends_is_over_for_every_token_at_once(lab: Registry) -> None:
    tokens = [lab.bearer("bob"), restricted(lab, "bob", "lab/*"), lab.bearer("bob", "read", "publish")]
    for headers in tokens:
        assert lab.http.get(f"/api/v1/tickets/{SECRET}", headers=headers).status_code == 200
    assert call(lab, "DELETE", "/lab/members/bob", "ada").status_code == 204
    for headers in tokens:
        assert lab.http.get(f"/api/v1/tickets/{SECRET}", headers=headers).status_code == 404
        answer = lab.http.patch("/api/v1/tickets/lab/open", json={"card": "x"}, headers=headers)
        assert answer.status_code == 403
        assert post_ticket(lab, "lab/late", headers, seed=9).status_code == 403


def test_a_writer_who_becomes_a_reader_writes_no_more(lab: Registry) -> None:
    assert call(lab, "PATCH", "/lab/members/bob", "ada", {"role": "reader"}).status_code == 200
    assert lab.publish(make_ticket(seed=3).to_bytes(), "lab/late", by="bob").status_code == 403
    assert lab.http.get(f"/api/v1/tickets/{SECRET}", headers=lab.bearer("bob")).status_code == 200


# --- private means unseen ----------------------------------------------------------------------------------


def test_every_address_of_an_organisations_private_ticket_is_its_members_alone(lab: Registry) -> None:
    digest = make_ticket(architecture=OWN).digest
    nowhere = "sha256:" + "0" * 64
    for headers in ({}, lab.bearer("eve")):
        for part in OF_TICKET:
            part = part.replace("ada/open", "lab/open")
            for secret, nothing in ((SECRET, NOTHING), (digest, nowhere)):
                found = lab.http.get(f"/api/v1/tickets/{secret}{part}", headers=headers)
                other = lab.http.get(f"/api/v1/tickets/{nothing}{part}", headers=headers)
                assert plain(found, secret) == plain(other, nothing), (secret, part)
                assert found.status_code == 404
    for part in OF_TICKET:
        part = part.replace("ada/open", "lab/open")
        for by in ("ada", "bob", "carl"):
            seen = lab.http.get(f"/api/v1/tickets/{SECRET}{part}", headers=lab.bearer(by))
            assert seen.status_code == (422 if "diff" in part else 200), (part, by, seen.text)


def search(registry: Registry, by: str, **query: str) -> dict[str, Any]:
    answer = registry.http.get(
        "/api/v1/tickets", params={"origin": "any"} | query, headers=registry.bearer(by)
    )
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_lists_counts_facets_and_likeness_show_it_to_members_alone(lab: Registry) -> None:
    digest = make_ticket(architecture=OWN).digest
    near = make_ticket(architecture=OWN, seed=1)
    assert lab.publish(near.to_bytes(), "near", by="carl", visibility="private").status_code == 201
    for by, names in (("carl", {"secret", "open", "near"}), ("ada", {"secret", "open"}), ("eve", {"open"})):
        page = search(lab, by, facets="architecture")
        assert {one["name"] for one in page["items"]} == names, by
        assert (page["total"], sum(page["facets"]["architecture"].values())) == (len(names), len(names))
        for query in ({"owner": "lab"}, {"q": "secret"}, {"architecture": "lab/moonshot"}):
            listed = {one["name"] for one in search(lab, by, **query)["items"]}
            assert ("secret" in listed) == (by != "eve"), (by, query)
        alike = search(lab, by, similar_to=digest)
        assert by != "eve" or alike["items"] == []
        networks = lab.http.get("/api/v1/architectures", headers=lab.bearer(by)).json()["items"]
        assert (OWN.digest in [one["digest"] for one in networks]) == (by != "eve")
    assert lab.http.get("/api/v1/architectures/lab/moonshot", headers=lab.bearer("carl")).status_code == 200


def test_changes_feeds_and_pages_say_nothing_of_it(lab: Registry) -> None:
    for path in ("/api/v1/changes", "/api/v1/feeds/tickets.atom", "/?origin=any", "/tasks", "/metrics"):
        answer = lab.http.get(path, headers=lab.bearer("ada"))
        assert "secret" not in answer.text, path
    shown = lab.http.patch(
        f"/api/v1/tickets/{SECRET}", json={"visibility": "public"}, headers=lab.bearer("bob")
    )
    assert shown.status_code == 200
    assert "secret" in lab.http.get("/api/v1/changes").text


def test_transfers_of_it_are_seen_by_members(lab: Registry) -> None:
    digest = make_ticket(architecture=OWN).digest
    with lab.database.write() as session:
        record_transfer(session, digest=digest, measured=FOUND, job_id="j")
    for by, count in (("carl", 1), ("eve", 0)):
        listed = lab.http.get("/api/v1/transfers", headers=lab.bearer(by)).json()["items"]
        assert len(listed) == count


def verify(registry: Registry, name: str, by: str) -> httpx.Response:
    body = {"kind": "verify", "spec": {"ticket": name}}
    return registry.http.post("/api/v1/jobs", json=body, headers=registry.bearer(by))


def test_a_job_on_it_is_seen_by_members_and_no_more_by_whoever_has_left(lab: Registry) -> None:
    job = verify(lab, SECRET, "carl").json()["id"]
    problem(verify(lab, SECRET, "eve"), 422, "invalid-job")
    for by, status in (("ada", 200), ("bob", 200), ("carl", 200), ("eve", 404)):
        assert lab.http.get(f"/api/v1/jobs/{job}", headers=lab.bearer(by)).status_code == status
    assert call(lab, "DELETE", "/lab/members/carl", "carl").status_code == 204
    headers = lab.bearer("carl")
    for path in (f"/api/v1/jobs/{job}", f"/api/v1/jobs/{job}/events", f"/jobs/{job}"):
        assert lab.http.get(path, headers=headers).status_code == 404, path
    assert lab.http.get("/api/v1/jobs", headers=headers).json()["items"] == []
    assert lab.http.post(f"/api/v1/jobs/{job}/cancel", headers=headers).status_code == 200, "it is his to end"


def test_a_stream_of_a_private_tickets_job_ends_for_whoever_has_left(lab: Registry) -> None:
    job = verify(lab, SECRET, "ada").json()["id"]
    with lab.database.write() as session:
        begin_job(session, job, "w")
    lines: list[str] = []
    with lab.http.stream("GET", f"/api/v1/jobs/{job}/events", headers=lab.bearer("carl")) as stream:
        for line in stream.iter_lines():
            lines.append(line)
            if "running" in line:
                call(lab, "DELETE", "/lab/members/carl", "ada")
                with lab.database.write() as session:
                    append_events(session, job, [("log", {"message": "measured in secret"})])
                    end_job(session, job, "succeeded")
    assert "measured in secret" not in "\n".join(lines)


def test_members_verifications_are_the_organisations_own_and_a_strangers_are_not(lab: Registry) -> None:
    def hide() -> httpx.Response:
        body = {"visibility": "private"}
        return lab.http.patch("/api/v1/tickets/lab/open", json=body, headers=lab.bearer("bob"))

    def show() -> None:
        body = {"visibility": "public"}
        answer = lab.http.patch("/api/v1/tickets/lab/open", json=body, headers=lab.bearer("bob"))
        assert answer.status_code == 200

    job = verify(lab, "lab/open", "carl").json()["id"]
    assert hide().status_code == 200
    show()
    with lab.database.write() as session:
        end_job(session, job, "succeeded")
        measure(session, make_ticket().digest, VERDICT, job)
    assert hide().status_code == 200
    show()
    other = verify(lab, "lab/open", "eve").json()["id"]
    assert "queued or running" in problem(hide(), 409, "conflict")["detail"]
    with lab.database.write() as session:
        end_job(session, other, "cancelled")
    assert call(lab, "DELETE", "/lab/members/carl", "ada").status_code == 204
    assert "somebody else had it verified" in problem(hide(), 409, "conflict")["detail"]


# --- jobs that publish -------------------------------------------------------------------------------------


def prune(registry: Registry, headers: dict[str, str], **spec: Any) -> httpx.Response:
    wanted = {"task": "digits", "architecture": "mlp-16", "levels": 2} | spec
    return registry.http.post("/api/v1/jobs", json={"kind": "prune", "spec": wanted}, headers=headers)


def test_a_search_publishes_for_an_organisation_where_its_asker_is_a_writer(lab: Registry) -> None:
    for by, status in (("ada", 202), ("bob", 202), ("carl", 403), ("eve", 403)):
        answer = prune(lab, lab.bearer(by), name="lab/found")
        assert answer.status_code == status, answer.text
    for name in ("lab/", "/x", "a/b/c", "Lab/x", "lab/../x"):
        assert pointers(problem(prune(lab, lab.bearer(), name=name), 422, "invalid-job")) == ["/spec/name"]


def test_a_token_for_some_names_asks_for_searches_under_these_names_alone(registry: Registry) -> None:
    make(registry)
    headers = restricted(registry, "ada", "lenet-*", "lab/conv-*", "one-00", "one-01")
    for name, status in (
        ("lenet-a", 202),
        ("lab/conv-a", 202),
        ("lab/lenet-a", 403),
        ("conv-a", 403),
        ("one", 403),  # its last level is one-02
    ):
        assert prune(registry, headers, name=name).status_code == status, name
    assert pointers(problem(prune(registry, headers), 422, "invalid-job")) == ["/spec/name"]


# --- pages -------------------------------------------------------------------------------------------------


@pytest.fixture
def browsers(registry: Registry) -> Iterator[dict[str, httpx.Client]]:
    """Browsers of ada, bob and eve, each signed in."""
    made = {}
    for name in ("ada", "bob", "eve"):
        with registry.database.write() as session:
            _, secret = begin_session(session, session.merge(registry.account(name)))
        made[name] = httpx.Client(
            base_url=registry.url, headers={"Accept": "text/html"}, cookies={COOKIE: secret}
        )
    yield made
    for browser in made.values():
        browser.close()


def send(browser: httpx.Client, path: str, **fields: str) -> httpx.Response:
    """Send a form as the account page's browser would."""
    token = re.search(r'name="csrf_token" value="([0-9a-f]{64})"', browser.get("/account").text)
    assert token is not None
    return browser.post(path, data={"csrf_token": token[1]} | fields)


def test_an_organisation_in_a_browser(registry: Registry, browsers: dict[str, httpx.Client]) -> None:
    ada, bob, eve = browsers.values()
    made = send(ada, "/organisations", name="lab")
    assert (made.status_code, made.headers["location"]) == (303, "/organisations/lab")
    assert '<a href="/organisations/lab">lab</a>, owner' in ada.get("/account").text
    assert send(ada, "/organisations/lab/invitations", account="bob", role="writer").status_code == 303
    assert "Withdraw the invitation of bob" in ada.get("/organisations/lab").text
    assert "invites you as writer" in bob.get("/account").text
    assert "You are invited" in bob.get("/organisations/lab").text
    assert "<h2>Members</h2>" not in bob.get("/organisations/lab").text
    assert send(bob, "/organisations/lab/accept").status_code == 303
    page = bob.get("/organisations/lab").text
    assert "You are a writer" in page
    assert "Leave" in page
    assert "Invite" not in page
    for client in (eve, registry.http):
        page = client.get("/organisations/lab", headers={"Accept": "text/html"}).text
        assert "bob" not in page
        assert "Members" not in page
    assert send(ada, "/organisations/lab/members/bob", role="owner").status_code == 303
    assert send(bob, "/organisations/lab/members/ada/remove").status_code == 303
    refused = send(bob, "/organisations/lab/members/bob/remove")
    assert refused.status_code == 422
    assert "only owner" in refused.text
    assert eve.get("/organisations/nothing").status_code == 404
    assert eve.get("/organisations/bob").status_code == 404, "a person is no organisation"


def test_a_name_that_cannot_be_had_is_refused_in_the_form(browsers: dict[str, httpx.Client]) -> None:
    page = send(browsers["ada"], "/organisations", name="bob")
    assert page.status_code == 422
    assert "is taken" in page.text


def test_no_other_site_sends_a_form_of_an_organisation(
    registry: Registry, browsers: dict[str, httpx.Client]
) -> None:
    ada, bob, eve = browsers.values()
    send(ada, "/organisations", name="lab")
    send(ada, "/organisations/lab/invitations", account="bob", role="owner")
    for path in (
        "/organisations",
        "/organisations/lab/invitations",
        "/organisations/lab/accept",
        "/organisations/lab/invitations/bob/drop",
        "/organisations/lab/members/ada",
        "/organisations/lab/members/ada/remove",
    ):
        fields = {"name": "x", "account": "eve", "role": "owner"}
        for browser in (ada, bob, eve):
            assert browser.post(path, data=fields | {"csrf_token": "0" * 64}).status_code == 403, path
            answer = browser.post(path, data=fields, headers={"Sec-Fetch-Site": "cross-site"})
            assert answer.status_code == 403, path
        assert registry.http.post(path, data=fields).status_code == 403
    with registry.database.read() as session:
        assert [one.role for one in session.scalars(select(Membership))] == ["owner"]
        assert len(session.scalars(select(Invitation)).all()) == 1
