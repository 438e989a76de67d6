"""What the sparse engine can do, and where it pays. Neither numba nor torch is imported here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec

from nirvana.architecture import Architecture
from nirvana.masks import Mask, kept_count
from nirvana.recipe import Recipe
from nirvana.sparse.layout import CONVOLUTIONS, POOLS, make_value, walk
from nirvana.sparse.memory import choose_lanes

OPS = ("flatten", "linear", *CONVOLUTIONS, "batch_norm", *POOLS, "relu", "tanh", "add")


def find_unsupported(
    architecture: Architecture, recipe: Recipe | None, masks: Mapping[str, Mask]
) -> str | None:
    """What keeps the sparse engine from training this (without a recipe: from computing it), in words, or
    None where nothing does.

    It knows the ops of OPS, cross-entropy, and masks on the weights of linear layers and convolutions.
    """
    if find_spec("numba") is None:
        return "numba is not installed here: pip install 'nirvana-tickets[sparse]'"
    return (
        _find_unsupported_node(architecture)
        or (_find_unsupported_field(architecture, recipe) if recipe else None)
        or _find_unsupported_mask(architecture, masks)
    )


def pays(architecture: Architecture, masks: Mapping[str, Mask], recipe: Recipe) -> bool:
    """TODO"""
    shapes = {name: architecture.parameters[name] for name in architecture.prunable}
    weights, kept = kept_count({}, shapes), kept_count(masks, shapes)
    lanes = 16 * len(choose_lanes(recipe.batch_size))
    tiles = -(-recipe.batch_size // lanes)
    return kept * tiles * (3 + lanes / 16) < 250_000 + weights * (1.7 + 0.038 * recipe.batch_size)


def _find_unsupported_node(architecture: Architecture) -> str | None:
    readers = Counter(name for _, names in walk(architecture) for name in names)
    *before, last = architecture.nodes
    for node in architecture.nodes:
        op, shape = node["op"], architecture.shapes[node["name"]]
        if op not in OPS:
            return f"{op} ({node['name']}) is not among the sparse engine's ops: {', '.join(OPS)}"
        if op == "linear" and len(shape) > 1:
            return f"linear ({node['name']}) reads several tokens, expected one row of features"
        if len(shape) > 3:
            return f"{node['name']} has shape {list(shape)}, expected at most 3 dimensions"
    for node in before:
        if not readers[node["name"]]:
            return f"nobody reads {node['name']}"
    if len(architecture.output_shape) != 1:
        return f"{last['name']} has shape {list(architecture.output_shape)}, expected one row of logits"
    return None if architecture.prunable else "there is no linear layer and no convolution"


def _find_unsupported_field(architecture: Architecture, recipe: Recipe) -> str | None:
    found = {
        "distillation": recipe.distillation,
        "augmentation": recipe.augmentation,
        "l1": recipe.l1,
        "mask_0_action freeze": recipe.pruning.mask_0_action == "freeze",
    }
    if unknown := next((name for name in found if found[name]), None):
        return f"{unknown} is not among what the sparse engine can do"
    for node in architecture.nodes:
        value = make_value(architecture.shapes[node["name"]])
        if node["op"] == "batch_norm" and recipe.batch_size * value.height * value.width < 2:
            return f"batch_norm ({node['name']}) sees one value a channel, expected two or more in a batch"
    return None


def _find_unsupported_mask(architecture: Architecture, masks: Mapping[str, Mask]) -> str | None:
    other = sorted(masks.keys() - set(architecture.prunable))
    if other:
        return f"a mask on {other[0]}, expected masks on weights of linear layers and convolutions"
    return None
