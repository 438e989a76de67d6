"""A ticket as one Python file that trains it: with numpy and numba alone, at a cost that follows the kept
weights; or with numpy and torch, where the sparse engine cannot do what the ticket asks for.

The file is a template with blobs in base 85: the ticket, which never becomes code, and for numba a zip file
of the modules of this package that training takes.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana import tasks
from nirvana.environment import VERSION
from nirvana.errors import Invalid, Problem
from nirvana.format.masks import pack_bits
from nirvana.format.ticket import Ticket
from nirvana.tasks.arrays import read_digits
from nirvana.training.recipe import Recipe
from nirvana.weights import Weights, write_npz

Array = NDArray[Any]  # of the type that a file holds

_BEYOND_THE_SCRIPT = ("augmentation", "distillation", "l1")
_WITH_NUMBA, _WITH_TORCH = "train.py.template", "train_with_torch.py.template"
_ENTRY = "nirvana.standalone"  # what the template for numba calls
_ROOT = Path(__file__).parents[2]  # where the package lies


def to_script(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """Return the script, UTF-8: the same bytes for the same ticket.

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
        "@VERSION@": VERSION,
        "@DATA@": ", and the digits it is trained on" if is_digits else "",
        "@REASON@": reason or "",
        "@MODULES@": "" if reason else base64.b85encode(_zip_modules(_ENTRY)).decode(),
        "@TICKET@": _blob(_ticket_arrays(ticket)),
        "@DIGITS@": _blob(_digits()) if is_digits else "",
    }
    template = Path(__file__).with_name(_WITH_TORCH if reason else _WITH_NUMBA).read_text(encoding="utf-8")
    return re.sub("@[A-Z]+@", lambda field: fields[field[0]], template).encode()


def _find_unsupported(ticket: Ticket, recipe: Recipe) -> str | None:
    """Return the reason why torch must train it, in plain characters; numba need not be installed here."""
    from nirvana.sparse.choice import unsupported_reason  # not at the top: the service starts without it

    reason = unsupported_reason(ticket.architecture, recipe, ticket.masks)
    return None if reason is None else re.sub(r"[^\w .,:()\[\]-]", "?", reason)


@cache
def _zip_modules(entry: str) -> bytes:
    """Return a zip file of `find_modules`, with a fixed date in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, source in sorted(find_modules(entry).items()):
            archive.writestr(zipfile.ZipInfo(path), source, zipfile.ZIP_DEFLATED, 9)
    return stream.getvalue()


def find_modules(entry: str) -> dict[str, str]:
    """Return the modules of this package that a module can import, itself and theirs included: whole files.

    Imports inside functions count, those under TYPE_CHECKING do not.

    Returns:
        each module's path, such as nirvana/sparse/engine.py, with its source.
    """
    sources: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        file = _find_file(name)
        if file and (path := file.relative_to(_ROOT).as_posix()) not in sources:
            sources[path] = file.read_text(encoding="utf-8")
            waiting += [name.rpartition(".")[0], *_imported_names(ast.parse(sources[path]))]
    return sources


def _find_file(name: str) -> Path | None:
    """Return the file of a module of this package; None for any other name."""
    path = _ROOT.joinpath(*name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py") if name.split(".")[0] == "nirvana" else ()
    return next((file for file in files if file.is_file()), None)


def _imported_names(node: ast.AST) -> Iterator[str]:
    """Yield the modules that a source imports; of `from a import b` both a and a.b, which may be one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield from (child.module, *(f"{child.module}.{alias.name}" for alias in child.names))
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _imported_names(child)


def _ticket_arrays(ticket: Ticket) -> dict[str, Array]:
    """Return theta/<parameter>, mask/<parameter> as packed bits, the part of the manifest that training
    needs, and the scale and shift that standardise bytes."""
    values = {f"theta/{name}": array for name, array in ticket.initial_values().items()}
    masks = {f"mask/{n}": np.frombuffer(pack_bits(mask), np.uint8) for n, mask in ticket.masks.items()}
    manifest = np.frombuffer(json.dumps(_manifest(ticket), sort_keys=True).encode(), np.uint8)
    scale, shift = tasks.get(ticket.task).scale_and_shift()
    return values | masks | {"manifest": manifest, "scale": scale, "shift": shift}


def _manifest(ticket: Ticket) -> dict[str, object]:
    task, recipe = tasks.get(ticket.task), Recipe.from_dict(dict(ticket.recipe))
    return {
        "architecture": ticket.architecture.to_manifest(),
        "initial": {"rewind_step": recipe.first_step(ticket.start.rewind_step)},
        "recipe": recipe.to_dict(),
        "task": {
            "pixel_max": task.pixel_max,
            "normalisation": task.normalisation,
            "input_shape": task.input_shape,
            **task.sizes,
        },
    }


def _digits() -> dict[str, Array]:
    """Return the digits in the order of their split: train, validation, test."""
    images, labels = read_digits()
    return {"images": images, "labels": labels}


def _blob(arrays: Mapping[str, Array]) -> str:
    """Return arrays as text without quotes or backslashes: a zlib-compressed .npz in base 85.

    The archive is stored with a fixed date, so that the same arrays give the same text.
    """
    return base64.b85encode(zlib.compress(write_npz(arrays, compress=False), 9)).decode()
