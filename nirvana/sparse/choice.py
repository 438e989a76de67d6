"""What the sparse engine can do, and where it pays. Neither numba nor torch is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from nirvana.architecture import Architecture
from nirvana.masks import Mask, kept_count
from nirvana.recipe import Recipe
from nirvana.sparse.network import choose_lanes

OPS = ("flatten", "linear", "relu", "tanh")


def find_unsupported(architecture: Architecture, recipe: Recipe, masks: Mapping[str, Mask]) -> str | None:
    """What keeps the sparse engine from training this, in words, or None where nothing does.

    It trains chains of linear layers, each with relu, tanh or nothing after it, by cross-entropy; masks lie
    on the layers' weights.
    """
    if find_spec("numba") is None:
        return "numba is not installed here: pip install 'nirvana-tickets[sparse]'"
    return (
        _find_unsupported_node(architecture)
        or _find_unsupported_field(recipe)
        or _find_unsupported_mask(architecture, masks)
    )


def pays(architecture: Architecture, masks: Mapping[str, Mask], recipe: Recipe) -> bool:
    """Whether an update is expected to take less time here than in torch, on one core.

    Expected nanoseconds of an update: here, each kept weight meets each tile of the batch, 3 + lanes / 16; in
    torch, 250,000 and, for each weight, 1.7 + 0.038 x batch. Fitted to 30 measurements of a Xeon with AVX-512
    (numba 0.68, torch 2.13 with fused optimisers): multilayer perceptrons of 16, 300-100 and 1000-1000 units
    on 64 and 784 inputs; batches of 16, 60 and 128; Adam and SGD with momentum. LeNet-300-100 on 784 inputs
    with batches of 60 broke even at density 1, where this says 0.7; 1000-1000 at 0.5 to 0.65, where this says
    0.5 to 0.6. Networks of under 20,000 weights gained at any density: torch's calls alone take longer.
    """
    shapes = {name: architecture.parameters[name] for name in architecture.prunable}
    weights, kept = kept_count({}, shapes), kept_count(masks, shapes)
    lanes = choose_lanes(recipe.batch_size)
    tiles = -(-recipe.batch_size // lanes)
    return kept * tiles * (3 + lanes / 16) < 250_000 + weights * (1.7 + 0.038 * recipe.batch_size)


def _find_unsupported_node(architecture: Architecture) -> str | None:
    before = ""
    for node in architecture.nodes:
        op = node["op"]
        if op not in OPS:
            return f"{op} ({node['name']}) is not among the sparse engine's ops: {', '.join(OPS)}"
        if "inputs" in node:
            return f"{node['name']} reads {', '.join(node['inputs'])}, expected the node before it"
        if op == "flatten" and before:
            return f"flatten ({node['name']}) comes after {before}, expected it first"
        if op in ("relu", "tanh") and before != "linear":
            return f"{op} ({node['name']}) comes after {before or 'the input'}, expected a linear layer"
        if op == "linear" and len(architecture.shapes[node["name"]]) > 1:
            return f"linear ({node['name']}) reads several tokens, expected one row of features"
        before = op
    return None if any(node["op"] == "linear" for node in architecture.nodes) else "there is no linear layer"


def _find_unsupported_field(recipe: Recipe) -> str | None:
    found = {
        "distillation": recipe.distillation,
        "augmentation": recipe.augmentation,
        "l1": recipe.l1,
        "mask_0_action freeze": recipe.pruning.mask_0_action == "freeze",
    }
    return next((f"{name} is not among what the sparse engine can do" for name in found if found[name]), None)


def _find_unsupported_mask(architecture: Architecture, masks: Mapping[str, Mask]) -> str | None:
    other = sorted(masks.keys() - set(architecture.prunable))
    return f"a mask on {other[0]}, expected masks on the weights of linear layers" if other else None
