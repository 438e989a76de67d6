"""How a layer or function of torch is said as a node of a graph: its op and fields.

An expression is a dict {"op", ...}, or None for what passes its input on unchanged.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nirvana.ops import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, LAYER_NORM_EPSILON, Shape

Expression = dict[str, Any] | None


class CannotExpress(Exception):
    """Why no node says it: what was found and what was expected."""


class Operand(NamedTuple):
    """A tensor of the graph: its node ("" for the network's input) and the shape of one example."""

    node: str
    shape: Shape


def _expect(**found_and_expected: tuple[Any, Any]) -> None:
    for name, (found, expected) in found_and_expected.items():
        if found != expected:
            raise CannotExpress(f"{name} is {found}, expected {expected}")


def _size(value: Any) -> Any:
    """One integer where all dimensions have the same, as the format wants it."""
    entries = [value] if isinstance(value, int) else list(value)
    return entries[0] if len(set(entries)) == 1 else entries


# layers: (module, operand) -> expression


def _linear(layer: nn.Linear, x: Operand) -> Expression:
    has_bias = layer.bias is not None
    return {"op": "linear", "in": layer.in_features, "out": layer.out_features, "bias": has_bias}


def _conv(op: str) -> Callable[[Any, Operand], Expression]:
    def express(layer: Any, x: Operand) -> Expression:
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

    return express


def _conv_padding(layer: Any) -> Any:
    if layer.padding == "valid":
        return 0
    if layer.padding != "same":
        return _size(layer.padding)
    if any(kernel % 2 == 0 for kernel in layer.kernel_size):
        raise CannotExpress(f"padding is 'same' with kernel {layer.kernel_size}, expected odd sizes")
    return _size([kernel // 2 for kernel in layer.kernel_size])


def _batch_norm(layer: Any, x: Operand) -> Expression:
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


def _attention(
    layer: nn.MultiheadAttention,
    query: Operand,
    key: Operand,
    value: Operand,
    key_padding_mask: None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Expression:
    if not query == key == value:
        raise CannotExpress("query, key and value are not the same tensor, expected self-attention")
    if layer.in_proj_weight is None or layer.in_proj_bias is None or layer.bias_k is not None:
        raise CannotExpress("expected one projection with biases, and none for keys or values alone")
    _expect(batch_first=(layer.batch_first, True), dropout=(layer.dropout, 0.0))
    _expect(add_zero_attn=(layer.add_zero_attn, False), key_padding_mask=(key_padding_mask, None))
    if attn_mask is not None and not _is_causal(attn_mask, query.shape[0]):
        raise CannotExpress("attn_mask is not the causal one, which alone a graph has")
    causal = attn_mask is not None
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


def _max_pool(
    x: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Expression:
    _expect(dilation=(_size(dilation), 1), return_indices=(return_indices, False))
    return _pool("max_pool", kernel_size, stride, padding, ceil_mode)


def _avg_pool(
    x: Operand,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Expression:
    _expect(count_include_pad=(count_include_pad, True), divisor_override=(divisor_override, None))
    return _pool("avg_pool", kernel_size, stride, padding, ceil_mode)


def _pool(op: str, kernel: Any, stride: Any, padding: Any, ceil_mode: bool) -> Expression:
    _expect(ceil_mode=(ceil_mode, False))
    return {"op": op, "kernel": _size(kernel), "stride": _size(stride or kernel), "padding": _size(padding)}


def _adaptive_avg_pool(x: Operand, output_size: Any) -> Expression:
    """An average over equal windows, where the sizes divide; the mean of the whole map for size 1."""
    sides = x.shape[1:]
    wanted = (output_size,) * len(sides) if isinstance(output_size, int) else tuple(output_size)
    wanted = tuple(side if out is None else out for side, out in zip(sides, wanted, strict=True))
    if any(side % out for side, out in zip(sides, wanted, strict=True)):
        raise CannotExpress(f"output_size is {list(wanted)}, expected divisors of the map's {list(sides)}")
    kernel = [side // out for side, out in zip(sides, wanted, strict=True)]
    return {"op": "avg_pool", "kernel": _size(kernel)} if set(kernel) != {1} else None


def _mean(x: Operand, dim: Any = None, keepdim: bool = False) -> Expression:
    dimensions = len(x.shape) + 1
    named = [dim] if isinstance(dim, int) else list(dim or range(dimensions))
    if sorted(d % dimensions for d in named) != list(range(2, dimensions)) or dimensions < 3:
        raise CannotExpress(f"mean over dimension {dim}, expected all dimensions after the channels")
    return {"op": "avg_pool", "kernel": _size(x.shape[1:])} if keepdim else {"op": "global_avg_pool"}


def _add(x: Any, other: Any, *, alpha: float = 1) -> Expression:
    _expect(alpha=(alpha, 1))
    for term in (x, other):
        if not isinstance(term, Operand):
            raise CannotExpress(f"adds {term!r}, expected two tensors that come from layers")
    if x.shape != other.shape:
        raise CannotExpress(f"adds shapes {list(x.shape)} and {list(other.shape)}, expected equal ones")
    return {"op": "add"}


def reshape(before: Shape, after: Shape) -> Expression:
    """What turns one shape into another, row-major: nothing or a flattening."""
    if after == before:
        return None
    if after != (math.prod(before),):
        raise CannotExpress(f"reshapes {list(before)} to {list(after)}, expected {[math.prod(before)]}")
    return {"op": "flatten"}


def layer_kind(module: nn.Module) -> type[nn.Module] | None:
    """The layer that a module is, by its type or as a subclass that computes the same; None: no known one."""
    found = (kind for kind in LAYERS if isinstance(module, kind) and type(module).forward is kind.forward)
    return next(found, None)


LAYERS: dict[type[nn.Module], Callable[..., Expression]] = {
    nn.Linear: _linear,
    nn.Conv1d: _conv("conv1d"),
    nn.Conv2d: _conv("conv2d"),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: _attention,
    nn.ReLU: lambda m, x: {"op": "relu"},
    nn.Tanh: lambda m, x: {"op": "tanh"},
    nn.GELU: lambda m, x: _gelu(x, m.approximate),
    nn.Dropout: lambda m, x: _dropout(x, m.p),
    nn.MaxPool1d: lambda m, x: _max_pool(
        x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool1d: lambda m, x: _avg_pool(
        x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad
    ),
    nn.AdaptiveAvgPool1d: lambda m, x: _adaptive_avg_pool(x, m.output_size),
    nn.Identity: lambda m, x: None,
}
LAYERS[nn.MaxPool2d] = LAYERS[nn.MaxPool1d]
LAYERS[nn.AdaptiveAvgPool2d] = LAYERS[nn.AdaptiveAvgPool1d]
LAYERS[nn.AvgPool2d] = lambda m, x: _avg_pool(
    x, m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
)

FUNCTIONS: dict[Any, Callable[..., Expression]] = {  # by the function, or by the name of a tensor's method
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), _of("relu")),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh", "tanh_"), _of("tanh")),
    F.gelu: _gelu,
    F.dropout: _dropout,
    **dict.fromkeys((F.max_pool1d, F.max_pool2d, torch.max_pool1d, torch.max_pool2d), _max_pool),
    **dict.fromkeys((F.avg_pool1d, F.avg_pool2d), _avg_pool),
    **dict.fromkeys((F.adaptive_avg_pool1d, F.adaptive_avg_pool2d), _adaptive_avg_pool),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
}
RESHAPES: tuple[Any, ...] = (torch.flatten, torch.reshape, torch.squeeze, "flatten", "reshape", "view")
RESHAPES += ("squeeze", "contiguous", "long")  # an embedding does `long` by itself
