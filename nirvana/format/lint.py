"""The linter: a reader that lists what is wrong with a file, and what is odd about a valid ticket.

It asks more than a reader: the ticket's recipe must be one that can be trained here, as publishing does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from nirvana import lazy
from nirvana.errors import Invalid, JsonObject, Problem, TooLarge
from nirvana.format.reader import DEFAULT_LIMITS, Limits, read_file
from nirvana.format.ticket import Ticket


@dataclass(frozen=True)
class LintReport:
    """The result of checking a file: its identity when it is a ticket, every problem when it is not.

    Attributes:
        density, kept, total: of the weights of the whole network, prunable or not.
        kept_parameters, parameters: of everything, biases and normalisations among them.
    """

    ok: bool
    digest: str | None = None
    density: float | None = None
    kept: int | None = None
    total: int | None = None
    kept_parameters: int | None = None
    parameters: int | None = None
    warnings: tuple[str, ...] = ()
    errors: tuple[Problem, ...] = ()

    def to_dict(self) -> JsonObject:
        members = asdict(self)
        return members | {"warnings": list(self.warnings), "errors": list(members["errors"])}


def lint(
    source: bytes | str | os.PathLike[str],
    limits: Limits = DEFAULT_LIMITS,
    also: Callable[[Ticket], None] | None = None,
) -> LintReport:
    """Check a file or its bytes as publishing does, without raising for what is wrong inside.

    Args:
        also: what a registry asks beyond the format; it raises `Invalid`.

    Raises:
        NotFound: there is no such file.
    """
    data = source if isinstance(source, bytes) else read_file(source, limits)
    try:
        ticket = Ticket.from_bytes(data, limits)
        lazy.check_recipe(ticket)
        if also is not None:
            also(ticket)
    except (Invalid, TooLarge) as error:
        return LintReport(False, errors=error.errors or (Problem("", error.code, error.detail),))
    return LintReport(
        True,
        ticket.digest,
        ticket.density,
        ticket.kept,
        ticket.total,
        ticket.kept_parameters,
        ticket.architecture.parameter_count,
        tuple(find_warnings(ticket)),
    )


def find_warnings(ticket: Ticket) -> Iterator[str]:
    """Tell what is odd about a valid ticket."""
    if not ticket.is_redrawable and ticket.start.rewind_step == 0:
        yield "the initial values are stored, not drawn from a seed: a verdict can be MATCHING at best"
    if not ticket.masks:
        yield "nothing is pruned: this is the dense network"
    prunable = set(ticket.prunable)
    if left_out := [name for name in ticket.architecture.weights if name not in prunable]:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        yield f"not prunable, so kept whole and counted so: {left_out[0]}{more}"
