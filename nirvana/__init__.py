"""Nirvana: the open database of winning lottery tickets."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nirvana.api import load, push, search
    from nirvana.architecture import Architecture
    from nirvana.client import Client
    from nirvana.errors import NirvanaError
    from nirvana.reader import lint
    from nirvana.recipe import Recipe
    from nirvana.running import train_ticket
    from nirvana.tasks import Task
    from nirvana.ticket import Ticket

__version__ = "0.1.0"

# Each public name with its module, imported when it is first asked for: `nirvana --help` and a script that
# only lints a file then pay for nothing else.
_HOMES = {
    "Architecture": "nirvana.architecture",
    "Client": "nirvana.client",
    "NirvanaError": "nirvana.errors",
    "Recipe": "nirvana.recipe",
    "Task": "nirvana.tasks",
    "Ticket": "nirvana.ticket",
    "lint": "nirvana.reader",
    "load": "nirvana.api",
    "push": "nirvana.api",
    "search": "nirvana.api",
    "train_ticket": "nirvana.running",
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
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nirvana' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
