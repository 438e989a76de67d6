"""The operations that an architecture's nodes may be: their fields, shapes, parameters and uses.

Shapes are of one example, without the batch: (features,), (channels, length), (channels, height, width)
or (tokens, features). One table, `OPS`, serves shape inference, parameter names, FLOPs and `nirvana.lab`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]
Node = Mapping[str, Any]

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1  # how far running statistics move towards a batch's
LAYER_NORM_EPSILON = 1e-5

REQUIRED: Any = "required"
SAME_AS_KERNEL: Any = "same as kernel"


class DoesNotFit(Exception):
    """A node and its input do not fit; the message says what was found and what was expected."""


@dataclass(frozen=True)
class Field:
    """One field of an op.

    Attributes:
        kind: `int`, `size` (an int, or a list of one a dimension), `shape` (a list), `bool` or `rate`.
        default: the value when left out, or REQUIRED.
        least: the smallest integer allowed.
    """

    kind: str
    default: Any = REQUIRED
    least: int = 1


def _nothing(node: Node) -> dict[str, Shape]:
    return {}


def _no_uses(node: Node, source: Shape, output: Shape) -> dict[str, int]:
    return {}


def _same_shape(node: Node, sources: list[Shape]) -> Shape:
    return sources[0]


@dataclass(frozen=True)
class Op:
    """What an op is.

    Attributes:
        fields: name -> Field.
        output: (node, input shapes) -> output shape; raises DoesNotFit.
        parameters: node -> {suffix: shape}, in PyTorch's order.
        buffers: node -> {suffix: shape} of values that training moves without a gradient.
        uses: (node, input shape, output shape) -> {suffix: multiplications of one example with each
            element}, for the suffixes that FLOPs count.
        prunable: suffixes that a mask covers by default (TICKET_FORMAT section 2).
        most_inputs: how many nodes it may read; `add` needs two or more.
    """

    fields: Mapping[str, Field] = field(default_factory=dict)
    output: Callable[[Node, list[Shape]], Shape] = _same_shape
    parameters: Callable[[Node], dict[str, Shape]] = _nothing
    buffers: Callable[[Node], dict[str, Shape]] = _nothing
    uses: Callable[[Node, Shape, Shape], dict[str, int]] = _no_uses
    prunable: tuple[str, ...] = ()
    least_inputs: int = 1
    most_inputs: int = 1


def value(node: Node, name: str) -> Any:
    """A node's field, or its default when it was left out."""
    if name in node:
        return node[name]
    default = OPS[node["op"]].fields[name].default
    return value(node, "kernel") if default is SAME_AS_KERNEL else default


def sizes(node: Node, name: str, dimensions: int) -> Shape:
    """A `size` field as one int a dimension.

    Raises:
        DoesNotFit: the list has another length.
    """
    found = value(node, name)
    if isinstance(found, int):
        return (found,) * dimensions
    if len(found) != dimensions:
        raise DoesNotFit(f"{name} {list(found)} has {len(found)} entries, expected {dimensions}")
    return tuple(found)


def _weight_and_bias(weight: Shape, *, bias: bool) -> dict[str, Shape]:
    return {"weight": weight, "bias": weight[:1]} if bias else {"weight": weight}


# linear


def _linear_output(node: Node, sources: list[Shape]) -> Shape:
    if sources[0][-1] != node["in"]:
        raise DoesNotFit(f"in is {node['in']}, but the input has shape {list(sources[0])}")
    return (*sources[0][:-1], node["out"])


def _linear_parameters(node: Node) -> dict[str, Shape]:
    return _weight_and_bias((node["out"], node["in"]), bias=value(node, "bias"))


def _linear_uses(node: Node, source: Shape, output: Shape) -> dict[str, int]:
    return {"weight": math.prod(source[:-1])}


# convolutions and pooling


def _slide(node: Node, source: Shape, dimensions: int) -> Shape:
    """The spatial shape that a kernel sees when it slides over `source` (channels, *spatial)."""
    kernel, stride = sizes(node, "kernel", dimensions), sizes(node, "stride", dimensions)
    padding = sizes(node, "padding", dimensions)
    spatial = tuple(
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(source[1:], kernel, stride, padding, strict=True)
    )
    if min(spatial) < 1:
        raise DoesNotFit(f"kernel {list(kernel)} does not fit into the input of shape {list(source)}")
    return spatial


def _conv(dimensions: int) -> Op:
    def output(node: Node, sources: list[Shape]) -> Shape:
        source = sources[0]
        if len(source) != dimensions + 1:
            expected = f"{dimensions + 1} dimensions (channels first)"
            raise DoesNotFit(f"the input has shape {list(source)}, expected {expected}")
        if source[0] != node["in"]:
            raise DoesNotFit(f"in is {node['in']}, but the input has {source[0]} channels")
        if node["in"] % value(node, "groups") or node["out"] % value(node, "groups"):
            groups = value(node, "groups")
            raise DoesNotFit(f"groups is {groups}, expected a divisor of {node['in']} and {node['out']}")
        return (node["out"], *_slide(node, source, dimensions))

    def parameters(node: Node) -> dict[str, Shape]:
        kernel = sizes(node, "kernel", dimensions)
        weight = (node["out"], node["in"] // value(node, "groups"), *kernel)
        return _weight_and_bias(weight, bias=value(node, "bias"))

    def uses(node: Node, source: Shape, output: Shape) -> dict[str, int]:
        return {"weight": math.prod(output[1:])}

    fields = {
        "in": Field("int"),
        "out": Field("int"),
        "kernel": Field("size"),
        "stride": Field("size", 1),
        "padding": Field("size", 0, least=0),
        "groups": Field("int", 1),
        "bias": Field("bool", True),
    }
    return Op(fields, output, parameters, uses=uses, prunable=("weight",))


def _pool_output(node: Node, sources: list[Shape]) -> Shape:
    source = sources[0]
    if len(source) not in (2, 3):
        raise DoesNotFit(f"the input has shape {list(source)}, expected channels and 1 or 2 dimensions")
    dimensions = len(source) - 1
    kernel, padding = sizes(node, "kernel", dimensions), sizes(node, "padding", dimensions)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise DoesNotFit(f"padding {list(padding)} is more than half of the kernel {list(kernel)}")
    return (source[0], *_slide(node, source, dimensions))


_POOL = Op(
    {
        "kernel": Field("size"),
        "stride": Field("size", SAME_AS_KERNEL),
        "padding": Field("size", 0, least=0),
    },
    _pool_output,
)


def _global_pool_output(node: Node, sources: list[Shape]) -> Shape:
    if len(sources[0]) < 2:
        raise DoesNotFit(f"the input has shape {list(sources[0])}, expected channels and more")
    return sources[0][:1]


# normalisation


def _batch_norm_output(node: Node, sources: list[Shape]) -> Shape:
    if sources[0][0] != node["channels"]:
        raise DoesNotFit(f"channels is {node['channels']}, but the input has shape {list(sources[0])}")
    return sources[0]


def _layer_norm_output(node: Node, sources: list[Shape]) -> Shape:
    shape = tuple(node["shape"])
    if sources[0][-len(shape) :] != shape:
        raise DoesNotFit(f"shape is {list(shape)}, but the input has shape {list(sources[0])}")
    return sources[0]


# joins, tokens and attention


def _add_output(node: Node, sources: list[Shape]) -> Shape:
    if len(set(sources)) != 1:
        raise DoesNotFit(f"the inputs have shapes {[list(s) for s in sources]}, expected equal ones")
    return sources[0]


def _embedding_output(node: Node, sources: list[Shape]) -> Shape:
    if len(sources[0]) != 1:
        raise DoesNotFit(f"the input has shape {list(sources[0])}, expected one dimension of tokens")
    return (*sources[0], node["features"])


def _attention_output(node: Node, sources: list[Shape]) -> Shape:
    features, heads = node["features"], node["heads"]
    if len(sources[0]) != 2 or sources[0][1] != features:
        raise DoesNotFit(f"features is {features}, but the input has shape {list(sources[0])}")
    if features % heads:
        raise DoesNotFit(f"heads is {heads}, expected a divisor of features {features}")
    return sources[0]


def _attention_parameters(node: Node) -> dict[str, Shape]:
    features = node["features"]
    return {
        "in_proj.weight": (3 * features, features),
        "in_proj.bias": (3 * features,),
        "out_proj.weight": (features, features),
        "out_proj.bias": (features,),
    }


def _attention_uses(node: Node, source: Shape, output: Shape) -> dict[str, int]:
    return {"in_proj.weight": source[0], "out_proj.weight": source[0]}


OPS: dict[str, Op] = {
    "linear": Op(
        {"in": Field("int"), "out": Field("int"), "bias": Field("bool", True)},
        _linear_output,
        _linear_parameters,
        uses=_linear_uses,
        prunable=("weight",),
    ),
    "conv2d": _conv(2),
    "conv1d": _conv(1),
    "batch_norm": Op(
        {"channels": Field("int")},
        _batch_norm_output,
        lambda node: {"weight": (node["channels"],), "bias": (node["channels"],)},
        lambda node: {"running_mean": (node["channels"],), "running_var": (node["channels"],)},
    ),
    "layer_norm": Op(
        {"shape": Field("shape")},
        _layer_norm_output,
        lambda node: {"weight": tuple(node["shape"]), "bias": tuple(node["shape"])},
    ),
    "relu": Op(),
    "gelu": Op(),
    "tanh": Op(),
    "flatten": Op(output=lambda node, sources: (math.prod(sources[0]),)),
    "global_avg_pool": Op(output=_global_pool_output),
    "max_pool": _POOL,
    "avg_pool": _POOL,
    "add": Op(output=_add_output, least_inputs=2, most_inputs=10_000),
    "dropout": Op({"rate": Field("rate")}),
    "embedding": Op(
        {"tokens": Field("int"), "features": Field("int")},
        _embedding_output,
        lambda node: {"weight": (node["tokens"], node["features"])},
    ),
    "self_attention": Op(
        {"features": Field("int"), "heads": Field("int"), "causal": Field("bool", False)},
        _attention_output,
        _attention_parameters,
        uses=_attention_uses,
    ),
}
