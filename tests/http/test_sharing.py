"""Signed verdicts, badges, citations and diffs over HTTP."""

from __future__ import annotations

import base64
import json
import os
import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from app.db import Json
from app.evaluations.service import record_evaluation
from app.evaluations.signing import load_key, sign_verdict
from app.tickets.models import Listing
from nirvana.client.rest import Client
from nirvana.client.signatures import check_signature
from nirvana.errors import InvalidSignature, StorageFailed
from tests.factories import make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import VERDICT, Registry, problem, run_registry

TICKET = make_ticket()
SVG = "{http://www.w3.org/2000/svg}"


def verified(registry: Registry, verdict: str = "WINNING", name: str = "first") -> str:
    """Publish and verify a ticket; return the path of its evaluation."""
    assert registry.publish(TICKET.to_bytes(), name).status_code in (200, 201)
    with registry.database.write() as session:
        row = session.query(Listing).filter_by(name=name).one()
        made = record_evaluation(session, row.exam_key, row.digest, VERDICT | {"verdict": verdict})
        return f"/api/v1/tickets/ada/{name}/verifications/{made.id}"


def change(part: str, **fields: object) -> str:
    """Change a part of a JWS that is JSON, in base64url."""
    decoded = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return base64.urlsafe_b64encode(json.dumps(decoded | fields).encode()).decode().rstrip("=")


def test_a_signed_verdict_says_what_was_measured_and_the_keys_check_it(each_registry: Registry) -> None:
    path = verified(each_registry)
    signed = each_registry.http.get(f"{path}/signed").json()
    keys = each_registry.http.get("/.well-known/jwks.json").json()
    statement = check_signature(signed, keys)
    assert statement["evaluation"] == each_registry.http.get(path).json()
    assert statement["registry"] == each_registry.settings.public_url
    assert each_registry.http.get(f"{path}/signed").json() == signed
    assert set(keys["keys"][0]) == {"kty", "crv", "x", "alg", "use", "kid"}, "no private part"


def test_what_was_changed_or_signed_by_another_is_refused(registry: Registry, tmp_path: Path) -> None:
    path = verified(registry)
    signed, keys = (registry.http.get(name).json() for name in (f"{path}/signed", "/.well-known/jwks.json"))
    payload = check_signature(signed, keys)
    other = load_key(tmp_path / "other.pem")
    forged: list[Json] = [
        signed | {"payload": change(signed["payload"], registry="https://elsewhere")},
        signed | {"protected": change(signed["protected"], alg="none")},
        signed | {"protected": change(signed["protected"], alg="none"), "signature": ""},
        signed | {"protected": change(signed["protected"], alg="HS256")},
        signed | {"signature": signed["signature"][::-1]},
        signed | {"header": {"alg": "none"}},
        {name: signed[name] for name in ("payload", "signature")},
        signed | {"payload": 1},
        signed | {"protected": "....."},
        sign_verdict(other, payload["registry"], payload["evaluation"]),
    ]
    for one in forged:
        with pytest.raises(InvalidSignature):
            check_signature(one, keys)
    wrong_keys: list[Json] = [{}, {"keys": []}, {"keys": 3}, {"keys": [{"kty": "RSA"}]}]
    for wrong in wrong_keys:
        with pytest.raises(InvalidSignature):
            check_signature(signed, wrong)


def test_an_old_key_still_checks_what_it_signed(make_registry: MakeRegistry, tmp_path: Path) -> None:
    registry = make_registry(signing_key=tmp_path / "key.pem")
    path = verified(registry)
    old = registry.http.get(f"{path}/signed").json()
    (tmp_path / "key.pem").unlink()
    with run_registry(registry.settings) as again:
        keys = again.http.get("/.well-known/jwks.json").json()
        assert len(keys["keys"]) == 2
        new = again.http.get(f"{path}/signed").json()
        assert new["signature"] != old["signature"]
        assert check_signature(old, keys) == check_signature(new, keys)


def test_the_key_is_its_owners_alone_and_of_two_made_at_once_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key.pem"
    made = load_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path).kid == made.kid
    assert os.listdir(path.parent) == ["key.pem"]
    for content in (b"", b"-----BEGIN PRIVATE KEY-----", made.as_pem(private=False)):
        (tmp_path / "bad.pem").write_bytes(content)
        with pytest.raises(StorageFailed, match="Ed25519"):
            load_key(tmp_path / "bad.pem")


def test_a_private_verdict_is_signed_for_its_owner_alone(registry: Registry) -> None:
    registry.publish(TICKET.to_bytes(), "first", visibility="private")
    path = verified(registry)
    assert problem(registry.http.get(f"{path}/signed"), 404, "not-found")
    assert registry.http.get(f"{path}/signed", headers=registry.bearer()).status_code == 200
    for what in ("badge.svg", "cite?format=cff", "diff/ada/first"):
        assert problem(registry.http.get(f"/api/v1/tickets/ada/first/{what}"), 404, "not-found")


@pytest.mark.parametrize("verdict", ["WINNING", "NOT_MATCHING", None])
def test_a_badge_is_a_picture_of_the_verdict(registry: Registry, verdict: str | None) -> None:
    registry.publish(TICKET.to_bytes(), "first")
    if verdict:
        verified(registry, verdict)
    drawn = registry.http.get("/api/v1/tickets/ada/first/badge.svg")
    assert drawn.headers["content-type"] == "image/svg+xml"
    texts = [text.text or "" for text in ElementTree.fromstring(drawn.text).iter(f"{SVG}text")]
    assert texts[0] == "lottery ticket"
    assert texts[1].startswith((verdict or "not verified").lower().replace("_", " "))
    assert ("brought in" in texts[1]) is (verdict == "WINNING")
    same = registry.http.get(
        "/api/v1/tickets/ada/first/badge.svg", headers={"If-None-Match": drawn.headers["etag"]}
    )
    assert (same.status_code, same.content) == (304, b"")
    verified(registry, "INVALID")
    assert registry.http.get("/api/v1/tickets/ada/first/badge.svg").headers["etag"] != drawn.headers["etag"]


def test_citations_name_author_address_and_digest(registry: Registry) -> None:
    registry.publish(TICKET.to_bytes(), "first")
    text = {
        form: registry.http.get(f"/api/v1/tickets/ada/first/cite?format={form}").text
        for form in ("bibtex", "cff", "csl", "datacite")
    }
    address = f"{registry.settings.public_url}/tickets/ada/first"
    assert f"url = {{{address}}}" in text["bibtex"]
    assert "\\% of the weights" in text["bibtex"], "special characters are escaped"
    assert text["bibtex"].count("{") == text["bibtex"].count("}")
    cff = {
        name: json.loads(value)
        for name, _, value in (one.partition(": ") for one in text["cff"].splitlines())
    }
    assert (cff["authors"], cff["identifiers"][0]["value"]) == ([{"name": "Ada"}], TICKET.digest)
    csl, datacite = json.loads(text["csl"])[0], json.loads(text["datacite"])
    assert (csl["URL"], csl["author"]) == (address, [{"literal": "Ada"}])
    assert datacite["alternateIdentifiers"][0]["alternateIdentifier"] == TICKET.digest
    assert problem(registry.http.get("/api/v1/tickets/ada/first/cite?format=word"), 422, "invalid")


def test_an_author_with_braces_and_lines_breaks_no_citation(registry: Registry) -> None:
    odd = 'Ada {"B"} }\n@misc{other,\n- x: \\y'
    registry.publish(make_ticket(authors=(odd, "Eve")).to_bytes(), "first")
    cite = "/api/v1/tickets/ada/first/cite?format="
    bibtex, cff = (registry.http.get(f"{cite}{form}").text for form in ("bibtex", "cff"))
    author = next(line for line in bibtex.splitlines() if line.startswith("  author"))
    assert author == '  author = {{Ada ("B") ) @misc(other, - x: \\textbackslash{}y} and {Eve}},'
    assert bibtex.count("{") == bibtex.count("}")
    names = next(line for line in cff.splitlines() if line.startswith("authors: "))
    assert json.loads(names.removeprefix("authors: ")) == [{"name": odd}, {"name": "Eve"}]


def test_a_diff_counts_what_masks_share(registry: Registry) -> None:
    masks = {name: mask.copy() for name, mask in TICKET.masks.items()}
    kept = np.argwhere(masks["fc1.weight"])[0]
    free = np.argwhere(~masks["fc1.weight"])[:3]
    masks["fc1.weight"][tuple(kept)] = False
    masks["fc1.weight"][tuple(free.T)] = True
    changed = make_ticket(masks=masks)
    for ticket, name in ((TICKET, "first"), (changed, "second"), (make_ticket(seed=3), "third")):
        assert registry.publish(ticket.to_bytes(), name).status_code == 201
    found = registry.http.get("/api/v1/tickets/ada/first/diff/ada/second").json()
    layer = next(one for one in found["layers"] if one["name"] == "fc1.weight")
    n = int(TICKET.masks["fc1.weight"].sum())
    assert (layer["kept"], layer["both"]) == ([n, n + 2], n - 1)
    assert (layer["only_first"], layer["only_second"]) == (1, 3)
    assert layer["jaccard"] == (n - 1) / (n + 3)
    assert found["same_values"] is True
    itself = registry.http.get(f"/api/v1/tickets/{TICKET.digest}/diff/{TICKET.digest}").json()
    assert (itself["jaccard"], itself["beyond_chance"]) == (1, 1)
    assert registry.http.get("/api/v1/tickets/ada/first/diff/ada/third").json()["same_values"] is False


def test_tickets_of_other_layers_have_no_diff(registry: Registry) -> None:
    registry.publish(TICKET.to_bytes(), "first")
    registry.publish(make_ticket("lenet-300-100").to_bytes(), "wide")
    answer = registry.http.get("/api/v1/tickets/ada/first/diff/ada/wide")
    assert "fc1.weight: (" in problem(answer, 422, "invalid-ticket")["detail"]


def test_the_client_asks_for_them(registry: Registry) -> None:
    verified(registry)
    with Client(registry.url) as client:
        newest = next(client.evaluations("ada/first"))
        signed = client.signed_verdict("ada/first", newest["id"])
        assert check_signature(signed, client.keys())["evaluation"]["verdict"] == "WINNING"
        assert client.diff("ada/first", "ada/first")["jaccard"] == 1
        assert client.citation("ada/first", "bibtex").startswith("@misc{ada-first-")
