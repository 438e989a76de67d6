"""A ticket as an ONNX model: dense weights with zeros, the same outputs in any runtime.

Input `input`, float32 (batch, *architecture.input), standardised; output `logits`, (batch, classes). Weights
keep their names. The model's metadata hold the ticket's digest, the task, its normalisation and classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nirvana import tasks
from nirvana.environment import VERSION
from nirvana.errors import Invalid, Problem, Unavailable
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture, inputs_of
from nirvana.networks.ops import (
    BATCH_NORM_EPSILON,
    LAYER_NORM_EPSILON,
    Node,
    Shape,
    find_refusal,
    sizes,
    value,
)
from nirvana.weights import Weights, with_statistics

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

Attribute = int | float | list[int]

OPSET, IR_VERSION = 17, 8  # onnxruntime 1.12 (2022) and later read them


def to_onnx(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """Return the model's bytes: the same for the same ticket, weights and version of onnx.

    Raises:
        Unavailable: onnx is not installed; names the extra that brings it.
        Invalid: an op that ONNX cannot express; names its node.
    """
    try:
        from onnx import checker, helper
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"{error.name} is not installed here: pip install 'nirvana-tickets[onnx]'"
        ) from None
    values = with_statistics(
        ticket.architecture, ticket.initial_values() if weights is None else weights.values
    )
    graph = _Graph(ticket.architecture, values).build()
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nirvana",
        producer_version=VERSION,
    )
    helper.set_model_props(model, _metadata(ticket, weights))
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _metadata(ticket: Ticket, weights: Weights | None) -> dict[str, str]:
    """Return the model's metadata: JSON but for the digest and the name of the task."""
    metadata = {"nirvana.digest": ticket.digest, "nirvana.task": ticket.task}
    if weights is not None:
        metadata["nirvana.training"] = json.dumps(dict(weights.training or {}), sort_keys=True)
    if weights is not None or ticket.task in tasks.names():
        task = tasks.get(ticket.task) if weights is None else weights.task
        mean, sd = task.normalisation
        standard = {"pixel_max": task.pixel_max, "mean": mean, "sd": sd}
        metadata["nirvana.normalisation"] = json.dumps(standard, sort_keys=True)
        metadata["nirvana.class_names"] = json.dumps(task.class_names)
    return metadata


class _Graph:
    """An ONNX graph in the making: nodes in order, and the tensors that they read.

    Attributes:
        shapes: output shape of each node, of one example.
    """

    def __init__(self, architecture: Architecture, values: Mapping[str, NDArray[np.float32]]) -> None:
        self.architecture, self.shapes = architecture, architecture.shapes
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, NDArray[np.generic]] = dict(values)

    def build(self) -> GraphProto:
        """Return the graph.

        Raises:
            Invalid: an op without a row in TRANSLATIONS; names its node.
        """
        from onnx import TensorProto, helper, numpy_helper

        architecture, before = self.architecture, list[str]()
        if detail := find_refusal(architecture.nodes, TRANSLATIONS, "has no translation to ONNX, expected"):
            raise Invalid(detail, errors=[Problem("/architecture/nodes", "not-exported", detail)])
        for node in architecture.nodes:
            self._translate(node, inputs_of(node, before))
            before = [node["name"]]
        self.add("Identity", [_output(before[0])], "logits")
        batch = "batch"
        x = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, *architecture.input])
        y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, *architecture.output_shape])
        tensors = [numpy_helper.from_array(np.ascontiguousarray(t), n) for n, t in self.tensors.items()]
        return helper.make_graph(self.nodes, architecture.name, [x], [y], tensors)

    def add(self, op: str, inputs: list[str], output: str, **attributes: Attribute) -> str:
        """Append a node and return the name of its output."""
        from onnx import helper

        node = helper.make_node(op, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(name, attributes[name]) for name in sorted(attributes))
        self.nodes.append(node)
        return output

    def constant(self, name: str, array: ArrayLike) -> str:
        """Keep a tensor and return its name."""
        self.tensors[name] = np.asarray(array)
        return name

    def _translate(self, node: Node, sources: list[str]) -> None:
        shape = self.shapes[sources[0]] if sources else self.architecture.input
        inputs = [_output(source) for source in sources] or ["input"]
        TRANSLATIONS[node["op"]](self, node, inputs, shape, _output(node["name"]))


def _output(node: str) -> str:
    return f"{node}:out"  # a node's name has no colon, so that no parameter's name can be this


# one function an op: (graph, node, inputs, shape of the first input, output)

Translation = Callable[[_Graph, Node, list[str], Shape, str], None]


def _plain(op: str) -> Translation:
    def translate(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
        graph.add(op, inputs, output)

    return translate


def _linear(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    name, has_bias = node["name"], value(node, "bias")
    if len(shape) == 1:
        parts = [f"{name}.weight", *([f"{name}.bias"] if has_bias else [])]
        graph.add("Gemm", [inputs[0], *parts], output, transB=1)
    else:
        bias = f"{name}.bias" if has_bias else None
        _project(graph, inputs[0], f"{name}.weight", bias, output)


def _project(graph: _Graph, x: str, weight: str, bias: str | None, output: str) -> None:
    """Add the nodes of x @ weight.T + bias for tokens x, (batch, tokens, features)."""
    transposed = graph.add("Transpose", [weight], f"{output}:{weight}", perm=[1, 0])
    product = graph.add("MatMul", [x, transposed], output if bias is None else f"{output}:product")
    if bias is not None:
        graph.add("Add", [product, bias], output)


def _window(node: Node, dimensions: int) -> dict[str, Attribute]:
    kernel, stride, padding = (
        list(sizes(node, name, dimensions)) for name in ("kernel", "stride", "padding")
    )
    return {"kernel_shape": kernel, "strides": stride, "pads": padding * 2}


def _convolve(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    name = node["name"]
    parts = [f"{name}.weight", *([f"{name}.bias"] if value(node, "bias") else [])]
    window = _window(node, len(shape) - 1)
    graph.add("Conv", [*inputs, *parts], output, group=value(node, "groups"), **window)


def _pool(op: str, **attributes: Attribute) -> Translation:
    def translate(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
        graph.add(op, inputs, output, **_window(node, len(shape) - 1), **attributes)

    return translate


def _global_pool(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    graph.add("ReduceMean", inputs, output, axes=list(range(2, len(shape) + 1)), keepdims=0)


def _batch_norm(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    parts = [f"{node['name']}.{suffix}" for suffix in ("weight", "bias", "running_mean", "running_var")]
    graph.add("BatchNormalization", [*inputs, *parts], output, epsilon=BATCH_NORM_EPSILON)


def _layer_norm(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    parts = [f"{node['name']}.weight", f"{node['name']}.bias"]
    axis = -len(node["shape"])
    graph.add("LayerNormalization", [*inputs, *parts], output, axis=axis, epsilon=LAYER_NORM_EPSILON)


def _gelu(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    """x (1 + erf(x / sqrt 2)) / 2. Reference: Hendrycks & Gimpel 2016 (arXiv 1606.08415)."""
    numbers = {"root": 0.5**0.5, "one": 1.0, "half": 0.5}
    root, one, half = (graph.constant(f"{output}:{n}", np.float32(v)) for n, v in numbers.items())
    scaled = graph.add("Mul", [inputs[0], root], f"{output}:scaled")
    erf = graph.add("Erf", [scaled], f"{output}:erf")
    shifted = graph.add("Add", [erf, one], f"{output}:shifted")
    product = graph.add("Mul", [inputs[0], shifted], f"{output}:product")
    graph.add("Mul", [product, half], output)


def _flatten(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    graph.add("Flatten", inputs, output, axis=1)


def _sum(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    total = inputs[0]
    for number, source in enumerate(inputs[1:], 2):
        total = graph.add("Add", [total, source], output if number == len(inputs) else f"{output}:{number}")


def _embedding(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    whole = graph.add("Cast", inputs, f"{output}:tokens", to=7)  # TensorProto.INT64
    graph.add("Gather", [f"{node['name']}.weight", whole], output, axis=0)


def _attention(graph: _Graph, node: Node, inputs: list[str], shape: Shape, output: str) -> None:
    """Multi-head self-attention. Reference: Vaswani et al. 2017 (arXiv 1706.03762)."""
    name, (tokens, features) = node["name"], shape
    _project(graph, inputs[0], f"{name}.in_proj.weight", f"{name}.in_proj.bias", f"{output}:in")
    split = [f"{output}:{part}" for part in ("q", "k", "v")]
    places = [graph.constant(f"{part}:at", np.arange(3)[i : i + 1]) for i, part in enumerate(split)]
    each = np.array([0, tokens, 3, node["heads"], features // node["heads"]], np.int64)
    heads = graph.constant(f"{output}:heads", each)
    shaped = graph.add("Reshape", [f"{output}:in", heads], f"{output}:parts")
    one = graph.constant(f"{output}:axis", np.array([2], np.int64))
    turns = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    for part, place in zip(split, places, strict=True):
        taken = graph.add("Gather", [shaped, place], f"{part}:taken", axis=2)
        flat = graph.add("Squeeze", [taken, one], f"{part}:flat")
        graph.add("Transpose", [flat], part, perm=turns[part[-1]])
    scores = graph.add("MatMul", split[:2], f"{output}:scores")
    scale = graph.constant(f"{output}:scale", np.float32((features // node["heads"]) ** -0.5))
    scores = graph.add("Mul", [scores, scale], f"{output}:scaled")
    if value(node, "causal"):
        later = np.triu(np.full((tokens, tokens), -np.inf, np.float32), 1)
        scores = graph.add("Add", [scores, graph.constant(f"{output}:later", later)], f"{output}:masked")
    shares = graph.add("Softmax", [scores], f"{output}:shares", axis=-1)
    mixed = graph.add("MatMul", [shares, split[2]], f"{output}:mixed")
    turned = graph.add("Transpose", [mixed], f"{output}:turned", perm=[0, 2, 1, 3])
    joined = graph.constant(f"{output}:joined", np.array([0, tokens, features], np.int64))
    whole = graph.add("Reshape", [turned, joined], f"{output}:whole")
    _project(graph, whole, f"{name}.out_proj.weight", f"{name}.out_proj.bias", output)


TRANSLATIONS: dict[str, Translation] = {
    "linear": _linear,
    "conv1d": _convolve,
    "conv2d": _convolve,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "relu": _plain("Relu"),
    "gelu": _gelu,
    "tanh": _plain("Tanh"),
    "max_pool": _pool("MaxPool"),
    "avg_pool": _pool("AveragePool", count_include_pad=1),
    "global_avg_pool": _global_pool,
    "flatten": _flatten,
    "add": _sum,
    "dropout": _plain("Identity"),
    "embedding": _embedding,
    "self_attention": _attention,
}
