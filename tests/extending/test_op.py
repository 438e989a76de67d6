"""An op is added by one row and one function for each consumer that supports it, as docs/extending.md says.

The op is a leaky ReLU. First its row has no trait: what asks for one refuses it by name. Then it has
the traits that are true of it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nirvana import sparse
from nirvana.engines import is_chain
from nirvana.errors import Invalid, InvalidArchitecture
from nirvana.exports.onnx import TRANSLATIONS, to_onnx
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS, Field, Op, value
from nirvana.pruning.search import MaskSearch
from nirvana.sparse.layout import ACTIVATIONS, RELU
from nirvana.torch.dense import advance
from nirvana.torch.methods.early_bird import refuse_unreachable
from nirvana.torch.methods.score_learning import scale_of, unscalable_reason
from nirvana.torch.methods.synflow import absolute_network, path_scores
from nirvana.torch.methods.units import cuttable_layers, whole_reasons
from nirvana.torch.modules import FORWARD, build_module, load_values
from nirvana.torch.stacked import find_unstackable
from nirvana.torch.stacked.network import StackedNetwork
from nirvana.torch.tracing import trace
from nirvana.torch.tracing.op_conversion import LAYERS
from nirvana.training.spec import InitialState, TrainSpec
from nirvana.verification.paths import effective_density, no_paths_reason
from tests.factories import make_masks
from tests.lab.small import SMALL, digits, values_of

ROW = Op({"slope": Field("rate", 0.01)})
TRAITS = {"elementwise": True, "homogeneous": True, "on_paths": True, "stacks": True}


@pytest.fixture(autouse=True)
def leaky_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two lines that an op needs: its row, without traits, and what torch computes."""
    monkeypatch.setitem(OPS, "leaky_relu", ROW)
    monkeypatch.setitem(
        FORWARD, "leaky_relu", lambda part, node, inputs, _: F.leaky_relu(inputs[0], value(node, "slope"))
    )


@pytest.fixture
def with_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPS, "leaky_relu", dataclasses.replace(ROW, **TRAITS))  # type: ignore[arg-type]


def network(op: str = "leaky_relu", **fields: Any) -> Architecture:
    nodes: list[dict[str, Any]] = [
        {"name": "flatten", "op": "flatten"},
        {"name": "fc1", "op": "linear", "in": 64, "out": 16},
        {"name": "act", "op": op, **fields},
        {"name": "fc2", "op": "linear", "in": 16, "out": 10},
    ]
    return Architecture.make("made", (1, 8, 8), nodes)


def ticket_of(architecture: Architecture, density: float = 0.1) -> Ticket:
    masks, laws = make_masks(architecture, density), default_laws(architecture)
    return Ticket.create(architecture, masks, task="digits", recipe=SMALL.to_dict(), laws=laws, seed=1)


def search_of(architecture: Architecture) -> MaskSearch:
    return MaskSearch(ticket_of(architecture, 1.0), digits(), SMALL, 0, 0.25)


def prunable_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return {name: architecture.parameters[name] for name in architecture.prunable}


def test_a_row_gives_shapes_parameters_and_flops() -> None:
    added, known = network(slope=0.1), network("relu")
    assert added.shapes == known.shapes
    assert added.parameters == known.parameters
    assert added.flops() == known.flops()
    assert network(slope=0.01).digest == network().digest != added.digest
    with pytest.raises(InvalidArchitecture, match=r"found 1, expected a number in \[0, 1\)"):
        network(slope=1)


def test_a_row_of_torchs_table_makes_it_compute_and_train() -> None:
    architecture = network(slope=0.25)
    module, values = build_module(architecture), values_of(architecture)
    load_values(module, values)
    x = torch.from_numpy(digits().test_x[:5])
    first, second = (torch.from_numpy(values[name]) for name in ("fc1.weight", "fc2.weight"))
    expected = F.leaky_relu(x.flatten(1) @ first.T, 0.25) @ second.T
    torch.testing.assert_close(module(x), expected)
    trained, _ = advance(TrainSpec(architecture, InitialState(values, {}, 0), digits(), SMALL), 30)
    load_values(module, trained)
    right = module(torch.from_numpy(digits().test_x)).argmax(1).numpy() == digits().test_y
    assert right.mean() > 0.5


def test_without_a_row_of_torchs_table_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FORWARD, "leaky_relu")
    with pytest.raises(Invalid, match=r"leaky_relu \(act\) is not among the ops that torch computes: linear"):
        build_module(network())


def test_onnx_refuses_it_until_it_has_a_translation(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Invalid, match=r"leaky_relu \(act\) has no translation to ONNX"):
        to_onnx(ticket_of(network()))
    monkeypatch.setitem(
        TRANSLATIONS,
        "leaky_relu",
        lambda graph, node, inputs, shape, output: graph.add(
            "LeakyRelu", inputs, output, alpha=value(node, "slope")
        ),
    )
    graph = onnx.load_from_string(to_onnx(ticket_of(network()))).graph
    assert [node.op_type for node in graph.node] == ["Flatten", "Gemm", "LeakyRelu", "Gemm", "Identity"]


def test_tracing_refuses_it_until_it_has_an_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(0.1))
    with pytest.raises(InvalidArchitecture, match=r"1 \(LeakyReLU\) cannot be expressed: no op computes it"):
        trace(module, (4,))
    monkeypatch.setitem(
        LAYERS, nn.LeakyReLU, lambda layer, x: {"op": "leaky_relu", "slope": layer.negative_slope}
    )
    assert dict(trace(module, (4,)).nodes[1]) == {"name": "1", "op": "leaky_relu", "slope": 0.1}


def test_the_sparse_engine_refuses_it_until_it_has_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = sparse.find_unsupported(network(), SMALL, {})
    assert reason is not None
    assert reason.startswith("leaky_relu (act) is not among the sparse engine's ops: linear, ")
    monkeypatch.setitem(ACTIVATIONS, "leaky_relu", RELU)
    assert sparse.find_unsupported(network(), SMALL, {}) is None


def test_without_traits_every_method_refuses_it_by_name() -> None:
    architecture, search = network(), search_of(network())
    with pytest.raises(Invalid, match="synflow: act is leaky_relu, expected operations that positive paths"):
        absolute_network(architecture, search.values)
    assert scale_of(search) == 1
    assert str(unscalable_reason(search)).startswith("leaky_relu (act) is not among the homogeneous ops: ")
    assert str(find_unstackable(architecture)).startswith(
        "leaky_relu (act) is not among the ops that stack: "
    )
    assert not is_chain(architecture)
    assert effective_density(ticket_of(architecture)) is None
    assert str(no_paths_reason(architecture)).startswith("leaky_relu (act) is not among the ops whose paths ")
    assert cuttable_layers(architecture) == []
    reasons = whole_reasons(architecture)
    assert reasons["fc1.weight"] == "leaky_relu (act) mixes its units"
    with pytest.raises(Invalid, match=r"; fc1\.weight stays whole, for leaky_relu \(act\) mixes its units$"):
        refuse_unreachable([], prunable_shapes(architecture), 10, reasons)


@pytest.mark.usefixtures("with_traits")
def test_with_its_traits_every_method_treats_it_as_it_does_relu() -> None:
    added, known = network(), network("relu")
    search = search_of(added)
    assert scale_of(search) == 2
    assert effective_density(ticket_of(added)) == effective_density(ticket_of(known))
    assert [layer.weight for layer in cuttable_layers(added)] == ["fc1.weight"]
    scores = [path_scores(absolute_network(one, search.values), added.prunable) for one in (added, known)]
    for name in added.prunable:
        np.testing.assert_array_equal(scores[0][name], scores[1][name])


@pytest.mark.usefixtures("with_traits")
def test_with_its_trait_replicates_are_trained_as_one() -> None:
    architecture = network(slope=0.25)
    assert find_unstackable(architecture) is None
    assert is_chain(architecture)
    values, x = [values_of(architecture, seed) for seed in (0, 1)], torch.from_numpy(digits().test_x[:5])
    stacked = StackedNetwork(architecture, values, torch.device("cpu"))
    logits = stacked.evaluate(stacked.tensors, x)
    for number, one in enumerate(values):
        module = build_module(architecture)
        load_values(module, one)
        torch.testing.assert_close(logits[number], module(x))
