"""Tasks of one's own: added, read again, damaged, removed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import Conflict, DataDamaged, DataMissing, Invalid, InvalidName, NotFound
from nirvana.tasks import own

N = 120


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NIRVANA_DATA", raising=False)
    return tmp_path / "home"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """120 rows of two features: the second is the first of the class, and so tells it."""
    rng = np.random.default_rng(0)
    path = tmp_path / "flowers.csv"
    rows = [f"{rng.normal():.3f},{row % 3 + 0.25},{'abc'[row % 3]}" for row in range(N)]
    path.write_text("\n".join(["length,width,kind", *rows]))
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "pictures.npz"
    np.savez(path, images=rng.integers(0, 256, (N, 8, 9, 3)).astype(np.uint8), labels=np.arange(N) % 4)
    return path


def test_a_table_becomes_a_task_beside_the_others(table: Path) -> None:
    task = tasks.add(table, "flowers", title="Flowers", license="CC0-1.0")
    assert tasks.names() == [*tasks.built_in_names(), "flowers"]
    assert tasks.get("flowers") == task
    assert (task.input_shape, task.classes, task.class_names) == ((2,), 3, ("a", "b", "c"))
    assert dict(task.sizes) == {"train": 72, "validation": 24, "test": 24}
    assert (task.title, task.license) == ("Flowers", "CC0-1.0")
    assert task.source == f"flowers.csv, sha256:{hashlib.sha256(table.read_bytes()).hexdigest()}"


def test_its_arrays_are_split_and_standardised_by_train(table: Path) -> None:
    parts = tasks.load(tasks.add(table, "flowers"))
    assert parts.train_x.dtype == np.float32
    assert [len(x) for x in parts[::2]] == [72, 24, 24]
    assert parts.train_x.mean(axis=0, dtype=np.float64) == pytest.approx([0, 0], abs=1e-6)
    assert parts.train_x.std(axis=0, dtype=np.float64) == pytest.approx([1, 1], abs=1e-6)
    for x, y in (parts[0:2], parts[2:4], parts[4:6]):
        assert np.bincount(y).tolist() == [len(y) // 3] * 3
        width = x[:, 1] * np.std([0, 1, 2]) + 1
        assert np.allclose(width, y, atol=1e-5)


def test_images_become_a_task_with_channels_first(images: Path) -> None:
    task = tasks.add(images, "pictures")
    assert task.input_shape == (3, 8, 9)
    assert tasks.load("pictures").test_x.shape == (24, 3, 8, 9)
    assert task.class_names == ("0", "1", "2", "3")


def test_adding_twice_gives_the_same_bytes(table: Path, home: Path) -> None:
    tasks.add(table, "one", seed=3)
    tasks.add(table, "two", seed=3)
    one, two = ((home / "tasks" / name / "data.npz").read_bytes() for name in ("one", "two"))
    assert one == two
    assert tasks.get("one").data_sha256 == hashlib.sha256(one).hexdigest()


def test_another_seed_is_another_split_and_so_other_data(table: Path) -> None:
    first = tasks.add(table, "flowers")
    again = tasks.add(table, "flowers", seed=1, replace=True)
    assert first.data_sha256 != again.data_sha256
    assert tasks.get("flowers") == again


def test_a_process_that_has_read_a_task_reads_its_replacement(table: Path, images: Path) -> None:
    assert tasks.load(tasks.add(table, "mine")).train_x.shape == (72, 2)
    tasks.add(images, "mine", replace=True)
    assert tasks.load("mine").train_x.shape == (72, 3, 8, 9)


def test_changed_data_are_damaged_with_both_digests(table: Path, home: Path) -> None:
    task = tasks.add(table, "flowers")
    path = home / "tasks" / "flowers" / "data.npz"
    content = bytearray(path.read_bytes())
    content[-400] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(DataDamaged, match=f"found sha256:{found}, expected sha256:{task.data_sha256}"):
        tasks.load("flowers")


def test_data_that_are_gone_are_missing(table: Path, home: Path) -> None:
    tasks.add(table, "flowers")
    (home / "tasks" / "flowers" / "data.npz").unlink()
    with pytest.raises(DataMissing, match=r"task 'flowers': .* is gone; add the task again"):
        tasks.load("flowers")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "nirvana.task/9"),
        ("name", "another"),
        ("normalisation", [[0.0], [1.0]]),
        ("normalisation", None),
        ("margin", 0),
        ("margin", "a lot"),
        ("classes", 4),
        ("sizes", {"train": 1}),
        ("input_shape", ["x"]),
        ("data_sha256", None),
        ("extra", 1),
    ],
)
def test_a_task_json_that_was_tampered_with_is_damaged(
    table: Path, home: Path, field: str, value: object
) -> None:
    tasks.add(table, "flowers")
    path = home / "tasks" / "flowers" / "task.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(DataDamaged, match=r"task\.json: found another document"):
        tasks.get("flowers")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"{}", b"\xff"])
def test_a_task_json_that_is_none_is_damaged(table: Path, home: Path, content: bytes) -> None:
    tasks.add(table, "flowers")
    (home / "tasks" / "flowers" / "task.json").write_bytes(content)
    with pytest.raises(DataDamaged, match="expected one that `nirvana tasks add` wrote"):
        tasks.get("flowers")


def test_a_task_whose_shape_is_not_its_datas_is_damaged(table: Path, home: Path) -> None:
    tasks.add(table, "flowers")
    path = home / "tasks" / "flowers" / "task.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"input_shape": [3], "normalisation": [[0, 0, 0], [1, 1, 1]]}))
    with pytest.raises(DataDamaged, match=r"examples of \[2\] and 3 classes, expected \[3\] and 3"):
        tasks.load("flowers")


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "../a", "a" * 61, "ä", "a b", "a\n"])
def test_a_name_that_cannot_name_a_task_is_refused(table: Path, name: str) -> None:
    with pytest.raises(InvalidName, match="expected 1 to 60 lower-case letters"):
        tasks.add(table, name)
    with pytest.raises(NotFound):
        tasks.get(name)


@pytest.mark.parametrize("name", ["a", "7", "my.task_2-b", "a" * 60])
def test_names_of_1_to_60_characters_are_taken(table: Path, name: str) -> None:
    assert tasks.add(table, name).name == name


def test_a_name_that_nirvana_comes_with_is_refused(table: Path) -> None:
    with pytest.raises(Conflict, match="'mnist' is the name of a task that Nirvana comes with"):
        tasks.add(table, "mnist", replace=True)
    with pytest.raises(Conflict, match="'mnist' is a task that Nirvana comes with"):
        tasks.remove("mnist")


def test_a_name_in_use_is_refused_unless_it_is_to_be_replaced(table: Path, images: Path) -> None:
    first = tasks.add(table, "flowers")
    with pytest.raises(Conflict, match="a task 'flowers' of your own already; replace it with --replace"):
        tasks.add(images, "flowers")
    assert tasks.get("flowers") == first


def test_a_removed_task_is_unknown_and_leaves_nothing(table: Path, home: Path) -> None:
    tasks.add(table, "flowers")
    tasks.remove("flowers")
    with pytest.raises(NotFound, match="task 'flowers' is unknown, expected one of digits"):
        tasks.get("flowers")
    with pytest.raises(NotFound, match="there is no task 'flowers' of your own"):
        tasks.remove("flowers")
    assert list((home / "tasks").iterdir()) == []


def test_a_refused_file_leaves_nothing(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "one-class.csv"
    path.write_text("a,class\n" + "1,x\n" * 50)
    with pytest.raises(Invalid, match=r"one-class\.csv: label 'class' has one class only") as refusal:
        tasks.add(path, "flowers")
    assert refusal.value.errors[0].pointer == "/columns/class"
    assert not (home / "tasks").exists()


def test_a_replacement_that_is_refused_leaves_the_old_task(tmp_path: Path, table: Path) -> None:
    first = tasks.add(table, "flowers")
    path = tmp_path / "tiny.csv"
    path.write_text("a,class\n1,x\n2,y\n3,x\n4,y\n")
    with pytest.raises(Invalid, match="validation has too few examples of a class"):
        tasks.add(path, "flowers", replace=True)
    assert tasks.get("flowers") == first
    assert tasks.load("flowers").train_x.shape == (72, 2)


def test_files_of_another_kind_are_refused_with_the_kinds_there_are(tmp_path: Path) -> None:
    expected = r"expected a file ending in \.npz, \.csv, \.tsv, \.parquet"
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(Invalid, match=rf"found the suffix '\.xlsx', {expected}"):
        tasks.add(tmp_path / "a.xlsx", "a")
    with pytest.raises(Invalid, match=f"found a folder, {expected}"):
        tasks.add(tmp_path, "a")
    with pytest.raises(NotFound, match="no such file"):
        tasks.add(tmp_path / "b.csv", "a")
    (tmp_path / "c.csv").touch()
    with pytest.raises(Invalid, match=r"c\.csv: found an empty file"):
        tasks.add(tmp_path / "c.csv", "a")


def test_options_that_are_another_formats_are_refused(images: Path) -> None:
    with pytest.raises(Invalid, match=r"columns to drop \(a\) are a table's, found an \.npz file"):
        tasks.add(images, "pictures", drop=["a"])
    with pytest.raises(Invalid, match="kind is 'video', expected one of images, signals, table"):
        tasks.add(images, "pictures", kind="video")


def test_a_folder_that_is_no_task_is_not_listed(home: Path) -> None:
    (home / "tasks" / "empty").mkdir(parents=True)
    (home / "tasks" / ".half.1").mkdir()
    (home / "tasks" / ".half.1" / "task.json").write_text("{}")
    assert tasks.names() == tasks.built_in_names()


def test_its_default_recipe_is_that_of_a_small_task(table: Path) -> None:
    recipe = tasks.add(table, "flowers").default_recipe("mlp-8")
    assert recipe == tasks.get("digits").default_recipe("mlp-8")


def test_sealed_rows_are_stored_apart_and_loaded_for_verifications_alone(table: Path, home: Path) -> None:
    task = tasks.add(table, "flowers", sealed_share=0.2)
    assert task.seal is not None
    assert (task.seal.rows, task.is_sealed) == (24, True)
    assert dict(task.sizes) == {"train": 48, "validation": 24, "test": 24}
    assert tasks.get("flowers") == task
    sealed, parts = tasks.load_sealed("flowers"), tasks.load("flowers")
    assert sealed is not None
    assert np.bincount(sealed.y).tolist() == [8, 8, 8]
    seen = {row.tobytes() for x in parts[::2] for row in x}
    assert not seen & {row.tobytes() for row in sealed.x}
    path = home / "tasks" / "flowers" / "sealed.npz"
    assert path.stat().st_mode & 0o077 == 0
    assert task.seal.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_task_without_a_seal_has_no_sealed_rows(table: Path) -> None:
    task = tasks.add(table, "flowers")
    assert (task.seal, task.is_sealed, tasks.load_sealed(task)) == (None, False, None)


def test_sealed_rows_that_are_gone_or_changed_are_said_and_the_task_still_trains(
    table: Path, home: Path
) -> None:
    tasks.add(table, "flowers", sealed_share=0.2)
    path = home / "tasks" / "flowers" / "sealed.npz"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(DataDamaged, match=r"sealed\.npz: found sha256"):
        tasks.load_sealed("flowers")
    path.unlink()
    with pytest.raises(DataMissing, match=r"24 sealed rows, and .*sealed\.npz is not there"):
        tasks.load_sealed("flowers")
    assert len(tasks.load("flowers").train_y) == 48


def test_a_split_column_may_call_rows_sealed(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    parts = ["train", "train", "train", "validation", "test", "sealed"]
    rows = [f"{row % 7},{row % 2},{parts[row % 12 // 2]}" for row in range(N)]
    path.write_text("\n".join(["length,kind,split", *rows]))
    task = tasks.add(path, "split", label="kind")
    assert task.seal is not None
    assert task.seal.rows == N // 6
    assert dict(task.sizes) == {"train": N // 2, "validation": N // 6, "test": N // 6}


def test_a_registrys_task_is_kept_under_its_owner_and_checked(
    table: Path, home: Path, tmp_path: Path
) -> None:
    made = tasks.add(table, "flowers", sealed_share=0.2)
    shared = dataclasses.replace(made, name="ada/flowers")
    data = tmp_path / "data.npz"
    data.write_bytes((home / "tasks" / "flowers" / "data.npz").read_bytes())
    with pytest.raises(NotFound, match="`nirvana tasks pull ada/flowers`"):
        tasks.get("ada/flowers")
    own.keep(shared, data)
    assert tasks.names()[-2:] == ["ada/flowers", "flowers"]
    assert tasks.get("ada/flowers") == shared
    assert np.array_equal(tasks.load("ada/flowers").train_x, tasks.load("flowers").train_x)
    with pytest.raises(DataMissing, match="only a registry that holds them") as raised:
        tasks.load_sealed("ada/flowers")
    assert "--replace" not in raised.value.detail
    data.write_bytes(b"others")
    with pytest.raises(DataDamaged, match="found sha256"):
        own.keep(shared, data)
    tasks.remove("ada/flowers")
    assert "ada/flowers" not in tasks.names()


def test_a_further_folder_of_tasks_goes_before_ones_own(
    table: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks.add(table, "flowers", title="mine")
    monkeypatch.setenv("NIRVANA_TASKS", str(home / "further"))
    assert tasks.get("flowers").title == "mine"
    (home / "tasks").rename(home / "further")
    tasks.add(table, "flowers", title="another", seed=7, replace=True)
    assert tasks.get("flowers").title == "mine"
    assert tasks.names().count("flowers") == 1


def test_a_file_with_damage_that_no_decoder_expects_is_refused_as_well(images: Path, tmp_path: Path) -> None:
    content = images.read_bytes()
    entry = content.index(b"PK\x01\x02")  # of the zip's directory
    for name, place, byte in (("version.npz", 6, 200), ("encrypted.npz", 8, 1), ("method.npz", 10, 99)):
        damaged = bytearray(content)
        damaged[entry + place] = byte
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(Invalid):
            tasks.add(tmp_path / name, "damaged")
