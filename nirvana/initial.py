"""Initial values from a seed: counter-based, the same bits on every machine (TICKET_FORMAT section 4).

Reference: Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (SC'11).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid
from nirvana.ieee import cosine, natural_log

if TYPE_CHECKING:
    from nirvana.architecture import Architecture

SCHEME = "philox4x32-10/1"
INITIAL, REINIT, SHUFFLE = 0x494E4954, 0x5245494E, 0x53485546  # streams: "INIT", "REIN", "SHUF"
CONSTANT_LAWS = {"zeros": 0.0, "ones": 1.0}
FAN_LAWS = (
    "kaiming_uniform",
    "glorot_uniform",
    "torch_default",
    "kaiming_normal",
    "glorot_normal",
    "kaiming_signed_constant",
)
LAWS = (*FAN_LAWS, *CONSTANT_LAWS)

Words = NDArray[np.uint32]
Values = NDArray[np.float32]
Index = NDArray[np.int64]

_REMEMBERED = 1 << 20  # elements of the largest tensor that is remembered
_CHUNK = 1 << 14  # elements drawn at a time, so that what is drawn on the way stays in the caches
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Ten rounds of Philox4x32.

    Args:
        counter: shape (4, n), 32-bit words held in uint64.
        key: two 32-bit words.

    Returns:
        shape (4, n): the 32-bit words of each block, held in uint64.
    """
    c0, c1, c2, c3 = counter
    for round_ in range(10):
        k0 = np.uint64((key[0] + round_ * _WEYL_0) & 0xFFFFFFFF)
        k1 = np.uint64((key[1] + round_ * _WEYL_1) & 0xFFFFFFFF)
        p0, p1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ k0, p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ k1, p0 & _LOW
    return np.stack([c0, c1, c2, c3])


def blocks(seed: int, tensor: int, stream: int, block: Index) -> NDArray[np.uint64]:
    """The four words of each numbered block of a tensor's stream: shape (4, len(block))."""
    if not 0 <= seed < 2**64:
        raise Invalid(f"seed is {seed}, expected 0 to 2^64 - 1")
    number = block.astype(np.uint64)
    constant = np.ones_like(number)
    counter = np.stack(
        [number & _LOW, number >> _SHIFT, constant * np.uint64(tensor), constant * np.uint64(stream)]
    )
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32))


def words(seed: int, tensor: int, stream: int, index: Index) -> Words:
    """One word for each flat index: word (i mod 4) of block (i div 4)."""
    if (run := _blocks_of_run(seed, tensor, stream, index, 4)) is not None:
        return run.T.ravel()[: len(index)].astype(np.uint32)
    drawn = blocks(seed, tensor, stream, index // 4)
    return drawn[index % 4, np.arange(len(index))].astype(np.uint32)


def _blocks_of_run(seed: int, tensor: int, stream: int, index: Index, each: int) -> NDArray[np.uint64] | None:
    """The blocks of neighbours, `each` of which share one; None where these are not neighbours from the first
    of a block on."""
    if not len(index) or index[0] % each or (np.diff(index) != 1).any():
        return None
    return blocks(seed, tensor, stream, np.arange(index[0] // each, index[-1] // each + 1))


def word_pairs(seed: int, tensor: int, stream: int, index: Index) -> tuple[Words, Words]:
    """Two words for each flat index: words 0, 1 (even i) or 2, 3 (odd i) of block (i div 2)."""
    if (run := _blocks_of_run(seed, tensor, stream, index, 2)) is not None:
        first, second = run.T.reshape(-1, 2)[: len(index)].T.astype(np.uint32)
        return first, second
    drawn = blocks(seed, tensor, stream, index // 2)
    column, first = np.arange(len(index)), 2 * (index % 2)
    return drawn[first, column].astype(np.uint32), drawn[first + 1, column].astype(np.uint32)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """fan_in and fan_out of a weight (out, in, *receptive field), as in PyTorch."""
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _bound(law: str, shape: tuple[int, ...]) -> float:
    fan_in, fan_out = fans(shape)
    return {
        "kaiming_uniform": math.sqrt(6 / fan_in),
        "glorot_uniform": math.sqrt(6 / (fan_in + fan_out)),
        "torch_default": 1 / math.sqrt(fan_in),
    }[law]


def _sd(law: str, shape: tuple[int, ...]) -> float:
    fan_in, fan_out = fans(shape)
    return math.sqrt(2 / (fan_in + fan_out)) if law == "glorot_normal" else math.sqrt(2 / fan_in)


def _uniform(word: Words, bound: float) -> Values:
    whole = (2 * (word >> np.uint32(8)).astype(np.int64) + 1 - 2**24).astype(np.float32)
    return np.float32(bound) * whole * np.float32(2.0**-24)


def _normal(first: Words, second: Words, sd: float) -> Values:
    """Box and Muller's transform in float64, rounded once to float32."""
    u = (first.astype(np.float64) + 0.5) / 2.0**32
    v = (second.astype(np.float64) + 0.5) / 2.0**32
    z = np.sqrt(-2.0 * natural_log(u)) * cosine(2.0 * math.pi * v)
    return (sd * z).astype(np.float32)


def _signed_constant(word: Words, size: float) -> Values:
    return np.where(word >> np.uint32(31), np.float32(size), np.float32(-size))


def _draw_index(
    law: str, shape: tuple[int, ...], seed: int, tensor: int, stream: int, index: Index
) -> Values:
    if law in CONSTANT_LAWS:
        return np.full(len(index), CONSTANT_LAWS[law], np.float32)
    if law.endswith("_normal"):
        return _normal(*word_pairs(seed, tensor, stream, index), _sd(law, shape))
    word = words(seed, tensor, stream, index)
    if law == "kaiming_signed_constant":
        return _signed_constant(word, _sd(law, shape))
    return _uniform(word, _bound(law, shape))


def draw(
    law: str,
    shape: tuple[int, ...],
    seed: int,
    tensor: int,
    stream: int = INITIAL,
    index: Index | None = None,
) -> Values:
    """A parameter's values under a law.

    Args:
        law: one of `LAWS`; fan laws need a shape of two dimensions or more.
        shape: the parameter's shape.
        seed: 0 to 2^64 - 1.
        tensor: the parameter's position in the architecture's parameter list.
        index: flat indices to draw alone; None: all.

    Returns:
        float32, of `shape`, or of len(index).

    Reference: laws by Glorot & Bengio 2010 (AISTATS) and He et al. 2015 (arXiv 1502.01852).
    """
    total = math.prod(shape)
    if index is not None and (2 * len(index) < total or total > _REMEMBERED):
        return _draw_index(law, shape, seed, tensor, stream, index)
    draw_whole = _draw_whole.__wrapped__ if total > _REMEMBERED else _draw_whole
    whole = draw_whole(law, shape, seed, tensor, stream)
    return whole.copy() if index is None else whole.ravel()[index]


@lru_cache(maxsize=32)
def _draw_whole(law: str, shape: tuple[int, ...], seed: int, tensor: int, stream: int) -> Values:
    """A whole tensor, not to be written to: levels of a search and arms of a verification draw the same ones
    again and again."""
    total = math.prod(shape)
    values = np.empty(total, np.float32)
    for start in range(0, total, _CHUNK):
        chunk = np.arange(start, min(start + _CHUNK, total))
        values[start : start + _CHUNK] = _draw_index(law, shape, seed, tensor, stream, chunk)
    return values.reshape(shape)


def draw_all(
    architecture: Architecture, laws: Mapping[str, str], seed: int, stream: int = INITIAL
) -> dict[str, Values]:
    """Every parameter's whole tensor under its law."""
    return {
        name: draw(laws[name], shape, seed, tensor, stream)
        for tensor, (name, shape) in enumerate(architecture.parameters.items())
    }


def default_laws(architecture: Architecture, weight_law: str = "glorot_normal") -> dict[str, str]:
    """`weight_law` for the weights of layers, zeros for biases, ones for normalisation."""
    norms = {node["name"] for node in architecture.nodes if node["op"] in ("batch_norm", "layer_norm")}

    def law(name: str, shape: tuple[int, ...]) -> str:
        if len(shape) > 1 and name.rpartition(".")[0] not in norms:
            return weight_law
        return "zeros" if name.endswith("bias") else "ones"

    return {name: law(name, shape) for name, shape in architecture.parameters.items()}


def value_sha256(values: Values) -> str:
    """Hex sha256 of the little-endian float32 bytes, row-major."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()


def epoch_order(seed: int, epoch: int, n: int) -> Index:
    """The order in which epoch `epoch` visits n examples, n <= 2^32: sorted by (word, index)."""
    index = np.arange(n)
    pairs = words(seed, epoch, SHUFFLE, index).astype(np.uint64) << _SHIFT | index.astype(np.uint64)
    return (np.sort(pairs) & _LOW).astype(np.int64)  # a quarter of the time of a stable argsort


def shuffle_mask(mask: NDArray[np.bool_], seed: int, tensor: int) -> NDArray[np.bool_]:
    """The mask with its elements permuted within the layer: the count stays, the positions go."""
    order = epoch_order(seed, tensor, mask.size)
    return mask.ravel()[order].reshape(mask.shape)


def random_mask(shape: tuple[int, ...], kept: int, seed: int, tensor: int) -> NDArray[np.bool_]:
    """A mask that keeps `kept` elements chosen at random, each set of them as likely as another."""
    mask = np.zeros(math.prod(shape), bool)
    mask[epoch_order(seed, tensor, mask.size)[:kept]] = True
    return mask.reshape(shape)
