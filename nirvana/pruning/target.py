"""The target of a search: by which method, and how far to prune."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, InvalidJob, Problem, raise_problems
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.networks.ops import Shape
from nirvana.pruning.imp import masks_at_density, next_masks
from nirvana.pruning.methods import METHODS, Method, Options, changed_options
from nirvana.pruning.ranking import kept_at
from nirvana.training.recipe import Pruning

MAX_LEVELS = 1000
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class PruningTarget:
    """A method, for a number of rounds or to a density.

    `levels` N means tickets of level 0 (dense) to N; a method that is not iterative goes to the density that
    N rounds would leave. With `density`, an iterative method runs rounds as the recipe says and shortens the
    last one to land on round_half_even(density x total) weights.

    Attributes:
        options: of the method (`nirvana.pruning.methods`), where they are not its defaults.

    Raises:
        InvalidJob: unknown method or option, or not exactly one of levels >= 1 and 0 < density < 1.
    """

    method: str = "imp"
    levels: int | None = None
    density: float | None = None
    options: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        raise_problems(InvalidJob, "goal", [p for p in (self._method_problem(), self._extent_problem()) if p])
        object.__setattr__(self, "options", changed_options(self.method, self.options))

    @property
    def rules(self) -> Method:
        """The method's row."""
        return METHODS[self.method]

    @property
    def is_iterative(self) -> bool:
        """True where every level is a ticket, false where only the last one is."""
        return self.rules.is_iterative

    def masks_after(
        self, ticket: Ticket, weights: Mapping[str, NDArray[np.float32]], pruning: Pruning, seed: int = 0
    ) -> dict[str, Mask] | None:
        """Return an iterative method's masks of the ticket after this one, given its trained weights; None
        when this one is the last.

        Raises:
            Invalid, InvalidTicket: as in `nirvana.pruning.imp`.
        """
        level, last = level_of(ticket), self.last_level(ticket.prunable_shapes, pruning)
        if level >= last:
            return None
        initial, place = ticket.initial_values(), (weights, ticket.masks, ticket.prunable, pruning)
        if self.density is not None and level + 1 == last:
            return masks_at_density(*place, self.density, initial, seed)
        return next_masks(*place, initial, seed)

    def final_density(self, shapes: Shapes, pruning: Pruning) -> float:
        """Return the density to reach, in (0, 1).

        Args:
            shapes: of the prunable parameters, in the architecture's order.
        """
        return self.density or self.kept_weights(shapes, pruning)[-1] / _total(shapes)

    def last_level(self, shapes: Shapes, pruning: Pruning) -> int:
        """Return the number of the last ticket, which follows from the rates alone.

        Raises:
            Invalid: the rounds never get there.
        """
        return len(self.kept_weights(shapes, pruning)) - 1 if self.is_iterative else 1

    def kept_weights(self, shapes: Shapes, pruning: Pruning) -> list[int]:
        """Return the weights kept at each level from 0 on if pruned round by round.

        Raises:
            Invalid: the rounds never get there.
        """
        groups, total = _groups(shapes, pruning), _total(shapes)
        goal = None if self.density is None else kept_at(self.density, total)
        kept = [total]
        while len(kept) - 1 != self.levels:
            groups = [(n - round(rate * n), rate) for n, rate in groups]
            left = sum(n for n, _ in groups)
            if left == kept[-1]:
                asked = f"{self.levels} levels" if goal is None else f"density {self.density}"
                raise Invalid(
                    f"{asked}: out of reach, since after {len(kept) - 1} levels a round at {left} weights "
                    "removes none"
                )
            if len(kept) > MAX_LEVELS:
                raise Invalid(
                    f"density {self.density}: out of reach, since {MAX_LEVELS} levels leave {left} weights"
                )
            kept.append(left if goal is None else max(left, goal))
            if kept[-1] == goal:
                break
        return kept

    def _method_problem(self) -> Problem | None:
        if self.method in METHODS:
            return None
        return Problem(
            "/method", "unknown", f"method is {self.method!r}, expected one of {', '.join(METHODS)}"
        )

    def _extent_problem(self) -> Problem | None:
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
    """Return the pruning round that a ticket came from; 0 where its provenance does not say."""
    level = ticket.provenance.get("level", 0)
    return level if isinstance(level, int) else 0


def _total(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _groups(shapes: Shapes, pruning: Pruning) -> list[tuple[int, float]]:
    """Return (weights, rate) of what is ranked together: each layer, or all of them."""
    if pruning.scope == "global":
        return [(_total(shapes), pruning.rate)]
    output = list(shapes)[-1]
    rates = {name: pruning.layer_rate(name, is_output=name == output) for name in shapes}
    return [(math.prod(shape), rates[name]) for name, shape in shapes.items()]
