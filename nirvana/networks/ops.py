"""The operations that an architecture's nodes may be: their fields, shapes, parameters, uses and traits.

Shapes are of one example, without the batch: (features,), (channels, length), (channels, height, width)
or (tokens, features). One table, `OPS`, serves shape inference, parameter names, FLOPs and every method that
asks what an op can do. docs/extending.md says how to add one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Shape = tuple[int, ...]
Node = Mapping[str, Any]

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.1  # how far running statistics move towards a batch's
LAYER_NORM_EPSILON = 1e-5
CONSTANT_LAWS = {"zeros": 0.0, "ones": 1.0}  # of initial values: the laws that draw nothing


class Default(Enum):
    """Stands for a field's default where that is no value."""

    REQUIRED = "required"
    SAME_AS_KERNEL = "same as kernel"


REQUIRED, SAME_AS_KERNEL = Default.REQUIRED, Default.SAME_AS_KERNEL


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
    default: float | bool | Default = REQUIRED
    least: int = 1


def _nothing(node: Node) -> dict[str, Shape]:
    return {}


def _no_uses(node: Node, source: Shape, output: Shape) -> dict[str, int]:
    return {}


def _same_shape(node: Node, sources: list[Shape]) -> Shape:
    return sources[0]


@dataclass(frozen=True)
class Op:
    """An op. Its traits say what may be done with it; each is false or None unless its row says otherwise.

    Attributes:
        fields: name -> Field.
        output: (node, input shapes) -> output shape; raises DoesNotFit.
        parameters: node -> {suffix: shape}, in PyTorch's order.
        buffers: node -> {suffix: shape} of values that training moves without a gradient.
        uses: (node, input shape, output shape) -> {suffix: multiplications of one example with each
            element}, for the suffixes that FLOPs count.
        prunable: suffixes that a mask covers by default (docs/format.md, section 2).
        torch_inits: (suffix, law) in the order in which PyTorch's constructor sets parameters, a later one
            over an earlier one; None: draws that cannot be replayed (`format/torch_draws.py`).
        most_inputs: how many nodes it may read; `add` needs two or more.
        elementwise: trait: each number that it puts out is a function, without parameters, of the number at
            the same place of its input.
        flattens: trait: it puts out its input's numbers in row-major order, as one row.
        unit_axis: trait: the axis of one example's output along which its units lie, the rows of its weight:
            -1 for a linear layer's features, 0 for a convolution's channels.
        per_channel: trait: it treats the channels of an input (channels, ...) one by one.
        sums: trait: each number that it puts out is the sum of those at the same place of its inputs.
        normalises: trait: its weight and bias, which start as 1 and 0, follow a normalisation.
        homogeneous: trait: where its biases and running means are 0, a positive factor on any one of its
            inputs is a factor on its output, or leaves it as it is.
        on_paths: trait: positive paths cross it: in evaluation mode it adds up its non-negative inputs with
            non-negative factors, or takes the largest (SynFlow, effective density).
        identity_on_paths: trait: not on paths itself; SynFlow takes it as the identity.
        stacks: trait: replicates of it can be trained as one (`torch.vmap`), each as it would be alone.
    """

    fields: Mapping[str, Field] = field(default_factory=dict)
    output: Callable[[Node, list[Shape]], Shape] = _same_shape
    parameters: Callable[[Node], dict[str, Shape]] = _nothing
    buffers: Callable[[Node], dict[str, Shape]] = _nothing
    uses: Callable[[Node, Shape, Shape], dict[str, int]] = _no_uses
    prunable: tuple[str, ...] = ()
    torch_inits: tuple[tuple[str, str], ...] | None = None
    least_inputs: int = 1
    most_inputs: int = 1
    elementwise: bool = False
    flattens: bool = False
    unit_axis: int | None = None
    per_channel: bool = False
    sums: bool = False
    normalises: bool = False
    homogeneous: bool = False
    on_paths: bool = False
    identity_on_paths: bool = False
    stacks: bool = False


def ops_with(trait: Callable[[Op], bool]) -> list[str]:
    """Return the names of the ops that have a trait, in the table's order."""
    return [name for name, op in OPS.items() if trait(op)]


def find_refusal(nodes: Iterable[Node], accepted: Container[str], reason: str) -> str | None:
    """Name the first node whose op is not accepted, and the ops that are; None where every node's is.

    Args:
        accepted: the rows of a table, or `ops_with` a trait.
        reason: follows the names of op and node: "has no translation to ONNX".
    """
    for node in nodes:
        if node["op"] not in accepted:
            expected = ", ".join(name for name in OPS if name in accepted)
            return f"{node['op']} ({node['name']}) {reason}: {expected}"
    return None


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
    size = value(node, name)
    if isinstance(size, int):
        return (size,) * dimensions
    if len(size) != dimensions:
        raise DoesNotFit(f"{name} {list(size)} has {len(size)} entries, expected {dimensions}")
    return tuple(size)


_DRAWN = (("weight", "torch_default"), ("bias", "torch_default"))
_CONSTANT = (("weight", "ones"), ("bias", "zeros"))


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
    """The spatial shape that a kernel makes when it slides over `source` (channels, *spatial)."""
    kernel, stride = sizes(node, "kernel", dimensions), sizes(node, "stride", dimensions)
    padding = sizes(node, "padding", dimensions)
    spatial = tuple(
        (n + 2 * p - k) // s + 1 for n, k, s, p in zip(source[1:], kernel, stride, padding, strict=True)
    )
    if min(spatial) < 1:
        raise DoesNotFit(f"kernel {list(kernel)} does not fit into the input of shape {list(source)}")
    return spatial


_CONV_FIELDS = {
    "in": Field("int"),
    "out": Field("int"),
    "kernel": Field("size"),
    "stride": Field("size", 1),
    "padding": Field("size", 0, least=0),
    "groups": Field("int", 1),
    "bias": Field("bool", True),
}


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

    return Op(
        _CONV_FIELDS,
        output,
        parameters,
        uses=uses,
        prunable=("weight",),
        torch_inits=_DRAWN,
        unit_axis=0,
        homogeneous=True,
        on_paths=True,
        stacks=True,
    )


def _pool_output(node: Node, sources: list[Shape]) -> Shape:
    source = sources[0]
    if len(source) not in (2, 3):
        raise DoesNotFit(f"the input has shape {list(source)}, expected channels and 1 or 2 dimensions")
    dimensions = len(source) - 1
    kernel, padding = sizes(node, "kernel", dimensions), sizes(node, "padding", dimensions)
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise DoesNotFit(f"padding {list(padding)} is more than half of the kernel {list(kernel)}")
    return (source[0], *_slide(node, source, dimensions))


def _pool(fields: Mapping[str, Field], output: Callable[[Node, list[Shape]], Shape]) -> Op:
    return Op(fields, output, per_channel=True, homogeneous=True, on_paths=True, stacks=True)


_SLIDING_POOL = _pool(
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
        torch_inits=_DRAWN,
        unit_axis=-1,
        homogeneous=True,
        on_paths=True,
        stacks=True,
    ),
    "conv2d": _conv(2),
    "conv1d": _conv(1),
    "batch_norm": Op(
        {"channels": Field("int")},
        _batch_norm_output,
        lambda node: {"weight": (node["channels"],), "bias": (node["channels"],)},
        lambda node: {"running_mean": (node["channels"],), "running_var": (node["channels"],)},
        torch_inits=_CONSTANT,
        per_channel=True,
        normalises=True,
        homogeneous=True,
        on_paths=True,
        stacks=True,
    ),
    "layer_norm": Op(
        {"shape": Field("shape")},
        _layer_norm_output,
        lambda node: {"weight": tuple(node["shape"]), "bias": tuple(node["shape"])},
        torch_inits=_CONSTANT,
        normalises=True,
        homogeneous=True,
        stacks=True,
    ),
    "relu": Op(elementwise=True, homogeneous=True, on_paths=True, stacks=True),
    "gelu": Op(elementwise=True, identity_on_paths=True, stacks=True),
    "tanh": Op(elementwise=True, identity_on_paths=True, stacks=True),
    "flatten": Op(
        output=lambda node, sources: (math.prod(sources[0]),),
        flattens=True,
        homogeneous=True,
        on_paths=True,
        stacks=True,
    ),
    "global_avg_pool": _pool({}, _global_pool_output),
    "max_pool": _SLIDING_POOL,
    "avg_pool": _SLIDING_POOL,
    "add": Op(output=_add_output, least_inputs=2, most_inputs=10_000, sums=True, on_paths=True, stacks=True),
    "dropout": Op({"rate": Field("rate")}, elementwise=True, homogeneous=True, on_paths=True),
    "embedding": Op(
        {"tokens": Field("int"), "features": Field("int")},
        _embedding_output,
        lambda node: {"weight": (node["tokens"], node["features"])},
        homogeneous=True,  # what it reads are tokens, which no layer scales
    ),
    "self_attention": Op(
        {"features": Field("int"), "heads": Field("int"), "causal": Field("bool", False)},
        _attention_output,
        _attention_parameters,
        uses=_attention_uses,
        torch_inits=(
            ("out_proj.weight", "torch_default"),
            ("out_proj.bias", "torch_default"),
            ("in_proj.weight", "glorot_uniform"),
            ("in_proj.bias", "zeros"),
            ("out_proj.bias", "zeros"),
        ),
    ),
}
