"""nirvana import: a ticket file, JSON, and words for what is missing; then lint and verify on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nirvana.importers import SOURCES
from tests.cli.running import Run
from tests.lab.foreign import (
    Lenet,
    Perceptron,
    copy,
    cut,
    hidden_network,
    prune_globally,
    prune_locally,
    save,
    train,
    write_open_lth,
)


def write_files(source: str, folder: Path) -> list[str]:
    """One thing of the format to import, and the options it needs."""
    if source == "open-lth":
        state = copy(Lenet())
        masks = cut(state, [name for name in state if name.endswith("weight")])
        replicate = write_open_lth(folder, state, masks)
        return [str(replicate), "--level", "1", "--iterations-per-epoch", "10"]
    if source == "torch-prune":
        module = Perceptron()
        initial = save(folder / "initial.pth", copy(module))
        train(module)
        prune_globally(module)
        path = save(folder / "pruned.pth", module.state_dict())
        return [str(path), "--initial", str(initial), "--reset-biases"]
    if source == "hidden-networks":
        path = save(folder / "model_best.pth", {"arch": "mine", "state_dict": hidden_network()})
        return [str(path), "--architecture", "mlp-20-12", "--prune-rate", "0.5"]
    module = Perceptron()
    values = save(folder / "values.pth", copy(module))
    prune_locally(module)
    masks = {name: tensor for name, tensor in module.state_dict().items() if name.endswith("_mask")}
    return [str(values), "--masks", str(save(folder / "masks.pth", masks)), "--reset-biases"]


@pytest.mark.parametrize("source", SOURCES)
def test_what_was_imported_passes_lint_and_is_verified(tmp_path: Path, run: Run, source: str) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(
        json.dumps({"steps": 30, "evaluate_every": 10, "batch_size": 50, "schedule": {"kind": "constant"}})
    )
    out = tmp_path / "out.ticket"
    arguments = ["--from", source, *write_files(source, tmp_path), "--recipe", str(recipe), "--out", str(out)]
    imported = run.json("import", "--task", "digits", *arguments, "-q")
    assert (imported["ticket"], imported["structure_only"]) == (str(out), False)
    assert run.json("lint", out)["digest"] == imported["digest"]
    code, said, err = run("verify", out, "--local", "--replicates", "2", "--json", "-q")
    assert code in (0, 6), err
    assert json.loads(said)["verdict"] != "INVALID"


def test_a_structure_says_that_its_values_are_new(tmp_path: Path, run: Run) -> None:
    module = Perceptron()
    train(module)
    prune_globally(module)
    path = save(tmp_path / "pruned.pth", module.state_dict())
    folder = tmp_path / "tickets"
    folder.mkdir()
    code, out, err = run("import", "--from", "torch-prune", path, "--task", "digits", "--out", folder)
    assert (code, out.strip()) == (0, str(folder / "pruned.ticket"))
    assert "the original initial values are missing" in err
    assert "at best STRUCTURE_ONLY" in err
    assert "structure of mlp-16: 50.00 % of 1184 weights" in err


def test_a_graph_in_a_json_file_is_an_architecture(tmp_path: Path, run: Run) -> None:
    from nirvana.networks import zoo

    graph = tmp_path / "graph.json"
    manifest = zoo.build("mlp-16", (1, 8, 8), 10).to_manifest() | {"name": "mine"}
    graph.write_text(json.dumps(manifest))
    arguments = write_files("state-dict", tmp_path)
    out = tmp_path / "a.ticket"
    common = ["import", "--from", "state-dict", "--task", "digits", "--architecture", str(graph)]
    assert run.json(*common, *arguments, "--out", out, "-q")["architecture"] == "mine"
    graph.write_text("{")
    assert run(*common, *arguments, "--out", out)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (
            ["--from", "tensorflow", "whole.pth"],
            2,
            "'tensorflow' is no known format, expected one of open-lth",
        ),
        (["--from", "state-dict", "gone.pth"], 3, "no such file: gone.pth"),
        (["--from", "open-lth", "gone"], 3, "no such folder: gone"),
        (["--from", "state-dict", "whole.pth"], 2, "rebuilding objects runs code, which is never done here"),
        (["--from", "state-dict", "text.pth"], 2, "it is no checkpoint that can be read"),
        (["--from", "state-dict", "text.pth", "--recipe", "text.pth"], 2, "text.pth: found no JSON"),
        (["--from", "state-dict", "text.pth", "--architecture", "mlp"], 3, "no architecture 'mlp'"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    exit_code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "whole.pth", Perceptron())
    (tmp_path / "text.pth").write_text("hello world")
    code, out, err = run("import", *arguments, "--task", "digits", "--out", "a.ticket")
    assert (code, out) == (exit_code, "")
    assert said in err
    assert err.startswith("nirvana: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "a.ticket").exists()


def test_a_torch_seed_gives_a_seeded_ticket_and_another_one_is_refused(tmp_path: Path, run: Run) -> None:
    arguments = write_files("state-dict", tmp_path)[:-1]
    call = [
        "import",
        "--task",
        "digits",
        "--from",
        "state-dict",
        *arguments,
        "--out",
        str(tmp_path / "a.ticket"),
    ]
    imported = run.json(*call, "--torch-seed", "0", "-q")
    assert (imported["initial"], imported["structure_only"], imported["law"]) == (
        "seeded",
        False,
        "torch_default",
    )
    assert (
        run.json(*call, "--torch-seed", "0", "--torch-order", "fc1,fc2", "-q")["digest"] == imported["digest"]
    )
    assert run.json(*call, "-q")["initial"] == "stored"
    code, _, err = run(*call, "--torch-seed", "1")
    assert code != 0
    assert "values of fc1.weight are not those that torch.manual_seed(1)" in " ".join(err.split())
