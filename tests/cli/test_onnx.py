"""ONNX: onnxruntime answers what the lab's module answers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from nirvana import tasks
from nirvana.engines import predict_logits
from nirvana.exports import export_ticket
from nirvana.exports.onnx import TRANSLATIONS
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.lab import build_module, load_values
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS
from nirvana.weights import Weights, with_statistics

RECIPE: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.1, "batch_size": 8, "steps": 4}

POOLS: list[dict[str, Any]] = [
    {"name": "conv1", "op": "conv2d", "in": 3, "out": 4, "kernel": [3, 2], "stride": [2, 1], "groups": 1},
    {"name": "act1", "op": "tanh"},
    {
        "name": "conv2",
        "op": "conv2d",
        "in": 4,
        "out": 4,
        "kernel": 3,
        "padding": 1,
        "groups": 2,
        "bias": False,
    },
    {"name": "sum", "op": "add", "inputs": ["act1", "conv2", "act1"]},
    {"name": "pool1", "op": "avg_pool", "kernel": 3, "stride": 2, "padding": 1},
    {"name": "pool2", "op": "max_pool", "kernel": [2, 1], "stride": [1, 2], "padding": [1, 0]},
    {"name": "drop", "op": "dropout", "rate": 0.5},
    {"name": "flat", "op": "flatten"},
    {"name": "norm", "op": "batch_norm", "channels": 24},
    {"name": "logits", "op": "linear", "in": 24, "out": 5, "bias": False},
]
CAUSAL: list[dict[str, Any]] = [
    {"name": "input", "op": "embedding", "tokens": 11, "features": 8},
    {"name": "attend", "op": "self_attention", "features": 8, "heads": 2, "causal": True},
    {"name": "fc", "op": "linear", "in": 8, "out": 6, "bias": False},
    {"name": "gelu", "op": "gelu"},
    {"name": "norm", "op": "layer_norm", "shape": [7, 6]},
    {"name": "mean", "op": "global_avg_pool"},
    {"name": "head", "op": "linear", "in": 7, "out": 3},
]
NETWORKS: dict[str, Architecture] = {
    "lenet-300-100": zoo.build("lenet-300-100", (1, 8, 8), 10),
    "lenet-5": zoo.build("lenet-5", (1, 28, 28), 10),
    "conv-2": zoo.build("conv-2", (1, 8, 8), 10),
    "resnet-20": zoo.build("resnet-20", (3, 8, 8), 10),
    "vgg-11": zoo.build("vgg-11", (3, 32, 32), 10),
    "conv1d-3": zoo.build("conv1d-3", (2, 40), 4),
    "transformer-2": zoo.build("transformer-2", (7, 5), 4),
    "pools": Architecture.make("pools", (3, 9, 6), POOLS),
    "causal": Architecture.make("causal", (7,), CAUSAL),
}


def make_ticket(architecture: Architecture) -> Ticket:
    rng = np.random.default_rng(0)
    masks = {name: rng.random(architecture.parameters[name]) < 0.3 for name in architecture.prunable}
    laws = default_laws(architecture)
    return Ticket.create(architecture, masks, task="digits", recipe=RECIPE, laws=laws, seed=1)


def trained(ticket: Ticket) -> Weights:
    """Weights with biases, scales and running statistics that are not those of the start."""
    rng = np.random.default_rng(1)
    values = with_statistics(ticket.architecture, ticket.initial_values())
    for name, array in values.items():
        if name not in ticket.masks:
            array += rng.uniform(0, 0.5, array.shape).astype(np.float32)
    digits = tasks.get("digits")
    return Weights(ticket.digest, ticket.architecture, values, ticket.masks, digits, {"seed": 1})


def make_inputs(architecture: Architecture, n: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(2)
    if architecture.nodes[0]["op"] == "embedding":
        return rng.integers(0, 11, (n, *architecture.input)).astype(np.float32)
    return rng.normal(size=(n, *architecture.input)).astype(np.float32)


def answer(model: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"input": x})
    return np.asarray(logits)


def answer_exactly(weights: Weights, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """The lab's logits in float64: its own rounding, which differs by processor, is not in a difference."""
    network = build_module(weights.architecture)
    load_values(network, weights.values)
    found: NDArray[np.float64] = network.double().eval()(torch.from_numpy(x).double()).detach().numpy()
    return found


def test_every_op_has_a_translation() -> None:
    assert set(TRANSLATIONS) == set(OPS)
    assert {node["op"] for network in NETWORKS.values() for node in network.nodes} == set(OPS)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_answers_as_the_lab_does(name: str) -> None:
    ticket = make_ticket(NETWORKS[name])
    weights = trained(ticket)
    model = export_ticket(ticket, "onnx", weights).content
    for n in (1, 5):
        x = make_inputs(ticket.architecture, n)
        expected = answer_exactly(weights, x)
        assert np.abs(answer(model, x) - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def test_initial_values_are_exported_where_no_weights_are_given() -> None:
    ticket = make_ticket(NETWORKS["resnet-20"])
    x = make_inputs(ticket.architecture, 3)
    expected = predict_logits(Weights.untrained(ticket), x, engine="dense")
    np.testing.assert_allclose(
        answer(export_ticket(ticket, "onnx").content, x), expected, atol=1e-5, rtol=1e-5
    )


def test_the_model_says_where_it_comes_from_and_keeps_the_weights_names() -> None:
    ticket = make_ticket(NETWORKS["lenet-300-100"])
    model = onnx.load_from_string(export_ticket(ticket, "onnx", trained(ticket)).content)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["nirvana.digest"] == ticket.digest
    assert json.loads(said["nirvana.normalisation"]) == {"pixel_max": 16, "mean": 0.304, "sd": 0.375}
    assert json.loads(said["nirvana.class_names"]) == list("0123456789")
    assert json.loads(said["nirvana.training"]) == {"seed": 1}
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert set(tensors) == set(ticket.architecture.parameters)
    assert not tensors["fc1.weight"][~ticket.mask("fc1.weight")].any()
