"""A ticket as one Python file that trains it with numpy and torch alone.

The file is a template with two blobs in base 85: what the ticket says never becomes code.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana import __version__, tasks
from nirvana.errors import Invalid, Problem
from nirvana.exports.arrays import write_npz
from nirvana.initial import epoch_order
from nirvana.masks import pack_bits
from nirvana.recipe import Recipe
from nirvana.tasks.arrays import read_digits
from nirvana.ticket import Ticket

_BEYOND_THE_SCRIPT = ("augmentation", "distillation", "l1")


def to_script(ticket: Ticket) -> bytes:
    """The script, UTF-8: the same bytes for the same ticket.

    Raises:
        Invalid: the ticket's task is not one of Nirvana's own, or its recipe is not a recipe.
    """
    if ticket.task not in tasks.names():
        known = ", ".join(tasks.names())
        detail = f"task is {ticket.task!r}, expected one of {known}"
        raise Invalid(detail, errors=[Problem("/task", "unknown-task", detail)])
    recipe = Recipe.from_dict(dict(ticket.recipe))
    for name in _BEYOND_THE_SCRIPT:
        if getattr(recipe, name):
            detail = f"the recipe has {name}, which the stand-alone script cannot do: use nirvana train"
            raise Invalid(detail, errors=[Problem(f"/recipe/{name}", "not-exported", detail)])
    is_digits = ticket.task == "digits"
    template = resources.files("nirvana.exports").joinpath("train.py.template").read_text(encoding="utf-8")
    fields = {
        "@DIGEST@": ticket.digest,
        "@VERSION@": __version__,
        "@DATA@": ", and the digits it is trained on" if is_digits else "",
        "@TICKET@": _blob(_ticket_arrays(ticket)),
        "@PIXELS@": _blob(_digits()) if is_digits else "",
    }
    for name, text in fields.items():
        template = template.replace(name, text)
    return template.encode()


def _ticket_arrays(ticket: Ticket) -> dict[str, NDArray[Any]]:
    """theta/<parameter>, mask/<parameter> as packed bits, and what of the manifest training needs."""
    values = {f"theta/{name}": array for name, array in ticket.initial_values().items()}
    masks = {f"mask/{n}": np.frombuffer(pack_bits(mask), np.uint8) for n, mask in ticket.masks.items()}
    manifest = np.frombuffer(json.dumps(_manifest(ticket), sort_keys=True).encode(), np.uint8)
    return values | masks | {"manifest": manifest}


def _manifest(ticket: Ticket) -> dict[str, Any]:
    task = tasks.get(ticket.task)
    return {
        "architecture": ticket.architecture.to_manifest(),
        "initial": {
            "rewind_step": Recipe.from_dict(dict(ticket.recipe)).first_step(ticket.start.rewind_step)
        },
        "recipe": Recipe.from_dict(dict(ticket.recipe)).to_dict(),
        "task": {
            "pixel_max": task.pixel_max,
            "normalisation": task.normalisation,
            "input_shape": task.input_shape,
            **task.sizes,
        },
    }


def _digits() -> dict[str, NDArray[Any]]:
    """The digits in the order of their split: train, validation, test."""
    images, labels = read_digits()
    order = epoch_order(0, 0, len(images))
    return {"images": images[order], "labels": labels[order]}


def _blob(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Arrays as text without quotes or backslashes: a zlib-compressed .npz in base 85.

    The archive is stored with a fixed date, so that the same arrays give the same text.
    """
    return base64.b85encode(zlib.compress(write_npz(arrays, compress=False), 9)).decode()
