"""Publishing over HTTP."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select

from app.evaluations.service import record_evaluation
from app.jobs.models import Job
from app.jobs.reverify import ENQUEUED, REGISTRY, reverify
from app.storage import ticket_key
from app.tickets.models import Blob, Listing
from nirvana.verification.protocol import PROTOCOL
from tests.factories import RECIPE, make_ticket, permute_units
from tests.http.conftest import MakeRegistry
from tests.registry import TICKET_TYPE, VERDICT, Registry, pointers, problem

TICKET = make_ticket()
DATA = TICKET.to_bytes()
OTHER = make_ticket(seed=3).to_bytes()


def count(registry: Registry, model: type[Listing] | type[Blob]) -> int:
    with registry.database.read() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def test_a_published_ticket_is_shown_with_statistics_computed_from_it(each_registry: Registry) -> None:
    made = each_registry.publish(DATA, "first")
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/tickets/ada/first"
    shown = each_registry.http.get(made.headers["location"]).json()
    assert shown | {"left_out": []} == made.json()
    assert shown["digest"] == TICKET.digest
    assert (shown["kept"], shown["total"]) == (TICKET.kept, TICKET.total)
    assert shown["layers"] == TICKET.layers()
    assert shown["verdict"] is None
    assert shown["manifest"] == TICKET.manifest()


def test_a_raw_body_is_published_under_the_name_of_the_query(registry: Registry) -> None:
    headers = registry.bearer() | {"Content-Type": TICKET_TYPE}
    made = registry.http.post("/api/v1/tickets?name=ada/raw", content=DATA, headers=headers)
    assert made.status_code == 201
    assert made.json()["name"] == "raw"


def test_the_same_ticket_under_the_same_name_again_changes_nothing(each_registry: Registry) -> None:
    assert each_registry.publish(DATA, "first").status_code == 201
    again = each_registry.publish(DATA, "first")
    assert again.status_code == 200
    assert again.json()["digest"] == TICKET.digest
    assert count(each_registry, Listing) == 1


def test_a_name_that_is_taken_by_another_ticket_is_refused(each_registry: Registry) -> None:
    each_registry.publish(DATA, "first")
    detail = problem(each_registry.publish(OTHER, "first"), 409, "name-taken")["detail"]
    assert TICKET.digest in detail
    assert each_registry.http.get("/api/v1/tickets/ada/first").json()["digest"] == TICKET.digest


def test_the_same_ticket_under_another_owner_is_another_listing(each_registry: Registry) -> None:
    each_registry.publish(DATA, "first")
    assert each_registry.publish(DATA, "first", by="bob").status_code == 201
    assert count(each_registry, Listing) == 2
    assert count(each_registry, Blob) == 1
    shown = each_registry.http.get(f"/api/v1/tickets/{TICKET.digest}").json()
    assert [one["owner"] for one in shown["listings"]] == ["ada", "bob"]
    assert shown["digest"] == TICKET.digest
    assert (shown["kept"], shown["rewind_step"]) == (TICKET.kept, 0)
    assert "recipe" not in shown, "that belongs to a listing"


def test_two_identical_uploads_at_once_both_answer_fine_and_make_one_row(each_registry: Registry) -> None:
    each_registry.bearer()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: each_registry.publish(DATA, "twin"), range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert count(each_registry, Listing) == 1


def test_of_two_tickets_that_race_for_one_name_one_gets_it(each_registry: Registry) -> None:
    each_registry.bearer()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda data: each_registry.publish(data, "prize"), (DATA, OTHER)))
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert count(each_registry, Listing) == 1


def publish_with_key(registry: Registry, key: str, data: bytes, name: str) -> httpx.Response:
    files = {"file": ("x.ticket", data, TICKET_TYPE)}
    headers = registry.bearer() | {"Idempotency-Key": key}
    return registry.http.post("/api/v1/tickets", files=files, data={"name": name}, headers=headers)


def test_an_idempotency_key_stands_for_one_request(each_registry: Registry) -> None:
    assert publish_with_key(each_registry, "k1", DATA, "first").status_code == 201
    assert publish_with_key(each_registry, "k1", DATA, "first").status_code == 200
    other = publish_with_key(each_registry, "k1", DATA, "second")
    problem(other, 409, "idempotency-mismatch")
    assert count(each_registry, Listing) == 1


def test_a_refused_publication_does_not_use_up_its_key(registry: Registry) -> None:
    problem(publish_with_key(registry, "k1", DATA[:-1], "first"), 422, "invalid-ticket")
    assert publish_with_key(registry, "k1", DATA, "first").status_code == 201


@pytest.mark.parametrize("name", ["", "A", "../x", "-a", "a b", "x" * 101, "ada/x/y", "ada/"])
def test_a_bad_name_is_refused(registry: Registry, name: str) -> None:
    answer = registry.publish(DATA, name)
    assert answer.status_code in (403, 422), answer.text
    assert count(registry, Listing) == 0


def test_nobody_publishes_under_the_name_of_another(registry: Registry) -> None:
    problem(registry.publish(DATA, "bob/first"), 403, "forbidden")


def test_a_form_without_a_file_or_a_name_says_what_is_missing(registry: Registry) -> None:
    headers = registry.bearer()
    nameless = registry.http.post("/api/v1/tickets", files={"file": ("x", DATA)}, headers=headers)
    assert pointers(problem(nameless, 422, "invalid")) == ["/name"]
    fileless = registry.http.post("/api/v1/tickets", files={"name": (None, "x")}, headers=headers)
    assert pointers(problem(fileless, 422, "invalid")) == ["/file"]


def test_an_unknown_field_of_the_form_is_refused(registry: Registry) -> None:
    answer = registry.publish(DATA, "first", visiblity="private")
    assert pointers(problem(answer, 422, "invalid")) == ["/visiblity"]


def test_a_broken_form_is_malformed(registry: Registry) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        headers = registry.bearer() | {"Content-Type": kind}
        problem(registry.http.post("/api/v1/tickets", content=b"!", headers=headers), 400, "malformed")


@pytest.mark.parametrize("announce", [True, False])
def test_a_file_over_the_cap_is_refused_with_the_limit(make_registry: MakeRegistry, announce: bool) -> None:
    registry = make_registry(max_upload_bytes=1000)
    body = b"\0" * 200_000
    headers = registry.bearer() | {"Content-Type": TICKET_TYPE}
    pieces = (body[i : i + 10_000] for i in range(0, len(body), 10_000))
    answer = registry.http.post(
        "/api/v1/tickets?name=x", content=body if announce else pieces, headers=headers
    )
    assert problem(answer, 413, "too-large")["limit_bytes"] == 1000
    assert problem(registry.publish(body[:1001], "x"), 413, "too-large")["limit_bytes"] == 1000


@pytest.mark.parametrize("kind", ["application/json", "application/x-pickle", ""])
def test_another_media_type_is_refused(registry: Registry, kind: str) -> None:
    headers = registry.bearer() | {"Content-Type": kind}
    answer = registry.http.post("/api/v1/tickets?name=x", content=b"{}", headers=headers)
    assert TICKET_TYPE in problem(answer, 415, "unsupported-media")["detail"]


def test_a_private_ticket_is_seen_by_its_owner_alone(each_registry: Registry) -> None:
    each_registry.publish(DATA, "secret", visibility="private")
    for path in ("ada/secret", "ada/secret/file", "ada/secret/layers", TICKET.digest):
        problem(each_registry.http.get(f"/api/v1/tickets/{path}"), 404, "not-found")
        other = each_registry.http.get(f"/api/v1/tickets/{path}", headers=each_registry.bearer("bob"))
        problem(other, 404, "not-found")
        own = each_registry.http.get(f"/api/v1/tickets/{path}", headers=each_registry.bearer())
        assert own.status_code == 200
    assert each_registry.search() == []
    found = each_registry.http.get("/api/v1/tickets", headers=each_registry.bearer()).json()
    assert [item["name"] for item in found["items"]] == ["secret"]
    assert each_registry.http.get("/tickets/ada/secret").status_code == 404


def test_the_file_lies_in_the_blob_store_before_the_row_is_there(registry: Registry) -> None:
    made = registry.publish(DATA, "first").json()
    assert registry.storage.get(ticket_key(made["file_sha256"])) == DATA


def test_linting_stores_nothing_and_says_what_publishing_would(registry: Registry) -> None:
    good = registry.http.post("/api/v1/tickets:lint", content=DATA, headers={"Content-Type": TICKET_TYPE})
    assert good.json()["ok"] is True
    assert good.json()["digest"] == TICKET.digest
    bad = registry.http.post("/api/v1/tickets:lint", content=DATA[:-1], headers={"Content-Type": TICKET_TYPE})
    assert (bad.status_code, bad.json()["ok"]) == (200, False)
    assert bad.json()["errors"]
    assert count(registry, Listing) == count(registry, Blob) == 0


def test_a_ticket_for_an_unknown_task_is_taken_with_a_warning(registry: Registry) -> None:
    data = make_ticket(task="imagenet").to_bytes()
    assert "nobody can verify" in registry.publish(data, "big").json()["warnings"][0]


def test_a_digest_answers_with_its_listings_and_the_exams_that_they_had(registry: Registry) -> None:
    registry.publish(DATA, "first")
    brief = make_ticket(recipe=dataclasses.replace(RECIPE, steps=10).to_dict()).to_bytes()
    registry.publish(brief, "brief", by="bob")
    registry.publish(brief, "secret", by="eve", visibility="private")
    path = f"/api/v1/tickets/{TICKET.digest}"
    answer = registry.http.get(path)
    shown, tag = answer.json(), answer.headers["etag"]
    assert [one["name"] for one in shown["listings"]] == ["first", "brief"]
    mine = registry.http.get(path, headers=registry.bearer("eve")).json()["listings"]
    assert [one["name"] for one in mine] == ["first", "brief", "secret"]
    assert shown["exams"] == {}
    assert registry.http.get(path, headers={"If-None-Match": tag}).status_code == 304
    with registry.database.write() as session:
        for name, verdict in (("first", "NOT_MATCHING"), ("brief", "WINNING")):
            row = session.scalars(select(Listing).where(Listing.name == name)).one()
            record_evaluation(session, row.exam_key, row.digest, VERDICT | {"verdict": verdict})
    answer = registry.http.get(path, headers={"If-None-Match": tag})
    assert answer.status_code == 200
    assert answer.json()["exams"] == {"NOT_MATCHING": 1, "WINNING": 1}
    listing = registry.http.get("/api/v1/tickets/bob/brief").json()
    assert listing["exams"] == {"NOT_MATCHING": 1, "WINNING": 1}
    assert listing["protocol"] == VERDICT["protocol"]
    page = registry.http.get("/tickets/bob/brief", headers={"Accept": "text/html"}).text
    assert "This ticket was examined 2 times" in page
    problem(registry.http.get(f"/api/v1/tickets/sha256:{'0' * 64}"), 404, "not-found")


def evaluate(registry: Registry, name: str, verdict: str) -> None:
    with registry.database.write() as session:
        row = session.scalars(select(Listing).where(Listing.name == name)).one()
        record_evaluation(session, row.exam_key, row.digest, VERDICT | {"verdict": verdict})


def test_what_other_exams_of_a_ticket_gave_is_never_answered_from_an_old_copy(
    each_registry: Registry,
) -> None:
    registry = each_registry
    registry.publish(DATA, "first")
    brief = make_ticket(recipe=dataclasses.replace(RECIPE, steps=10).to_dict()).to_bytes()
    registry.publish(brief, "brief", by="bob")
    registry.publish(permute_units(TICKET).to_bytes(), "permuted", by="eve")
    registry.publish(make_ticket(seed=5).to_bytes(), "another")
    paths = [f"/api/v1/tickets/{name}" for name in ("ada/first", "bob/brief", "eve/permuted", TICKET.digest)]
    other = "/api/v1/tickets/ada/another"
    same = registry.http.get(other).headers["etag"]
    expected = dict[str, int]()
    for name, verdict in (("brief", "WINNING"), ("permuted", "TRIVIAL"), ("first", "NOT_MATCHING")):
        tags = {path: registry.http.get(path).headers["etag"] for path in paths}
        evaluate(registry, name, verdict)
        expected[verdict] = 1
        for path, tag in tags.items():
            answer = registry.http.get(path, headers={"If-None-Match": tag})
            assert (answer.status_code, answer.json()["exams"]) == (200, expected), path
    assert registry.http.get(other, headers={"If-None-Match": same}).status_code == 304
    assert registry.http.get("/api/v1/tickets/ada/first").json()["verdict"] == "NOT_MATCHING"


def test_a_body_s_tag_names_its_bytes_and_its_version_alone_guards_a_change(registry: Registry) -> None:
    assert registry.publish(DATA, "first").headers["etag"]
    path = "/api/v1/tickets/ada/first"
    tag = registry.http.get(path).headers["etag"]
    registry.publish(make_ticket(provenance={"parent": TICKET.digest}, seed=3).to_bytes(), "child")
    answer = registry.http.get(path, headers={"If-None-Match": tag})
    assert answer.status_code == 200, "its lineage has a child now"
    headers = registry.bearer("ada") | {"If-Match": tag}
    changed = registry.http.patch(path, json={"card": "one"}, headers=headers)
    assert changed.status_code == 200, "a child is no change of the listing"
    assert registry.http.get(path, headers={"If-None-Match": changed.headers["etag"]}).status_code == 304
    problem(registry.http.patch(path, json={"card": "two"}, headers=headers), 412, "precondition-failed")


def test_an_exam_that_only_private_listings_had_is_counted_for_nobody(registry: Registry) -> None:
    registry.publish(DATA, "first")
    brief = make_ticket(recipe=dataclasses.replace(RECIPE, steps=10).to_dict()).to_bytes()
    registry.publish(brief, "secret", by="eve", visibility="private")
    evaluate(registry, "secret", "WINNING")
    for path in ("ada/first", TICKET.digest):
        answer = registry.http.get(f"/api/v1/tickets/{path}", headers=registry.bearer("eve"))
        assert answer.json()["exams"] == {}
    assert "secret" not in registry.http.get(f"/tickets/{TICKET.digest}").text
    evaluate(registry, "first", "TRIVIAL")
    tag = registry.http.get("/api/v1/tickets/ada/first").headers["etag"]
    registry.publish(brief, "open", by="bob")
    answer = registry.http.get("/api/v1/tickets/ada/first", headers={"If-None-Match": tag})
    assert answer.json()["exams"] == {"TRIVIAL": 1, "WINNING": 1}


def test_the_listings_of_a_digest_come_page_by_page_and_say_what_differs(each_registry: Registry) -> None:
    registry = each_registry
    other = make_ticket(recipe=dataclasses.replace(RECIPE, steps=10).to_dict()).to_bytes()
    registry.publish(DATA, "hidden", visibility="private")
    for name, data in (("a", DATA), ("b", other), ("c", DATA)):
        registry.publish(data, name)
    path, seen, pages = f"/api/v1/tickets/{TICKET.digest}?limit=2", [], 0
    while path:
        answer = registry.http.get(path, headers=registry.bearer("ada"))
        seen += answer.json()["listings"]
        pages += 1
        following = answer.json()["next_cursor"]
        path = answer.links["next"]["url"] if following else ""
    assert ([one["name"] for one in seen], pages) == (["a", "b", "c", "hidden"], 2)
    assert [one["is_first"] for one in seen] == [True, False, False, False]
    a, b, c, hidden = seen
    assert a["exam"] == c["exam"] == hidden["exam"] != b["exam"]
    assert a["file_sha256"] == c["file_sha256"] != b["file_sha256"]
    file = registry.http.get(f"/api/v1/tickets/{TICKET.digest}/file")
    assert file.headers["etag"] == f'"{a["file_sha256"]}"'
    assert answer.json()["architecture"] == TICKET.architecture.digest
    shown = registry.http.get(f"/api/v1/architectures/{TICKET.architecture.digest}")
    assert shown.status_code == 200
    problem(registry.http.get(f"/api/v1/tickets/{TICKET.digest}?cursor=x"), 422, "invalid-cursor")


def test_a_page_of_listings_is_new_once_another_page_follows(registry: Registry) -> None:
    registry.publish(DATA, "a")
    path = f"/api/v1/tickets/{TICKET.digest}?limit=1"
    tag = registry.http.get(path).headers["etag"]
    assert registry.http.get(path, headers={"If-None-Match": tag}).status_code == 304
    registry.publish(DATA, "b")
    answer = registry.http.get(path, headers={"If-None-Match": tag})
    assert answer.json()["next_cursor"]


def test_the_page_of_a_digest_lists_its_listings_each_with_its_own_verdict(registry: Registry) -> None:
    registry.publish(DATA, "first")
    brief = make_ticket(recipe=dataclasses.replace(RECIPE, steps=10).to_dict()).to_bytes()
    registry.publish(brief, "brief", by="bob")
    evaluate(registry, "first", "NOT_MATCHING")
    evaluate(registry, "brief", "WINNING")
    page = registry.http.get(f"/tickets/{TICKET.digest}", headers={"Accept": "text/html"})
    assert page.status_code == 200
    for words in (
        "ada/first",
        "bob/brief",
        ">not matching<",
        ">winning<",
        "This ticket was examined 2 times",
    ):
        assert words in page.text
    listing = registry.http.get("/tickets/ada/first", headers={"Accept": "text/html"}).text
    assert f'href="/tickets/{TICKET.digest}"' in listing
    unknown = registry.http.get(f"/tickets/sha256:{'0' * 64}", headers={"Accept": "text/html"})
    assert unknown.status_code == 404


def test_a_headline_of_an_older_protocol_says_so(registry: Registry) -> None:
    registry.publish(DATA, "first")
    with registry.database.write() as session:
        row = session.scalars(select(Listing)).one()
        body = VERDICT | {"protocol": "nirvana-verify/2"}
        record_evaluation(session, row.exam_key, row.digest, body)
    assert registry.http.get("/api/v1/tickets/ada/first").json()["protocol"] == "nirvana-verify/2"
    page = registry.http.get("/tickets/ada/first", headers={"Accept": "text/html"}).text
    assert "Measured by an older protocol, nirvana-verify/2" in page
    [listed] = registry.http.get("/api/v1/tickets").json()["items"]
    assert listed["protocol"] == "nirvana-verify/2"
    for path in ("/", f"/tickets/{TICKET.digest}"):
        assert "by nirvana-verify/2" in registry.http.get(path, headers={"Accept": "text/html"}).text
    with registry.database.write() as session:
        record_evaluation(session, row.exam_key, row.digest, VERDICT | {"protocol": PROTOCOL})
    [listed] = registry.http.get("/api/v1/tickets").json()["items"]
    assert listed["protocol"] == PROTOCOL
    assert "nirvana-verify/2" not in registry.http.get("/", headers={"Accept": "text/html"}).text


def test_a_recipe_that_takes_more_examples_than_the_reference_says_so_beside_the_verdict(
    registry: Registry,
) -> None:
    registry.publish(DATA, "first")
    with registry.database.write() as session:
        row = session.scalars(select(Listing)).one()
        body = VERDICT | {"protocol": PROTOCOL, "examples": {"ticket": 36_000, "reference": 15_000}}
        record_evaluation(session, row.exam_key, row.digest, body)
    page = registry.http.get("/tickets/ada/first", headers={"Accept": "text/html"}).text
    assert "It was trained on 2.4 times the examples of the reference recipe" in page
    assert "older protocol" not in page


def test_a_job_over_the_account_s_day_is_429_with_what_was_used_and_when_there_is_room(
    make_registry: MakeRegistry,
) -> None:
    registry = make_registry(max_flops_per_account_per_day=1e10)
    registry.publish(DATA, "first")
    path, mine = "/api/v1/tickets/ada/first/verifications", registry.bearer("ada")
    answers = [registry.http.post(path, headers=mine) for _ in range(3)]
    assert [answers[0].status_code, answers[-1].status_code] == [202, 429]
    body = problem(answers[-1], 429, "quota-exceeded")
    assert body["used_flops"] <= body["limit_flops"] == 1e10 < body["used_flops"] + body["asked_flops"]
    assert "there is room at" in body["detail"]
    assert 86_000 < body["retry_after_seconds"] <= 86_400
    assert answers[-1].headers["retry-after"] == str(body["retry_after_seconds"])
    limits = registry.http.get("/api/v1/").json()["limits"]
    assert limits["max_flops_per_account_per_day"] == 10**10
    assert registry.http.post(path, headers=registry.bearer("bob")).status_code == 202


def test_jobs_of_a_clock_that_was_set_back_count_for_no_day(make_registry: MakeRegistry) -> None:
    """Else an hour with a clock a year ahead would lock everybody out for that year."""
    registry = make_registry(max_flops_per_account_per_day=1e10)
    registry.publish(DATA, "first")
    path, mine = "/api/v1/tickets/ada/first/verifications", registry.bearer("ada")
    answers = [registry.http.post(path, headers=mine).status_code for _ in range(3)]
    assert answers[-1] == 429
    with registry.database.write() as session:
        for row in session.scalars(select(Job)):
            row.created_at += timedelta(days=365)
    assert registry.http.post(path, headers=mine).status_code == 202


def test_a_job_of_the_registry_s_own_is_shown_and_nobody_s_to_cancel(registry: Registry) -> None:
    registry.publish(DATA, "first")
    evaluate(registry, "first", "WINNING")  # by protocol 1
    assert [happened for _, happened in reverify(registry.database, registry.settings)] == [ENQUEUED]
    with registry.database.read() as session:
        job_id = session.scalars(select(Job.id)).one()
    shown = registry.http.get(f"/api/v1/jobs/{job_id}").json()
    assert (shown["kind"], shown["state"], shown["account"]) == ("verify", "queued", REGISTRY)
    assert registry.http.get(f"/jobs/{job_id}", headers={"Accept": "text/html"}).status_code == 200
    cancel = f"/api/v1/jobs/{job_id}/cancel"
    problem(registry.http.post(cancel, headers=registry.bearer("ada")), 403, "forbidden")
    admin = registry.bearer("ada", "job", "admin")
    assert registry.http.post(cancel, headers=admin).json()["state"] == "cancelled"
