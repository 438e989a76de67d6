"""The command line without torch, scipy or numba: what needs none works, the rest names the extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import nirvana
from nirvana import sparse
from nirvana.verification.protocol import ARMS
from tests.cli.test_exports import make_ticket

_WITHOUT = """
import sys
for name in sys.argv.pop(1).split(","):
    sys.modules[name] = None
from nirvana.cli import main
main(sys.argv[1:])
"""


def run_without(missing: str, folder: Path, *arguments: str | Path) -> tuple[int, str, str]:
    """The command line where packages are not installed: exit code, stdout, stderr."""
    command = [sys.executable, "-c", _WITHOUT, missing, *map(str, arguments)]
    environment = dict(os.environ) | {"NIRVANA_HOME": str(folder), "NIRVANA_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def ticket(tmp_path: Path) -> str:
    make_ticket(steps=40, evaluate_every=20).write(tmp_path / "a.ticket")
    return "a.ticket"


@pytest.fixture
def search(tmp_path: Path) -> list[str]:
    """The arguments of a short search."""
    (tmp_path / "short.json").write_text('{"steps": 40, "evaluate_every": 20}')
    return [
        *("find", "--task", "digits", "--architecture", "mlp-16"),
        "--recipe",
        "short.json",
        "--out",
        "out",
    ]


def test_training_and_answering_need_no_torch_and_no_scipy(ticket: str, tmp_path: Path) -> None:
    code, out, err = run_without("torch,scipy", tmp_path, "train", ticket, "--out", "w.npz", "--json")
    assert (code, err) == (0, "")
    trained = json.loads(out)
    assert trained["engine"] == "sparse"
    code, out, err = run_without("torch,scipy", tmp_path, "predict", "w.npz", "--task", "digits", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["accuracy"] == pytest.approx(trained["final_test_accuracy"], abs=1e-9)


def test_finding_and_verifying_need_no_torch(search: list[str], tmp_path: Path) -> None:
    code, out, err = run_without(
        "torch", tmp_path, *search, "--levels", "1", "--engine", "sparse", "--json", "-q"
    )
    assert (code, err) == (0, "")
    assert [level["engine"] for level in json.loads(out)["levels"]] == ["sparse", "sparse"]
    file = "out/level-01.ticket"
    code, out, err = run_without(
        "torch", tmp_path, "verify", "--local", file, "--replicates", "2", "--json", "-q"
    )
    assert err == ""
    evaluation = json.loads(out)
    assert set(evaluation["arms"]) == set(ARMS)
    assert code == (0 if evaluation["verdict"] in ("WINNING", "MATCHING") else 6)


@pytest.mark.parametrize("method", ["snip", "regularised", "distilled"])
def test_a_method_that_takes_torch_names_the_extra(search: list[str], tmp_path: Path, method: str) -> None:
    arguments = [*search, "--method", method, "--density", "0.5"]
    code, out, err = run_without("torch", tmp_path, *arguments)
    assert (code, out) == (5, "")
    assert "torch is not installed here: pip install 'nirvana-tickets[lab]'" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "option", "extra"), [("torch", "--stability", "lab"), ("scipy", "--quiet", "verify")]
)
def test_a_verification_that_lacks_a_package_trains_nothing(
    ticket: str, tmp_path: Path, missing: str, option: str, extra: str
) -> None:
    code, out, err = run_without(missing, tmp_path, "verify", "--local", ticket, option)
    assert (code, out) == (5, "")
    assert f"is not installed here: pip install 'nirvana-tickets[{extra}]'" in err
    assert not (tmp_path / "runs").exists()


def test_an_op_that_takes_torch_is_named_with_the_extra(tmp_path: Path) -> None:
    ticket = make_ticket("mlp-32", augmentation=["flip"])
    ticket.write(tmp_path / "a.ticket")
    code, out, err = run_without("torch", tmp_path, "train", "a.ticket")
    assert (code, out) == (5, "")
    reason = sparse.find_unsupported(ticket.architecture, nirvana.Recipe.from_dict(dict(ticket.recipe)), {})
    assert reason is not None
    assert reason in err
    assert "torch is not installed here: pip install 'nirvana-tickets[lab]'" in err


def test_without_numba_and_torch_both_extras_are_named(ticket: str, tmp_path: Path) -> None:
    code, out, err = run_without("torch,numba", tmp_path, "train", ticket)
    assert (code, out) == (5, "")
    assert "nirvana-tickets[sparse]" in err
    assert "nirvana-tickets[lab]" in err
