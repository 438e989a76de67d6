"""Training at a cost that follows the kept weights, with numba and numpy alone.

    find_unsupported(architecture, recipe, masks)   what keeps it from training this, or None
    pays(architecture, masks, recipe)               whether it beats the dense engine on one core
    train(...)                                      as nirvana.lab.train.train
    predict_logits(architecture, values, masks, x)  logits of examples

Importing this needs no numba; `train` does.
"""

from __future__ import annotations

from nirvana.sparse.choice import count_useful_threads, find_unsupported, pays
from nirvana.sparse.engine import predict_logits, train

__all__ = ["count_useful_threads", "find_unsupported", "pays", "predict_logits", "train"]
