"""`nirvana tasks`: listing, adding, showing and removing, and what follows with a task of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nirvana import tasks
from tests.cli.running import Run

SHORT = {"steps": 100, "evaluate_every": 20, "learning_rate": 0.02}


@pytest.fixture
def table(tmp_path: Path) -> str:
    rng = np.random.default_rng(0)
    centres = {"ash": 0.0, "birch": 3.0, "cedar": 6.0}
    names = [name for name in centres for _ in range(50)]
    rows = [f"{centres[n] + rng.normal():.3f};{rng.normal():.3f};7;{n}" for n in names]
    path = tmp_path / "trees.csv"
    path.write_text("\n".join(["height;width;legs;kind", *rows]))
    return str(path)


def test_tasks_alone_lists_them_as_ls_does(run: Run) -> None:
    assert run("tasks") == run("tasks", "ls")
    listed = run.json("tasks")
    assert listed == run.json("tasks", "ls")
    assert [task["name"] for task in listed["items"]] == tasks.built_in_names()


def test_the_json_of_a_task_of_old_has_the_fields_it_had(run: Run) -> None:
    (mnist,) = (task for task in run.json("tasks")["items"] if task["name"] == "mnist")
    assert set(mnist) == {
        *("name", "title", "description", "input_shape", "classes", "class_names", "margin", "margin_reason"),
        *(
            "pixel_max",
            "normalisation",
            "sizes",
            "split",
            "license",
            "source",
            "data_sha256",
            "metric",
            "homes",
            "seal",
        ),
    }
    assert mnist["normalisation"] == [0.1307, 0.3081]


def test_add_shows_shapes_classes_and_splits(run: Run, table: str) -> None:
    code, out, err = run("tasks", "add", table, "--name", "trees", "--license", "CC0-1.0")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    for expected in (
        ["input", "3"],
        ["classes", "3"],
        ["train", "90", "examples"],
        ["birch", "30", "10", "10"],
        ["license", "CC0-1.0"],
    ):
        assert expected in lines
    assert "margin" in out
    assert "5.5 pp by rule" in out
    assert err == "constant in the training part, left at a standard deviation of 1: features legs\n"


def test_add_as_json_counts_classes_by_part(run: Run, table: str) -> None:
    shown = run.json("tasks", "add", table, "--name", "trees", "-q", "--margin", "0.02", "--drop", "legs")
    assert shown["input_shape"] == [2]
    assert shown["margin"] == 0.02
    assert shown["counts"] == {"train": [30, 30, 30], "validation": [10, 10, 10], "test": [10, 10, 10]}
    assert run.json("tasks", "show", "trees") == shown


def test_a_task_that_nirvana_comes_with_is_shown_without_its_data(run: Run) -> None:
    assert run.json("tasks", "show", "cifar-10")["counts"] == {}


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("--name", "mnist"), 4, "is the name of a task that Nirvana comes with"),
        (("--name", "Trees"), 2, "expected 1 to 60 lower-case letters"),
        (
            ("--name", "trees", "--label", "species"),
            2,
            "there is no column 'species', expected one of height",
        ),
        (("--name", "trees", "--test-share", "1.5"), 2, "test share is 1.5"),
        (("--name", "trees", "--label", "height", "--drop", "kind"), 2, "holds continuous numbers"),
        ((), 2, "Missing option '--name'"),
    ],
)
def test_what_cannot_become_a_task_is_refused(
    run: Run, table: str, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    found, out, err = run("tasks", "add", table, *arguments)
    assert (found, out) == (code, "")
    assert complaint in err
    assert "Traceback" not in err


def test_a_second_task_of_the_name_needs_replace(run: Run, table: str) -> None:
    arguments = ("tasks", "add", table, "--name", "trees", "-q")
    assert run(*arguments)[0] == 0
    code, _, err = run(*arguments)
    assert (code, "--replace" in err) == (4, True)
    assert run(*arguments, "--replace")[0] == 0


def test_rm_forgets_a_task(run: Run, table: str) -> None:
    run("tasks", "add", table, "--name", "trees", "-q")
    assert run("tasks", "rm", "trees") == (0, "", "removed trees\n")
    assert run("tasks", "rm", "trees")[0] == 3
    assert run("tasks", "rm", "digits")[0] == 4
    assert run("tasks", "show", "trees")[0] == 3


def test_a_damaged_task_is_left_out_of_the_list_and_named(run: Run, table: str, home: Path) -> None:
    run("tasks", "add", table, "--name", "trees", "-q")
    (home / "tasks" / "trees" / "task.json").write_text("{}")
    code, out, err = run("tasks")
    assert (code, "trees" in out) == (0, False)
    assert "left out: " in err
    assert "task.json" in err
    assert run("tasks", "show", "trees")[0] == 4


def test_a_ticket_is_found_and_trained_on_a_task_of_ones_own(run: Run, table: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run("tasks", "add", table, "--name", "trees", "-q")
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(SHORT))
    out = tmp_path / "found"
    arguments = ("--task", "trees", "--architecture", "mlp-16", "--levels", "1", "--recipe", str(recipe))
    report = run.json("find", *arguments, "--out", str(out), "-q")
    assert [level["level"] for level in report["levels"]] == [0, 1]
    trained = run.json("train", str(out / "level-01.ticket"), "-q")
    assert trained["task"] == "trees"
    assert trained["test_accuracy"] > 0.8
