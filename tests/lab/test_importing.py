"""Importing files that torch's own pruning and saving wrote, and plain state dicts with masks."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nirvana.errors import Invalid, InvalidArchitecture, InvalidTicket, NirvanaError, NotFound, Unavailable
from nirvana.format.initial import draw_all
from nirvana.format.lint import lint
from nirvana.importers import Options, import_ticket
from nirvana.networks import zoo
from nirvana.verification.gate import check_gate
from tests.lab.foreign import Perceptron, copy, mask_of, prune, prune_globally, prune_locally, save, train
from tests.lab.small import network


@pytest.fixture
def module() -> Perceptron:
    return Perceptron()


def refusal(source: str, path: Path, **options: Any) -> NirvanaError:
    with pytest.raises(NirvanaError) as caught:
        import_ticket(source, path, "digits", "mlp-16", Options(**options))
    return caught.value


# torch.nn.utils.prune


def test_a_module_pruned_before_training_gives_its_values_and_its_masks(
    tmp_path: Path, module: Perceptron
) -> None:
    before = copy(module)
    prune_locally(module, 0.75)
    path = save(tmp_path / "pruned.pth", module.state_dict())
    imported = import_ticket("torch-prune", path, "digits", "mlp-16", Options(untrained=True))
    ticket = imported.ticket
    assert (imported.structure_only, imported.law) == (False, "torch_default")
    assert np.array_equal(ticket.mask("fc1.weight"), mask_of(module.fc1))
    whole = ticket.dense_initial_values()
    assert whole is not None
    assert all(np.array_equal(whole[name], tensor.numpy()) for name, tensor in before.items())
    assert ticket.kept == 256 + 40
    assert lint(ticket.to_bytes()).ok


def test_initial_values_from_another_file_are_taken_and_the_trained_ones_are_not(
    tmp_path: Path, module: Perceptron
) -> None:
    initial = save(tmp_path / "initial.pth", copy(module))
    before = copy(module)
    train(module)
    prune_globally(module)
    train(module)  # moves weight_orig at pruned places too
    path = save(tmp_path / "pruned.pth", module.state_dict())
    ticket = import_ticket("torch-prune", path, "digits", None, Options(initial=initial)).ticket
    mask = mask_of(module.fc1)
    assert np.array_equal(ticket.initial["fc1.weight"], np.where(mask, before["fc1.weight"].numpy(), 0))
    names = [entry["name"] for entry in ticket.provenance["imported_from"]["files"]]
    assert names == ["pruned.pth", "initial.pth"]


def test_a_trained_state_dict_gives_a_structure_with_new_values_and_says_so(
    tmp_path: Path, module: Perceptron
) -> None:
    train(module)
    prune_globally(module, 0.8)
    path = save(tmp_path / "pruned.pth", module.state_dict())
    imported = import_ticket("torch-prune", path, "digits", "mlp-16", Options(seed=7))
    assert imported.structure_only
    assert imported.ticket.provenance["structure_only"] is True
    assert any("original initial values are missing" in warning for warning in imported.warnings)
    assert (imported.ticket.start.kind, imported.ticket.start.seed) == ("seeded", 7)
    assert np.array_equal(imported.ticket.mask("fc2.weight"), mask_of(module.fc2))
    drawn = draw_all(network(), imported.ticket.start.laws, 7)["fc1.weight"]
    assert np.array_equal(imported.ticket.initial["fc1.weight"], drawn * imported.ticket.mask("fc1.weight"))


def test_the_same_pruned_weights_give_the_same_structure_however_they_were_trained(tmp_path: Path) -> None:
    digests = set()
    for seed in (1, 2):
        module = Perceptron()
        prune_locally(module)
        train(module, seed=seed)
        path = save(tmp_path / f"{seed}.pth", module.state_dict())
        digests.add(import_ticket("torch-prune", path, "digits", "mlp-16").ticket.digest)
    assert len(digests) == 1


def test_trained_values_passed_off_as_initial_ones_are_warned_of_and_refused_by_gate_0(
    tmp_path: Path, module: Perceptron
) -> None:
    train(module)
    prune_locally(module)
    path = save(tmp_path / "pruned.pth", module.state_dict())
    imported = import_ticket("torch-prune", path, "digits", "mlp-16", Options(untrained=True))
    assert any("fc1.weight" in warning and "trained weights" in warning for warning in imported.warnings)
    assert "do not follow" in str(check_gate(imported.ticket).invalid)


def test_biases_as_torch_draws_them_pass_gate_0(tmp_path: Path, module: Perceptron) -> None:
    prune_locally(module)
    path = save(tmp_path / "pruned.pth", module.state_dict())
    imported = import_ticket("torch-prune", path, "digits", "mlp-16", Options(untrained=True))
    assert imported.ticket.initial["fc1.bias"].any()
    assert check_gate(imported.ticket).invalid is None
    assert not any("bias" in warning for warning in imported.warnings)


def test_biases_that_nobody_draws_are_warned_of_and_can_be_reset(tmp_path: Path, module: Perceptron) -> None:
    prune_locally(module)
    with torch.no_grad():
        module.fc1.bias.add_(0.2)
        module.fc2.bias.add_(0.5)
    path = save(tmp_path / "pruned.pth", module.state_dict())
    as_it_is = import_ticket("torch-prune", path, "digits", "mlp-16", Options(untrained=True))
    assert any("fc1.bias, fc2.bias" in warning and "zeros" in warning for warning in as_it_is.warnings)
    assert "bias" in str(check_gate(as_it_is.ticket).invalid)
    options = Options(untrained=True, reset_biases=True)
    reset = import_ticket("torch-prune", path, "digits", "mlp-16", options)
    assert reset.ticket.provenance["reset"] == ["fc1.bias", "fc2.bias"]
    assert not reset.ticket.initial["fc1.bias"].any()
    assert check_gate(reset.ticket).invalid is None
    assert not any("bias" in warning for warning in reset.warnings)


def test_pruned_biases_are_refused_and_masks_that_keep_them_whole_are_not(
    tmp_path: Path, module: Perceptron
) -> None:
    prune.identity(module.fc1, "bias")
    prune_locally(module)
    path = save(tmp_path / "whole.pth", module.state_dict())
    assert import_ticket("torch-prune", path, "digits", "mlp-16").ticket.kept == 592
    prune.l1_unstructured(module.fc1, "bias", amount=3)
    error = refusal("torch-prune", save(tmp_path / "pruned.pth", module.state_dict()))
    assert "fc1.bias" in error.detail


def test_a_plain_state_dict_is_no_pruned_one_and_the_word_says_what_reads_it(
    tmp_path: Path, module: Perceptron
) -> None:
    error = refusal("torch-prune", save(tmp_path / "plain.pth", module.state_dict()))
    assert "infer_masks" in error.detail
    prune_locally(module)
    state = module.state_dict()
    del state["fc2.weight_mask"]
    error = refusal("torch-prune", save(tmp_path / "half.pth", state))
    assert "fc2.weight_orig without fc2.weight_mask" in error.detail


# state dicts and masks


def some_masks(module: nn.Module, keep: float = 0.5) -> dict[str, torch.Tensor]:
    state = module.state_dict()
    return {n: (t.abs() >= t.abs().quantile(1 - keep)).float() for n, t in state.items() if t.ndim > 1}


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Write a file of the kind that its suffix names."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: t.numpy() for name, t in tensors.items()})  # type: ignore[arg-type]
    else:
        save(path, tensors)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_values_and_masks_are_read_from_each_kind_of_file(
    tmp_path: Path, module: Perceptron, suffix: str
) -> None:
    masks = some_masks(module)
    values = write(tmp_path / f"values{suffix}", copy(module))
    mask_file = write(tmp_path / f"masks{suffix}", masks)
    ticket = import_ticket("state-dict", values, "digits", "mlp-16", Options(masks=mask_file)).ticket
    for name, mask in masks.items():
        kept = np.where(mask.numpy() == 1, module.state_dict()[name].numpy(), 0)
        assert np.array_equal(ticket.initial[name], kept)
    assert ticket.stores_whole_tensors


def forget_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the reader of torch's files fail as where torch is not installed."""
    monkeypatch.delitem(sys.modules, "nirvana.torch.checkpoints", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_only_torchs_own_files_need_torch(
    tmp_path: Path, module: Perceptron, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = {f"{name}_mask": mask for name, mask in some_masks(module).items()}
    path = write(tmp_path / f"both{suffix}", copy(module) | masks)
    forget_torch(monkeypatch)
    assert import_ticket("state-dict", path, "digits", "mlp-16").ticket.density == pytest.approx(0.5)


def test_a_torch_file_without_torch_names_the_extra(
    tmp_path: Path, module: Perceptron, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "values.pth", copy(module))
    forget_torch(monkeypatch)
    error = refusal("state-dict", path)
    assert isinstance(error, Unavailable)
    assert error.detail == "torch is not installed here: pip install 'nirvana-tickets[lab]'"


def test_masks_in_the_state_dict_itself_are_found_under_each_tools_names(
    tmp_path: Path, module: Perceptron
) -> None:
    state, masks = copy(module), some_masks(module)
    named = {
        "synflow": {f"{name}_mask": mask for name, mask in masks.items()},
        "open_lth": {f"mask_{name.replace('.', '___')}": mask for name, mask in masks.items()},
        "export": {f"mask/{name}": mask for name, mask in masks.items()},
    }
    digests = {
        import_ticket("state-dict", save(tmp_path / f"{tool}.pth", state | own), "digits").ticket.digest
        for tool, own in named.items()
    }
    assert len(digests) == 1


def test_masks_of_nni_are_nested_and_masks_alone_are_a_structure(tmp_path: Path, module: Perceptron) -> None:
    masks = some_masks(module)
    path = save(tmp_path / "alone.pth", {f"{name}_mask": mask for name, mask in masks.items()})
    imported = import_ticket("state-dict", path, "digits", "mlp-16")
    assert imported.structure_only
    assert "fc1.bias" in imported.ticket.architecture.parameters
    nested = {"fc1": {"weight": masks["fc1.weight"], "bias": torch.ones(16)}}
    options = Options(masks=save(tmp_path / "mask.pth", nested))
    values = save(tmp_path / "values.pth", copy(module))
    ticket = import_ticket("state-dict", values, "digits", "mlp-16", options).ticket
    assert set(ticket.masks) == {"fc1.weight"}


def test_masks_are_inferred_from_zeros_and_labelled(tmp_path: Path, module: Perceptron) -> None:
    values = save(tmp_path / "initial.pth", copy(module))
    train(module)
    prune_locally(module)
    masks = {name: mask_of(getattr(module, name)) for name in ("fc1", "fc2")}
    for layer in (module.fc1, module.fc2):
        prune.remove(layer, "weight")
    pruned = save(tmp_path / "pruned.pth", module.state_dict())
    imported = import_ticket("state-dict", values, "digits", "mlp-16", Options(infer_masks=pruned))
    assert imported.ticket.provenance["mask_inferred"] is True
    assert np.array_equal(imported.ticket.mask("fc1.weight"), masks["fc1"])
    assert any("inferred" in warning for warning in imported.warnings)
    options = Options(infer_masks=pruned, structure_only=True)
    alone = import_ticket("state-dict", pruned, "digits", "mlp-16", options)
    assert alone.structure_only
    assert np.array_equal(alone.ticket.mask("fc2.weight"), masks["fc2"])
    assert "none of its weights is zero" in refusal("state-dict", values, infer_masks=values).detail


def test_a_rewound_state_dict_keeps_its_running_statistics(tmp_path: Path) -> None:
    graph = zoo.build("resnet-20", (1, 8, 8), 10)
    generator = torch.Generator().manual_seed(0)
    shapes = graph.parameters | graph.buffers
    state = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    masks = {f"{name}_mask": torch.rand(graph.parameters[name]) < 0.5 for name in graph.prunable}
    path = save(tmp_path / "rewound.pth", state | masks)
    ticket = import_ticket("state-dict", path, "digits", "resnet-20", Options(rewind_step=9)).ticket
    assert ticket.start.rewind_step == ticket.recipe["pruning"]["rewind_step"] == 9
    assert np.array_equal(ticket.initial["norm.running_mean"], state["norm.running_mean"].numpy())
    plain = import_ticket("state-dict", path, "digits", "resnet-20").ticket
    assert not plain.architecture.buffers.keys() & plain.initial.keys()
    del state["norm.running_var"]
    path = save(tmp_path / "lacking.pth", state | masks)
    with pytest.raises(Invalid, match=r"found no norm\.running_var"):
        import_ticket("state-dict", path, "digits", "resnet-20", Options(rewind_step=9))


def test_a_rewind_step_past_the_recipes_end_is_refused(tmp_path: Path, module: Perceptron) -> None:
    path = save(tmp_path / "a.pth", copy(module) | {"fc1.weight_mask": torch.ones(16, 64)})
    error = refusal("state-dict", path, rewind_step=250)
    assert "rewind_step is 250, expected less than the recipe's 250 steps" in error.detail


# values of torch's own seed


def seeded_files(tmp_path: Path, module: nn.Module, **changed: torch.Tensor) -> tuple[Path, Path]:
    """A state dict of initial values and a file of masks."""
    state = copy(module)
    masks = {name: torch.rand(t.shape) < 0.3 for name, t in state.items() if t.ndim > 1}
    return save(tmp_path / "values.pth", state | changed), save(tmp_path / "masks.pth", masks)


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 7, 2**63])
def test_a_network_of_a_known_torch_seed_becomes_a_seeded_ticket(tmp_path: Path, seed: int) -> None:
    module = Perceptron(seed)
    values, masks = seeded_files(tmp_path, module)
    imported = import_ticket("state-dict", values, "digits", "mlp-16", Options(masks=masks, torch_seed=seed))
    ticket = imported.ticket
    assert (imported.structure_only, imported.law) == (False, "torch_default")
    assert (ticket.start.kind, ticket.start.scheme, ticket.start.seed) == ("seeded", "torch-cpu/1", seed)
    whole = ticket.dense_initial_values() or {}
    assert all(np.array_equal(whole[name], tensor.numpy()) for name, tensor in copy(module).items())
    gate = check_gate(ticket)
    assert (gate.invalid, gate.untestable) == (None, None)
    assert not any("stored" in warning for warning in (*imported.warnings, *lint(ticket.to_bytes()).warnings))
    stored = import_ticket("state-dict", values, "digits", "mlp-16", Options(masks=masks))
    assert check_gate(stored.ticket).untestable is not None
    assert any("MATCHING at best" in warning for warning in stored.warnings)


def test_the_files_order_of_layers_is_that_of_construction_unless_said_otherwise(tmp_path: Path) -> None:
    torch.manual_seed(5)
    module = Perceptron.__new__(Perceptron)
    nn.Module.__init__(module)
    module.fc2, module.fc1 = nn.Linear(16, 10), nn.Linear(64, 16)  # registered as constructed
    values, masks = seeded_files(tmp_path, module)
    options = Options(masks=masks, torch_seed=5)
    ticket = import_ticket("state-dict", values, "digits", "mlp-16", options).ticket
    assert ticket.start.order == ("fc2", "fc1")
    unordered = tmp_path / "values.safetensors"
    save_file(copy(module), unordered)
    with pytest.raises(Invalid, match=r"1024 of 1024 values of fc1\.weight"):
        import_ticket("state-dict", unordered, "digits", "mlp-16", options)
    said = dataclasses.replace(options, torch_order=("fc2", "fc1"))
    assert import_ticket("state-dict", unordered, "digits", "mlp-16", said).ticket.digest == ticket.digest


def test_the_order_may_be_said_in_the_files_names(tmp_path: Path) -> None:
    torch.manual_seed(5)
    last, first = nn.Linear(12, 10), nn.Linear(64, 12)
    values, masks = seeded_files(tmp_path, nn.Sequential(first, nn.ReLU(), last))
    options = Options(masks=masks, torch_seed=5, torch_order=("2", "0"))
    assert import_ticket("state-dict", values, "digits", "mlp-12", options).ticket.start.order == (
        "fc2",
        "fc1",
    )


def test_the_first_parameter_that_differs_is_named_with_the_number_of_values(tmp_path: Path) -> None:
    module = Perceptron(3)
    bias = module.fc1.bias.detach().clone()
    bias[:3] = torch.nextafter(bias[:3], torch.tensor(1.0))
    values, masks = seeded_files(tmp_path, module, **{"fc1.bias": bias, "fc2.bias": torch.zeros(10)})
    error = refusal("state-dict", values, masks=masks, torch_seed=3)
    assert "3 of 16 values of fc1.bias are not those that torch.manual_seed(3)" in error.detail
    assert [(p.pointer, p.code) for p in error.errors] == [("/fc1.bias", "torch-seed")]
    assert (
        "1024 of 1024 values of fc1.weight" in refusal("state-dict", values, masks=masks, torch_seed=4).detail
    )


def test_trained_values_are_not_those_of_their_seed(tmp_path: Path) -> None:
    module = Perceptron(3)
    train(module, steps=1)
    values, masks = seeded_files(tmp_path, module)
    assert "initialisation or training after them" in (
        refusal("state-dict", values, masks=masks, torch_seed=3).detail
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"torch_seed": -1}, "expected 0 to 2\\^64 - 1"),
        ({"torch_seed": 2**64}, "expected 0 to 2\\^64 - 1"),
        ({"torch_order": ("fc2", "fc1")}, "torch_seed, which is missing"),
        ({"torch_seed": 0, "torch_order": ("fc2",)}, "each of the 2 that draw once: 'fc1'"),
        ({"torch_seed": 0, "torch_order": ("fc2", "fc1", "fc1")}, "'fc1' is missing, unknown or there twice"),
        ({"torch_seed": 0, "structure_only": True}, "no structure_only"),
        ({"torch_seed": 0, "reset_biases": True}, "no structure_only, reset_biases or law"),
        ({"torch_seed": 0, "law": "kaiming_normal"}, "no structure_only, reset_biases or law"),
        ({"torch_seed": 0, "rewind_step": 5}, "these are of step 5"),
    ],
)
def test_what_contradicts_a_torch_seed_is_refused(
    tmp_path: Path, module: Perceptron, options: dict[str, Any], reason: str
) -> None:
    values, masks = seeded_files(tmp_path, module)
    error = refusal("state-dict", values, masks=masks, **options)
    assert re.search(reason, " ".join([error.detail, *(problem.detail for problem in error.errors)]))


def test_a_torch_seed_needs_values_and_a_format_that_has_them(tmp_path: Path, module: Perceptron) -> None:
    prune_locally(module)
    path = save(tmp_path / "pruned.pth", module.state_dict())
    assert "the files have none" in refusal("torch-prune", path, torch_seed=0).detail
    ticket = import_ticket(
        "torch-prune", path, "digits", "mlp-16", Options(untrained=True, torch_seed=0)
    ).ticket
    assert ticket.start.kind == "seeded"
    assert "torch_seed is only for torch-prune and state-dict" in (
        refusal("hidden-networks", path, torch_seed=1).detail
    )


# names


def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, module: Perceptron) -> None:
    wrapped = nn.DataParallel(module)
    prune_locally(module)
    path = save(tmp_path / "parallel.pth", wrapped.state_dict())
    ticket = import_ticket("torch-prune", path, "digits", "mlp-16", Options(untrained=True)).ticket
    assert "names" not in ticket.provenance["imported_from"]
    assert ticket.kept == 592


def test_other_names_are_matched_by_order_and_the_pairs_are_recorded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
    module.append(nn.Linear(12, 12)).append(nn.Linear(12, 10))
    before = copy(module)
    for place in (1, 3, 5, 6):
        prune.random_unstructured(module[place], "weight", amount=0.5)
    path = save(tmp_path / "sequential.pth", module.state_dict())
    ticket = import_ticket("torch-prune", path, "digits", "mlp-12-12-12", Options(untrained=True)).ticket
    assert ticket.provenance["imported_from"]["names"]["fc3.weight"] == "5.weight"
    whole = ticket.dense_initial_values()
    assert whole is not None
    assert np.array_equal(whole["fc3.weight"], before["5.weight"].numpy())
    assert np.array_equal(ticket.mask("fc2.weight"), mask_of(module[3]))


def test_names_without_an_order_are_matched_by_shape_only_where_no_two_are_the_same(tmp_path: Path) -> None:
    unlike = nn.Sequential(nn.Linear(64, 12), nn.Linear(12, 10)).state_dict()
    save_file(
        unlike | {f"{n}_mask": torch.ones_like(t) for n, t in unlike.items()}, tmp_path / "a.safetensors"
    )
    ticket = import_ticket("state-dict", tmp_path / "a.safetensors", "digits", "mlp-12").ticket
    assert np.array_equal(ticket.initial["fc1.weight"], unlike["0.weight"].numpy())
    alike = nn.Sequential(nn.Linear(64, 12), nn.Linear(12, 12), nn.Linear(12, 12)).state_dict()
    alike |= nn.Sequential(*(nn.Identity() for _ in range(3)), nn.Linear(12, 10)).state_dict()
    save_file(alike | {"0.weight_mask": torch.ones(12, 64)}, tmp_path / "b.safetensors")
    with pytest.raises(Invalid, match="rename them") as caught:
        import_ticket("state-dict", tmp_path / "b.safetensors", "digits", "mlp-12-12-12")
    lists = [problem.detail for problem in caught.value.errors]
    assert any("1.weight [12, 12]" in text for text in lists)
    assert any("fc2.weight [12, 12]" in text for text in lists)


def test_the_architecture_is_found_where_only_one_of_the_zoo_fits(tmp_path: Path, module: Perceptron) -> None:
    prune_locally(module)
    path = save(tmp_path / "pruned.pth", module.state_dict())
    assert import_ticket("torch-prune", path, "digits").ticket.architecture.name == "mlp-16"
    odd = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Conv2d(3, 5, 3))
    state = odd.state_dict() | {"0.weight_mask": torch.ones(3, 1, 3, 3)}
    with pytest.raises(Invalid, match="architecture is missing; the zoo's networks"):
        import_ticket("state-dict", save(tmp_path / "odd.pth", state), "digits")


def test_a_network_without_biases_becomes_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 16, bias=False), nn.Linear(16, 10, bias=False))
    prune.random_unstructured(module[0], "weight", amount=0.5)
    path = save(tmp_path / "plain.pth", module.state_dict())
    imported = import_ticket("torch-prune", path, "digits", "mlp-16", Options(untrained=True))
    assert list(imported.ticket.architecture.parameters) == ["fc1.weight", "fc2.weight"]
    assert check_gate(imported.ticket).invalid is None


def test_an_architecture_for_other_inputs_is_refused_with_both_shapes(
    tmp_path: Path, module: Perceptron
) -> None:
    path = save(tmp_path / "a.pth", copy(module) | {"fc1.weight_mask": torch.ones(16, 64)})
    with pytest.raises(InvalidArchitecture, match=r"takes \[1, 4, 4\].*digits takes \[1, 8, 8\]"):
        import_ticket("state-dict", path, "digits", zoo.build("mlp-16", (1, 4, 4), 10))


# what is refused


def broken(module: Perceptron, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    masks = {f"{n}_mask": m for n, m in some_masks(module).items()}
    return copy(module) | masks | {name: tensor}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("fc1.weight_mask", torch.full((16, 64), 0.5), "fc1.weight has the value 0.5, expected 0 and 1"),
        ("fc1.weight_mask", torch.full((16, 64), torch.nan), "value nan, expected 0 and 1"),
        ("fc1.weight_mask", torch.ones(64, 16), r"fc1.weight has shape [64, 16], its parameter [16, 64]"),
        ("fc9.weight_mask", torch.ones(2, 2), "a mask for fc9.weight, which is no parameter"),
        ("fc1.weight", torch.full((16, 64), torch.nan), "value 0 of fc1.weight is nan, expected finite"),
        ("fc2.bias", torch.full((10,), torch.inf), "value 0 of fc2.bias is inf, expected finite"),
        ("fc1.weight", torch.ones(64, 16), "fc1.weight has shape [64, 16], but fc1.weight of mlp-16"),
        ("fc1.weight_mask", torch.zeros(16, 64), "fc1.weight keeps no weight: the layer collapsed"),
        ("other", torch.ones(3), "are not those of mlp-16"),
    ],
)
def test_what_is_wrong_with_an_array_is_said_with_its_name(
    tmp_path: Path, module: Perceptron, name: str, tensor: torch.Tensor, message: str
) -> None:
    error = refusal("state-dict", save(tmp_path / "broken.pth", broken(module, name, tensor)))
    assert isinstance(error, Invalid)
    assert message in error.detail


def test_a_missing_weight_is_named(tmp_path: Path, module: Perceptron) -> None:
    state = broken(module, "fc2.weight", torch.ones(10, 16))
    del state["fc1.weight"]
    error = refusal("state-dict", save(tmp_path / "lacking.pth", state))
    assert "found no values of fc1.weight" in error.detail


def test_a_whole_pickled_module_is_refused_and_the_word_says_what_to_save(
    tmp_path: Path, module: Perceptron
) -> None:
    error = refusal("state-dict", save(tmp_path / "module.pth", module))
    assert "Perceptron" in error.detail
    assert "torch.save(model.state_dict()" in error.detail


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.pth", b"hello world"),
        ("empty.pth", b""),
        ("zip.pth", b"PK\x03\x04 and no more"),
        ("short.safetensors", b"{}"),
        ("pickle.npz", b"\x80\x04K\x01."),
        ("text.npz", b"hello world"),
        ("empty.npz", b""),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    error = refusal("state-dict", path)
    assert isinstance(error, Invalid)
    assert error.detail.startswith(f"{name}: it is no ")
    assert "\n" not in error.detail


def test_a_cut_off_checkpoint_and_one_without_tensors_are_refused(tmp_path: Path, module: Perceptron) -> None:
    whole = save(tmp_path / "whole.pth", copy(module)).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    assert "no checkpoint" in refusal("state-dict", tmp_path / "cut.pth").detail
    assert "found list" in refusal("state-dict", save(tmp_path / "list.pth", [1, 2])).detail
    assert "found no tensor" in refusal("state-dict", save(tmp_path / "none.pth", {"epoch": 3})).detail


def test_an_object_array_in_an_npz_is_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", mask=np.array([{}], dtype=object))
    assert "objects.npz" in refusal("state-dict", tmp_path / "objects.npz").detail


def test_what_is_said_about_the_files_is_checked(tmp_path: Path, module: Perceptron) -> None:
    path = save(tmp_path / "a.pth", broken(module, "fc2.bias", torch.zeros(10)))
    assert isinstance(refusal("state-dict", tmp_path / "gone.pth"), NotFound)
    assert "expected one of open-lth" in refusal("tensorflow", path).detail
    assert "level is only for open-lth" in refusal("state-dict", path, level=3).detail
    assert "expected one of" in refusal("state-dict", path, law="gaussian").detail
    assert "give one" in refusal("state-dict", path, masks=path, infer_masks=path).detail
    assert "give one" in refusal("torch-prune", path, untrained=True, initial=path).detail
    assert "unknown" in refusal("state-dict", path, recipe={"speed": 3}).detail
    message = refusal("state-dict", path, structure_only=True, rewind_step=3).detail
    assert "rewind_step is 3" in message
    plain = save(tmp_path / "plain.pth", copy(module))
    assert "expected masks" in refusal("state-dict", plain).detail
    prune_locally(module)
    pruned = save(tmp_path / "pruned.pth", module.state_dict())
    assert "torch-prune reads those" in refusal("state-dict", pruned).detail
    assert "expected 0 or more" in refusal("state-dict", path, rewind_step=-1).detail


# what is recorded


def test_provenance_says_where_it_came_from_and_what_was_assumed(tmp_path: Path, module: Perceptron) -> None:
    path = save(tmp_path / "a.pth", broken(module, "fc2.bias", torch.zeros(10)))
    options = Options(license="MIT", source_url="https://example.org/net", authors=("Ada",))
    imported = import_ticket("state-dict", path, "digits", "mlp-16", options)
    provenance = imported.ticket.provenance
    assert provenance["imported_from"]["path"] == "a.pth"
    assert provenance["imported_from"]["source_url"] == "https://example.org/net"
    assert len(provenance["imported_from"]["files"][0]["sha256"]) == 64
    assert (provenance["method"], provenance["recipe"]) == ("imported", "assumed")
    assert (imported.ticket.license, imported.ticket.authors) == ("MIT", ("Ada",))
    assert str(tmp_path) not in str(imported.ticket.manifest())
    overridden = import_ticket("state-dict", path, "digits", "mlp-16", Options(recipe={"steps": 20}))
    assert (overridden.ticket.recipe["steps"], overridden.ticket.provenance["recipe"]) == (20, "given")
    assert overridden.ticket.license == "unknown"


def test_the_law_that_the_values_follow_is_declared_before_the_formats_own(tmp_path: Path) -> None:
    module = Perceptron()
    for layer in (module.fc1, module.fc2):
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    prune_locally(module)
    path = save(tmp_path / "a.pth", module.state_dict())
    imported = import_ticket("torch-prune", path, "digits", "mlp-16", Options(untrained=True))
    assert imported.law == imported.ticket.recipe["initial_law"] == "glorot_normal"
    assert check_gate(imported.ticket).invalid is None
    options = Options(untrained=True, law="torch_default")
    declared = import_ticket("torch-prune", path, "digits", "mlp-16", options)
    assert any("do not follow torch_default" in warning for warning in declared.warnings)


def test_a_collapsed_layer_is_an_invalid_ticket(tmp_path: Path, module: Perceptron) -> None:
    prune_locally(module)
    prune.custom_from_mask(module.fc2, "weight", torch.zeros(10, 16))
    error = refusal("torch-prune", save(tmp_path / "a.pth", module.state_dict()))
    assert isinstance(error, InvalidTicket)


def test_resetting_biases_of_rewound_values_is_refused(tmp_path: Path, module: Perceptron) -> None:
    path = save(tmp_path / "a.pth", broken(module, "fc2.bias", torch.zeros(10)))
    assert "reset_biases" in refusal("state-dict", path, rewind_step=3, reset_biases=True).detail


def test_a_mask_that_cuts_the_network_through_is_warned_of(tmp_path: Path, module: Perceptron) -> None:
    first, second = torch.zeros(16, 64), torch.zeros(10, 16)
    first[0], second[:, 1] = 1, 1
    path = save(tmp_path / "a.pth", {"fc1.weight_mask": first, "fc2.weight_mask": second})
    imported = import_ticket("state-dict", path, "digits", "mlp-16")
    assert any("no kept weight lies on a path" in warning for warning in imported.warnings)


def test_bfloat16_values_and_boolean_masks_are_read(tmp_path: Path, module: Perceptron) -> None:
    state = {name: tensor.bfloat16() for name, tensor in copy(module).items()}
    masks = {f"{name}_mask": mask.bool() for name, mask in some_masks(module).items()}
    ticket = import_ticket("state-dict", save(tmp_path / "a.pth", state | masks), "digits").ticket
    whole = ticket.dense_initial_values()
    assert whole is not None
    assert np.array_equal(whole["fc1.weight"], state["fc1.weight"].float().numpy())
