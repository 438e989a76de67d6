"""Importing checkpoints of hidden-networks: the mask follows from scores by their rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nirvana.errors import Invalid, NirvanaError
from nirvana.format.lint import lint
from nirvana.importers import Options, import_ticket
from nirvana.importers.hidden_networks import top_scores
from nirvana.verification.gate import check_gate
from tests.lab.foreign import State, hidden_network, save


def checkpoint(folder: Path, state: State, arch: str = "FC") -> Path:
    content = {
        "epoch": 100,
        "arch": arch,
        "state_dict": state,
        "best_acc1": 97.5,
        "curr_acc1": "Not evaluated",
    }
    return save(folder / "model_best.pth", content | {"optimizer": {"state": {}, "param_groups": []}})


def refusal(path: Path, **options: Any) -> NirvanaError:
    with pytest.raises(NirvanaError) as caught:
        import_ticket("hidden-networks", path, "digits", "mlp-20-12", Options(**options))
    return caught.value


def their_mask(scores: torch.Tensor, keep: float) -> torch.Tensor:
    """What their forward pass multiplies the weights with, computed in torch."""
    flat = torch.zeros(scores.numel())
    flat[scores.abs().flatten().sort().indices[int((1 - keep) * scores.numel()) :]] = 1
    return flat.reshape(scores.shape)


@pytest.mark.parametrize("keep", [0.5, 0.3, 0.1, 0.9, 1.0])
def test_the_mask_is_the_one_their_forward_pass_computes(keep: float) -> None:
    scores = torch.randn((12, 20, 1, 1), generator=torch.Generator().manual_seed(3))
    mask = top_scores("a", scores.numpy(), keep)
    assert np.array_equal(mask, their_mask(scores, keep).numpy() == 1)


def test_the_share_is_cut_as_their_float_product_is() -> None:
    scores = np.arange(1.0, 11.0)
    assert top_scores("a", scores, 0.9).all()  # int((1 - 0.9) * 10) is int(0.99...) = 0
    assert top_scores("a", scores, 0.5).tolist() == [False] * 5 + [True] * 5


def test_frozen_weights_become_initial_values_and_1x1_convolutions_become_layers(tmp_path: Path) -> None:
    state = hidden_network()
    imported = import_ticket(
        "hidden-networks", checkpoint(tmp_path, state), "digits", "mlp-20-12", Options(prune_rate=0.5)
    )
    ticket = imported.ticket
    assert not imported.structure_only
    assert imported.law == "kaiming_signed_constant"
    assert ticket.architecture.parameters == {
        "fc1.weight": (20, 64),
        "fc2.weight": (12, 20),
        "fc3.weight": (10, 12),
    }
    whole = ticket.dense_initial_values()
    assert whole is not None
    assert np.array_equal(whole["fc1.weight"], state["module.linear.0.weight"].numpy()[:, :, 0, 0])
    assert ticket.kept == (64 * 20 + 20 * 12 + 12 * 10) // 2
    assert (ticket.provenance["method"], ticket.provenance["prune_rate"]) == ("edge-popup", 0.5)
    assert lint(ticket.to_bytes()).ok
    assert check_gate(ticket).invalid is None


def test_kaiming_normal_weights_are_recognised_and_a_layer_without_scores_is_whole(tmp_path: Path) -> None:
    state = hidden_network()
    generator = torch.Generator().manual_seed(9)
    for name in list(state):
        if name.endswith("weight"):
            fan_in = state[name].shape[1]
            state[name] = torch.randn(state[name].shape, generator=generator) * (2 / fan_in) ** 0.5
    del state["module.linear.0.scores"]
    path = checkpoint(tmp_path, state)
    imported = import_ticket("hidden-networks", path, "digits", "mlp-20-12", Options(prune_rate=0.25))
    assert imported.law == "kaiming_normal"
    assert "fc1.weight" not in imported.ticket.masks
    assert check_gate(imported.ticket).invalid is None


def test_a_batch_norm_without_weights_gets_ones_and_zeros(tmp_path: Path) -> None:
    from nirvana.networks import zoo

    graph = zoo.build("resnet-20", (1, 8, 8), 10)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in graph.parameters.items():
        if len(shape) > 1:
            theirs = shape if len(shape) == 4 else (*shape, 1, 1)
            state[name] = torch.randn(theirs, generator=generator).sign() * (2 / theirs[1]) ** 0.5
            state[name.replace("weight", "scores")] = torch.randn(theirs, generator=generator)
    for name, shape in graph.buffers.items():
        state[name] = torch.rand(shape)
    path = checkpoint(tmp_path, state, "cResNet")
    ticket = import_ticket("hidden-networks", path, "digits", "resnet-20", Options(prune_rate=0.5)).ticket
    assert (ticket.initial["norm.weight"] == 1).all()
    assert not ticket.initial["norm.bias"].any()
    assert "fc.bias" not in ticket.initial


def test_the_share_is_read_from_a_folders_name_and_must_come_from_somewhere(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "prune_rate=0.25" / "checkpoints"
    path = checkpoint(folder, hidden_network())
    ticket = import_ticket("hidden-networks", path, "digits", "mlp-20-12").ticket
    assert ticket.density == pytest.approx(0.25)
    elsewhere = checkpoint(tmp_path, hidden_network())
    assert "prune_rate is missing" in refusal(elsewhere).detail
    assert "prune_rate is 1.5" in refusal(elsewhere, prune_rate=1.5).detail
    assert "prune_rate is 0" in refusal(elsewhere, prune_rate=0.0).detail


def test_scores_that_decide_nothing_are_refused(tmp_path: Path) -> None:
    state = hidden_network()
    assert isinstance(refusal(checkpoint(tmp_path, state | {"a": torch.ones(2)}), prune_rate=0.5), Invalid)
    plain = {name: tensor for name, tensor in state.items() if name.endswith("weight")}
    assert "found no scores" in refusal(checkpoint(tmp_path, plain), prune_rate=0.5).detail
    state["module.linear.0.scores"] = torch.ones(20, 64, 1, 1)  # a fixed subnet: 0 and 1 in place of scores
    assert "are equal" in refusal(checkpoint(tmp_path, state), prune_rate=0.5).detail
    state["module.linear.0.scores"] = torch.full((20, 64, 1, 1), torch.nan)
    assert "not finite" in refusal(checkpoint(tmp_path, state), prune_rate=0.5).detail


def test_the_checkpoints_own_architecture_is_built_for_the_task(tmp_path: Path) -> None:
    state = hidden_network((784, 300, 100, 10))
    path = checkpoint(tmp_path, state)
    ticket = import_ticket("hidden-networks", path, "mnist", None, Options(prune_rate=0.5)).ticket
    assert ticket.architecture.name == "lenet-300-100"
    assert "are not those of lenet-300-100" in str(caught_for_digits(path))


def caught_for_digits(path: Path) -> NirvanaError:
    with pytest.raises(Invalid) as caught:
        import_ticket("hidden-networks", path, "digits", None, Options(prune_rate=0.5))
    return caught.value
