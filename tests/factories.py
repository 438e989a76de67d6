"""Plain functions that make small real things for tests."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import rfc8785

from nirvana import zoo
from nirvana.architecture import Architecture
from nirvana.container import read_container, write_container
from nirvana.initial import default_laws, draw_all, random_mask
from nirvana.masks import Mask
from nirvana.recipe import Recipe
from nirvana.ticket import Ticket

RECIPE = Recipe(optimizer="adam", learning_rate=0.0012, batch_size=60, steps=20, evaluate_every=10)


def make_masks(architecture: Architecture, density: float = 0.2, seed: int = 1) -> dict[str, Mask]:
    """A random mask for each prunable parameter, at least one weight a layer."""
    masks = {}
    for tensor, name in enumerate(architecture.prunable):
        shape = architecture.parameters[name]
        kept = max(1, round(density * int(np.prod(shape))))
        masks[name] = random_mask(shape, kept, seed, tensor)
    return masks


def make_ticket(
    name: str = "mlp-16", *, density: float = 0.2, seed: int = 17, stored: bool = False, **fields: Any
) -> Ticket:
    """A ticket of a small network for `digits`; `stored` keeps whole tensors instead of the seed."""
    architecture = zoo.build(name, (1, 8, 8), 10)
    laws = default_laws(architecture)
    defaults: dict[str, Any] = {
        "task": "digits",
        "recipe": RECIPE.to_dict(),
        "laws": laws,
        "provenance": {"method": "imp", "level": 3},
        "authors": ("Ada",),
    }
    values: dict[str, Any] = {"stored": draw_all(architecture, laws, seed)} if stored else {"seed": seed}
    return Ticket.create(architecture, make_masks(architecture, density), **(defaults | values | fields))


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
