"""Architectures: shapes, names, FLOPs, the zoo, and every way of being wrong."""

from __future__ import annotations

from typing import Any

import pytest

from nirvana.errors import InvalidArchitecture, NotFound
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture

RELU = {"name": "relu", "op": "relu"}


def graph(*nodes: dict[str, Any], input: list[int] | None = None, **fields: Any) -> dict[str, Any]:
    return {"name": "net", "input": input or [4], "nodes": list(nodes)} | fields


def linear(name: str = "fc", fan_in: int = 4, out: float = 3, **fields: Any) -> dict[str, Any]:
    return {"name": name, "op": "linear", "in": fan_in, "out": out} | fields


@pytest.mark.parametrize(
    ("name", "input_shape", "parameters", "prunable", "flops"),
    [
        # LeNet-300-100: 266,200 weights and 410 biases, 532,400 FLOPs (SCIENCE 2.1, 4.8).
        ("lenet-300-100", (1, 28, 28), 266_610, 266_200, 532_400),
        ("lenet-300-100", (1, 8, 8), 50_610, 50_200, 100_400),
        ("lenet-5", (1, 28, 28), 61_706, 61_470, 833_040),
        ("lenet-5", (1, 32, 32), 61_706, 61_470, 833_040),
        # Conv-2 4.3 M and Conv-4 2.4 M as in Frankle & Carbin 2019, figure 2. Their 1.7 M for Conv-6 does not
        # follow from the layers they list, which make 2.26 M.
        ("conv-2", (3, 32, 32), 4_301_642, 4_300_992, 87_561_216),
        ("conv-4", (3, 32, 32), 2_425_930, 2_425_024, 196_613_120),
        ("conv-6", (3, 32, 32), 2_262_602, 2_261_184, 307_762_176),
        ("resnet-20", (3, 32, 32), 272_474, 270_896, 81_626_368),
        ("mlp-16", (1, 8, 8), 1_210, 1_184, 2_368),
        ("mlp-20-30-40", (7,), 160 + 630 + 1_240 + 410, 140 + 600 + 1_200 + 400, 4_680),
    ],
)
def test_the_zoo_has_the_sizes_that_its_papers_say(
    name: str, input_shape: tuple[int, ...], parameters: int, prunable: int, flops: int
) -> None:
    architecture = zoo.build(name, input_shape, 10)
    assert architecture.parameter_count == parameters
    assert architecture.prunable_total == prunable
    assert architecture.flops() == flops
    assert architecture.output_shape == (10,)


def test_parameters_have_torchs_names_and_shapes_in_order() -> None:
    architecture = zoo.build("lenet-300-100", (1, 28, 28), 10)
    assert list(architecture.parameters.items()) == [
        ("fc1.weight", (300, 784)),
        ("fc1.bias", (300,)),
        ("fc2.weight", (100, 300)),
        ("fc2.bias", (100,)),
        ("fc3.weight", (10, 100)),
        ("fc3.bias", (10,)),
    ]
    assert architecture.prunable == ("fc1.weight", "fc2.weight", "fc3.weight")


def test_sparse_flops_follow_the_kept_weights() -> None:
    architecture = zoo.build("conv-2", (1, 8, 8), 10)
    dense = architecture.flops()
    assert architecture.flops({"conv1.weight": 0}) == dense - 2 * 64 * 64 * 9


@pytest.mark.parametrize(
    ("name", "family"), [("lenet-300-100", "lenet"), ("resnet-20", "resnet"), ("mlp-16", "mlp"), ("42", "42")]
)
def test_a_family_is_the_name_up_to_its_first_number(name: str, family: str) -> None:
    assert Architecture.make(name, (4,), [linear()]).family == family


def test_the_digest_ignores_the_name_and_nothing_else() -> None:
    one = Architecture.make("one", (4,), [linear()])
    assert one.digest == Architecture.make("other", (4,), [linear()]).digest
    assert one.digest != Architecture.make("one", (4,), [linear(out=5)]).digest
    assert one.digest != Architecture.make("one", (4,), [linear(name="fd")]).digest


def test_make_drops_defaults_so_that_one_network_has_one_form() -> None:
    conv: dict[str, Any] = {"name": "c", "op": "conv2d", "in": 1, "out": 2, "kernel": 3}
    spelled = conv | {"stride": 1, "padding": 0, "groups": 1, "bias": True}
    pool = {"name": "p", "op": "max_pool", "kernel": 2}
    plain = Architecture.make("net", (1, 8, 8), [conv, pool])
    assert Architecture.make("net", (1, 8, 8), [spelled, pool | {"stride": 2}]).digest == plain.digest


def test_a_manifest_round_trip_changes_nothing() -> None:
    for name in ("resnet-20", "lenet-5"):
        architecture = zoo.build(name, (3, 32, 32), 10)
        assert Architecture.from_manifest(architecture.to_manifest()) == architecture


def test_attention_embeddings_and_one_dimensional_convolutions_have_their_shapes() -> None:
    attention = {"name": "attn", "op": "self_attention", "features": 8, "heads": 2}
    nodes: list[dict[str, Any]] = [
        {"name": "embed", "op": "embedding", "tokens": 50, "features": 8},
        attention,
        {"name": "add", "op": "add", "inputs": ["embed", "attn"]},
        {"name": "ln", "op": "layer_norm", "shape": [8]},
        {"name": "flatten", "op": "flatten"},
        linear(fan_in=48),
    ]
    encoder = Architecture.make("encoder", (6,), nodes)
    assert encoder.parameters["attn.in_proj.weight"] == (24, 8)
    assert encoder.shapes["ln"] == (6, 8)
    assert encoder.flops() == 2 * (6 * 24 * 8 + 6 * 8 * 8 + 48 * 3)
    conv = {"name": "conv", "op": "conv1d", "in": 2, "out": 4, "kernel": 3, "stride": 2, "groups": 2}
    signal = Architecture.make("signal", (2, 11), [conv, {"name": "pool", "op": "global_avg_pool"}])
    assert signal.parameters["conv.weight"] == (4, 1, 3)
    assert signal.shapes == {"conv": (4, 5), "pool": (4,)}


@pytest.mark.parametrize(
    ("manifest", "pointer", "code"),
    [
        ([], "", "type"),
        ({"name": "net", "input": [4]}, "/nodes", "missing"),
        (graph(linear(), extra=1), "/extra", "unknown-field"),
        (graph(linear(), input=[0]), "/input", "shape"),
        (graph(linear(), input=[True]), "/input", "shape"),
        (graph(), "/nodes", "value"),
        (graph(linear(), name=""), "/name", "value"),
        (graph("relu"), "/nodes/0", "type"),  # type: ignore[arg-type]
        (graph({"name": "x", "op": "exec"}), "/nodes/0/op", "unknown-op"),
        (graph({"name": "x", "op": ["relu"]}), "/nodes/0/op", "unknown-op"),
        (graph(linear(name="Fc")), "/nodes/0/name", "node-name"),
        (graph(linear(name="a..b")), "/nodes/0/name", "node-name"),
        (graph(linear(name="../up")), "/nodes/0/name", "node-name"),
        (graph(linear(), linear(fan_in=3)), "/nodes/1/name", "node-name-twice"),
        (graph({"name": "fc", "op": "linear", "in": 4}), "/nodes/0/out", "missing"),
        (graph(linear(out=0)), "/nodes/0/out", "value"),
        (graph(linear(out=True)), "/nodes/0/out", "value"),
        (graph(linear(out=2.0)), "/nodes/0/out", "value"),
        (graph(linear(out=10**30)), "/nodes/0/out", "value"),
        (graph(linear(bias=1)), "/nodes/0/bias", "value"),
        (graph(linear(bias=True)), "/nodes/0/bias", "spelled-out-default"),
        (graph(linear(code="import os")), "/nodes/0/code", "unknown-field"),
        (graph(linear(), RELU | {"inputs": ["fc"]}), "/nodes/1/inputs", "spelled-out-default"),
        (graph(RELU | {"inputs": ["fc"]}, linear()), "/nodes/0/inputs", "read-before-defined"),
        (graph(RELU | {"inputs": ["relu"]}), "/nodes/0/inputs", "read-before-defined"),
        (graph(linear(), RELU | {"inputs": ["nowhere"]}), "/nodes/1/inputs", "read-before-defined"),
        (graph(linear(), RELU | {"inputs": "fc"}), "/nodes/1/inputs", "type"),
        (graph(linear(), {"name": "a", "op": "add"}), "/nodes/1/inputs", "missing"),
        (graph(linear(), RELU, {"name": "a", "op": "add", "inputs": ["fc"]}), "/nodes/2/inputs", "count"),
        (graph(linear(fan_in=5)), "/nodes/0", "shape"),
        (graph({"name": "d", "op": "dropout", "rate": 1}), "/nodes/0/rate", "value"),
        (graph({"name": "p", "op": "max_pool", "kernel": 2}), "/nodes/0", "shape"),
        (graph({"name": "p", "op": "max_pool", "kernel": 9}, input=[1, 8, 8]), "/nodes/0", "shape"),
        (
            graph({"name": "p", "op": "max_pool", "kernel": [2, 2]}, input=[1, 8, 8]),
            "/nodes/0/kernel",
            "value",
        ),
        (
            graph({"name": "p", "op": "max_pool", "kernel": 2, "stride": 2}, input=[1, 8, 8]),
            "/nodes/0/stride",
            "spelled-out-default",
        ),
        (graph({"name": "n", "op": "batch_norm", "channels": 3}), "/nodes/0", "shape"),
        (
            graph({"name": "s", "op": "self_attention", "features": 6, "heads": 4}, input=[5, 6]),
            "/nodes/0",
            "shape",
        ),
        (graph(linear(out=10**9)), "/nodes", "too-many-parameters"),
        (graph(*[RELU | {"name": f"r{i}"} for i in range(10_001)]), "/nodes", "value"),
        (
            graph(
                {"name": "s", "op": "self_attention", "features": 6, "heads": 2},
                linear(name="s.in_proj", fan_in=6),
                input=[5, 6],
            ),
            "/nodes/1/name",
            "parameter-twice",
        ),
    ],
)
def test_a_wrong_architecture_is_refused_where_it_is_wrong(manifest: Any, pointer: str, code: str) -> None:
    with pytest.raises(InvalidArchitecture) as caught:
        Architecture.from_manifest(manifest)
    assert (pointer, code) in [(problem.pointer, problem.code) for problem in caught.value.errors]


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InvalidArchitecture, match="more") as caught:
        Architecture.from_manifest(graph({"name": "x", "op": "exec"}, linear(out=0)))
    assert len(caught.value.errors) == 2


def test_the_zoo_names_what_it_has_and_what_does_not_fit() -> None:
    with pytest.raises(NotFound, match="no architecture 'lenet-6': the zoo has lenet-300-100"):
        zoo.build("lenet-6", (1, 28, 28), 10)
    with pytest.raises(InvalidArchitecture, match=r"conv-2 needs images .* has shape \[64\]"):
        zoo.build("conv-2", (64,), 10)
    with pytest.raises(InvalidArchitecture, match="at least 12x12"):
        zoo.build("lenet-5", (1, 8, 8), 10)
    for name in ("mlp-", "mlp-0", "mlp-1-", "mlp-1--2", "mlp-9999999"):
        with pytest.raises(NotFound):
            zoo.build(name, (64,), 10)
