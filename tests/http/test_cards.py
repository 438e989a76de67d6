"""Cards, tags, yanking, lineage and verifications over HTTP."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from app.pages import CARD_TAGS, MOST_RENDERED, render_card
from nirvana.client.rest import Client
from nirvana.verification.protocol import ARMS
from tests.cli.running import Run
from tests.factories import make_ticket
from tests.registry import VERDICT, Registry, measure, pointers, problem

TICKET = make_ticket()
PATH = "/api/v1/tickets/ada/first"


def test_card_and_tags_change_and_nothing_else(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first")
    before = each_registry.http.get(PATH)
    changes = {"card": "Found on a laptop.", "tags": ["small", "teaching", "small"]}
    headers = each_registry.bearer() | {"If-Match": before.headers["etag"]}
    after = each_registry.http.patch(PATH, json=changes, headers=headers)
    assert after.status_code == 200
    assert after.json() == before.json() | {"card": changes["card"], "tags": ["small", "teaching"]}
    assert each_registry.search(tag="teaching") == ["first"]
    each_registry.http.patch(PATH, json={"tags": []}, headers=each_registry.bearer())
    assert each_registry.search(tag="teaching") == []
    assert each_registry.http.get(PATH).json()["card"] == changes["card"]


def test_a_change_to_a_version_that_is_gone_is_refused(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first")
    headers = each_registry.bearer() | {"If-Match": each_registry.http.get(PATH).headers["etag"]}
    assert each_registry.http.patch(PATH, json={"card": "one"}, headers=headers).status_code == 200
    problem(each_registry.http.patch(PATH, json={"card": "two"}, headers=headers), 412, "precondition-failed")
    assert each_registry.http.get(PATH).json()["card"] == "one"


def test_of_two_changes_of_one_version_at_once_one_is_made(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first")
    headers = each_registry.bearer() | {"If-Match": each_registry.http.get(PATH).headers["etag"]}

    def change(card: str) -> httpx.Response:
        return httpx.patch(f"{each_registry.url}{PATH}", json={"card": card}, headers=headers)

    with ThreadPoolExecutor(8) as pool:
        answers = dict(zip("abcdefgh", pool.map(change, "abcdefgh"), strict=True))
    (won,) = (card for card, answer in answers.items() if answer.status_code == 200)
    for card, answer in answers.items():
        if card != won:
            problem(answer, 412, "precondition-failed")
    assert each_registry.http.get(PATH).json()["card"] == won


class CardReader(HTMLParser):
    """What a browser finds in the card of a page: tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.texts = list[tuple[str, dict[str, str | None]]](), list[str]()
        self.depth = 0
        self.feed(html)
        self.close()
        assert self.depth == 0, "the card closes what it opens"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.depth:
            self.tags.append((tag, dict(attrs)))
            self.depth += tag not in ("br", "hr")
        elif dict(attrs).get("class") == "prose card":
            self.depth = 1

    def handle_endtag(self, tag: str) -> None:
        self.depth -= bool(self.depth) and tag not in ("br", "hr")

    def handle_data(self, data: str) -> None:
        self.texts += [data] if self.depth else []


def show_card(registry: Registry, card: str) -> CardReader:
    """Give the ticket a card, and read it on its page."""
    assert registry.http.patch(PATH, json={"card": card}, headers=registry.bearer()).status_code == 200
    page = registry.http.get("/tickets/ada/first")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.text.count("<h1>") == 1
    assert page.text.rstrip().endswith("</html>")
    return CardReader(page.text)


def test_a_card_is_shown_as_the_markdown_that_it_is(registry: Registry) -> None:
    registry.publish(TICKET.to_bytes(), "first")
    card = "# Found\n\n*On* a **laptop**, see [my page](https://ada.example/x?a=1&b=2).\n\n1. one\n2. two\n\n"
    card += "| n | acc |\n|--:|:--|\n| 1 | 0.97 |\n\n```python\nprint('<b>')\n```\n\n> quoted\n\n~~gone~~\n\n"
    card += "###### deep"
    shown = show_card(registry, card)
    tags = [tag for tag, _ in shown.tags]
    for tag in ("h3", "h6", "em", "strong", "a", "ol", "li", "table", "td", "pre", "blockquote", "s"):
        assert tag in tags, tag
    link = next(attributes for tag, attributes in shown.tags if tag == "a")
    assert link == {"href": "https://ada.example/x?a=1&b=2", "rel": "nofollow ugc noopener noreferrer"}
    assert "print('<b>')" in "".join(shown.texts)


HOSTILE_CARDS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)><style>*{}</style><iframe src=//evil></iframe><form action=/x><input>",
    "</div></main></body></html><h1>mine</h1>",
    "<!-- <b> --><?php ?><![CDATA[x]]>",
    "<a href='javascript:alert(1)' onclick=alert(1)>x</a>",
    "[x](javascript:alert(1)) [x](JaVaScRiPt:alert(1)) [x](\tjavascript:alert(1))",
    "[x](&#106;avascript:alert(1)) [x](java&#x0A;script:alert(1)) [x](&#x01;javascript:alert(1))",
    "[x](data:text/html;base64,PHNjcmlwdD4=) [x](vbscript:x) [x](file:///etc/passwd) [x](blob:x)",
    "<javascript:alert(1)> <data:text/html,x>",
    "[x][1]\n\n[1]: javascript:alert(1)",
    '[x](https://a.example "" onmouseover=alert(1) x="")',
    '[x](https://a.example/"onclick="alert(1))',
    "![x](https://tracker.example/pixel.png)",
    '![x](x" onerror=alert(1))',
    '```" onclick="alert(1)\nx\n```',
    "`<script>alert(1)</script>`",
    "| a |\n|--:|\n| <img src=x onerror=alert(1)> |",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    "{{ 7 * 7 }} {% raw %} {{ request.app.state.signing_key }}",
    "# h\n\nT\n=\n\n<h1>x</h1>",
    "\u202e\u2028\ufeff<\u200bscript>",
    "<" * 3000 + ">" * 3000,
)


@pytest.mark.parametrize("card", HOSTILE_CARDS)
def test_no_card_brings_script_markup_or_images_onto_its_page(registry: Registry, card: str) -> None:
    registry.publish(TICKET.to_bytes(), "first")
    shown = show_card(registry, card)
    for tag, attributes in shown.tags:
        assert tag in CARD_TAGS
        assert attributes.keys() <= {"href", "rel", "start"}
        address = attributes.get("href") or "https:"
        assert address.startswith(("http:", "https:", "mailto:")), address
    assert "49" not in "".join(shown.texts)


def test_a_card_costs_no_more_than_its_length_allows(registry: Registry) -> None:
    """Nesting, openers without ends, wide tables: none takes long, and a longer one is no markdown."""
    parts = ("[", "![", "*a **a ", "> ", "[a](", "|a", "<", "`", "~~a ", "&amp", "- ", "\\")
    for part in parts:
        began = time.process_time()
        render_card((part * MOST_RENDERED)[:MOST_RENDERED])
        assert time.process_time() - began < 3, part
    registry.publish(TICKET.to_bytes(), "first")
    card = ("# A book\n\n<script>" * 4000)[:65_536]
    assert registry.http.patch(PATH, json={"card": card}, headers=registry.bearer()).status_code == 200
    html = registry.http.get("/tickets/ada/first").text
    assert "<script" not in html
    assert "# A book" in html


@pytest.fixture
def ada(registry: Registry, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line of the owner of a ticket."""
    registry.publish(TICKET.to_bytes(), "first")
    monkeypatch.setenv("NIRVANA_ENDPOINT", registry.url)
    monkeypatch.setenv("NIRVANA_TOKEN", registry.bearer()["Authorization"].removeprefix("Bearer "))
    monkeypatch.delenv("NIRVANA_OFFLINE", raising=False)
    return Run(capsys)


def test_a_card_is_printed_and_replaced_by_a_file(ada: Run, tmp_path: Path) -> None:
    code, out, err = ada("card", "ada/first")
    assert (code, out, "has no card" in err) == (0, "", True)
    (tmp_path / "card.md").write_text("# Found\n\non a laptop\n")
    old = ada.json("card", "ada/first")["etag"]
    code, out, err = ada("card", "ada/first", "--edit", tmp_path / "card.md")
    assert (code, out, "new card" in err) == (0, "# Found\n\non a laptop\n", True)
    assert ada("card", "ada/first", "-q")[1:] == ("# Found\n\non a laptop\n", "")
    code, _, err = ada("card", "ada/first", "--edit", tmp_path / "card.md", "--if-match", old)
    assert (code, "read it again" in err) == (4, True)
    (tmp_path / "card.md").write_text("\n")
    assert ada.json("card", "ada/first", "--edit", tmp_path / "card.md")["card"] is None
    assert ada("card", "ada/first", "--edit", tmp_path / "none.md")[0] == 3
    (tmp_path / "card.md").write_bytes(b"\xff")
    assert ada("card", "ada/first", "--edit", tmp_path / "card.md")[0] == 2
    (tmp_path / "card.md").write_text("x" * 65_537)
    assert ada("card", "ada/first", "--edit", tmp_path / "card.md")[0] == 2
    assert ada("card", "ada/none")[0] == 3


def test_tags_are_added_and_taken_away_by_their_signs(ada: Run) -> None:
    assert ada.json("tags", "ada/first", "+small", "+quick", "+hard") == {
        "ticket": "ada/first",
        "tags": ["hard", "quick", "small"],
    }
    assert ada("tags", "ada/first", "-quick", "-hard", "+teaching")[:2] == (0, "small\nteaching\n")
    code, _, err = ada("tags", "ada/first", "-quick")
    assert (code, "has no tag 'quick'" in err) == (3, True)
    assert ada("tags", "ada/first", "small")[0] == 2
    assert ada("tags", "ada/first", "+Not OK")[0] == 2
    assert ada("tags", "ada/first", "--quiet")[:2] == (0, "small\nteaching\n")


def test_a_card_and_tags_of_somebody_else_stay(
    ada: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NIRVANA_TOKEN", registry.bearer("eve")["Authorization"].removeprefix("Bearer "))
    assert ada("tags", "ada/first", "+mine")[0] == 4
    assert ada("tags", "ada/first")[:2] == (0, "")


def test_two_who_change_tags_at_once_lose_nothing(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first")
    token = each_registry.bearer()["Authorization"].removeprefix("Bearer ")

    def add(tag: str) -> None:
        with Client(each_registry.url, token=token) as client:
            client.retag("ada/first", add=[tag])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, "abcd"))
    assert each_registry.http.get(PATH).json()["tags"] == ["a", "b", "c", "d"]


def test_similar_tickets_and_counts_of_a_search_are_listed(ada: Run, registry: Registry) -> None:
    ticket = make_ticket("lenet-300-100")
    nearly = {name: mask.copy() for name, mask in ticket.masks.items()}
    nearly["fc1.weight"][0, :3] = True
    registry.publish(ticket.to_bytes(), "wide")
    registry.publish(make_ticket("lenet-300-100", masks=nearly).to_bytes(), "nearly")
    assert [hit["name"] for hit in ada.json("similar", "ada/wide")["items"]] == ["nearly"]
    code, out, _ = ada("similar", ticket.digest)
    assert (code, "ada/nearly" in out) == (0, True)
    assert ada("similar", "ada/none")[0] == 3
    counted = ada.json("search", "--facets", "task,architecture", "--max-density", "0.9")
    assert counted["facets"]["architecture"] == {"lenet-300-100": 2, "mlp-16": 1}
    code, out, err = ada("search", "--facets", "task")
    assert (code, "digits" in out, err) == (0, True, "3 tickets\n")
    assert ada("search", "--facets", "colour")[0] == 2


def test_what_is_not_card_or_tags_cannot_be_changed(registry: Registry) -> None:
    registry.publish(TICKET.to_bytes(), "first")
    for body, pointer in [
        ({"density": 0.01}, "/density"),
        ({"tags": ["ok", "NOT OK"]}, "/tags/1"),
        ({"tags": [f"t{n}" for n in range(21)]}, "/tags"),
        ({"card": "a\0b"}, "/card"),
    ]:
        answer = registry.http.patch(PATH, json=body, headers=registry.bearer())
        assert pointers(problem(answer, 422, "invalid")) == [pointer]


def test_nobody_changes_or_yanks_the_ticket_of_another(registry: Registry) -> None:
    registry.publish(TICKET.to_bytes(), "first")
    problem(registry.http.patch(PATH, json={"card": "x"}, headers=registry.bearer("bob")), 403, "forbidden")
    yank = {"reason": "broken"}
    problem(registry.http.post(f"{PATH}/yank", json=yank, headers=registry.bearer("bob")), 403, "forbidden")
    by_admin = registry.bearer("root", "read", "yank", "admin")
    assert registry.http.post(f"{PATH}/yank", json=yank, headers=by_admin).status_code == 200


def test_a_yanked_ticket_leaves_search_and_keeps_its_downloads(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first")
    body = {"reason": "superseded", "detail": "see second"}
    yanked = each_registry.http.post(f"{PATH}/yank", json=body, headers=each_registry.bearer())
    assert yanked.json()["yank_reason"] == "superseded"
    assert each_registry.search() == []
    assert each_registry.search(include_yanked="true") == ["first"]
    assert each_registry.http.get(f"{PATH}/file").content == TICKET.to_bytes()
    assert each_registry.http.get(PATH).json()["yank_detail"] == "see second"
    assert each_registry.publish(TICKET.to_bytes(), "first").status_code == 200
    each_registry.http.post(f"{PATH}/unyank", headers=each_registry.bearer())
    assert each_registry.search() == ["first"]


def test_a_yank_that_comes_into_a_download_changes_no_byte_of_it(each_registry: Registry) -> None:
    """A download that began is finished; who asks while it is yanked and shown again gets it whole."""
    registry, ticket = each_registry, make_ticket("mlp-512-512", stored=True)
    registry.publish(ticket.to_bytes(), "first")
    assert len(ticket.to_bytes()) > 2 * 256 * 1024, "more than a piece"
    with registry.http.stream("GET", f"{PATH}/file") as response:
        pieces = response.iter_raw()
        began = next(pieces)
        yank = registry.http.post(f"{PATH}/yank", json={"reason": "broken"}, headers=registry.bearer())
        assert yank.status_code == 200
        assert began + b"".join(pieces) == ticket.to_bytes()

    def yank_and_show(_: int) -> None:
        for what, body in (("yank", {"reason": "broken"}), ("unyank", None)):
            answer = httpx.post(
                f"{registry.url}{PATH}/{what}", json=body, headers=registry.bearer(), timeout=30
            )
            assert answer.status_code == 200, answer.text

    def download(_: int) -> bytes:
        answer = httpx.get(f"{registry.url}{PATH}/file", timeout=30)
        assert answer.status_code == 200
        return answer.content

    with ThreadPoolExecutor(6) as pool:
        changes, files = pool.map(yank_and_show, range(8)), pool.map(download, range(16))
        assert set(files) == {ticket.to_bytes()}
        list(changes)
    assert registry.http.get(PATH).status_code == 200


def test_a_yank_needs_a_reason_that_is_known(registry: Registry) -> None:
    registry.publish(TICKET.to_bytes(), "first")
    for body, pointer in [({}, "/reason"), ({"reason": "mood"}, "/reason")]:
        answer = registry.http.post(f"{PATH}/yank", json=body, headers=registry.bearer())
        assert pointers(problem(answer, 422, "invalid")) == [pointer]
    scopeless = registry.http.post(
        f"{PATH}/yank", json={"reason": "broken"}, headers=registry.bearer("ada", "read")
    )
    assert problem(scopeless, 403, "missing-scope")["scope"] == "yank"


def test_lineage_goes_up_to_the_first_level_and_down_to_the_next(each_registry: Registry) -> None:
    parent: str | None = None
    for level in range(4):
        provenance = {"method": "imp", "level": level, "parent": parent}
        ticket = make_ticket(density=1 - level / 5, provenance=provenance)
        assert each_registry.publish(ticket.to_bytes(), f"level-{level}").status_code == 201
        parent = ticket.digest
    lineage = each_registry.http.get("/api/v1/tickets/ada/level-2/lineage").json()
    assert [found["name"] for found in lineage["ancestors"]] == ["level-1", "level-0"]
    assert [found["name"] for found in lineage["children"]] == ["level-3"]
    layers = each_registry.http.get("/api/v1/tickets/ada/level-2/layers").json()["items"]
    assert [layer["name"] for layer in layers] == ["fc1.weight", "fc2.weight"]


def test_an_evaluation_is_shared_by_every_listing_of_its_digest(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first")
    etag = each_registry.http.get(PATH).headers["etag"]
    with each_registry.database.write() as session:
        measure(session, TICKET.digest, VERDICT, "j1")
    each_registry.publish(TICKET.to_bytes(), "copy", by="bob")
    for name in ("ada/first", "bob/copy"):
        shown = each_registry.http.get(f"/api/v1/tickets/{name}").json()
        assert (shown["verdict"], shown["replicates"]) == ("WINNING", 5)
        assert shown["accuracy"] == pytest.approx(0.965)
        assert [found["job_id"] for found in shown["evaluations"]] == ["j1"]
        page = each_registry.http.get(f"/api/v1/tickets/{name}/verifications").json()
        assert page["items"][0]["arms"] == VERDICT["arms"]
        one = each_registry.http.get(f"/api/v1/tickets/{name}/verifications/{page['items'][0]['id']}")
        assert one.json() == page["items"][0]
    assert each_registry.http.get(PATH).headers["etag"] != etag
    problem(each_registry.http.get(f"{PATH}/verifications/99"), 404, "not-found")
    gone = each_registry.http.delete(f"{PATH}/verifications/1", headers=each_registry.bearer())
    problem(gone, 405, "method-not-allowed")


def test_a_verification_is_asked_for_and_becomes_a_job(each_registry: Registry) -> None:
    each_registry.publish(TICKET.to_bytes(), "first")
    asked = each_registry.http.post(
        f"{PATH}/verifications", json={"replicates": 3}, headers=each_registry.bearer()
    )
    assert asked.status_code == 202, asked.text
    job = each_registry.http.get(asked.headers["location"]).json()
    assert (job["kind"], job["state"], job["spec"]["replicates"]) == ("verify", "queued", 3)
    assert job["spec"]["max_replicates"] == 3
    assert job["progress"]["total"] == 1 + len(ARMS) + 1
    standard = each_registry.http.post(f"{PATH}/verifications", headers=each_registry.bearer()).json()
    assert (standard["spec"]["replicates"], standard["spec"]["max_replicates"]) == (5, 20)
    assert standard["progress"]["total"] == 1 + 3 * (len(ARMS) + 1)
    for body, pointer in [({"replicates": 1}, "/replicates"), ({"n": 1}, "/n")]:
        answer = each_registry.http.post(f"{PATH}/verifications", json=body, headers=each_registry.bearer())
        assert answer.status_code == 422
        assert pointers(answer.json()) == [pointer]
    nothing = each_registry.http.post(
        "/api/v1/tickets/ada/nothing/verifications", headers=each_registry.bearer()
    )
    problem(nothing, 404, "not-found")
