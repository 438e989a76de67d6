"""Rates by address and by person, their headers, and what is held for long."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import httpx
import pytest
from fastapi.routing import APIRoute
from limits import parse
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from app import problems
from app.limits.counters import SqliteCounters, make_counters
from app.limits.rates import ACTIONS, RATES, Payer, read_rates
from app.limits.service import Limiter, Line, Places
from app.main import PAGES
from app.server import serve
from app.settings import Settings
from app.tickets.files.checking import Checker
from nirvana.errors import Invalid, RateLimited, Unavailable
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import TICKET_TYPE, Registry, make_settings, problem
from tests.worker.arena import small_spec

TICKETS = "/api/v1/tickets"


def from_address(address: str) -> dict[str, str]:
    """The header of a proxy on loopback, which the test's server believes."""
    return {"X-Forwarded-For": address}


def test_searches_of_an_address_are_bounded_and_every_answer_says_what_is_left(
    make_registry: MakeRegistry,
) -> None:
    registry = make_registry(rates={"search.address": "3/hour"})
    answers = [registry.http.get(TICKETS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].headers["ratelimit-policy"] == '"search";q=3;w=3600'
    assert answers[0].headers["ratelimit"].startswith('"search";r=2;t=')
    refused = registry.http.get("/")  # the page of the same search
    assert refused.status_code == 429
    body = problem(registry.http.get(TICKETS), 429, "rate-limited")
    assert (body["action"], body["limit"]) == ("search", 3)
    assert 0 < int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["ratelimit"].startswith('"search";r=0;t=')
    assert registry.http.get("/api/v1/").status_code == 200, "another action"
    assert registry.http.get(TICKETS, headers=from_address("198.51.100.7")).status_code == 200
    assert registry.http.get(TICKETS, headers=registry.bearer()).status_code == 200, "a person of her own"


def test_a_stranger_who_is_refused_is_told_so_later_and_a_person_at_once(
    make_registry: MakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(problems, "sleep", note)
    rates = {"search.address": "1/hour", "search.account": "1/hour"}
    registry = make_registry(rates=rates, refusal_seconds=0.25)
    for headers, expected in (({}, [0.25]), (registry.bearer(), [0.25])):
        answers = [registry.http.get(TICKETS, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]
        assert waited == expected
    assert registry.http.get("/api/v1/tickets/ada/none").status_code == 404
    registry.http.get("/api/v1/account", headers={"Authorization": "Bearer nvn_guess"})
    assert waited == [0.25]


def test_an_ipv6_customer_is_one_address_and_a_mapped_address_is_the_one_it_maps(
    make_registry: MakeRegistry,
) -> None:
    registry = make_registry(rates={"search.address": "1/hour"})
    statuses = [
        registry.http.get(TICKETS, headers=from_address(address)).status_code
        for address in (
            "2001:db8::1",
            "2001:db8::ffff",
            "2001:db8:0:1::1",
            "198.51.100.9",
            "::ffff:198.51.100.9",
        )
    ]
    assert statuses == [200, 429, 200, 200, 429]


def test_new_accounts_of_a_network_share_the_rates_of_one_person(make_registry: MakeRegistry) -> None:
    registry = make_registry(rates={"search.account": "2/hour"})

    def sign_up(name: str, address: str) -> dict[str, str]:
        answer = registry.http.post("/api/v1/accounts", json={"name": name}, headers=from_address(address))
        return {"Authorization": f"Bearer {answer.json()['token']['secret']}"}

    socks = [sign_up(f"sock-{n}", f"203.0.113.{n}") for n in range(3)]
    assert [registry.http.get(TICKETS, headers=sock).status_code for sock in socks] == [200, 200, 429]
    assert registry.http.get(TICKETS, headers=sign_up("grace", "198.51.100.1")).status_code == 200


def test_sign_ups_are_bounded_by_address(make_registry: MakeRegistry) -> None:
    registry = make_registry()
    answers = [registry.http.post("/api/v1/accounts", json={"name": f"a{n}"}) for n in range(11)]
    assert [answer.status_code for answer in answers] == [201] * 10 + [429]
    elsewhere = from_address("198.51.100.7")
    answer = registry.http.post("/api/v1/accounts", json={"name": "grace"}, headers=elsewhere)
    assert answer.status_code == 201


def test_guesses_of_tokens_are_bounded_and_a_known_token_is_not_tried_either(
    make_registry: MakeRegistry,
) -> None:
    registry = make_registry(rates={"guess": "5/hour"})
    good = registry.bearer()
    bad = [{"Authorization": f"Bearer nvn_{n}"} for n in range(7)]
    statuses = [registry.http.get("/api/v1/whoami", headers=one).status_code for one in bad]
    assert statuses == [401] * 5 + [429] * 2
    problem(registry.http.get("/api/v1/whoami", headers=good), 429, "rate-limited")
    elsewhere = good | from_address("198.51.100.7")
    assert registry.http.get("/api/v1/whoami", headers=elsewhere).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "action"),
    [
        ("GET", "/api/v1/tasks", "search"),
        ("GET", "/tasks", "search"),
        ("GET", "/tasks/digits", "search"),
        ("GET", "/protocol", "read"),
        ("GET", f"{TICKETS}/ada/first/file", "read"),
        ("HEAD", f"{TICKETS}/ada/first/file", "read"),
        ("GET", f"{TICKETS}/ada/first/export?format=csr", "export"),
        ("POST", f"{TICKETS}:lint", "lint"),
        ("POST", "/api/v1/architectures:check", "lint"),
        ("POST", f"{TICKETS}/ada/first/yank", "write"),
        ("GET", "/healthz", None),
        ("GET", "/metrics", None),
    ],
)
def test_each_request_is_of_an_action(registry: Registry, method: str, path: str, action: str | None) -> None:
    policy = registry.http.request(method, path).headers.get("ratelimit-policy")
    assert policy is None if action is None else policy is not None
    if action is not None:
        assert policy is not None
        assert policy.startswith(f'"{action}";')


def test_every_action_of_the_table_is_used_and_every_operation_of_it_is_there(registry: Registry) -> None:
    paths = registry.http.get("/openapi.json").json()["paths"].values()
    operations = {one["operationId"] for path in paths for one in path.values() if "operationId" in one}
    operations |= {route.name for router in PAGES for route in router.routes if isinstance(route, APIRoute)}
    assert set(ACTIONS) <= operations
    assert set(RATES) - {"read", "write", "guess", "export-mib"} == set(ACTIONS.values()) - {None}


def test_a_private_registry_switches_limits_off(make_registry: MakeRegistry) -> None:
    registry = make_registry(limits="off", rates={"search": "1/day"})
    answers = [registry.http.get(TICKETS) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "ratelimit" not in answers[0].headers


@pytest.mark.parametrize(
    ("rates", "match"),
    [({"serach": "1/minute"}, "'serach' is none of"), ({"search": "often"}, "'often' is no rate")],
)
def test_rates_that_are_none_are_refused_at_the_start(rates: dict[str, str], match: str) -> None:
    with pytest.raises(Invalid, match=match):
        read_rates(rates)


def test_an_action_may_have_a_rate_for_one_side_alone() -> None:
    rates = read_rates({"search": "off", "lint.address": "7/hour"})
    assert ("search", True) not in rates
    assert ("search", False) not in rates
    assert rates["lint", False] == parse("7/hour")
    assert rates["lint", True] == parse(RATES["lint"].account)


@pytest.fixture(params=[":memory:", "file", "memory://"])
def counters(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Our own counters, in memory and in a file, and the library's by address, as Redis is."""
    return make_counters(str(tmp_path / "limits.db") if request.param == "file" else request.param)


def test_counters_count_once_each_and_begin_anew(counters: Storage) -> None:
    strategy, rate = FixedWindowRateLimiter(counters), parse("50/2 seconds")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: strategy.hit(rate, "search", "a"), range(80))) == 50
    assert strategy.get_window_stats(rate, "search", "a").remaining == 0
    assert strategy.hit(rate, "search", "b", cost=50)
    assert not strategy.test(rate, "search", "b")
    time.sleep(2.1)
    assert strategy.hit(rate, "search", "a")
    assert strategy.get_window_stats(rate, "search", "a").remaining == 49
    assert counters.check()
    counters.clear(rate.key_for("search", "a"))
    assert strategy.get_window_stats(rate, "search", "a").remaining == 50


def test_a_storage_that_is_not_here_is_refused_in_one_line_whatever_the_processes() -> None:
    with pytest.raises(Invalid, match="NIRVANA_LIMIT_STORAGE"):
        make_counters("carrier-pigeon://coop")
    settings = Settings(limit_storage="carrier-pigeon://coop", workers=2)
    with pytest.raises(Invalid, match="NIRVANA_LIMIT_STORAGE"):
        serve(settings)


@pytest.mark.parametrize("kind", [":memory:", "file"])
def test_a_clock_that_is_put_back_locks_nobody_out(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window that was counted an hour ahead of now would last an hour more: it is over instead."""
    counters = make_counters(str(tmp_path / "limits.db") if kind == "file" else kind)
    strategy, rate, now = FixedWindowRateLimiter(counters), parse("2/minute"), time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    assert [strategy.hit(rate, "search", "a") for _ in range(3)] == [True, True, False]
    monkeypatch.setattr(time, "time", lambda: now)
    assert strategy.get_window_stats(rate, "search", "a").remaining == 2
    assert [strategy.hit(rate, "search", "a") for _ in range(3)] == [True, True, False]
    assert strategy.get_window_stats(rate, "search", "a").reset_time <= now + 60
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert strategy.hit(rate, "search", "a")


def test_processes_that_share_a_file_share_its_counters_and_old_ones_are_swept(tmp_path: Path) -> None:
    path = str(tmp_path / "limits.db")
    one, other = SqliteCounters(path), SqliteCounters(path)
    assert [one.incr("a", 60), other.incr("a", 60), one.incr("a", 60)] == [1, 2, 3]
    for number in range(1_200):
        one.incr(f"short-{number}", -1)
    left = sqlite3.connect(path).execute("SELECT count(*) FROM counter").fetchone()[0]
    assert left < 300


def test_counters_that_fail_refuse_nobody_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "limits.db"
    limiter = Limiter(make_settings(tmp_path, limit_storage=str(path)))
    with sqlite3.connect(path) as broken:
        broken.execute("DROP TABLE counter")
    with caplog.at_level(logging.WARNING, "nirvana.app"):
        assert limiter.hit("search", Payer("address:198.51.100.7")) is None
    assert "not counted" in caplog.text


def test_places_are_bounded_for_each_and_for_all() -> None:
    places, ada, bob = Places(3, 2), Payer("account:1"), Payer("account:2")
    with places.hold(ada), places.hold(ada):
        with pytest.raises(RateLimited, match="You hold 2"), places.hold(ada):
            pass
        with places.hold(bob), pytest.raises(Unavailable), places.hold(bob):
            pass
    with places.hold(ada), places.hold(ada):
        pass


def test_streams_of_a_caller_are_bounded_and_a_closed_one_gives_its_place_back(
    make_registry: MakeRegistry,
) -> None:
    registry = make_registry(max_streams_per_caller=1)
    made = registry.http.post(
        "/api/v1/jobs", json={"kind": "prune", "spec": small_spec()}, headers=registry.bearer()
    )
    events = f"{made.headers['location']}/events"
    with registry.http.stream("GET", events) as first:
        assert first.status_code == 200
        lines = first.iter_lines()  # closing it closes the stream
        next(lines)
        problem(registry.http.get(events), 429, "rate-limited")
        elsewhere = from_address("198.51.100.7")
        with registry.http.stream("GET", events, headers=elsewhere) as other:
            assert other.status_code == 200
    patience = time.monotonic() + 10
    while time.monotonic() < patience:
        with registry.http.stream("GET", events) as again:
            if again.status_code == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the place was not given back")


def test_a_line_is_not_endless() -> None:
    go = threading.Event()
    answers: list[int] = []

    async def crowd() -> None:
        line = Line(1, 2)
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(work, line, number)
            await anyio.sleep(0.2)
            with pytest.raises(Unavailable, match="2 others wait"):
                await line.run(lambda: None)
            go.set()

    async def work(line: Line, number: int) -> None:
        await line.run(lambda: go.wait(10))
        answers.append(number)

    anyio.run(crowd)
    assert sorted(answers) == [0, 1, 2]


def test_strangers_are_refused_what_there_is_no_room_for_before_anything_else(
    make_registry: MakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise Unavailable("Others wait already.", retry_after_seconds=2)

    monkeypatch.setattr(Checker, "refuse_crowd", refuse)
    monkeypatch.setattr(Line, "check", refuse)
    registry = make_registry()
    for path in ("/api/v1/tickets:lint", "/api/v1/accounts", "/sign-up", "/sign-in"):
        answer = registry.http.post(path, content=b"x")
        problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "2"
        assert "ratelimit" not in answer.headers, "nobody counted it"
    headers = {"Content-Type": TICKET_TYPE} | registry.bearer()
    answer = registry.http.post("/api/v1/tickets:lint", content=b"x", headers=headers)
    problem(answer, 503, "unavailable")
    assert "ratelimit" in answer.headers, "a person goes on to the route, which has no room either"
    assert registry.http.get("/sign-in").status_code == 200
    metrics = registry.http.get("/metrics").text
    assert 'nirvana_requests_total{method="POST",route="/api/v1/tickets:lint",status="503"} 2.0' in metrics


def test_the_threads_of_a_line_may_give_way_to_those_who_answer() -> None:
    async def priorities() -> tuple[int, int]:
        own = await Line(1, 0).run(lambda: os.getpriority(os.PRIO_PROCESS, 0))
        return own, await Line(1, 0, 5).run(lambda: os.getpriority(os.PRIO_PROCESS, 0))

    usual, lower = anyio.run(priorities)
    assert usual == os.getpriority(os.PRIO_PROCESS, 0), "this thread's own is what it was"
    assert lower == min(19, usual + 5)


def test_publishing_goes_on_beside_a_crowd_that_checks_files(make_registry: MakeRegistry) -> None:
    registry = make_registry(limits="off")
    data, stop = make_ticket("mlp-1200", density=0.9, stored=True).to_bytes(), threading.Event()
    statuses: set[int] = set()

    def lint() -> None:
        with httpx.Client(base_url=registry.url, timeout=60) as http:
            while not stop.is_set():
                sent = http.post(f"{TICKETS}:lint", content=data, headers={"Content-Type": TICKET_TYPE})
                statuses.add(sent.status_code)

    crowd = [threading.Thread(target=lint) for _ in range(16)]
    for one in crowd:
        one.start()
    try:
        for number in range(5):
            assert registry.publish(make_ticket(seed=number).to_bytes(), f"t{number}").status_code == 201
    finally:
        stop.set()
        for one in crowd:
            one.join()
    assert statuses == {200, 503}


def test_the_page_about_limits_has_the_table_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    for name, rate in RATES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[1].startswith(rate.help)
        assert cells[2:] == [rate.address, rate.account]


def test_an_account_s_files_are_bounded_together_and_the_same_one_again_costs_nothing(
    make_registry: MakeRegistry,
) -> None:
    data = [make_ticket(seed=seed).to_bytes() for seed in range(3)]
    most = len(data[0]) + len(data[1]) + 10
    registry = make_registry(max_stored_bytes_per_account=most)
    assert [registry.publish(data[n], f"t{n}").status_code for n in (0, 0)] == [201, 200]
    assert registry.publish(data[1], "t1").status_code == 201
    body = problem(registry.publish(data[2], "t2"), 429, "quota-exceeded")
    assert body["limit_bytes"] == most
    assert registry.publish(data[2], "t2", by="bob").status_code == 201
    account = registry.account()
    assert (account.tickets, account.stored_bytes) == (2, len(data[0]) + len(data[1]))
    with registry.database.write() as session:
        session.merge(account).max_stored_bytes = 10 * most
    assert registry.publish(data[2], "t2").status_code == 201
