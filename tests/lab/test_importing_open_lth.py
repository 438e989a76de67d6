"""Importing replicates of open_lth, on folders of its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nirvana.errors import Invalid, NirvanaError, NotFound
from nirvana.format.lint import lint
from nirvana.importers import Imported, Options, import_ticket
from nirvana.importers.open_lth_hparams import read_hparams
from nirvana.networks import zoo
from nirvana.verification.gate import check_gate
from tests.lab.foreign import (
    HPARAMS,
    PRETRAINING,
    Lenet,
    State,
    copy,
    cut,
    save,
    write_open_lth,
    write_report,
)

WEIGHTS = ["fc_layers.0.weight", "fc_layers.1.weight"]  # the output layer is ignored, as in its defaults


@pytest.fixture
def state() -> State:
    return copy(Lenet())


@pytest.fixture
def masks(state: State) -> State:
    return cut(state, WEIGHTS) | {"fc.weight": torch.ones(10, 12, dtype=torch.int32)}


@pytest.fixture
def replicate(tmp_path: Path, state: State, masks: State) -> Path:
    return write_open_lth(tmp_path, state, masks)


def take(path: Path, **options: Any) -> Imported:
    return import_ticket("open-lth", path, "digits", None, Options(iterations_per_epoch=20, **options))


def refusal(path: Path, **options: Any) -> NirvanaError:
    with pytest.raises(NirvanaError) as caught:
        take(path, **options)
    return caught.value


def test_a_level_gives_its_mask_and_level_zeros_whole_values(
    replicate: Path, state: State, masks: State
) -> None:
    imported = take(replicate, level=1)
    ticket = imported.ticket
    assert (ticket.architecture.name, imported.law, ticket.start.rewind_step) == (
        "mlp-20-12",
        "kaiming_normal",
        0,
    )
    assert np.array_equal(ticket.mask("fc2.weight"), masks["fc_layers.1.weight"].numpy() == 1)
    whole = ticket.dense_initial_values()
    assert whole is not None
    assert np.array_equal(whole["fc1.weight"], state["fc_layers.0.weight"].numpy())
    assert ticket.kept == sum(int(mask.sum()) for mask in masks.values())
    assert (ticket.provenance["method"], ticket.provenance["level"]) == ("imp", 1)
    assert lint(ticket.to_bytes()).ok
    assert check_gate(ticket).invalid is None


def test_a_levels_folder_says_its_level_and_level_0_is_dense(replicate: Path) -> None:
    by_option = take(replicate, level=1).ticket.digest
    assert take(replicate / "level_1").ticket.digest == by_option
    assert take(replicate / "level_1" / "main").ticket.digest == by_option
    assert take(replicate / "level_0").ticket.density == 1
    assert "level is 0, but the folder is level_1" in refusal(replicate / "level_1", level=0).detail


def test_its_hyperparameters_become_the_recipe(replicate: Path) -> None:
    ticket = take(replicate, level=1).ticket
    recipe = dict(ticket.recipe)
    expected = {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 50, "steps": 80, "momentum": 0.9}
    expected |= {"weight_decay": 0.0001, "nesterov": False, "initial_law": "kaiming_normal"}
    assert {name: recipe[name] for name in expected} == expected
    assert recipe["schedule"] == {"kind": "step", "at": [40, 70], "factor": 0.1}
    assert (recipe["pruning"]["scope"], recipe["pruning"]["rate"]) == ("global", 0.2)
    assert ticket.provenance["recipe"] == "files"


@pytest.mark.parametrize(
    ("pretraining", "start", "step"),
    [
        ("30it", "model_ep1_it10.pth", 30),
        ("1ep", "model_ep1_it0.pth", 20),
        ("2ep5it", "model_ep2_it5.pth", 45),
    ],
)
def test_a_rewound_level_starts_at_the_rewind_step(
    tmp_path: Path, state: State, masks: State, pretraining: str, start: str, step: int
) -> None:
    replicate = write_open_lth(tmp_path, state, masks, pretraining=pretraining, start=start)
    ticket = take(replicate, level=1).ticket
    assert (ticket.start.rewind_step, ticket.recipe["pruning"]["rewind_step"]) == (step, step)
    assert ticket.start.kind == "stored"


def test_values_are_taken_from_the_pretraining_where_level_0_has_none(replicate: Path) -> None:
    before = take(replicate, level=1).ticket.digest
    start = replicate / "level_0" / "main" / "model_ep0_it0.pth"
    (replicate / "level_pretrain" / "main").mkdir(parents=True)
    start.rename(replicate / "level_pretrain" / "main" / start.name)
    assert take(replicate, level=1).ticket.digest == before


def test_a_resnets_names_are_matched_with_its_running_statistics(tmp_path: Path) -> None:
    graph = zoo.build("resnet-20", (1, 8, 8), 10)
    theirs = open_lth_resnet(graph.parameters | graph.buffers)
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.rand(shape, generator=generator) for name, shape in theirs}
    masks = {n: (t > 0.5).int() for n, t in state.items() if t.ndim > 1}
    options = {"model": "cifar_resnet_20", "pretraining": "30it", "start": "model_ep1_it10.pth"}
    ticket = take(write_open_lth(tmp_path, state, masks, **options), level=1).ticket  # type: ignore[arg-type]
    mean = state["blocks.3.shortcut.1.running_mean"].numpy()
    assert np.array_equal(ticket.initial["group2.block0.shortcut_norm.running_mean"], mean)
    mask = masks["blocks.8.conv2.weight"].numpy() == 1
    assert np.array_equal(ticket.mask("group3.block2.conv2.weight"), mask)


def open_lth_resnet(shapes: dict[str, tuple[int, ...]]) -> list[tuple[str, tuple[int, ...]]]:
    """The zoo's names as open_lth has them."""
    renamed = []
    for name, shape in shapes.items():
        for group in (1, 2, 3):
            for block in (0, 1, 2):
                number = 3 * (group - 1) + block
                name = name.replace(f"group{group}.block{block}.", f"blocks.{number}.")
        name = name.replace("shortcut_norm", "shortcut.1").replace("shortcut.weight", "shortcut.0.weight")
        renamed.append((name.replace("norm", "bn"), shape))
    return renamed


@pytest.mark.parametrize(
    "missing",
    [
        "level_0/main/hparams.log",
        "level_0/main/model_ep0_it0.pth",
        "level_1/main/mask.pth",
        "level_1/main/sparsity_report.json",
        "level_1/main/model_ep0_it0.pth",
    ],
)
def test_a_missing_file_is_named(replicate: Path, missing: str) -> None:
    (replicate / missing).unlink()
    error = refusal(replicate, level=1)
    assert isinstance(error, NotFound)
    assert error.detail.startswith(f"{missing} is missing")


def test_files_of_two_runs_are_told_apart(tmp_path: Path, state: State, masks: State) -> None:
    def spoil(level: State) -> None:
        level["fc_layers.0.weight"] = level["fc_layers.0.weight"] * 1.001

    error = refusal(write_open_lth(tmp_path, state, masks, change=spoil), level=1)
    assert "fc_layers.0.weight is not mask x the values of level 0" in error.detail


def test_a_report_of_another_density_is_refused(replicate: Path, masks: State) -> None:
    main = replicate / "level_1" / "main"
    write_report(main, masks, more=1)
    assert "sparsity_report.json: mask.pth keeps" in refusal(replicate, level=1).detail
    (main / "sparsity_report.json").write_text("[]")
    assert "expected an object" in refusal(replicate, level=1).detail


def test_a_mask_of_other_values_and_a_level_that_is_not_there_are_refused(
    replicate: Path, masks: State
) -> None:
    assert "level is missing, expected one of 0, 1" in refusal(replicate).detail
    assert "level is 4, expected one of 0, 1" in refusal(replicate, level=4).detail
    assert isinstance(refusal(replicate.parent, level=1), NotFound)
    assert isinstance(refusal(replicate / "gone", level=1), NotFound)
    masks["fc.weight"] = masks["fc.weight"] * 2
    save(replicate / "level_1" / "main" / "mask.pth", masks)
    assert isinstance(refusal(replicate, level=1), Invalid)


def test_the_length_of_an_epoch_is_known_for_open_lths_own_data_sets_alone(tmp_path: Path) -> None:
    log = tmp_path / "hparams.log"
    log.write_text(HPARAMS.format(model="mnist_lenet_300_100") + PRETRAINING.format(steps="2ep100it"))
    with pytest.raises(Invalid, match="how many examples 'digits' has is not known"):
        _ = read_hparams(log).rewind_step
    log.write_text(
        log.read_text().replace("digits", "cifar10").replace("batch_size => 50", "batch_size => 128")
    )
    hparams = read_hparams(log)
    assert hparams.rewind_step == 2 * 391 + 100
    assert hparams.model_file == "model_ep2_it100.pth"
    assert hparams.architecture == "lenet-300-100"
    assert hparams.recipe()["augmentation"] == ["crop", "flip"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("4ep", "4 epochs", "found the step '4 epochs'"),
        ("lr => 0.1", "lr => fast", "lr is 'fast', expected a number"),
        ("    * training_steps => 4ep\n", "", "found no training_steps"),
        ("=> sgd", "=> lars", "expected one of adam"),
    ],
)
def test_a_log_that_is_not_understood_is_refused(replicate: Path, old: str, new: str, message: str) -> None:
    log = replicate / "level_0" / "main" / "hparams.log"
    log.write_text(log.read_text().replace(old, new))
    assert message in refusal(replicate, level=1).detail
