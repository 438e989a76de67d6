"""Exports: what other tools read, and the script that trains without Nirvana."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nirvana
from nirvana import tasks, zoo
from nirvana.architecture import Architecture
from nirvana.errors import Invalid
from nirvana.exports import export_ticket
from nirvana.initial import default_laws
from nirvana.ticket import Ticket


def make_ticket(architecture: str = "mlp-32", task: str = "digits", **recipe: object) -> Ticket:
    return ticket_of(zoo.build(architecture, (1, 8, 8), 10), task, **recipe)


def ticket_of(graph: Architecture, task: str = "digits", **recipe: object) -> Ticket:
    rng = np.random.default_rng(0)
    masks = {name: rng.random(graph.parameters[name]) < 0.5 for name in graph.prunable}
    known = tasks.get("digits").default_recipe(graph.name)
    chosen = known.override(recipe).to_dict()
    return Ticket.create(graph, masks, task=task, recipe=chosen, laws=default_laws(graph), seed=1)


def with_gelu() -> Architecture:
    """A network with an op that the sparse engine does not know."""
    layers: list[dict[str, Any]] = [
        {"name": "flatten", "op": "flatten"},
        {"name": "fc1", "op": "linear", "in": 64, "out": 32},
        {"name": "gelu", "op": "gelu"},
        {"name": "fc2", "op": "linear", "in": 32, "out": 10},
    ]
    return Architecture.make("mlp-32", (1, 8, 8), layers)


NOT_INSTALLED = ("nirvana", "scipy", "rfc8785", "zstandard", "typer", "rich", "httpx")


def run_script(folder: Path, ticket: Ticket, *arguments: str, missing: str = "torch") -> dict[str, Any]:
    """Runs the script away from this repository, with a Python that can import numpy and numba, or torch."""
    (folder / "train.py").write_bytes(export_ticket(ticket, "script").content)
    return run_again(folder, *arguments, missing=missing)


def run_again(folder: Path, *arguments: str, missing: str = "torch") -> dict[str, Any]:
    """Runs the script that lies in a folder."""
    path = folder / "train.py"
    code = (
        "import sys, runpy\n"
        f"sys.modules.update(dict.fromkeys({(*NOT_INSTALLED, missing)!r}))\n"
        "path = sys.argv.pop(1)\n"
        "sys.argv[0] = path\n"
        "runpy.run_path(path, run_name='__main__')\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(path), "--json", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_safetensors_reads_the_masked_values_and_the_masks() -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    ticket = make_ticket()
    arrays = safetensors.load(export_ticket(ticket, "safetensors").content)
    values = ticket.initial_values()
    assert set(arrays) == {*values, *(f"mask/{name}" for name in ticket.prunable)}
    assert all(np.array_equal(arrays[name], array) for name, array in values.items())
    assert np.array_equal(arrays["mask/fc1.weight"], ticket.mask("fc1.weight"))
    assert not arrays["fc1.weight"][arrays["mask/fc1.weight"] == 0].any()


def test_numpy_reads_the_same_and_the_manifest() -> None:
    ticket = make_ticket()
    with np.load(io.BytesIO(export_ticket(ticket, "numpy").content), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["fc2.weight"], ticket.initial_values()["fc2.weight"])
        assert np.array_equal(arrays["mask/fc2.weight"], ticket.mask("fc2.weight"))
        assert json.loads(arrays["manifest"].tobytes()) == ticket.manifest()


@pytest.mark.parametrize("form", ["safetensors", "numpy", "csr", "onnx", "script"])
def test_an_export_is_the_same_bytes_every_time(form: str) -> None:
    assert export_ticket(make_ticket(), form).content == export_ticket(make_ticket(), form).content


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        Invalid, match="format is 'exe', expected one of safetensors, numpy, csr, onnx, script"
    ):
        export_ticket(make_ticket(), "exe")


def test_a_script_for_a_task_of_somebody_else_is_refused() -> None:
    with pytest.raises(Invalid, match="task is 'my-own', expected one of digits, mnist"):
        export_ticket(make_ticket(task="my-own"), "script")


def test_what_a_ticket_says_never_becomes_code() -> None:
    hostile = '"""\nimport os; os.system("true")\n"""'
    source = make_ticket()
    ticket = Ticket.create(
        source.architecture,
        source.masks,
        task="digits",
        recipe=source.recipe,
        laws=source.start.laws,
        seed=1,
        description=hostile,
        authors=[hostile],
    )
    script = export_ticket(ticket, "script").content.decode()
    assert "os.system" not in script
    compile(script, "train.py", "exec")


def test_the_script_trains_the_ticket_without_nirvana_and_compiles_once(tmp_path: Path) -> None:
    ticket = make_ticket()
    result = run_script(tmp_path, ticket)
    assert result["test_accuracy"] > 0.85
    assert result["nonzero"] <= result["kept"]
    here = nirvana.train_ticket(ticket, 0, engine="sparse")
    assert result["final_test_accuracy"] == here.final_test_accuracy
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "__pycache__").glob("*.nb*")}
    assert any(name.endswith(".nbc") for name in kept)
    np.savez(tmp_path / "own.npz", **tasks.load("digits")._asdict())
    own = run_again(tmp_path, "--data", "own.npz", "--steps", str(ticket.recipe["steps"]))
    assert own["test_accuracy"] == pytest.approx(result["test_accuracy"], abs=0.005)
    assert kept == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "__pycache__").glob("*.nb*")}


@pytest.mark.parametrize("architecture", ["conv-2", "resnet-20"])
def test_the_script_trains_to_the_very_numbers_of_nirvana_train(tmp_path: Path, architecture: str) -> None:
    ticket = make_ticket(architecture, steps=6, evaluate_every=3, pruning={"rewind_step": 0})
    found = run_script(tmp_path, ticket, "--seed", "5", "--out", "weights.npz")
    here = nirvana.train_ticket(ticket, 5, engine="sparse", keep_weights=True)
    assert here.weights is not None
    assert found["engine"] == "sparse"
    assert found["untrained_test_accuracy"] == here.untrained_test_accuracy
    assert found["test_accuracy"] == here.early_stop_test_accuracy
    assert found["final_test_accuracy"] == here.final_test_accuracy
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == set(here.weights)
        assert all(np.array_equal(arrays[name], value) for name, value in here.weights.items())


def test_a_ticket_that_takes_torch_has_a_script_that_says_so(tmp_path: Path) -> None:
    ticket = ticket_of(with_gelu(), steps=4, evaluate_every=2)
    result = run_script(tmp_path, ticket, missing="numba")
    here = nirvana.train_ticket(ticket, 0, engine="dense")
    assert result["untrained_test_accuracy"] == pytest.approx(here.untrained_test_accuracy, abs=0.003)
    assert result["nonzero"] <= ticket.kept
    script = export_ticket(ticket, "script").content.decode()
    assert "needs Python 3.10, numpy and torch" in script
    assert "cannot train this ticket (gelu" in script.replace("\n", " ")


def test_the_script_imports_numpy_and_numba_alone() -> None:
    tree = ast.parse(export_ticket(make_ticket(), "script").content)
    modules = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add((node.module or "").partition(".")[0])
    assert modules - sys.stdlib_module_names == {"numpy", "numba", "llvmlite"}
