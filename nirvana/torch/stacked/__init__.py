"""Several trainings of one network in one batch: replicates stacked, engine `stacked`.

What each reads, when it stops and what it tells are those of `nirvana.torch.dense`, and so are its numbers
but for rounding. A step takes every replicate's next batch, multiplies them with stacked parameters, and lets
one optimiser move them all; no sum crosses replicates, so one whose loss is not finite leaves the others
alone.

Bits: those of a replicate depend on how many are stacked and on its place among them, for matrix products and
the optimiser's kernels go other ways at other sizes and addresses (seen with torch 2.13 on a CPU: of 28 pairs
of stacks, one agreed in every bit after 30 steps). The same stack gives the same bits again. So whoever keeps
results by what they follow from must count the stack's size and place among that.
"""

from __future__ import annotations

from nirvana.torch.stacked.backend import train_replicates
from nirvana.torch.stacked.network import find_unstackable

__all__ = ["find_unstackable", "train_replicates"]
