"""The sparse engine's range, and where it pays. Neither numba nor torch is imported here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

from nirvana.format.masks import Mask, kept_count
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import find_refusal, ops_with
from nirvana.sparse.layout import (
    ACTIVATIONS,
    BATCH_NORM,
    CONVOLUTION,
    KERNELS,
    LINEAR,
    MAX_SPARSE_DENSITY,
    make_feature_map,
    nodes_with_inputs,
)
from nirvana.sparse.memory import choose_lanes
from nirvana.training.recipe import Recipe

WHOLE_COST = 0.6  # of a multiply-add, in a layer that is stored whole
THREAD_GAIN = 0.6  # of each further thread at an update, at least: see `python -m benchmarks threads`


def find_unsupported(
    architecture: Architecture, recipe: Recipe | None, masks: Mapping[str, Mask]
) -> str | None:
    """Return what keeps the sparse engine from training this (without a recipe: from computing it), in words,
    or None where nothing does.

    It knows cross-entropy, masks on the weights of linear layers and convolutions, and the ops that have a
    row in KERNELS or ACTIVATIONS or that flatten.
    """
    if find_spec("numba") is None:
        return "numba is not installed here: pip install 'nirvana-tickets[sparse]'"
    return unsupported_reason(architecture, recipe, masks)


def unsupported_reason(
    architecture: Architecture, recipe: Recipe | None, masks: Mapping[str, Mask]
) -> str | None:
    """As `find_unsupported`, for a machine that has numba."""
    return (
        _find_unsupported_node(architecture)
        or (_find_unsupported_field(architecture, recipe) if recipe else None)
        or _find_unsupported_mask(architecture, masks)
    )


def pays(architecture: Architecture, masks: Mapping[str, Mask], recipe: Recipe, threads: int = 1) -> bool:
    """Tell whether an update is expected to take less time here, on as many of `threads` as are useful, than
    in torch, which has one: it rounds otherwise on another number of threads, and this engine does not."""
    costs = estimate(architecture, masks, recipe)
    return costs.sparse / (1 + THREAD_GAIN * (_count_useful(costs, threads) - 1)) < costs.dense


def count_useful_threads(
    architecture: Architecture, masks: Mapping[str, Mask], recipe: Recipe, threads: int
) -> int:
    """Return how many of `threads` to put to one update: one for each half of a millisecond that it is
    expected to take, and fewer where that leaves less than 20 microseconds of it for each time that they wait
    for one another, which takes some microseconds if each has a core."""
    return _count_useful(estimate(architecture, masks, recipe), threads)


def _count_useful(costs: Estimate, threads: int) -> int:
    return max(1, min(threads, int(costs.sparse // max(500_000, 20_000 * costs.waits))))


class Estimate(NamedTuple):
    """Expected nanoseconds of an update on one core; how often several would wait for one another."""

    sparse: float
    dense: float
    waits: int  # after each node, forward and back, of each tile


def estimate(architecture: Architecture, masks: Mapping[str, Mask], recipe: Recipe) -> Estimate:
    """Return what an update is expected to take on either engine.

    Here: the stored weights (optimiser), their multiplications, which take less where a layer is stored
    whole, and what the nodes put out, for whole tiles of the batch. In torch: its calls, all weights, all
    multiplications, outputs. `python -m benchmarks.cost_model` measures both over a grid of networks,
    densities, batches and optimisers, fits such terms, and says what wrong choices cost.
    """
    shapes = {name: architecture.parameters[name] for name in architecture.prunable}
    weights = sum(math.prod(shape) for shape in shapes.values())
    kept = {name: kept_count(masks, {name: shape}) for name, shape in shapes.items()}
    whole = {
        name: math.prod(shape)
        for name, shape in shapes.items()
        if len(shape) == 2 and kept[name] > MAX_SPARSE_DENSITY * math.prod(shape)
    }
    kept |= whole
    outputs = sum(math.prod(shape) for shape in architecture.shapes.values())
    has_pixels = any(KERNELS.get(node["op"]) == CONVOLUTION for node in architecture.nodes)
    lanes = 16 * len(choose_lanes(recipe.batch_size, has_pixels))
    tiles = -(-recipe.batch_size // lanes)
    made = sum(
        count * architecture.uses[name] * (WHOLE_COST if name in whole else 1) for name, count in kept.items()
    )
    sparse = 5_000 + 1.3 * sum(kept.values()) + tiles * lanes * (0.1 * made + 0.34 * outputs)
    dense = 260_000 + 16_000 * len(architecture.nodes) + 1.5 * weights
    dense += recipe.batch_size * (0.021 * architecture.flops() + 3.9 * outputs)
    return Estimate(sparse, dense, 2 * len(architecture.nodes) * tiles)


def _find_unsupported_node(architecture: Architecture) -> str | None:
    readers = Counter(name for _, names in nodes_with_inputs(architecture) for name in names)
    *before, last = architecture.nodes
    known = {*KERNELS, *ACTIVATIONS, *ops_with(lambda op: op.flattens)}
    for node in architecture.nodes:
        shape = architecture.shapes[node["name"]]
        if refusal := find_refusal([node], known, "is not among the sparse engine's ops"):
            return refusal
        if KERNELS.get(node["op"]) == LINEAR and len(shape) > 1:
            return f"{node['op']} ({node['name']}) reads several tokens, expected one row of features"
        if len(shape) > 3:
            return f"{node['name']} has shape {list(shape)}, expected at most 3 dimensions"
    for node in before:
        if not readers[node["name"]]:
            return f"nobody reads {node['name']}"
    if len(architecture.output_shape) != 1:
        return f"{last['name']} has shape {list(architecture.output_shape)}, expected one row of logits"
    return None if architecture.prunable else "there is no linear layer and no convolution"


def _find_unsupported_field(architecture: Architecture, recipe: Recipe) -> str | None:
    unsupported = {
        "distillation": recipe.distillation,
        "augmentation": recipe.augmentation,
        "l1": recipe.l1,
        "mask_0_action freeze": recipe.pruning.mask_0_action == "freeze",
    }
    if unknown := next((name for name in unsupported if unsupported[name]), None):
        return f"{unknown} is not among what the sparse engine can do"
    for node in architecture.nodes:
        value = make_feature_map(architecture.shapes[node["name"]])
        if KERNELS.get(node["op"]) == BATCH_NORM and recipe.batch_size * value.height * value.width < 2:
            return f"{node['op']} ({node['name']}) sees one value a channel, expected two or more in a batch"
    return None


def _find_unsupported_mask(architecture: Architecture, masks: Mapping[str, Mask]) -> str | None:
    other = sorted(masks.keys() - set(architecture.prunable))
    if other:
        return f"a mask on {other[0]}, expected masks on weights of linear layers and convolutions"
    return None
