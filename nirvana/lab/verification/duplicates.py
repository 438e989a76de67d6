"""Tickets that are there already: the same one, the same masks, or nearly.

Levels of one search are nested, so they overlap by construction: at a rate of 0.2 two neighbours share 0.8 of
their union, which is no near-duplicate here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nirvana.masks import mask_sha256
from nirvana.ticket import Ticket

NEAR_DUPLICATE = 0.9  # of the overlap beyond what chance gives masks of these densities


@dataclass(frozen=True)
class Overlap:
    """How much of a ticket is in a known one of the same architecture.

    Attributes:
        name: of the known ticket.
        kind: `duplicate` (the same digest), `same-mask` (every layer's mask is the same, the values are not)
            or `near-duplicate`.
        same_layers: prunable parameters whose masks are the same.
        jaccard: weights kept by both / by either, over all layers.
        containment: weights kept by both / by the smaller of the two.
        beyond_chance: (jaccard - c) / (1 - c), c being what random masks of these layer densities share.
    """

    name: str
    kind: str
    same_layers: tuple[str, ...]
    jaccard: float
    containment: float
    beyond_chance: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"same_layers": list(self.same_layers)}


def find_duplicates(ticket: Ticket, known: Iterable[tuple[str, Ticket]]) -> list[Overlap]:
    """Those of the known tickets that are this one, have its masks or nearly have them."""
    return list(_overlaps(ticket, known))


def _overlaps(ticket: Ticket, known: Iterable[tuple[str, Ticket]]) -> Iterator[Overlap]:
    for name, other in known:
        if other.architecture.digest != ticket.architecture.digest or other.prunable != ticket.prunable:
            continue
        overlap = compare(ticket, name, other)
        if overlap.kind:
            yield overlap


def compare(ticket: Ticket, name: str, other: Ticket) -> Overlap:
    """The overlap with a ticket of the same architecture; `kind` is empty where there is little."""
    pairs = [(ticket.mask(layer), other.mask(layer)) for layer in ticket.prunable]
    both = sum(int(np.count_nonzero(a & b)) for a, b in pairs)
    kept, others = (sum(int(np.count_nonzero(pair[side])) for pair in pairs) for side in (0, 1))
    by_chance = sum(float(a.mean() * b.mean()) * a.size for a, b in pairs)
    jaccard, chance = both / (kept + others - both), by_chance / (kept + others - by_chance)
    beyond = (jaccard - chance) / (1 - chance) if chance < 1 else 0.0
    same = tuple(
        layer
        for layer, (a, b) in zip(ticket.prunable, pairs, strict=True)
        if mask_sha256(a) == mask_sha256(b)
    )
    has_same_masks = len(same) == len(pairs) and kept < ticket.total
    kind = "near-duplicate" if beyond >= NEAR_DUPLICATE else ""
    kind = "duplicate" if ticket.digest == other.digest else "same-mask" if has_same_masks else kind
    return Overlap(name, kind, same, jaccard, both / min(kept, others), beyond)
