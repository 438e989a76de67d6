"""Keep the largest initial values of all layers together, without training.

Layers with smaller values go first, so at low densities wide layers collapse.

Reference: Frankle et al. 2021 (arXiv 2009.08576).
"""

from __future__ import annotations

import numpy as np

from nirvana.lab.methods.ranking import keep_global, whole_masks
from nirvana.lab.methods.search import Found, Search


def find(search: Search) -> Found:
    """The largest |values| at the start."""
    sizes = {name: np.abs(search.values[name]) for name in search.shapes}
    return Found(keep_global(sizes, whole_masks(search.shapes), search.keep))
