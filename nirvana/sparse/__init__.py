"""Training at a cost that follows the kept weights, with numba and numpy alone.

    find_unsupported(architecture, recipe, masks)   the reason why it cannot train this, or None
    pays(architecture, masks, recipe)               tells whether it beats the dense engine on one core
    train(...)                                      as nirvana.torch.dense.train
    predict_logits(architecture, values, masks, x)  logits of examples

Importing this needs no numba; `train` does.
"""

from __future__ import annotations

from nirvana.sparse.choice import count_useful_threads, find_unsupported, pays
from nirvana.sparse.engine import advance, predict_logits, train

__all__ = ["advance", "count_useful_threads", "find_unsupported", "pays", "predict_logits", "train"]
