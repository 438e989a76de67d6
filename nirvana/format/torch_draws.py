"""The scheme `torch-cpu/1`: `torch.manual_seed(seed)`, then the constructors of a module's layers, replayed
bit by bit without torch (docs/format.md, section 4.2).

PyTorch has one generator for all layers, so a layer's values depend on those constructed before it. Normal
draws (an embedding's) are not replayed: their bits depend on the processor.

Reference: MT19937, Matsumoto & Nishimura 1998, "Mersenne Twister" (ACM TOMACS 8); the laws of PyTorch's
`reset_parameters`, after He et al. 2015 (arXiv 1502.01852) and Glorot & Bengio 2010 (AISTATS).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, InvalidTicket, Problem, raise_problems
from nirvana.networks.ops import CONSTANT_LAWS, OPS, Node, Shape

if TYPE_CHECKING:
    from nirvana.networks.architecture import Architecture

TORCH_SCHEME = "torch-cpu/1"
_CHUNK = 1 << 16  # elements drawn at a time: what is drawn on the way stays small

Values = NDArray[np.float32]


def drawing_layers(architecture: Architecture) -> tuple[str, ...]:
    """Return the layers whose construction draws, in the architecture's order."""
    return tuple(node["name"] for node in architecture.nodes if _draws(node))


def torch_laws(architecture: Architecture) -> dict[str, str]:
    """Return each parameter's law as PyTorch's constructors draw it; none where that cannot be replayed."""
    return {
        f"{node['name']}.{suffix}": law
        for node in architecture.nodes
        for suffix, law in dict(_inits(node)).items()
    }


def find_replay_problems(architecture: Architecture, order: Sequence[str]) -> Iterator[Problem]:
    """Tell why the constructors' draws cannot be replayed: a layer whose draws are not known bit by bit, or
    an order that has not each layer that draws once.

    Args:
        order: (): the architecture's.
    """
    for node in architecture.nodes:
        op = OPS[node["op"]]
        if op.torch_inits is None and op.parameters(node):
            detail = f"{TORCH_SCHEME} cannot replay the draws of {node['op']} ({node['name']}) bit by bit"
            yield Problem("/initial/scheme", "no-replay", detail)
    expected = drawing_layers(architecture)
    if order and sorted(order) != sorted(expected):
        odd = sorted(set(order) ^ set(expected)) or [n for n, times in Counter(order).items() if times > 1]
        detail = (
            f"found {len(order)} layers, expected each of the {len(expected)} that draw once: "
            f"{odd[0][:100]!r} is missing, unknown or there twice"
        )
        yield Problem("/initial/order", "order", detail)


def replay(architecture: Architecture, seed: int, order: Sequence[str] = ()) -> Iterator[tuple[str, Values]]:
    """Yield each parameter with its whole tensor, float32 of its shape, in the order of construction.

    Args:
        seed: of `torch.manual_seed`, 0 to 2^64 - 1; PyTorch uses its low 32 bits.
        order: the layers that draw, in the order of their construction; (): the architecture's.

    Raises:
        InvalidTicket: a layer cannot be replayed, or the order is not one of the layers that draw.
    """
    raise_problems(InvalidTicket, "not a valid ticket", list(find_replay_problems(architecture, order)))
    generator = np.random.RandomState(seed & 0xFFFFFFFF)
    nodes = {node["name"]: node for node in architecture.nodes}
    constant = (name for name, node in nodes.items() if not _draws(node))
    for name in chain(order or drawing_layers(architecture), constant):
        for suffix, values in _construct(nodes[name], generator).items():
            yield f"{name}.{suffix}", values


def check_replay(
    architecture: Architecture, values: Mapping[str, Values], seed: int, order: Sequence[str]
) -> None:
    """Refuse values that are not those of a replay, bit by bit.

    Args:
        values: parameter -> float32 of its shape.
        seed, order: as in `replay`.

    Raises:
        Invalid: naming the first parameter, in the order of construction, that differs, and how many values.
        InvalidTicket: as in `replay`.
    """
    for name, drawn in replay(architecture, seed, order):
        differing = int(np.count_nonzero(drawn.view(np.uint32) != values[name].view(np.uint32)))
        if differing:
            layers = ", ".join(order or drawing_layers(architecture))
            detail = (
                f"{differing} of {drawn.size} values of {name} are not those that torch.manual_seed({seed}) "
                f"and the constructors draw in the order {layers[:200]}: another seed or "
                "order of construction, draws before them, or initialisation or training after them"
            )
            raise Invalid(detail, errors=[Problem(f"/{name}", "torch-seed", detail)])


def _inits(node: Node) -> list[tuple[str, str]]:
    """List (suffix, law) of the parameters that a node has, in the order in which they are set."""
    op = OPS[node["op"]]
    shapes = op.parameters(node)
    return [(suffix, law) for suffix, law in op.torch_inits or () if suffix in shapes]


def _draws(node: Node) -> bool:
    return any(law not in CONSTANT_LAWS for _, law in _inits(node))


def _construct(node: Node, generator: np.random.RandomState) -> dict[str, Values]:
    """Return a layer's parameters by their suffixes. One that is set twice is drawn twice."""
    shapes = OPS[node["op"]].parameters(node)
    values: dict[str, Values] = {}
    for suffix, law in _inits(node):
        if law in CONSTANT_LAWS:
            values[suffix] = np.full(shapes[suffix], CONSTANT_LAWS[law], np.float32)
        else:
            values[suffix] = _uniform(generator, shapes[suffix], _bound(law, suffix, shapes))
    return values


def _bound(law: str, suffix: str, shapes: Mapping[str, Shape]) -> float:
    """Return the bound of a uniform draw, by the very operations in float64 that PyTorch does."""
    rows, *others = shapes[suffix.removesuffix("bias") + "weight" if suffix.endswith("bias") else suffix]
    fan_in = math.prod(others)
    if suffix.endswith("bias"):
        return 1 / math.sqrt(fan_in)
    if law == "glorot_uniform":
        return math.sqrt(3.0) * math.sqrt(2.0 / (fan_in + rows * math.prod(others[1:])))
    gain = math.sqrt(2.0 / (1 + math.sqrt(5) ** 2))  # kaiming_uniform_(a=sqrt(5))
    return math.sqrt(3.0) * (gain / math.sqrt(fan_in))


def _uniform(generator: np.random.RandomState, shape: Shape, bound: float) -> Values:
    """Draw as `uniform_(-bound, bound)` does: float32 of fma(24 bits / 2^24, 2 bound, -bound).

    In float64 the product and the sum are exact (48 bits), so the one rounding is that of a fused float32
    operation.
    """
    size = np.float64(np.float32(bound))
    values = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(values), _CHUNK):
        words = generator.randint(0, 2**32, min(_CHUNK, len(values) - start), np.uint32)
        values[start : start + _CHUNK] = (words & np.uint32(2**24 - 1)) * 2.0**-24 * (2 * size) - size
    return values.reshape(shape)
