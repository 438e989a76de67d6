"""What two masks share, place by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nirvana.errors import InvalidTicket
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket


def diff(ticket: Ticket, other: Ticket) -> dict[str, Any]:
    """Return how two tickets of like layers differ, unit by unit in the order that they have; JSON-able.

    Returns:
        Over all layers that a mask of either covers, and of each in `layers`: `kept` (of both tickets),
        `both`, `only_first`, `only_second`, `jaccard`, `beyond_chance` (see `Overlap`) and `same_values`,
        whether the weights that both keep start from the same values.

    Raises:
        InvalidTicket: a layer that one has and the other has not, or in another shape.
    """
    shapes, theirs = ticket.architecture.parameters, other.architecture.parameters
    if shapes != theirs:
        names = sorted(name for name in shapes.keys() | theirs.keys() if shapes.get(name) != theirs.get(name))
        shown = ", ".join(
            f"{name}: {shapes.get(name, 'none')} and {theirs.get(name, 'none')}" for name in names[:3]
        )
        raise InvalidTicket(f"masks can be compared layer by layer alone, and these differ: {shown}")
    names = [name for name in shapes if name in {*ticket.prunable, *other.prunable}]
    pairs = {name: (ticket.mask(name), other.mask(name)) for name in names}
    same = {
        name: np.array_equal(ticket.initial[name][a & b], other.initial[name][a & b])
        for name, (a, b) in pairs.items()
    }
    layers = [
        {"name": name} | count_shared([pair]) | {"same_values": same[name]} for name, pair in pairs.items()
    ]
    return count_shared(list(pairs.values())) | {"same_values": all(same.values()), "layers": layers}


def count_shared(pairs: Sequence[tuple[Mask, Mask]]) -> dict[str, Any]:
    """Return what masks share, place by place."""
    both = sum(int(np.count_nonzero(a & b)) for a, b in pairs)
    kept, others = (sum(int(np.count_nonzero(pair[side])) for pair in pairs) for side in (0, 1))
    by_chance = sum(float(a.mean() * b.mean()) * a.size for a, b in pairs)
    jaccard, chance = both / (kept + others - both), by_chance / (kept + others - by_chance)
    beyond = (jaccard - chance) / (1 - chance) if chance < 1 else 0.0
    only = {"only_first": kept - both, "only_second": others - both}
    return {"kept": [kept, others], "both": both} | only | {"jaccard": jaccard, "beyond_chance": beyond}
