"""Plain functions that make small real things for tests."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import rfc8785

from nirvana.format.container import read_container, write_container
from nirvana.format.initial import default_laws, draw_all, random_mask
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.format.torch_draws import TORCH_SCHEME, torch_laws
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.training.recipe import Recipe

RECIPE = Recipe(optimizer="adam", learning_rate=0.0012, batch_size=60, steps=20, evaluate_every=10)


def make_masks(architecture: Architecture, density: float = 0.2, seed: int = 1) -> dict[str, Mask]:
    """A random mask for each prunable parameter, at least one weight a layer."""
    masks = {}
    for tensor, name in enumerate(architecture.prunable):
        shape = architecture.parameters[name]
        kept = max(1, round(density * int(np.prod(shape))))
        masks[name] = random_mask(shape, kept, seed, tensor)
    return masks


def entropy_bound_bytes(masks: Iterable[Mask]) -> float:
    """Bytes that the masks need at least if each layer's elements were independent: sum of n H(p) / 8."""
    return sum(mask.size * _binary_entropy(float(mask.mean())) / 8 for mask in masks)


def _binary_entropy(p: float) -> float:
    return 0.0 if p in (0.0, 1.0) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def make_ticket(
    name: str = "mlp-16", *, density: float = 0.2, seed: int = 17, stored: bool = False, **fields: Any
) -> Ticket:
    """A ticket of a small network for `digits`; `stored` keeps whole tensors instead of the seed."""
    architecture = fields.pop("architecture", None) or zoo.build(name, (1, 8, 8), 10)
    masks = fields.pop("masks", None) or make_masks(architecture, density)
    laws = default_laws(architecture)
    defaults: dict[str, Any] = {
        "task": "digits",
        "recipe": RECIPE.to_dict(),
        "laws": laws,
        "provenance": {"method": "imp", "level": 3},
        "authors": ("Ada",),
    }
    values: dict[str, Any] = {"stored": draw_all(architecture, laws, seed)} if stored else {"seed": seed}
    return Ticket.create(architecture, masks, **(defaults | values | fields))


def permute_units(ticket: Ticket, seed: int = 0, **fields: Any) -> Ticket:
    """The same network with its hidden units and channels in another order, as whole stored values."""
    stream, graph = np.random.default_rng(seed), ticket.architecture
    values, masks = dict(ticket.dense_initial_values() or {}), dict(ticket.masks)
    stream_of = _orders(graph, stream)
    for node in graph.nodes:
        name = node["name"]
        order, inputs = stream_of[name]
        for arrays in (values, masks):
            for key in [key for key in arrays if key.rpartition(".")[0] == name]:
                array = arrays[key][order]
                arrays[key] = array[:, inputs] if array.ndim > 1 and node["op"] != "batch_norm" else array
    defaults: dict[str, Any] = {
        "task": ticket.task,
        "recipe": ticket.recipe,
        "laws": ticket.start.laws,
        "stored": values,
    }
    defaults |= {"rewind_step": ticket.start.rewind_step, "prunable": ticket.prunable}
    return Ticket.create(graph, masks, **(defaults | fields))


def _orders(graph: Architecture, stream: np.random.Generator) -> dict[str, tuple[Any, Any]]:
    """The new order of each node's units and of those that it reads; one for all that a sum adds up."""
    made: dict[str, tuple[Any, Any]] = {}
    by_width: dict[int, Any] = {}  # sums add up what is equally wide: one order a width is enough for all
    last, inputs, shape = graph.nodes[-1]["name"], np.arange(graph.input[0]), graph.input
    for node in graph.nodes:
        if "inputs" in node:
            inputs, shape = made[node["inputs"][0]][0], graph.shapes[node["inputs"][0]]
        order = inputs
        if node["op"] == "flatten":
            places = math.prod(shape[1:])
            order = (inputs[:, None] * places + np.arange(places)).ravel()
        elif node["op"] in ("linear", "conv2d"):
            order = np.arange(node["out"]) if node["name"] == last else stream.permutation(node["out"])
            order = order if node["name"] == last else by_width.setdefault(node["out"], order)
        made[node["name"]] = order, inputs
        inputs, shape = order, graph.shapes[node["name"]]
    return made


def torch_ticket(name: str = "mlp-16", seed: int = 42, **fields: Any) -> Ticket:
    """A ticket of a small network for `digits` with the values of torch.manual_seed and the constructors."""
    architecture = zoo.build(name, (1, 8, 8), 10)
    defaults: dict[str, Any] = {
        "task": "digits",
        "recipe": RECIPE.to_dict(),
        "laws": torch_laws(architecture),
        "seed": seed,
        "scheme": TORCH_SCHEME,
    }
    return Ticket.create(architecture, make_masks(architecture), **(defaults | fields))


def as_stored(ticket: Ticket, *, kept: bool = False, **fields: Any) -> Ticket:
    """The same values, stored: whole, or those of kept elements alone."""
    values = dict(ticket.dense_initial_values() or {})
    if kept:
        values |= {name: values[name][mask] for name, mask in ticket.masks.items()}
    start = {name: getattr(ticket.start, name) for name in ("laws", "seed", "scheme", "order")}
    return Ticket.create(
        ticket.architecture,
        ticket.masks,
        task=ticket.task,
        recipe=dict(ticket.recipe),
        **(start | {"stored": values} | fields),
    )


def take_apart(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """A ticket file's manifest and its tensors as arrays, to be broken and put together again."""
    metadata, tensors = read_container(data)
    arrays = {
        name: np.frombuffer(tensor.body, np.uint8 if tensor.dtype == "U8" else "<f4")
        for name, tensor in tensors.items()
    }
    return json.loads(metadata["manifest"]), arrays


def put_together(manifest: Any, tensors: dict[str, Any], *, text: str | None = None) -> bytes:
    """A file from a manifest (or its text as it is) and tensors, with nothing checked."""
    canonical = rfc8785.dumps(manifest).decode() if text is None else text
    return write_container({"format": "nirvana.ticket/1", "manifest": canonical}, tensors)
