"""Architecture graph -> nn.Module. Parameter names are the architecture's: `fc1.weight`,
`attn.in_proj.weight`.

Shape suffixes: B batch, C channels, L length, H W height and width, T tokens, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nirvana.errors import Invalid, Problem
from nirvana.networks.architecture import Architecture, inputs_of
from nirvana.networks.ops import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    LAYER_NORM_EPSILON,
    OPS,
    Node,
    find_refusal,
    sizes,
    value,
)


class Part(nn.Module):
    """One node's parameters; the arithmetic is in `FORWARD`, so a node may have any name and any children."""

    def __init__(self, op: str = "") -> None:
        super().__init__()
        self.op = op

    def __getitem__(self, name: str) -> Tensor:
        """A parameter or a running statistic."""
        tensor = self._parameters[name] if name in self._parameters else self._buffers[name]
        assert tensor is not None
        return tensor

    def extra_repr(self) -> str:
        shapes = [
            f"{name}={list(tensor.shape)}" for name, tensor in self._parameters.items() if tensor is not None
        ]
        return " ".join([self.op, *shapes]).strip()


NO_TENSORS = Part()


class Network(nn.Module):
    """A network that follows an architecture's nodes.

    Attributes:
        architecture: the graph.

    Raises:
        Invalid: an op without a row in FORWARD; names its node.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        if refusal := find_refusal(architecture.nodes, FORWARD, "is not among the ops that torch computes"):
            raise Invalid(refusal, errors=[Problem("/architecture/nodes", "not-computed", refusal)])
        self.architecture = architecture
        self._plan: list[tuple[str, Node, list[str]]] = []
        self._parts: dict[str, Part] = {}  # by node name; the same objects as in the tree of modules
        before: list[str] = []
        for node in architecture.nodes:
            self._plan.append((node["name"], node, inputs_of(node, before)))
            self._place(node)
            before = [node["name"]]

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits, shape (B, classes), of a batch x, shape (B, *architecture.input)."""
        outputs: dict[str, Tensor] = {}
        y = x
        for name, node, inputs in self._plan:
            sources = [outputs[source] for source in inputs] or [x]
            y = FORWARD[node["op"]](self._parts.get(name, NO_TENSORS), node, sources, self.training)
            outputs[name] = y
        return y

    def _place(self, node: Node) -> None:
        op, name = OPS[node["op"]], node["name"]
        tensors = {**op.parameters(node), **op.buffers(node)}
        if not tensors:
            return
        part = _child(self, name)
        part.op = node["op"]
        self._parts[name] = part
        for suffix, shape in op.parameters(node).items():
            fill = torch.ones if suffix == "weight" and len(shape) == 1 else torch.zeros
            _holder(part, suffix)._parameters[suffix.rpartition(".")[2]] = nn.Parameter(fill(shape))
        for suffix, shape in op.buffers(node).items():
            part._buffers[suffix] = torch.ones(shape) if suffix == "running_var" else torch.zeros(shape)


def _child(module: nn.Module, path: str) -> Part:
    """Return the part at a dotted path below `module`, made where there is none.

    It is put into `_modules` directly: `add_module` refuses names such as `double` or `train`.
    """
    for name in path.split("."):
        if name not in module._modules:
            module._modules[name] = Part()
        module = module._modules[name]  # type: ignore[assignment]
    assert isinstance(module, Part)
    return module


def _holder(part: Part, suffix: str) -> Part:
    path = suffix.rpartition(".")[0]
    return _child(part, path) if path else part


def build_module(architecture: Architecture) -> Network:
    """Build a plain dense network; its values are zeros (ones for normalisation) until `load_values` fills
    it."""
    return Network(architecture)


def tensors_of(module: Network) -> dict[str, Tensor]:
    """Return parameters and running statistics by the architecture's names: views, not copies."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: named[name] for name in (*module.architecture.parameters, *module.architecture.buffers)}


def load_values(module: Network, values: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy values into parameters and, where given, running statistics; names left out stay as they are."""
    tensors = tensors_of(module)
    with torch.no_grad():
        for name, array in values.items():
            tensors[name].copy_(torch.from_numpy(np.array(array, np.float32)))


def read_values(module: Network) -> dict[str, NDArray[np.float32]]:
    """Copy all parameters and running statistics, float32."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors_of(module).items()}


# one function an op: (part, node, inputs, training) -> output

Forward = Callable[[Part, Node, list[Tensor], bool], Tensor]


def _conv(part: Part, node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    dimensions = inputs[0].dim() - 2
    stride, padding = sizes(node, "stride", dimensions), sizes(node, "padding", dimensions)
    slide = F.conv2d if dimensions == 2 else F.conv1d
    output: Tensor = slide(
        inputs[0], part["weight"], part._parameters.get("bias"), stride, padding, 1, value(node, "groups")
    )
    return output


def _pool(on_1d: Callable[..., Tensor], on_2d: Callable[..., Tensor]) -> Forward:
    """Pooling over 1 or 2 dimensions; an average counts its padding as zeros, as PyTorch does by default."""

    def forward(part: Part, node: Node, inputs: list[Tensor], training: bool) -> Tensor:
        dimensions = inputs[0].dim() - 2
        kernel, stride, padding = (sizes(node, name, dimensions) for name in ("kernel", "stride", "padding"))
        return (on_2d if dimensions == 2 else on_1d)(inputs[0], kernel, stride, padding)

    return forward


def _batch_norm(part: Part, node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    mean, variance, weight, bias = (part[n] for n in ("running_mean", "running_var", "weight", "bias"))
    momentum, epsilon = BATCH_NORM_MOMENTUM, BATCH_NORM_EPSILON
    return F.batch_norm(inputs[0], mean, variance, weight, bias, training, momentum, epsilon)


def _split_heads(x_BTF: Tensor, heads: int) -> Tensor:
    """(B, T, F) as (B, heads, T, F / heads)."""
    batch, tokens, features = x_BTF.shape
    return x_BTF.view(batch, tokens, heads, features // heads).transpose(1, 2)


def _self_attention(part: Part, node: Node, inputs: list[Tensor], training: bool) -> Tensor:
    x_BTF, heads = inputs[0], node["heads"]
    in_proj, out_proj = _child(part, "in_proj"), _child(part, "out_proj")
    projected = F.linear(x_BTF, in_proj["weight"], in_proj["bias"]).chunk(3, dim=-1)
    query, key, values = (_split_heads(t, heads) for t in projected)
    mixed = F.scaled_dot_product_attention(query, key, values, is_causal=value(node, "causal"))
    return F.linear(mixed.transpose(1, 2).flatten(2), out_proj["weight"], out_proj["bias"])


FORWARD: dict[str, Forward] = {
    "linear": lambda part, node, inputs, training: F.linear(
        inputs[0], part["weight"], part._parameters.get("bias")
    ),
    "conv2d": _conv,
    "conv1d": _conv,
    "batch_norm": _batch_norm,
    "layer_norm": lambda part, node, inputs, training: F.layer_norm(
        inputs[0], node["shape"], part["weight"], part["bias"], LAYER_NORM_EPSILON
    ),
    "relu": lambda part, node, inputs, training: F.relu(inputs[0]),
    "gelu": lambda part, node, inputs, training: F.gelu(inputs[0]),
    "tanh": lambda part, node, inputs, training: torch.tanh(inputs[0]),
    "max_pool": _pool(F.max_pool1d, F.max_pool2d),
    "avg_pool": _pool(F.avg_pool1d, F.avg_pool2d),
    "global_avg_pool": lambda part, node, inputs, training: inputs[0].flatten(2).mean(-1),
    "flatten": lambda part, node, inputs, training: inputs[0].flatten(1),
    "add": lambda part, node, inputs, training: (
        torch.stack(inputs).sum(0) if len(inputs) > 2 else inputs[0] + inputs[1]
    ),
    "dropout": lambda part, node, inputs, training: F.dropout(inputs[0], value(node, "rate"), training),
    "embedding": lambda part, node, inputs, training: F.embedding(inputs[0].long(), part["weight"]),
    "self_attention": _self_attention,
}
