"""The mask-1 actions of an ablation: what the kept weights of the next level restart from.

Reference: Zhou et al. 2019 (arXiv 1905.01067).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nirvana.initial import REINIT, draw, epoch_order, fans
from nirvana.masks import Mask
from nirvana.ticket import Ticket
from nirvana.training import Values

CONSTANT_LAW = "kaiming_signed_constant"


def restart(
    ticket: Ticket, masks: Mapping[str, Mask], action: str, seed: int
) -> tuple[Values, dict[str, str]]:
    """Whole initial values for the next ticket, and their laws.

    Args:
        ticket: with its whole initial values at step 0.
        action: `reinit`, `reshuffle` or `constant`.
        seed: of the draw or the permutation.
    """
    laws, start = dict(ticket.start.laws), ticket.dense_initial_values()
    assert start is not None
    values = {name: array.copy() for name, array in start.items()}
    places = {name: place for place, name in enumerate(ticket.architecture.parameters)}
    for name, mask in masks.items():
        if action == "reinit":
            values[name] = draw(laws[name], mask.shape, seed, places[name], REINIT)
        elif action == "reshuffle":
            kept = values[name][mask]
            values[name][mask] = kept[epoch_order(seed, places[name], len(kept))]
        else:
            size = np.float32(np.sqrt(2 / fans(mask.shape)[0]))
            values[name] = np.where(values[name] < 0, -size, size).astype(np.float32)
            laws[name] = CONSTANT_LAW
    return values, laws
