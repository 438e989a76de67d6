"""The verbs that need no server: find, train, verify, lint, export, tasks, env, cache."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nirvana import tasks
from nirvana.cli.output import exit_code
from nirvana.client.filters import PARAMETERS
from nirvana.errors import error_classes
from nirvana.pruning.methods import METHODS, describe_options
from nirvana.tasks.arrays import read_digits
from nirvana.verification.protocol import ARMS
from tests.cli.running import Run

SHORT = {"steps": 40, "evaluate_every": 20}
LEVEL_KEYS = {
    *("level", "density", "kept", "ticket", "digest", "early_stop_step", "early_stop_test_accuracy"),
    *("final_test_accuracy", "untrained_test_accuracy", "seconds", "flops", "engine"),
}


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(SHORT))
    return str(path)


@pytest.fixture
def found(tmp_path: Path, run: Run, recipe: str) -> Path:
    """A folder with two levels of a small network, hardly trained."""
    folder = tmp_path / "found"
    arguments = ("--task", "digits", "--architecture", "mlp-16", "--levels", "1", "--recipe", recipe)
    code, _, err = run("find", *arguments, "--out", str(folder), "-q")
    assert (code, err) == (0, "")
    return folder


def test_help_lists_every_verb_and_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "nirvana.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "nirvana.cli.app" in imported
    assert not imported & {"numpy", "torch", "numba", "httpx", "rich.console", "sqlalchemy"}
    for verb in [
        "up",
        "serve",
        "worker",
        "migrate",
        "search",
        "show",
        "pull",
        "push",
        "find",
        "methods",
        "transfer",
        "import",
        "verify",
        "train",
        "predict",
        "lint",
        "export",
        "tasks",
        "jobs",
        "login",
    ]:
        assert f"\n  {verb} " in done.stdout


def test_find_writes_tickets_and_a_report_and_prints_the_same(tmp_path: Path, run: Run, recipe: str) -> None:
    folder = tmp_path / "out"
    arguments = ("--task", "digits", "--architecture", "mlp-16", "--method", "imp", "--levels", "1")
    printed = run.json("find", *arguments, "--seed", "3", "--recipe", recipe, "--out", str(folder))
    assert {path.name for path in folder.iterdir()} == {"level-00.ticket", "level-01.ticket", "report.json"}
    assert printed == json.loads((folder / "report.json").read_text())
    assert {"task", "architecture", "method", "seed", "recipe", "environment", "levels"} <= set(printed)
    assert (printed["task"], printed["method"], printed["seed"]) == ("digits", "imp", 3)
    assert printed["recipe"]["steps"] == 40
    assert set(printed["levels"][0]) >= LEVEL_KEYS
    assert [level["level"] for level in printed["levels"]] == [0, 1]
    assert 0 <= printed["levels"][1]["early_stop_test_accuracy"] <= 1


def test_finding_again_with_one_seed_gives_the_same_bytes(
    tmp_path: Path, run: Run, recipe: str, found: Path
) -> None:
    again = tmp_path / "again"
    arguments = ("--task", "digits", "--architecture", "mlp-16", "--levels", "1", "--recipe", recipe)
    run("find", *arguments, "--out", str(again))
    for name in ("level-00.ticket", "level-01.ticket"):
        assert (again / name).read_bytes() == (found / name).read_bytes()


def test_train_prints_its_test_accuracy(run: Run, found: Path) -> None:
    trained = run.json("train", str(found / "level-01.ticket"))
    assert 0 <= trained["test_accuracy"] <= 1
    assert {"test_accuracy", "seconds", "engine", "density", "digest"} <= set(trained)
    assert trained["seconds"] > 0


def test_verify_prints_a_verdict_and_leaves_with_6_when_it_did_not_win(run: Run, found: Path) -> None:
    code, out, _ = run("verify", str(found / "level-01.ticket"), "--replicates", "2", "--json")
    verdict = json.loads(out)
    assert {"verdict", "protocol", "arms", "tests", "margin", "cost"} <= set(verdict)
    assert set(verdict["arms"]) == set(ARMS)
    assert {len(values) for values in verdict["arms"].values()} == {2, 4}
    assert code == (0 if verdict["verdict"] in ("WINNING", "MATCHING") else 6)


def test_lint_says_what_a_ticket_is(run: Run, found: Path) -> None:
    report = run.json("lint", str(found / "level-01.ticket"))
    assert report["ok"] is True
    assert report["digest"].startswith("sha256:")
    assert report["errors"] == []
    assert 0.7 < report["density"] < 0.9


def test_lint_of_a_broken_file_names_each_problem_and_leaves_with_4(run: Run, found: Path) -> None:
    path = found / "broken.ticket"
    path.write_bytes((found / "level-01.ticket").read_bytes()[:-1])
    code, out, _ = run("lint", str(path), "--json")
    report = json.loads(out)
    assert code == 4
    assert report["ok"] is False
    assert "cut off" in report["errors"][0]["detail"]


def test_a_broken_file_is_said_in_one_line_without_a_traceback(run: Run, found: Path) -> None:
    path = found / "broken.ticket"
    path.write_bytes(b"\x80\x04pickled")
    code, out, err = run("train", str(path))
    assert (code, out) == (4, "")
    assert err.startswith("nirvana: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("find", "--task", "mnits", "--architecture", "mlp-4", "--levels", "1"),
            3,
            "'mnits' is unknown, expected",
        ),
        (("find", "--task", "digits", "--architecture", "vgg-99", "--levels", "1"), 3, "vgg-99"),
        (("find", "--task", "digits", "--architecture", "mlp-4", "--levels", "0"), 2, "levels is 0"),
        (("find", "--task", "digits", "--architecture", "mlp-4"), 2, "levels and density"),
        (
            ("find", "--task", "digits", "--architecture", "mlp-4", "--method", "magic", "--levels", "1"),
            2,
            "magic",
        ),
        (("find", "--task", "digits", "--architecture", "mlp-4", "--density", "1.5"), 2, "density is 1.5"),
    ],
)
def test_an_impossible_search_is_refused_with_what_was_expected(
    tmp_path: Path, run: Run, arguments: tuple[str, ...], code: int, said: str
) -> None:
    found, out, err = run(*arguments, "--out", str(tmp_path / "out"))
    assert (found, out) == (code, "")
    assert said in err


SYNFLOW = ("find", "--task", "digits", "--architecture", "mlp-16", "--method", "synflow", "--density", "0.5")


def test_a_methods_own_options_are_set_by_name(tmp_path: Path, run: Run, recipe: str) -> None:
    report = run.json(*SYNFLOW, "--set", "rounds=3", "--recipe", recipe, "--out", str(tmp_path / "out"))
    assert report["goal"]["options"] == {"rounds": 3}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rounds", "--set 'rounds': expected NAME=VALUE with a number, such as rounds=50"),
        ("rounds=many", "--set 'rounds=many': expected NAME=VALUE with a number"),
        ("turns=3", "synflow has no option 'turns', expected one of rounds"),
        ("rounds=0", "rounds is 0, expected a whole number from 1 to 10000"),
        ("rounds=2.5", "rounds is 2.5, expected a whole number"),
        ("rounds=inf", "rounds is inf, expected a whole number"),
    ],
)
def test_an_option_that_the_method_cannot_take_is_refused(
    tmp_path: Path, run: Run, setting: str, message: str
) -> None:
    code, out, err = run(*SYNFLOW, "--set", setting, "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_options_without_an_upper_end_are_finite(tmp_path: Path, run: Run) -> None:
    arguments = (*SYNFLOW, "--method", "regularised", "--set", "penalty=inf", "--out", str(tmp_path / "out"))
    code, _, err = run(*arguments)
    assert code == 2
    assert "penalty is inf, expected a number of at least 0" in err


def test_every_methods_options_are_in_the_help(run: Run) -> None:
    code, out, _ = run("find", "--help")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for method in METHODS:
        for name, default, meaning in describe_options(method):
            assert f"{method} {name}={default:g} {meaning}" in lines


def test_an_error_with_json_is_a_problem_on_stdout(tmp_path: Path, run: Run) -> None:
    arguments = ("--task", "mnits", "--architecture", "mlp-4", "--levels", "1", "--out", str(tmp_path))
    code, out, _ = run("find", *arguments, "--json")
    problem = json.loads(out)
    assert code == 3
    assert problem["code"] == "not-found"
    assert "mnits" in problem["detail"]


def test_a_recipe_that_breaks_a_rule_names_its_field(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"step": 10}')
    arguments = ("--task", "digits", "--architecture", "mlp-4", "--levels", "1", "--out", str(tmp_path / "o"))
    code, _, err = run("find", *arguments, "--recipe", str(path))
    assert code == 2
    assert "unknown field 'step'" in err


def test_wrong_usage_leaves_with_2(run: Run) -> None:
    assert run("find", "--nonsense")[0] == 2
    assert run("nonsense")[0] == 2


def test_a_verb_that_needs_the_service_leaves_with_5_when_it_is_not_reached(run: Run) -> None:
    code, _, err = run("search", "--task", "digits")
    assert code == 5
    assert "NIRVANA_OFFLINE" in err


def test_search_has_an_option_for_every_filter(run: Run) -> None:
    _, out, _ = run("search", "--help")
    options = set(re.findall(r"--[a-z-]+", out))
    for row in PARAMETERS:
        names = () if row.kind == "words" else row.ends if row.kind == "range" else (row.name,)
        assert {f"--{name.replace('_', '-')}" for name in names} <= options, row.name
    assert "Minimum density" in out
    for wrong in (("--init", "drawn"), ("--min-kept", "1.5"), ("--sort", "size"), ("--min-left", "5")):
        assert run("search", *wrong)[0] == 2


def test_tasks_lists_every_task(run: Run) -> None:
    listed = run.json("tasks")["items"]
    assert [task["name"] for task in listed] == tasks.built_in_names()


def test_env_tells_folders_and_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_TOKEN", "nvn_very_secret")
    code, out, _ = run("env", "--json")
    assert code == 0
    assert json.loads(out)["signed in"] is True
    assert "nvn_very_secret" not in out


def test_logout_forgets_the_token(tmp_path: Path, run: Run) -> None:
    token = tmp_path / "home" / "token"
    token.parent.mkdir()
    token.write_text("nvn_x")
    assert run.json("logout") == {"removed": True}
    assert not token.exists()
    assert run.json("logout") == {"removed": False}


def test_the_cache_is_listed_checked_and_emptied(tmp_path: Path, run: Run, found: Path) -> None:
    from nirvana.client.cache import Cache
    from nirvana.format.ticket import Ticket

    content = (found / "level-01.ticket").read_bytes()
    digest = Ticket.from_bytes(content).digest
    Cache().keep(digest, content)
    Cache().keep("sha256:" + 64 * "0", b"rubbish")
    assert len(run.json("cache", "ls")["items"]) == 2
    code, out, _ = run("cache", "verify", "--json")
    assert (code, json.loads(out)) == (4, {"intact": 1, "damaged": ["sha256:" + 64 * "0"]})
    assert run.json("cache", "rm", "--all") == {"removed": [digest]}
    assert run.json("cache", "ls") == {"items": []}


def test_every_error_has_an_exit_code_of_the_contract() -> None:
    codes = {code: exit_code(kind("x")) for code, kind in error_classes().items()}
    assert set(codes.values()) <= {1, 2, 3, 4, 5, 6, 130}
    assert codes["invalid-ticket"] == codes["name-taken"] == codes["missing-scope"] == codes["too-large"] == 4
    assert codes["invalid-recipe"] == codes["invalid-query"] == 2
    assert codes["not-found"] == codes["data-missing"] == 3
    assert codes["network"] == codes["storage-full"] == 5
    assert codes["verdict-not-reached"] == 6


def test_methods_lists_every_method_with_its_paper(run: Run) -> None:
    listed = run.json("methods")["items"]
    assert [method["name"] for method in listed] == list(METHODS)
    assert all("arXiv" in method["reference"] for method in listed)


def test_methods_lists_every_option_with_its_default(run: Run) -> None:
    options = {method["name"]: method["options"] for method in run.json("methods")["items"]}
    assert options["imp"] == []
    assert options["synflow"] == [
        {"name": "rounds", "default": 100, "help": "prunings from everything to the density"}
    ]
    out = run("methods")[1]
    assert all(option["help"] in out for listed in options.values() for option in listed)


def test_transfer_prints_a_matrix_of_tickets_and_tasks(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "rows.npz"
    images, labels = read_digits()
    np.savez(table, images=images[:600], labels=labels[:600] % 2)
    assert run("tasks", "add", str(table), "--name", "parity")[0] == 0
    recipe = tmp_path / "short.json"
    recipe.write_text('{"steps": 20, "evaluate_every": 10}')
    files = []
    for task in ("digits", "parity"):
        out = tmp_path / task
        search = ("find", "--task", task, "--architecture", "mlp-16", "--levels", "1", "--out", str(out))
        assert run(*search, "--recipe", str(recipe), "-q")[0] == 0
        files.append(str(out / "level-01.ticket"))
    rows = run.json("transfer", *files, "--replicates", "2")["items"]
    assert [(row["source"], row["target"]) for row in rows] == [
        ("digits", "digits"),
        ("parity", "digits"),
        ("digits", "parity"),
        ("parity", "parity"),
    ]
    assert all(row["own"] is not None for row in rows)
    assert {row["verdict"] for row in rows} <= {"OWN", "TRANSFERS", "TRANSFERS_NOT", "UNRESOLVED"}
    code, _, err = run("transfer", files[0], files[0])
    assert code == 2
    assert "two of the tickets are of digits" in err
