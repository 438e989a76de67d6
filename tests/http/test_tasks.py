"""Tasks that people make: uploaded, listed, downloaded without their seal, hidden, removed."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from app.accounts.models import Account
from app.evaluations.models import Evaluation
from app.tasks.boards import student_975
from app.tasks.models import TaskRow
from app.tickets.models import Listing
from nirvana.errors import DataMissing
from nirvana.tasks import own
from nirvana.tasks.task import task_from_json, task_to_json
from tests.factories import make_masks, make_ticket
from tests.http.conftest import MakeRegistry
from tests.registry import VERDICT, Registry, measure, pointers, problem

N = 150


def table(n: int = N, mark: str = ",") -> bytes:
    """Two features, of which the second tells the class."""
    rng = np.random.default_rng(0)
    rows = [f"{rng.normal():.9f}{mark}{row % 3 + 0.25}{mark}{'abc'[row % 3]}" for row in range(n)]
    return "\n".join([f"length{mark}width{mark}kind", *rows]).encode()


def arrays(**more: Any) -> bytes:
    stream = io.BytesIO()
    x = np.random.default_rng(0).integers(0, 256, (N, 6, 5)).astype(np.uint8)
    np.savez(stream, x=x, y=np.arange(N) % 3, **more)
    return stream.getvalue()


def pictures() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number in range(N):
            image = io.BytesIO()
            Image.new("RGB", (5, 6), (number, 0, 0)).save(image, "PNG")
            archive.writestr(f"{'abc'[number % 3]}/{number}.png", image.getvalue())
    return stream.getvalue()


def parquet() -> bytes:
    import pyarrow as arrow
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    width = [row % 3 + 0.25 for row in range(N)]
    pq.write_table(arrow.table({"width": width, "kind": ["abc"[row % 3] for row in range(N)]}), stream)
    return stream.getvalue()


def make(
    registry: Registry, name: str = "flowers", data: bytes | None = None, file: str = "t.csv", **fields: Any
) -> httpx.Response:
    """Upload a task."""
    by = fields.pop("by", "ada")
    form = {"name": name, "title": "Flowers", "license": "CC0-1.0"} | fields
    files = {"file": (file, table() if data is None else data, "application/octet-stream")}
    headers = registry.bearer(by) if by else {}
    return registry.http.post(
        "/api/v1/tasks", files=files, data={k: v for k, v in form.items() if v is not None}, headers=headers
    )


def made(registry: Registry, name: str = "flowers", **fields: Any) -> dict[str, Any]:
    answer = make(registry, name, **fields)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_table_becomes_a_task_with_a_fifth_sealed_that_nobody_can_download(each_registry: Registry) -> None:
    registry = each_registry
    task = made(registry, description="From my garden.")
    assert (task["name"], task["owner"], task["license"]) == ("ada/flowers", "ada", "CC0-1.0")
    assert task["sizes"] == {"train": 60, "validation": 30, "test": 30}
    assert task["seal"]["rows"] == 30
    assert task["description"].startswith("From my garden.\n\n150 examples of 2 features")
    assert task["source"] == f"t.csv, sha256:{hashlib.sha256(table()).hexdigest()}"
    assert registry.http.get("/api/v1/tasks/ada/flowers").json()["seal"] == task["seal"]
    listed = registry.http.get("/api/v1/tasks", params={"owner": "ada"}).json()["items"]
    assert [one["name"] for one in listed] == ["ada/flowers"]

    data = registry.http.get("/api/v1/tasks/ada/flowers/data")
    assert hashlib.sha256(data.content).hexdigest() == task["data_sha256"]
    assert data.headers["etag"] == f'"{task["data_sha256"]}"'
    shown = np.load(io.BytesIO(data.content))
    assert sorted(set(shown["part"].tolist())) == [0, 1, 2]
    assert len(shown["x"]) == N - 30

    with registry.database.read() as session:
        row = session.scalars(select(TaskRow).where(TaskRow.owner_id.is_not(None))).one()
        account = session.scalars(select(Account).where(Account.name == "ada")).one()
    sealed = registry.storage.get(row.sealed_key)
    assert hashlib.sha256(sealed).hexdigest() == task["seal"]["sha256"]
    assert account.stored_bytes == row.stored_bytes == len(data.content) + len(sealed) == task["data_bytes"]
    assert account.tickets == 0
    hidden = {tuple(x) for x in np.load(io.BytesIO(sealed))["x"].tolist()}
    assert not hidden & {tuple(x) for x in shown["x"].tolist()}
    for path in (
        f"/api/v1/tasks/ada/flowers/{row.sealed_key}",
        f"/api/v1/{row.sealed_key}",
        f"/{row.sealed_key}",
        f"/api/v1/files/sha256:{task['seal']['sha256']}",
        f"/api/v1/files/sha256:{task['data_sha256']}",
        "/api/v1/tasks/ada/flowers/sealed",
        f"/static/../{row.sealed_key}",
    ):
        assert registry.http.get(path, headers=registry.bearer()).status_code in (404, 422), path


@pytest.mark.parametrize(
    ("file", "data", "shape"),
    [
        ("t.csv", table(), [2]),
        ("t.tsv", table(mark="\t"), [2]),
        ("t.parquet", parquet(), [1]),
        ("t.npz", arrays(), [1, 6, 5]),
        ("T.ZIP", pictures(), [3, 6, 5]),
    ],
)
def test_every_kind_of_file_becomes_a_task(
    registry: Registry, file: str, data: bytes, shape: list[int]
) -> None:
    task = made(registry, data=data, file=file)
    assert (task["input_shape"], task["classes"]) == (shape, 3)


def test_the_same_file_again_is_the_old_task_and_another_one_is_refused(registry: Registry) -> None:
    made(registry)
    again = make(registry)
    assert again.status_code == 200
    problem(make(registry, data=table(151)), 409, "name-taken")
    problem(make(registry, seed="7"), 409, "name-taken")
    assert made(registry, by="bob")["name"] == "bob/flowers"
    assert len(registry.storage.keys("tasks")) == len(registry.storage.keys("sealed")) == 2
    assert registry.account("ada").stored_bytes == registry.account("bob").stored_bytes


@pytest.mark.parametrize("name", ["mnist", "digits", "ada/mnist"])
def test_names_of_the_library_stay_the_librarys(registry: Registry, name: str) -> None:
    assert made(registry, name)["name"] == f"ada/{name.rpartition('/')[2]}"
    assert registry.http.get("/api/v1/tasks/mnist").json()["owner"] is None


def test_a_task_without_a_seal_says_so(registry: Registry) -> None:
    task = made(registry, sealed_share="0")
    assert task["seal"] is None
    assert registry.storage.keys("sealed") == []
    assert "the test set, which is public" in registry.http.get("/tasks/ada/flowers").text


def test_what_the_form_says_is_checked_before_anything_is_read(registry: Registry) -> None:
    for fields, expected in (
        ({"name": "a/b"}, "/name"),
        ({"name": "bob/flowers"}, "/name"),
        ({"name": "Flowers"}, "/name"),
        ({"name": "../x"}, "/name"),
        ({"name": "frontier"}, "/name"),
        ({"name": "x\u202ey"}, "/name"),
        ({"title": ""}, "/title"),
        ({"title": "  "}, "/title"),
        ({"title": "a\0b"}, "/title"),
        ({"license": None}, "/license"),
        ({"license": "x" * 201}, "/license"),
        ({"sealed_share": "1"}, "/sealed_share"),
        ({"sealed_share": "nan"}, "/sealed_share"),
        ({"test_share": "0"}, "/test_share"),
        ({"seed": "-1"}, "/seed"),
        ({"seed": "9" * 400}, "/seed"),
        ({"margin": "0.6"}, "/margin"),
        ({"kind": "video"}, "/kind"),
        ({"image_size": "0"}, "/image_size"),
        ({"title": "pay\u202epal"}, "/title"),
        ({"visibility": "private"}, "/visibility"),
        ({"file_": "x"}, "/file_"),
    ):
        answer = make(registry, **{"name": "flowers"} | fields)
        assert answer.status_code == 422, (fields, answer.text)
        assert expected in pointers(answer.json()), (fields, answer.text)


def test_a_file_that_is_no_task_is_refused_with_the_reason(registry: Registry) -> None:
    bad = arrays(extra=np.array([{}], dtype=object))
    for file, data, code in (
        ("t.csv", b"", "empty"),
        ("t.csv", b"\xff\xfe\x00", "encoding"),
        ("t.csv", b"a,b\n1\n", "ragged-row"),
        ("t.csv", table(12), "tiny"),
        ("t.csv", table().replace(b"length", b"len\xe2\x80\xaegth"), "characters"),
        ("t.csv", table().replace(b",c", b"," + b"c" * 300), "too-long"),
        ("t.npz", b"PK\x03\x04" + bytes(50), "npz"),
        ("t.npz", bad, "objects"),
        ("t.parquet", b"PAR1" + bytes(50), "parquet"),
        ("t.zip", b"no zip", "zip"),
        ("t.exe", table(), "format"),
        ("", table(), "format"),
    ):
        answer = make(registry, data=data, file=file)
        if file:
            body = problem(answer, 422, "invalid")
            assert body["errors"][0]["code"] == code, (file, body)
        else:
            assert answer.status_code in (400, 422)
    assert registry.storage.keys("tasks") == []
    wide = ",".join("x" * 50_000 + str(number) for number in range(100)).encode()
    answer = make(registry, data=wide + b"\n" + b",".join([b"a"] * 100) + b"\n")
    assert answer.status_code == 422
    assert len(answer.content) < 150_000, "a long name is not sent back whole"


def test_only_who_may_publish_makes_tasks(registry: Registry) -> None:
    assert make(registry, by=None).status_code == 401
    files = {"file": ("t.csv", table(), "text/csv")}
    form = {"name": "flowers", "title": "F", "license": "CC0-1.0"}
    for scopes, names, status in (
        (("read",), None, 403),
        (("publish",), ["lenet-*"], 403),
        (("publish",), ["flow*"], 201),
    ):
        token = registry.token("ada", *scopes, names=names)
        headers = {"Authorization": f"Bearer {token}"}
        answer = registry.http.post("/api/v1/tasks", files=files, data=form, headers=headers)
        assert answer.status_code == status, answer.text


def test_an_account_has_room_for_so_many_tasks_and_bytes(make_registry: MakeRegistry) -> None:
    registry = make_registry(max_tasks_per_account=1)
    made(registry, "one")
    problem(make(registry, "two"), 429, "quota-exceeded")
    headers = registry.bearer("ada")
    assert registry.http.delete("/api/v1/tasks/ada/one", headers=headers).status_code == 204
    made(registry, "two")
    small = make_registry(max_stored_bytes_per_account=2_000)
    problem(make(small), 429, "quota-exceeded")
    assert small.storage.keys("tasks") == small.storage.keys("sealed") == []


def test_what_takes_too_much_is_cut_off(make_registry: MakeRegistry) -> None:
    bomb = io.BytesIO()
    np.savez_compressed(bomb, x=np.zeros((2**28, 1), np.uint8), y=np.arange(2**28) % 2)
    registry = make_registry(task_memory_bytes=2**28, max_task_bytes=2**23)
    problem(make(registry, data=bomb.getvalue(), file="t.npz"), 413, "too-large")
    problem(make(registry, data=bytes(2**23 + 1)), 413, "too-large")
    problem(make(make_registry(task_seconds=0.05)), 413, "too-large")
    problem(make(make_registry(max_task_data_bytes=500)), 413, "too-large")
    assert made(registry)["tickets"] == 0


def test_a_task_is_yanked_out_of_sight_and_begins_no_search(each_registry: Registry) -> None:
    registry = each_registry
    made(registry)
    http, mine, other = registry.http, registry.bearer("ada"), registry.bearer("bob")
    path, spec = "/api/v1/tasks/ada/flowers", {"task": "ada/flowers", "architecture": "mlp-4", "levels": 1}
    assert http.post(f"{path}/yank", json={"reason": "broken"}, headers=other).status_code == 403
    assert http.post("/api/v1/tasks/digits/yank", json={"reason": "broken"}, headers=mine).status_code == 403
    yanked = http.post(f"{path}/yank", json={"reason": "broken", "detail": "Wrong labels."}, headers=mine)
    assert (yanked.status_code, yanked.json()["yank_reason"]) == (200, "broken")
    assert http.get("/api/v1/tasks", params={"owner": "ada"}).json()["items"] == []
    assert http.get(path).json()["yank_detail"] == "Wrong labels."
    assert http.get(f"{path}/data").status_code == 200
    job = http.post("/api/v1/jobs", json={"kind": "prune", "spec": spec}, headers=mine)
    assert pointers(problem(job, 422, "invalid-job")) == ["/spec/task"]
    assert "Wrong labels." in job.json()["detail"]
    assert http.post(f"{path}/unyank", headers=mine).json()["yanked_at"] is None
    job = http.post("/api/v1/jobs", json={"kind": "prune", "spec": spec}, headers=mine)
    assert job.status_code == 202, job.text


def test_a_task_is_removed_until_something_depends_on_it_and_its_name_stays_taken(
    each_registry: Registry,
) -> None:
    registry = each_registry
    made(registry)
    http, mine = registry.http, registry.bearer("ada")
    path, spec = "/api/v1/tasks/ada/flowers", {"task": "ada/flowers", "architecture": "mlp-4", "levels": 1}
    assert http.delete(path, headers=registry.bearer("bob")).status_code == 403
    job = http.post("/api/v1/jobs", json={"kind": "prune", "spec": spec}, headers=registry.bearer("bob"))
    body = problem(http.delete(path, headers=mine), 409, "conflict")
    assert "a job on it is queued or running" in body["detail"]
    http.post(f"/api/v1/jobs/{job.json()['id']}/cancel", headers=registry.bearer("bob"))
    assert http.delete(path, headers=mine).status_code == 204
    assert registry.storage.keys("tasks") == registry.storage.keys("sealed") == []
    assert registry.account("ada").stored_bytes == 0
    assert http.get(path).json()["removed_at"] is not None
    assert "were removed" in http.get("/tasks/ada/flowers").text
    problem(http.get(f"{path}/data"), 410, "gone")
    problem(make(registry), 410, "gone")
    job = http.post("/api/v1/jobs", json={"kind": "prune", "spec": spec}, headers=mine)
    assert pointers(problem(job, 422, "invalid-job")) == ["/spec/task"]
    assert http.delete(path, headers=mine).status_code == 204
    assert http.get("/api/v1/tasks", params={"owner": "ada"}).json()["items"] == []


def test_a_task_with_tickets_stays_unless_an_admin_takes_its_data_away(registry: Registry) -> None:
    made(registry)
    assert registry.publish(make_ticket(task="ada/flowers").to_bytes(), "first", by="bob").status_code == 201
    path = "/api/v1/tasks/ada/flowers"
    body = problem(registry.http.delete(path, headers=registry.bearer("ada")), 409, "conflict")
    assert "tickets were published for it" in body["detail"]
    admin = registry.bearer("root", "yank", "admin")
    assert registry.http.delete(path, headers=admin).status_code == 204
    job = registry.http.post(
        "/api/v1/tickets/bob/first/verifications", json={}, headers=registry.bearer("ada")
    )
    assert "The data of the task ada/flowers were removed" in problem(job, 422, "invalid-job")["detail"]


def test_a_seal_seals_for_everybody_but_who_made_the_task(each_registry: Registry) -> None:
    registry = each_registry
    for_it = make_ticket(task="ada/flowers")
    before = registry.publish(for_it.to_bytes(), "before", by="cleo").json()
    assert (before["origin"], len(before["warnings"])) == ("brought-in", 1)
    made(registry)
    other = make_ticket(task="ada/flowers", masks=make_masks(for_it.architecture, 0.3, 5))
    origins = {
        by: registry.publish(other.to_bytes(), "first", by=by).json()["origin"] for by in ("ada", "bob")
    }
    assert origins == {"ada": "brought-in", "bob": "sealed"}
    assert registry.http.get("/api/v1/tickets/bob/first").json()["warnings"] == []
    feed = registry.http.get("/api/v1/feeds/tasks/ada/flowers.atom")
    assert (feed.status_code, "bob/first" in feed.text) == (200, True)


def test_who_pulls_a_task_searches_on_it_and_cannot_verify_it(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nirvana import tasks

    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "elsewhere"))
    shown = made(registry)
    task = task_from_json({name: shown[name] for name in task_to_json(tasks.get("digits"))})
    data = tmp_path / "data.npz"
    data.write_bytes(registry.http.get("/api/v1/tasks/ada/flowers/data").content)
    own.keep(task, data)
    assert tasks.load("ada/flowers").train_x.shape == (60, 2)
    with pytest.raises(DataMissing, match="only a registry that holds them"):
        tasks.load_sealed("ada/flowers")


def publish_measured(
    registry: Registry, name: str, accuracy: float, density: float, **fields: Any
) -> Listing:
    """Publish a ticket for digits and record an evaluation of it; its owner is bob unless `by` says so."""
    by, seed = fields.pop("by", "bob"), fields.pop("seed", 1)
    ticket = make_ticket(masks=make_masks(make_ticket().architecture, density, seed), seed=seed)
    assert registry.publish(ticket.to_bytes(), name, by=by).status_code == 201
    arms = {"dense": [0.95, 0.97, 0.96], "reference": [0.96, 0.96, 0.97], "random": [0.8, 0.82, 0.81]}
    arms["ticket"] = [accuracy - 0.01, accuracy + 0.01, accuracy]
    more = {"engines": {"ticket": "sparse"}, "cost": {"seconds": 3.5, "flops_sparse": 10, "trainings": 21}}
    with registry.database.write() as session:
        measure(session, ticket.digest, VERDICT | {"arms": arms, "replicates": 3} | more | fields)
        row = session.scalars(select(Listing).where(Listing.name == name)).one()
        if not fields.get("brought_in"):
            row.origin = "attested"
    return row


def test_a_frontier_has_the_tickets_that_no_smaller_one_beats_with_their_controls(
    each_registry: Registry,
) -> None:
    registry = each_registry
    for name, accuracy, density in (
        ("large", 0.95, 0.8),
        ("middle", 0.94, 0.4),
        ("worse", 0.90, 0.6),
        ("small", 0.90, 0.1),
    ):
        publish_measured(registry, name, accuracy, density)
    path = "/api/v1/tasks/digits/frontier"
    points = registry.http.get(path).json()["items"]
    assert [one["name"] for one in points] == ["small", "middle", "large"]
    assert sorted(one["kept"] for one in points) == [one["kept"] for one in points]
    small = points[0]
    half = 4.302653 * 0.01 / 3**0.5
    assert small["accuracy"] == pytest.approx({"mean": 0.9, "low": 0.9 - half, "high": 0.9 + half, "n": 3})
    assert small["controls"]["random"]["mean"] == pytest.approx(0.81)
    assert small["dense"]["mean"] == pytest.approx(0.96)
    assert small["engine"] == "sparse"

    headers = registry.bearer("bob")
    registry.http.post("/api/v1/tickets/bob/middle/yank", json={"reason": "broken"}, headers=headers)
    publish_measured(registry, "secret", 0.99, 0.2)
    answer = registry.http.patch(
        "/api/v1/tickets/bob/secret", json={"visibility": "private"}, headers=headers
    )
    assert answer.status_code == 200, answer.text
    copy = registry.http.get("/api/v1/tickets/bob/small/file").content
    registry.publish(copy, "copy", by="cleo")
    publish_measured(registry, "brought", 0.99, 0.05, brought_in=True)
    assert [one["name"] for one in registry.http.get(path).json()["items"]] == ["small", "large"]
    more = registry.http.get(path, params={"brought_in": True}).json()["items"]
    assert [one["name"] for one in more] == ["brought"]
    page = registry.http.get("/tasks/digits").text
    assert "<svg" in page
    assert "bob/large" in page
    problem(registry.http.get("/api/v1/tasks/nothing/frontier"), 404, "not-found")


def test_a_leaderboard_says_interval_n_engine_and_cost(each_registry: Registry) -> None:
    registry = each_registry
    publish_measured(registry, "measured", 0.9, 0.4)
    assert registry.publish(make_ticket(seed=9).to_bytes(), "new", by="bob").status_code == 201
    items = registry.http.get("/api/v1/tasks/digits/leaderboard?brought_in=true").json()["items"]
    assert [one["name"] for one in items] == ["measured", "new"]
    assert items[0]["interval"] == pytest.approx(
        [0.9 - 4.302653 * 0.01 / 3**0.5, 0.9 + 4.302653 * 0.01 / 3**0.5]
    )
    assert items[0]["replicates"] == 3
    assert items[0]["engine"] == "sparse"
    assert items[0]["cost"] == {"seconds": 3.5, "flops": 10, "trainings": 21}
    assert (items[1]["interval"], items[1]["engine"], items[1]["cost"]) == (None, None, None)
    known = registry.http.get("/api/v1/tasks/digits/leaderboard").json()["items"]
    assert [one["name"] for one in known] == ["measured"]


def test_a_task_shows_the_registrys_own_dense_figures(each_registry: Registry) -> None:
    registry = each_registry
    assert registry.http.get("/api/v1/tasks/digits").json()["references"] == []
    publish_measured(registry, "measured", 0.9, 0.4)
    (reference,) = registry.http.get("/api/v1/tasks/digits").json()["references"]
    assert reference["architecture"] == "mlp-16"
    assert reference["reference"]["mean"] == pytest.approx(0.9633, abs=1e-4)
    assert reference["reference"]["n"] == 3
    assert "own dense networks" in registry.http.get("/tasks/digits").text


def test_evaluations_of_old_protocols_have_no_part_in_what_they_did_not_measure(registry: Registry) -> None:
    row = publish_measured(registry, "old", 0.9, 0.4)
    with registry.database.write() as session:
        evaluation = session.scalars(select(Evaluation).where(Evaluation.exam_key == row.exam_key)).one()
        evaluation.body = {"arms": {"ticket": [0.9]}}
    (one,) = registry.http.get("/api/v1/tasks/digits/leaderboard").json()["items"]
    assert (one["interval"], one["engine"]) == (None, None)
    (point,) = registry.http.get("/api/v1/tasks/digits/frontier").json()["items"]
    assert (point["accuracy"]["low"], point["dense"], point["controls"]) == (None, None, {})
    assert registry.http.get("/tasks/digits").status_code == 200


def test_students_t_is_the_one_of_scipy() -> None:
    from scipy.stats import t

    degrees = [*range(1, 60), 100, 1000]
    assert [student_975(n) for n in degrees] == pytest.approx([t.ppf(0.975, n) for n in degrees], rel=1e-5)


def test_a_page_of_tasks_is_followed_by_the_next(registry: Registry) -> None:
    for name in ("one", "two", "three"):
        made(registry, name)
    first = registry.http.get("/api/v1/tasks", params={"owner": "ada", "limit": 2}).json()
    assert [one["name"] for one in first["items"]] == ["ada/one", "ada/three"]
    query = {"owner": "ada", "limit": 2, "cursor": first["next_cursor"]}
    second = registry.http.get("/api/v1/tasks", params=query).json()
    assert ([one["name"] for one in second["items"]], second["next_cursor"]) == (["ada/two"], None)
    query["owner"] = "bob"
    assert registry.http.get("/api/v1/tasks", params=query).status_code == 422
    assert "ada/two" in registry.http.get("/tasks").text


def croissant(registry: Registry, name: str) -> dict[str, Any]:
    answer = registry.http.get(f"/api/v1/tasks/{name}/croissant")
    assert answer.headers["content-type"] == "application/ld+json"
    document: dict[str, Any] = json.loads(answer.content)
    return document


def test_every_task_has_croissant_metadata_whose_references_all_resolve(registry: Registry) -> None:
    made(registry)
    for name in (*(one["name"] for one in registry.http.get("/api/v1/tasks").json()["items"]),):
        document = croissant(registry, name)
        assert document["conformsTo"] == "http://mlcommons.org/croissant/1.0"
        for required in ("name", "description", "license", "url", "distribution", "recordSet"):
            assert required in document, (name, required)
        known = {one["@id"] for one in document["distribution"]}
        for one in document["distribution"]:
            assert one["@type"] == "cr:FileObject"
            assert one["contentUrl"].startswith("http")
            assert len(one.get("sha256", "")) == 64 or len(one.get("md5", "")) == 32
        fields = {field["@id"] for records in document["recordSet"] for field in records["field"]}
        for records in document["recordSet"]:
            for row in records.get("data", []):
                assert row.keys() <= fields
            for field in records["field"]:
                assert field["dataType"].startswith(("sc:", "cr:"))
                if "source" in field:
                    assert field["source"]["fileObject"]["@id"] in known
                if "references" in field:
                    assert field["references"]["field"]["@id"] in fields


def test_croissant_names_the_public_file_alone(registry: Registry) -> None:
    task = made(registry)
    document = croissant(registry, "ada/flowers")
    (file,) = document["distribution"]
    assert file["contentUrl"] == f"{registry.settings.public_url}/api/v1/tasks/ada/flowers/data"
    assert file["sha256"] == task["data_sha256"]
    assert task["seal"]["sha256"] not in json.dumps(document)
    assert document["creator"]["name"] == "ada"
    assert [row["classes/name"] for row in document["recordSet"][0]["data"]] == ["a", "b", "c"]
