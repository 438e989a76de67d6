"""Nirvana: the open database of winning lottery tickets."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from nirvana.environment import VERSION as __version__

if TYPE_CHECKING:
    from nirvana.client.api import load, push, search
    from nirvana.client.rest import Client
    from nirvana.engines import train_ticket
    from nirvana.errors import NirvanaError
    from nirvana.format.lint import lint
    from nirvana.format.ticket import Ticket
    from nirvana.networks import zoo
    from nirvana.networks.architecture import Architecture
    from nirvana.tasks import Task
    from nirvana.training.recipe import Recipe

# Each public name with its module, imported when it is first asked for: `nirvana --help` and a script that
# only lints a file then pay for nothing else.
_HOMES = {
    "Architecture": "nirvana.networks.architecture",
    "Client": "nirvana.client.rest",
    "NirvanaError": "nirvana.errors",
    "Recipe": "nirvana.training.recipe",
    "Task": "nirvana.tasks",
    "Ticket": "nirvana.format.ticket",
    "lint": "nirvana.format.lint",
    "load": "nirvana.client.api",
    "push": "nirvana.client.api",
    "search": "nirvana.client.api",
    "train_ticket": "nirvana.engines",
}

__all__ = [
    "Architecture",
    "Client",
    "NirvanaError",
    "Recipe",
    "Task",
    "Ticket",
    "__version__",
    "lint",
    "load",
    "push",
    "search",
    "train_ticket",
    "zoo",
]


def __getattr__(name: str) -> object:
    if name == "zoo":
        return importlib.import_module("nirvana.networks.zoo")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nirvana' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
