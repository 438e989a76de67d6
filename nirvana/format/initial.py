"""Initial values: stored, or from a seed, the same bits on every machine (docs/format.md, section 4).

Reference: Philox4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (SC'11).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, JsonObject
from nirvana.format.ieee import cosine, natural_log
from nirvana.format.torch_draws import TORCH_SCHEME, replay
from nirvana.networks.ops import CONSTANT_LAWS, OPS, Shape

if TYPE_CHECKING:
    from nirvana.networks.architecture import Architecture

SCHEME = "philox4x32-10/1"
SCHEMES = (SCHEME, TORCH_SCHEME)
INITIAL, REINIT, SHUFFLE = 0x494E4954, 0x5245494E, 0x53485546  # streams: "INIT", "REIN", "SHUF"
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
    """Do ten rounds of Philox4x32.

    Args:
        counter: shape (4, n), 32-bit words held in uint64.
        key: two 32-bit words.

    Returns:
        shape (4, n): the 32-bit words of each block, held in uint64.
    """
    words = counter.copy()
    c0, c1, c2, c3 = words
    p0, p1 = np.empty_like(c0), np.empty_like(c0)
    for round_ in range(10):
        np.multiply(c0, _MULTIPLIER_0, out=p0)
        np.multiply(c2, _MULTIPLIER_1, out=p1)
        np.right_shift(p1, _SHIFT, out=c0)
        c0 ^= c1
        c0 ^= np.uint64((key[0] + round_ * _WEYL_0) & 0xFFFFFFFF)
        np.bitwise_and(p1, _LOW, out=c1)
        np.right_shift(p0, _SHIFT, out=c2)
        c2 ^= c3
        c2 ^= np.uint64((key[1] + round_ * _WEYL_1) & 0xFFFFFFFF)
        np.bitwise_and(p0, _LOW, out=c3)
    return words


def blocks(seed: int, tensor: int, stream: int, block: Index) -> NDArray[np.uint64]:
    """Return the four words of each numbered block of a tensor's stream: shape (4, len(block))."""
    if not 0 <= seed < 2**64:
        raise Invalid(f"seed is {seed}, expected 0 to 2^64 - 1")
    number = block.astype(np.uint64)
    constant = np.ones_like(number)
    counter = np.stack(
        [number & _LOW, number >> _SHIFT, constant * np.uint64(tensor), constant * np.uint64(stream)]
    )
    return philox(counter, (seed & 0xFFFFFFFF, seed >> 32))


def words(seed: int, tensor: int, stream: int, index: Index) -> Words:
    """Return one word for each flat index: word (i mod 4) of block (i div 4)."""
    if (run := _blocks_of_run(seed, tensor, stream, index, 4)) is not None:
        return run.T.ravel()[: len(index)].astype(np.uint32)
    drawn = blocks(seed, tensor, stream, index // 4)
    return drawn[index % 4, np.arange(len(index))].astype(np.uint32)


def _blocks_of_run(seed: int, tensor: int, stream: int, index: Index, each: int) -> NDArray[np.uint64] | None:
    """Return the blocks of neighbours, `each` of which share one; None where these are not neighbours from
    the first of a block on."""
    if not len(index) or index[0] % each or (np.diff(index) != 1).any():
        return None
    return blocks(seed, tensor, stream, np.arange(index[0] // each, index[-1] // each + 1))


def word_pairs(seed: int, tensor: int, stream: int, index: Index) -> tuple[Words, Words]:
    """Return two words for each flat index: words 0, 1 (even i) or 2, 3 (odd i) of block (i div 2)."""
    if (run := _blocks_of_run(seed, tensor, stream, index, 2)) is not None:
        first, second = run.T.reshape(-1, 2)[: len(index)].T.astype(np.uint32)
        return first, second
    drawn = blocks(seed, tensor, stream, index // 2)
    column, first = np.arange(len(index)), 2 * (index % 2)
    return drawn[first, column].astype(np.uint32), drawn[first + 1, column].astype(np.uint32)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan_in and fan_out of a weight (out, in, *receptive field), as in PyTorch."""
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
    """Apply Box and Muller's transform in float64, rounded once to float32."""
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
    """Draw a parameter's values under a law.

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
    """Draw a whole tensor, not to be written to: levels of a search and arms of a verification draw the same
    ones again and again."""
    total = math.prod(shape)
    values = np.empty(total, np.float32)
    for start in range(0, total, _CHUNK):
        chunk = np.arange(start, min(start + _CHUNK, total))
        values[start : start + _CHUNK] = _draw_index(law, shape, seed, tensor, stream, chunk)
    return values.reshape(shape)


def draw_all(
    architecture: Architecture, laws: Mapping[str, str], seed: int, stream: int = INITIAL
) -> dict[str, Values]:
    """Draw every parameter's whole tensor under its law."""
    return {
        name: draw_parameter(architecture, name, laws[name], seed, stream) for name in architecture.parameters
    }


def draw_parameter(
    architecture: Architecture,
    name: str,
    law: str,
    seed: int,
    stream: int = INITIAL,
    index: Index | None = None,
) -> Values:
    """Draw a parameter's values under a law, as `draw` does; a bias has the fans of the weight beside it."""
    shape, tensor = architecture.parameters[name], architecture.positions[name]
    fan_shape = find_fan_shape(architecture, name)
    if law in CONSTANT_LAWS or fan_shape in (None, shape):
        return draw(law, shape, seed, tensor, stream, index)
    assert fan_shape is not None
    chosen = np.arange(math.prod(shape)) if index is None else index
    return draw(law, fan_shape, seed, tensor, stream, chosen)


def find_fan_shape(architecture: Architecture, name: str) -> Shape | None:
    """Return the shape that gives a parameter's law its fans: its own, and a bias's that of the weight beside
    it; None where that has one dimension."""
    shape = architecture.parameters[name]
    if len(shape) == 1 and name.endswith("bias"):
        shape = architecture.parameters.get(name.removesuffix("bias") + "weight", shape)
    return shape if len(shape) > 1 else None


def allowed_laws(architecture: Architecture, name: str) -> tuple[str, ...]:
    """Return the laws that a parameter may have: of one dimension constants, and a layer's bias PyTorch's."""
    if len(architecture.parameters[name]) > 1:
        return LAWS
    return (*CONSTANT_LAWS, *(("torch_default",) if find_fan_shape(architecture, name) else ()))


def default_laws(architecture: Architecture, weight_law: str = "glorot_normal") -> dict[str, str]:
    """Return `weight_law` for the weights of layers, zeros for biases, ones for normalisation."""
    norms = {node["name"] for node in architecture.nodes if OPS[node["op"]].normalises}

    def law(name: str, shape: tuple[int, ...]) -> str:
        if len(shape) > 1 and name.rpartition(".")[0] not in norms:
            return weight_law
        return "zeros" if name.endswith("bias") else "ones"

    return {name: law(name, shape) for name, shape in architecture.parameters.items()}


def value_sha256(values: Values) -> str:
    """Return the hex sha256 of the little-endian float32 bytes, row-major."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()


def epoch_order(seed: int, epoch: int, n: int) -> Index:
    """Return the order in which epoch `epoch` visits n examples, n <= 2^32: sorted by (word, index)."""
    index = np.arange(n)
    pairs = words(seed, epoch, SHUFFLE, index).astype(np.uint64) << _SHIFT | index.astype(np.uint64)
    return (np.sort(pairs) & _LOW).astype(np.int64)  # a quarter of the time of a stable argsort


def shuffle_mask(mask: NDArray[np.bool_], seed: int, tensor: int) -> NDArray[np.bool_]:
    """Permute a mask's elements within the layer: the count stays, the positions go."""
    order = epoch_order(seed, tensor, mask.size)
    return mask.ravel()[order].reshape(mask.shape)


def random_mask(shape: tuple[int, ...], kept: int, seed: int, tensor: int) -> NDArray[np.bool_]:
    """Draw a mask that keeps `kept` elements chosen at random, each set of them as likely as another."""
    mask = np.zeros(math.prod(shape), bool)
    mask[epoch_order(seed, tensor, mask.size)[:kept]] = True
    return mask.reshape(shape)


@dataclass(frozen=True)
class Initial:
    """The values that training starts from.

    Attributes:
        kind: `seeded` (all follows from the seed) or `stored` (the values lie in the file).
        laws: parameter -> law of its step-0 values.
        sha256: name -> hex digest of the full tensor with pruned elements set to +0.
        seed: 0 to 2^64 - 1; for stored values the seed that training started from, if known.
        scheme: of `SCHEMES`: the way in which values follow from the seed.
        order: (torch-cpu/1) the layers that draw, in the order of construction; (): the architecture's.
        rewind_step: optimiser updates before these values were taken; 0 = initialisation.
        stored: name -> float32, the whole tensor flattened or only its kept elements.
    """

    kind: str
    laws: Mapping[str, str]
    sha256: Mapping[str, str]
    seed: int | None = None
    rewind_step: int = 0
    stored: Mapping[str, Values] = field(default_factory=dict)
    scheme: str = SCHEME
    order: tuple[str, ...] = ()

    def to_manifest(self) -> JsonObject:
        """Return the manifest's object (docs/format.md, section 2)."""
        fields: JsonObject = {
            "kind": self.kind,
            "laws": dict(self.laws),
            "rewind_step": self.rewind_step,
            "sha256": dict(self.sha256),
        }
        if self.seed is not None:
            fields |= {"scheme": self.scheme, "seed": str(self.seed)}
        return fields | {"order": list(self.order)} if self.order else fields

    def names(self, architecture: Architecture) -> list[str]:
        """List the names that have values."""
        return value_names(architecture, self.rewind_step)

    def drawn(self, architecture: Architecture) -> Iterator[tuple[str, Values]]:
        """Yield each parameter with its whole tensor at step 0, drawn from the seed by the scheme.

        Raises:
            InvalidTicket: the scheme cannot draw this architecture.
        """
        assert self.seed is not None
        if self.scheme == TORCH_SCHEME:
            yield from replay(architecture, self.seed, self.order)
        else:
            for name in architecture.parameters:
                yield name, draw_parameter(architecture, name, self.laws[name], self.seed)

    def values(
        self, architecture: Architecture, masks: Mapping[str, NDArray[np.bool_]]
    ) -> Iterator[tuple[str, Values]]:
        """Yield each name that has values with them, float32 of its shape, pruned elements +0."""
        if self.kind == "stored":
            for name in self.names(architecture):
                yield name, _spread(self.stored[name], masks.get(name), value_shape(architecture, name))
        elif self.scheme == TORCH_SCHEME:
            for name, values in self.drawn(architecture):
                if name in masks:
                    values[~masks[name]] = 0
                yield name, values
        else:
            for name in architecture.parameters:
                yield name, self._kept(name, architecture, masks.get(name))

    def _kept(self, name: str, architecture: Architecture, mask: NDArray[np.bool_] | None) -> Values:
        """Draw the kept elements alone, which our own scheme can."""
        assert self.seed is not None
        if mask is None:
            return draw_parameter(architecture, name, self.laws[name], self.seed)
        values, kept = np.zeros(mask.shape, np.float32), np.flatnonzero(mask)
        drawn = draw_parameter(architecture, name, self.laws[name], self.seed, index=kept)
        values.ravel()[kept] = drawn
        return values


def value_names(architecture: Architecture, rewind_step: int) -> list[str]:
    """List what has initial values: every parameter and, after step 0, running statistics."""
    return [*architecture.parameters, *(architecture.buffers if rewind_step > 0 else {})]


def value_shape(architecture: Architecture, name: str) -> tuple[int, ...]:
    """Return the shape of a parameter or of running statistics."""
    return architecture.parameters.get(name) or architecture.buffers[name]


def _spread(stored: Values, mask: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> Values:
    """Return the full tensor, pruned elements +0; what is stored is whole, or kept elements alone."""
    if mask is None:
        return stored.reshape(shape).copy()
    values = np.zeros(mask.size, np.float32)
    kept = mask.ravel()
    values[kept] = stored[kept] if stored.size == mask.size else stored
    return values.reshape(shape)
