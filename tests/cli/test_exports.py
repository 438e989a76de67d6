"""Exports: what other tools read, and the script that trains without Nirvana."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nirvana import lab, tasks, zoo
from nirvana.errors import Invalid
from nirvana.exports import export_ticket
from nirvana.initial import default_laws
from nirvana.recipe import Recipe
from nirvana.ticket import Ticket


def make_ticket(architecture: str = "mlp-32", task: str = "digits", **recipe: object) -> Ticket:
    graph = zoo.build(architecture, (1, 8, 8), 10)
    rng = np.random.default_rng(0)
    masks = {name: rng.random(graph.parameters[name]) < 0.5 for name in graph.prunable}
    known = tasks.get("digits").default_recipe(architecture)
    chosen = known.override(recipe).to_dict()
    return Ticket.create(graph, masks, task=task, recipe=chosen, laws=default_laws(graph), seed=1)


def run_script(folder: Path, ticket: Ticket, *arguments: str) -> dict[str, float]:
    """Runs the script away from this repository, with a Python that cannot import nirvana."""
    path = folder / "train.py"
    path.write_bytes(export_ticket(ticket, "script").content)
    code = (
        "import sys, runpy\n"
        "sys.modules['nirvana'] = None\n"
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


@pytest.mark.parametrize("form", ["safetensors", "numpy", "script"])
def test_an_export_is_the_same_bytes_every_time(form: str) -> None:
    assert export_ticket(make_ticket(), form).content == export_ticket(make_ticket(), form).content


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Invalid, match="format is 'exe', expected one of safetensors, numpy, script"):
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


def test_the_script_trains_the_ticket_without_nirvana(tmp_path: Path) -> None:
    result = run_script(tmp_path, make_ticket())
    assert result["test_accuracy"] > 0.85
    assert result["nonzero"] <= result["kept"]


@pytest.mark.parametrize("architecture", ["mlp-32", "conv-2", "resnet-20"])
def test_the_script_starts_from_the_very_network(tmp_path: Path, architecture: str) -> None:
    ticket = make_ticket(architecture, steps=4, evaluate_every=2, pruning={"rewind_step": 0})
    result = run_script(tmp_path, ticket)
    data = tasks.load("digits")
    recipe = Recipe.from_dict(dict(ticket.recipe))
    here = lab.train(ticket.architecture, ticket.initial_values(), ticket.masks, data, recipe, 0)
    assert result["untrained_test_accuracy"] == pytest.approx(here.untrained_test_accuracy, abs=0.003)
    assert result["nonzero"] <= ticket.kept


def test_the_script_reads_arrays_of_ones_own(tmp_path: Path) -> None:
    data = tasks.load("digits")
    np.savez(tmp_path / "own.npz", **data._asdict())
    ticket = make_ticket(steps=40)
    embedded = run_script(tmp_path, ticket)
    own = run_script(tmp_path, ticket, "--data", str(tmp_path / "own.npz"))
    assert own["test_accuracy"] == pytest.approx(embedded["test_accuracy"], abs=0.005)
