"""The kinds of jobs as a worker does them: a module each, of the name that it has in `app.jobs.kinds`.

A module has `run`, the workflow: it only orders rounds and commits, and may run again from any of them; and
`ROUNDS`, the work of its rounds, which a child process does. Between rounds everything is JSON.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from nirvana.training.events import OnProgress
from worker import Json

if TYPE_CHECKING:
    from worker.running import RunningJob

Round = Callable[[Json, OnProgress], Json]


class Kind(Protocol):
    """A module of this package.

    Attributes:
        run: a job of this kind, from its first round to its result.
        ROUNDS: name -> the work of a round: (request, progress) -> result. Files lie in `request["folder"]`,
            the attempt's own.
    """

    run: Callable[[RunningJob], Awaitable[Json]]
    ROUNDS: Mapping[str, Round]


def find_kind(name: str) -> Kind:
    """Return the module of a kind.

    Raises:
        ModuleNotFoundError: there is none.
    """
    module: Any = importlib.import_module(f"worker.kinds.{name}")
    kind: Kind = module
    return kind
