"""How far to prune, and what that makes of one level's trained weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, InvalidJob, Problem, raise_problems
from nirvana.lab.methods.imp import masks_at_density, next_masks
from nirvana.lab.methods.ranking import kept_at
from nirvana.masks import Mask
from nirvana.methods import METHODS
from nirvana.recipe import Pruning
from nirvana.ticket import Ticket

MAX_LEVELS = 1000


@dataclass(frozen=True)
class Goal:
    """A method, for a number of rounds or to a density.

    `levels` N means tickets of level 0 (dense) to N; a method that is not iterative goes to the density that
    N rounds would leave. With `density`, an iterative method runs rounds as the recipe says and shortens the
    last one to land on round_half_even(density x total) weights.

    Raises:
        InvalidJob: unknown method, or not exactly one of levels >= 1 and 0 < density < 1.
    """

    method: str = "imp"
    levels: int | None = None
    density: float | None = None

    def __post_init__(self) -> None:
        raise_problems(InvalidJob, "goal", [p for p in (self._method(), self._extent()) if p])

    def masks_after(
        self, ticket: Ticket, weights: Mapping[str, NDArray[np.float32]], pruning: Pruning, seed: int = 0
    ) -> dict[str, Mask] | None:
        """An iterative method's masks of the ticket after this one, given its trained weights; None when this
        one is the last.

        Raises:
            Invalid, InvalidTicket: as in `nirvana.lab.methods.imp`.
        """
        level = level_of(ticket)
        if level >= self.last_level(ticket, pruning):
            return None
        initial, place = ticket.initial_values(), (weights, ticket.masks, ticket.prunable, pruning)
        if self.density is not None and level + 1 == self.last_level(ticket, pruning):
            return masks_at_density(*place, self.density, initial, seed)
        return next_masks(*place, initial, seed)

    @property
    def is_iterative(self) -> bool:
        """Whether every level is a ticket, or only the last one."""
        return METHODS[self.method].is_iterative

    def final_density(self, ticket: Ticket, pruning: Pruning) -> float:
        """The density to reach, in (0, 1)."""
        return self.density or self._kept(ticket, pruning)[-1] / ticket.total

    def last_level(self, ticket: Ticket, pruning: Pruning) -> int:
        """The number of the last ticket. Counts follow from the rates alone, so it is known beforehand."""
        return len(self._kept(ticket, pruning)) - 1 if self.is_iterative else 1

    def _kept(self, ticket: Ticket, pruning: Pruning) -> list[int]:
        """Weights kept at each level from 0 on if pruned round by round."""
        groups = _groups(ticket, pruning)
        goal = None if self.density is None else kept_at(self.density, ticket.total)
        kept = [ticket.total]
        while len(kept) - 1 != self.levels:
            groups = [(n - round(rate * n), rate) for n, rate in groups]
            left = sum(n for n, _ in groups)
            if left == kept[-1]:
                asked = f"{self.levels} levels" if goal is None else f"density {self.density}"
                raise Invalid(
                    f"{asked}: out of reach, since after {len(kept) - 1} levels a round at {left} weights "
                    "removes none"
                )
            kept.append(left if goal is None else max(left, goal))
            if kept[-1] == goal:
                break
        return kept

    def _method(self) -> Problem | None:
        if self.method in METHODS:
            return None
        return Problem(
            "/method", "unknown", f"method is {self.method!r}, expected one of {', '.join(METHODS)}"
        )

    def _extent(self) -> Problem | None:
        levels, density = self.levels, self.density
        if (levels is None) == (density is None):
            return Problem("/levels", "missing", "expected exactly one of levels and density")
        if levels is not None and not (type(levels) is int and 1 <= levels <= MAX_LEVELS):
            return Problem(
                "/levels", "value", f"levels is {levels!r}, expected an integer from 1 to {MAX_LEVELS}"
            )
        if density is not None and not (isinstance(density, float) and 0 < density < 1):
            return Problem("/density", "value", f"density is {density!r}, expected a number between 0 and 1")
        return None


def level_of(ticket: Ticket) -> int:
    """The pruning round that a ticket came from; 0 where its provenance does not say."""
    level = ticket.provenance.get("level", 0)
    return level if isinstance(level, int) else 0


def _groups(ticket: Ticket, pruning: Pruning) -> list[tuple[int, float]]:
    """(weights, rate) of what is ranked together: each layer, or all of them."""
    if pruning.scope == "global":
        return [(ticket.total, pruning.rate)]
    names = ticket.prunable
    rates = [pruning.layer_rate(name, is_output=name == names[-1]) for name in names]
    return [(math.prod(ticket.prunable_shapes[name]), rate) for name, rate in zip(names, rates, strict=True)]
