"""Tickets from elsewhere: open_lth, torch.nn.utils.prune, hidden-networks, plain state dicts with masks.

Masks are taken as they are. Initial values are taken where the files have them, and are never made up: where
they are missing, the ticket is a structure, with new values, and says so. Files are read without running
anything in them; this is for the user's own machine, and no server does it. Only torch's files need torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from nirvana import tasks
from nirvana.errors import Invalid, Problem
from nirvana.format.initial import FAN_LAWS
from nirvana.importers.assembly import Imported, assemble
from nirvana.importers.checkpoints import ForeignTicket, Options
from nirvana.importers.hidden_networks import read_hidden_networks
from nirvana.importers.open_lth import read_open_lth
from nirvana.importers.state_dicts import read_state_dict, read_torch_prune
from nirvana.lazy import needs_lab
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.tasks import Task

__all__ = ["SOURCES", "ForeignTicket", "Imported", "Options", "import_ticket"]

SOURCES: Mapping[str, Callable[[Path, Options], ForeignTicket]] = {
    "open-lth": read_open_lth,
    "torch-prune": read_torch_prune,
    "hidden-networks": read_hidden_networks,
    "state-dict": read_state_dict,
}
_FORMATS_OF_OPTION: Mapping[str, tuple[str, ...]] = {
    "level": ("open-lth",),
    "iterations_per_epoch": ("open-lth",),
    "initial": ("torch-prune",),
    "untrained": ("torch-prune",),
    "prune_rate": ("hidden-networks",),
    "masks": ("state-dict",),
    "infer_masks": ("state-dict",),
    "rewind_step": ("torch-prune", "state-dict"),
    "torch_seed": ("torch-prune", "state-dict"),
    "torch_order": ("torch-prune", "state-dict"),
}


def import_ticket(
    source: str,
    path: str | os.PathLike[str],
    task: str | Task,
    architecture: str | Architecture | None = None,
    options: Options = Options(),  # noqa: B008
) -> Imported:
    """Return a ticket from files that another tool wrote.

    Args:
        source: one of `SOURCES`.
        path: a file, or for open-lth a replicate's or a level's folder.
        architecture: a zoo name, built for the task, or a graph; None: the one that the files name, or the
            only one of the zoo that fits.

    Raises:
        NotFound: a file, the task or the architecture is not there.
        Invalid, InvalidTicket, InvalidRecipe, InvalidArchitecture: a fault of the files, or of what is
            said about them.
        Unavailable: torch, for its files, or scipy, for the laws of values, is not installed.

    Reference: SCIENCE 3.1 to 3.3 has the formats.
    """
    _check(source, options)
    task = tasks.get(task) if isinstance(task, str) else task
    if isinstance(architecture, str):
        architecture = zoo.build(architecture, task.input_shape, task.classes)
    with needs_lab():
        foreign = SOURCES[source](Path(path), options)
        return assemble(source, Path(path), foreign, task, architecture, options)


def _check(source: str, options: Options) -> None:
    if source not in SOURCES:
        raise _problem("source", f"{source!r} is no known format, expected one of {', '.join(SOURCES)}")
    if options.law is not None and options.law not in FAN_LAWS:
        raise _problem("law", f"law is {options.law!r}, expected one of {', '.join(FAN_LAWS)}")
    if options.rewind_step is not None and options.rewind_step < 0:
        raise _problem("rewind_step", f"rewind_step is {options.rewind_step}, expected 0 or more")
    if options.torch_seed is not None and not 0 <= options.torch_seed < 2**64:
        raise _problem("torch_seed", f"torch_seed is {options.torch_seed}, expected 0 to 2^64 - 1")
    for field in fields(options):
        formats = _FORMATS_OF_OPTION.get(field.name, (source,))
        if source not in formats and getattr(options, field.name) != field.default:
            raise _problem(field.name, f"{field.name} is only for {' and '.join(formats)}, not for {source}")


def _problem(name: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[Problem(f"/{name}", "value", detail)])
