"""Checkpoints of allenai/hidden-networks: frozen weights, and a score for each, whose ranks are the mask.

Reference: Ramanujan et al. 2020, "What's hidden in a randomly weighted neural network?" (arXiv 1911.13299);
their `GetSubnet` for the rule.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nirvana.errors import Invalid, Problem
from nirvana.format.masks import Mask
from nirvana.importers.checkpoints import Array, ForeignTicket, Options, read_checkpoint, refuse
from nirvana.importers.names import strip_prefixes, without_buffers

_SCORES = "scores"
_ARCHITECTURES = {"FC": "lenet-300-100", "Conv2": "conv-2", "Conv4": "conv-4", "Conv6": "conv-6"}
_RATE_IN_PATH = re.compile(r"prune_rate=([0-9.]+)$")  # a folder of theirs: runs/CONFIG/NAME/prune_rate=0.5


def read_hidden_networks(path: Path, options: Options) -> ForeignTicket:
    """Return weights, which never moved, and the masks of their scores; a layer without scores is kept whole.

    Raises:
        Invalid, NotFound: naming the file and what it lacks.
    """
    checkpoint = read_checkpoint(path)
    arrays = strip_prefixes(checkpoint.arrays)
    scores = {_weight(name): array for name, array in arrays.items() if name.endswith(f".{_SCORES}")}
    if not scores:
        detail = "found no scores, expected a checkpoint of hidden-networks: weights and scores"
        raise refuse(path, "no-scores", detail)
    keep = _keep(path, options.prune_rate)
    values = {name: array for name, array in arrays.items() if not name.endswith(f".{_SCORES}")}
    return ForeignTicket(
        {name: top_scores(name, array, keep) for name, array in scores.items()},
        values,
        without_buffers(values),
        (path,),
        law="kaiming_signed_constant",
        architecture=_ARCHITECTURES.get(str(checkpoint.extra.get("arch"))),
        provenance={"method": "edge-popup", "prune_rate": keep},
    )


def top_scores(name: str, scores: Array, keep: float) -> Mask:
    """Return the mask that their forward pass computes: all but the int((1 - keep) n) lowest magnitudes.

    The product is a float's and is cut, so that int((1 - 0.9) * 10) = 0 prunes nothing.

    Raises:
        Invalid: scores that are not finite, or ties across the cut, which their sort leaves open.
    """
    size = np.abs(scores.ravel())
    if not np.isfinite(size).all():
        raise _refusal(name, "not-finite", "found scores that are not finite")
    removed = int((1 - keep) * size.size)
    order = np.argsort(size, kind="stable")
    if removed and size[order[removed - 1]] == size[order[removed]]:
        detail = f"scores number {removed} and {removed + 1} by size are equal, so the mask is not decided"
        raise _refusal(name, "tie", detail)
    mask = np.ones(size.size, bool)
    mask[order[:removed]] = False
    return mask.reshape(scores.shape)


def _weight(scores_name: str) -> str:
    return scores_name.removesuffix(_SCORES) + "weight"


def _keep(path: Path, prune_rate: float | None) -> float:
    """Return the share kept: `prune_rate`, or the one in the name of a folder that the checkpoint lies in."""
    folder = next((m for part in path.resolve().parts if (m := _RATE_IN_PATH.search(part))), None)
    if prune_rate is None and folder is None:
        detail = (
            "the checkpoint does not say which share of its weights is kept, nor does a folder called "
            "prune_rate=...: prune_rate is missing"
        )
        raise Invalid(detail, errors=[Problem("/prune_rate", "missing", detail)])
    keep = prune_rate if prune_rate is not None or folder is None else float(folder.group(1))
    if keep is None or not 0 < keep <= 1:
        detail = f"prune_rate is {keep}, expected the share of weights kept: above 0, at most 1"
        raise Invalid(detail, errors=[Problem("/prune_rate", "value", detail)])
    return keep


def _refusal(name: str, code: str, detail: str) -> Invalid:
    return Invalid(f"{name}: {detail}", errors=[Problem(f"/{name}", code, f"{name}: {detail}")])
