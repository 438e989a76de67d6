"""An update's forward and backward as a CUDA graph: one launch in place of some sixty."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from nirvana.lab.replicates.run import Run

_WARM_UPDATES = 3  # before a capture, as torch asks
Gradients = Callable[[Tensor], Tensor]


def capture(run: Run) -> Gradients:
    """`run.backward` as a graph of a static index; itself where torch cannot capture it.

    The optimiser is not in it: its fused kernels are a launch or two, and it keeps its plain learning rate.
    Parameters are not changed here, and running statistics are put back.
    """
    size = len(run.starts) * run.recipe.batch_size
    static = torch.zeros(size, dtype=torch.int64, device=run.device)
    before = run.network.copies()
    try:
        return _record(run, static)
    except RuntimeError:  # an op that needs the host in between
        return run.backward
    finally:
        with torch.no_grad():
            for name in run.architecture.buffers:
                run.network.tensors[name].copy_(before[name])


def _record(run: Run, static: Tensor) -> Gradients:
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UPDATES):
            run.backward(static)
    torch.cuda.current_stream().wait_stream(side)
    run.optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = run.backward(static)

    def replay(index: Tensor) -> Tensor:
        static.copy_(index)
        graph.replay()
        return losses.clone()

    return replay
