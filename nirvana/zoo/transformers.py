"""A small transformer encoder, on rows of numbers or on sequences of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nirvana.ops import Shape
from nirvana.zoo.layers import Nodes, does_not_fit

FEATURES = 64
HEADS = 4
HIDDEN = 256


def transformer(blocks: int, tokens: int | None = None) -> Callable[[Shape, int], Nodes]:
    """`transformer-2`, `transformer-2-256`: blocks of self-attention and a two-layer perceptron with GELU,
    each behind a layer norm (49,984 parameters a block); 64 features, 4 heads, 256 hidden.

    Without `tokens` an input is (rows, features), such as a signal's channels or a series of measurements:
    each row is projected to a token. With it an input is (length,) of whole numbers in [0, tokens). Images
    are refused: no op turns (channels, height, width) into rows.

    A graph has no parameter that is added to its tokens. Their positions come from `position`, a layer norm
    over the whole (length, features), whose bias is one learned vector for each position and starts at zero;
    the output layer reads all tokens, laid end to end.

    Reference: Vaswani et al. 2017 (arXiv 1706.03762); norm first as in Xiong et al. 2020 (arXiv 2002.04745).
    """

    def nodes(input_shape: Shape, classes: int) -> Nodes:
        found: Nodes = [_embed(blocks, tokens, input_shape)]
        found.append({"name": "position", "op": "layer_norm", "shape": [input_shape[0], FEATURES]})
        last = "position"
        for number in range(1, blocks + 1):
            found += _block(f"block{number}", last)
            last = f"block{number}.add2"
        return [
            *found,
            {"name": "norm", "op": "layer_norm", "shape": [FEATURES]},
            {"name": "flatten", "op": "flatten"},
            {"name": "fc", "op": "linear", "in": input_shape[0] * FEATURES, "out": classes},
        ]

    return nodes


def _embed(blocks: int, tokens: int | None, input_shape: Shape) -> dict[str, Any]:
    if tokens is None:
        if len(input_shape) != 2:
            raise does_not_fit(f"transformer-{blocks}", "rows of numbers (rows, features)", input_shape)
        return {"name": "embed", "op": "linear", "in": input_shape[1], "out": FEATURES}
    if len(input_shape) != 1:
        raise does_not_fit(f"transformer-{blocks}-{tokens}", "tokens (length,)", input_shape)
    return {"name": "embed", "op": "embedding", "tokens": tokens, "features": FEATURES}


def _block(name: str, source: str) -> Nodes:
    return [
        {"name": f"{name}.norm1", "op": "layer_norm", "shape": [FEATURES]},
        {"name": f"{name}.attention", "op": "self_attention", "features": FEATURES, "heads": HEADS},
        {"name": f"{name}.add1", "op": "add", "inputs": [source, f"{name}.attention"]},
        {"name": f"{name}.norm2", "op": "layer_norm", "shape": [FEATURES]},
        {"name": f"{name}.fc1", "op": "linear", "in": FEATURES, "out": HIDDEN},
        {"name": f"{name}.gelu", "op": "gelu"},
        {"name": f"{name}.fc2", "op": "linear", "in": HIDDEN, "out": FEATURES},
        {"name": f"{name}.add2", "op": "add", "inputs": [f"{name}.add1", f"{name}.fc2"]},
    ]
