"""A ticket as one Python file that trains it: with numpy and numba alone, at a cost that follows the kept
weights; or with numpy and torch, where the sparse engine cannot do what the ticket asks for.

The file is a template with blobs in base 85 and, for numba, the sources of `nirvana.sparse`: what the ticket
says never becomes code.
"""

from __future__ import annotations

import ast
import base64
import json
import re
import zlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana import __version__, tasks
from nirvana.errors import Invalid, Problem
from nirvana.exports.amalgamation import amalgamate
from nirvana.exports.arrays import write_npz
from nirvana.initial import epoch_order
from nirvana.masks import pack_bits
from nirvana.recipe import Recipe
from nirvana.sparse.choice import find_beyond
from nirvana.tasks.arrays import read_digits
from nirvana.ticket import Ticket
from nirvana.trained import Weights

_BEYOND_THE_SCRIPT = ("augmentation", "distillation", "l1")
_WITH_NUMBA, _WITH_TORCH = "train.py.template", "train_with_torch.py.template"
_ROOTS = (
    ("nirvana.architecture", "Architecture"),
    ("nirvana.errors", "NirvanaError"),
    ("nirvana.recipe", "Pruning"),
    ("nirvana.recipe", "Recipe"),
    ("nirvana.sparse.engine", "train"),
    ("nirvana.tasks.task", "ByteData"),
    ("nirvana.tasks.task", "TaskData"),
)
_PACKAGES = ("llvmlite", "numba", "numpy")
_ONE_FILE = {("nirvana.sparse.compiling", "_SOURCES"): "script"}  # whose date numba's cache looks at


def to_script(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """The script, UTF-8: the same bytes for the same ticket.

    Raises:
        Invalid: trained weights were given, the ticket's task is not one of Nirvana's own, or its recipe is
            not a recipe, or asks for what no script does.
    """
    if weights is not None:
        raise Invalid("a script trains the ticket from its initial values, expected no trained weights")
    if ticket.task not in tasks.names():
        known = ", ".join(tasks.names())
        detail = f"task is {ticket.task!r}, expected one of {known}"
        raise Invalid(detail, errors=[Problem("/task", "unknown-task", detail)])
    recipe = Recipe.from_dict(dict(ticket.recipe))
    for name in _BEYOND_THE_SCRIPT:
        if getattr(recipe, name):
            detail = f"the recipe has {name}, which the stand-alone script cannot do: use nirvana train"
            raise Invalid(detail, errors=[Problem(f"/recipe/{name}", "not-exported", detail)])
    reason = _find_unsupported(ticket, recipe)
    is_digits = ticket.task == "digits"
    fields = {
        "@DIGEST@": ticket.digest,
        "@VERSION@": __version__,
        "@DATA@": ", and the digits it is trained on" if is_digits else "",
        "@REASON@": reason or "",
        "@SOURCES@": "" if reason else _sources(),
        "@TICKET@": _blob(_ticket_arrays(ticket)),
        "@PIXELS@": _blob(_digits()) if is_digits else "",
    }
    template = _read_template(_WITH_TORCH if reason else _WITH_NUMBA)
    for name, text in fields.items():
        template = template.replace(name, text)
    return template.encode()


def _find_unsupported(ticket: Ticket, recipe: Recipe) -> str | None:
    """Why torch must train it, in plain characters; whether numba is installed here does not matter."""
    reason = find_beyond(ticket.architecture, recipe, ticket.masks)
    return None if reason is None else re.sub(r"[^\w .,:()\[\]-]", "?", reason)


@cache
def _sources() -> str:
    """What the script needs of this package, without torch, as Python source."""
    own = ast.parse(_read_template(_WITH_NUMBA).replace("@SOURCES@", ""))
    taken = [node.name for node in own.body if isinstance(node, ast.FunctionDef)]
    return amalgamate(_ROOTS, _PACKAGES, [*taken, "TICKET", "PIXELS"], _ONE_FILE)


def _read_template(name: str) -> str:
    return resources.files("nirvana.exports").joinpath(name).read_text(encoding="utf-8")


def _ticket_arrays(ticket: Ticket) -> dict[str, NDArray[Any]]:
    """theta/<parameter>, mask/<parameter> as packed bits, what of the manifest training needs, and what
    standardises bytes."""
    values = {f"theta/{name}": array for name, array in ticket.initial_values().items()}
    masks = {f"mask/{n}": np.frombuffer(pack_bits(mask), np.uint8) for n, mask in ticket.masks.items()}
    manifest = np.frombuffer(json.dumps(_manifest(ticket), sort_keys=True).encode(), np.uint8)
    scale, shift = tasks.get(ticket.task).scale_and_shift()
    return values | masks | {"manifest": manifest, "scale": scale, "shift": shift}


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
