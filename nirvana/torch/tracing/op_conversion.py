"""Conversion of torch's layers and functions to nodes of a graph: LAYERS and FUNCTIONS.

An expression is a dict {"op", ...}, or None for what passes its input on unchanged.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nirvana.networks.ops import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LAYER_NORM_EPSILON, Shape

Expression = dict[str, object] | None
Size = int | Sequence[int]
Function = Callable[..., object] | str  # a function, or the name of a tensor's method


class CannotExpress(Exception):
    """Reason for which no node can express a call: what was found and what was expected."""


class Operand(NamedTuple):
    """A tensor of the graph: its node ("" for the network's input) and the shape of one example."""

    node: str
    shape: Shape


def _expect(**actual_and_expected: tuple[object, object]) -> None:
    for name, (actual, expected) in actual_and_expected.items():
        if actual != expected:
            raise CannotExpress(f"{name} is {actual}, expected {expected}")


def _size(value: Size) -> int | list[int]:
    """Return one integer where all dimensions have the same, as the format wants it."""
    entries = [value] if isinstance(value, int) else list(value)
    return entries[0] if len(set(entries)) == 1 else entries


# layers: (module, operand) -> expression


def _linear(layer: nn.Linear, x: Operand) -> Expression:
    has_bias = layer.bias is not None
    return {"op": "linear", "in": layer.in_features, "out": layer.out_features, "bias": has_bias}


def _conv(op: str) -> Callable[[nn.Conv1d | nn.Conv2d, Operand], Expression]:
    def convert(layer: nn.Conv1d | nn.Conv2d, x: Operand) -> Expression:
        _expect(padding_mode=(layer.padding_mode, "zeros"), dilation=(_size(layer.dilation), 1))
        return {
            "op": op,
            "in": layer.in_channels,
            "out": layer.out_channels,
            "kernel": _size(layer.kernel_size),
            "stride": _size(layer.stride),
            "padding": _conv_padding(layer),
            "groups": layer.groups,
            "bias": layer.bias is not None,
        }

    return convert


def _conv_padding(layer: nn.Conv1d | nn.Conv2d) -> int | list[int]:
    if not isinstance(layer.padding, str):
        return _size(layer.padding)
    if layer.padding == "valid":
        return 0
    if any(kernel % 2 == 0 for kernel in layer.kernel_size):
        raise CannotExpress(f"padding is 'same' with kernel {layer.kernel_size}, expected odd sizes")
    return _size([kernel // 2 for kernel in layer.kernel_size])


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, x: Operand) -> Expression:
    _expect(
        affine=(layer.affine, True),
        eps=(layer.eps, BATCH_NORM_EPSILON),
        momentum=(layer.momentum, BATCH_NORM_MOMENTUM),
        track_running_stats=(layer.track_running_stats, True),
    )
    return {"op": "batch_norm", "channels": layer.num_features}


def _layer_norm(layer: nn.LayerNorm, x: Operand) -> Expression:
    has_bias = getattr(layer, "bias", None) is not None
    _expect(
        eps=(layer.eps, LAYER_NORM_EPSILON),
        elementwise_affine=(layer.elementwise_affine, True),
        bias=(has_bias, True),
    )
    return {"op": "layer_norm", "shape": list(layer.normalized_shape)}


def _embedding(layer: nn.Embedding, x: Operand) -> Expression:
    _expect(padding_idx=(layer.padding_idx, None), max_norm=(layer.max_norm, None))
    _expect(scale_grad_by_freq=(layer.scale_grad_by_freq, False), sparse=(layer.sparse, False))
    return {"op": "embedding", "tokens": layer.num_embeddings, "features": layer.embedding_dim}


@dataclass(frozen=True)
class AttentionCall:
    """Arguments of nn.MultiheadAttention's forward, in its order."""

    query: Operand
    key: Operand
    value: Operand
    key_padding_mask: object = None
    need_weights: bool = True
    attn_mask: Tensor | None = None
    average_attn_weights: bool = True
    is_causal: bool = False


def _attention(layer: nn.MultiheadAttention, call: AttentionCall) -> Expression:
    if not call.query == call.key == call.value:
        raise CannotExpress("query, key and value are not the same tensor, expected self-attention")
    if layer.in_proj_weight is None or layer.in_proj_bias is None or layer.bias_k is not None:
        raise CannotExpress("expected one projection with biases, and none for keys or values alone")
    _expect(batch_first=(layer.batch_first, True), dropout=(layer.dropout, 0.0))
    _expect(add_zero_attn=(layer.add_zero_attn, False), key_padding_mask=(call.key_padding_mask, None))
    if call.attn_mask is not None and not _is_causal(call.attn_mask, call.query.shape[0]):
        raise CannotExpress("attn_mask is not the causal one, which alone a graph has")
    causal = call.attn_mask is not None
    return {"op": "self_attention", "features": layer.embed_dim, "heads": layer.num_heads, "causal": causal}


def _is_causal(mask: Tensor, tokens: int) -> bool:
    later = torch.ones(tokens, tokens).triu(1).bool()
    hides = mask if mask.dtype == torch.bool else mask == -math.inf
    return torch.equal(hides.cpu(), later) and (mask.dtype == torch.bool or not mask[~hides].any())


# functions: (operand, the function's own arguments) -> expression


def _of(op: str) -> Callable[..., Expression]:
    return lambda x, inplace=False: {"op": op}


def _gelu(x: Operand, approximate: str = "none") -> Expression:
    _expect(approximate=(approximate, "none"))
    return {"op": "gelu"}


def _dropout(x: Operand, p: float = 0.5, training: bool = True, inplace: bool = False) -> Expression:
    return {"op": "dropout", "rate": p} if training and p else None


@dataclass(frozen=True)
class MaxPool:
    """Arguments of torch's max pooling after its input, in its order."""

    kernel_size: Size
    stride: Size | None = None
    padding: Size = 0
    dilation: Size = 1
    ceil_mode: bool = False
    return_indices: bool = False

    def convert(self) -> Expression:
        _expect(dilation=(_size(self.dilation), 1), return_indices=(self.return_indices, False))
        return _pool("max_pool", self)


@dataclass(frozen=True)
class AvgPool:
    """Arguments of torch's average pooling after its input, in its order."""

    kernel_size: Size
    stride: Size | None = None
    padding: Size = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    def convert(self) -> Expression:
        _expect(count_include_pad=(self.count_include_pad, True))
        _expect(divisor_override=(self.divisor_override, None))
        return _pool("avg_pool", self)


def _of_arguments(kind: type[MaxPool | AvgPool]) -> Callable[..., Expression]:
    return lambda x, *args, **kwargs: kind(*args, **kwargs).convert()


def _pool(op: str, pool: MaxPool | AvgPool) -> Expression:
    _expect(ceil_mode=(pool.ceil_mode, False))
    kernel, stride = _size(pool.kernel_size), _size(pool.stride or pool.kernel_size)
    return {"op": op, "kernel": kernel, "stride": stride, "padding": _size(pool.padding)}


def _adaptive_avg_pool(x: Operand, output_size: int | Sequence[int | None]) -> Expression:
    """Convert to an average over equal windows, where the sizes divide; to nothing where each has size 1."""
    sides = x.shape[1:]
    asked = [output_size] * len(sides) if isinstance(output_size, int) else output_size
    outputs = [side if out is None else out for side, out in zip(sides, asked, strict=True)]
    if any(side % out for side, out in zip(sides, outputs, strict=True)):
        raise CannotExpress(f"output_size is {outputs}, expected divisors of the map's {list(sides)}")
    kernel = [side // out for side, out in zip(sides, outputs, strict=True)]
    return {"op": "avg_pool", "kernel": _size(kernel)} if set(kernel) != {1} else None


def _mean(x: Operand, dim: Size | None = None, keepdim: bool = False) -> Expression:
    dimensions = len(x.shape) + 1
    named = [dim] if isinstance(dim, int) else list(dim or range(dimensions))
    if sorted(d % dimensions for d in named) != list(range(2, dimensions)) or dimensions < 3:
        raise CannotExpress(f"mean over dimension {dim}, expected all dimensions after the channels")
    return {"op": "avg_pool", "kernel": _size(x.shape[1:])} if keepdim else {"op": "global_avg_pool"}


def _add(x: object, other: object, *, alpha: float = 1) -> Expression:
    _expect(alpha=(alpha, 1))
    first, second = _shape_of_term(x), _shape_of_term(other)
    if first != second:
        raise CannotExpress(f"adds shapes {list(first)} and {list(second)}, expected equal ones")
    return {"op": "add"}


def _shape_of_term(term: object) -> Shape:
    if not isinstance(term, Operand):
        raise CannotExpress(f"adds {term!r}, expected two tensors that come from layers")
    return term.shape


def reshape(before: Shape, after: Shape) -> Expression:
    """Convert a row-major change of shape: to nothing or a flattening."""
    if after == before:
        return None
    if after != (math.prod(before),):
        raise CannotExpress(f"reshapes {list(before)} to {list(after)}, expected {[math.prod(before)]}")
    return {"op": "flatten"}


def layer_kind(module: nn.Module) -> type[nn.Module] | None:
    """Return a module's key in LAYERS: its type, or one whose subclass it is and computes the same."""
    kinds = (kind for kind in LAYERS if isinstance(module, kind) and type(module).forward is kind.forward)
    return next(kinds, None)


LAYERS: dict[type[nn.Module], Callable[..., Expression]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv("conv1d"),
    nn.Conv2d: _conv("conv2d"),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: lambda m, *args, **kwargs: _attention(m, AttentionCall(*args, **kwargs)),
    nn.ReLU: lambda m, x: {"op": "relu"},
    nn.Tanh: lambda m, x: {"op": "tanh"},
    nn.GELU: lambda m, x: _gelu(x, m.approximate),
    nn.Dropout: lambda m, x: _dropout(x, m.p),
    nn.MaxPool1d: lambda m, x: MaxPool(
        m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ).convert(),
    nn.AvgPool1d: lambda m, x: AvgPool(
        m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad
    ).convert(),
    nn.AdaptiveAvgPool1d: lambda m, x: _adaptive_avg_pool(x, m.output_size),
    nn.Identity: lambda m, x: None,
}
LAYERS[nn.MaxPool2d] = LAYERS[nn.MaxPool1d]
LAYERS[nn.AdaptiveAvgPool2d] = LAYERS[nn.AdaptiveAvgPool1d]
LAYERS[nn.AvgPool2d] = lambda m, x: AvgPool(
    m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
).convert()

FUNCTIONS: dict[Function, Callable[..., Expression]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), _of("relu")),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh", "tanh_"), _of("tanh")),
    F.gelu: _gelu,
    F.dropout: _dropout,
    **dict.fromkeys((F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d), _of_arguments(MaxPool)),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d), _of_arguments(AvgPool)),
    **dict.fromkeys((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d), _adaptive_avg_pool),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
}
RESHAPES: tuple[Function, ...] = (torch.flatten, torch.reshape, torch.squeeze, "flatten", "reshape", "view")
RESHAPES += ("squeeze", "contiguous", "long")  # an embedding does `long` by itself
