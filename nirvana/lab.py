"""The lab, the public face of finding and verifying: no server is needed.

    lab.find("digits", "lenet-300-100", levels=10)     tickets of every level
    lab.verify(ticket, replicates=5)                   a verdict, measured against controls
    lab.to_torch(ticket)                               a module whose masks hold under any optimiser

Names that need torch are imported when they are first asked for: the rest works without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nirvana import engines, lazy
from nirvana.engines import train_ticket
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.pruning.find import FindReport, find
from nirvana.pruning.levels import LevelResult, find_level
from nirvana.pruning.levels import first_ticket as first_ticket_of_plan
from nirvana.pruning.plan import SearchPlan, plan_search, resolve_recipe
from nirvana.pruning.target import PruningTarget
from nirvana.tasks import Task
from nirvana.training.cost import environment
from nirvana.training.events import OnProgress, Reporter, ShouldStop
from nirvana.training.recipe import Recipe
from nirvana.training.spec import (
    Arrays,
    ByteData,
    InitialState,
    SealedRows,
    TaskData,
    TrainResult,
    TrainSpec,
)
from nirvana.verification.arms import ArmConfig
from nirvana.verification.connectivity import Barrier
from nirvana.verification.connectivity import barrier as measure_barrier
from nirvana.verification.evaluation import Evaluation, judge
from nirvana.verification.protocol import ARMS
from nirvana.verification.running import run_arms
from nirvana.verification.runs import ArmResult, RunCache
from nirvana.verification.transfer import Transfer, transfer, transfer_matrix
from nirvana.verification.verify import verify

if TYPE_CHECKING:
    from nirvana.torch.masked import MaskedNetwork
    from nirvana.torch.modules import Network, build_module, load_values, read_values
    from nirvana.torch.tracing import trace, trace_values

_NEED_TORCH = {
    "MaskedNetwork": "nirvana.torch.masked",
    "Network": "nirvana.torch.modules",
    "build_module": "nirvana.torch.modules",
    "load_values": "nirvana.torch.modules",
    "read_values": "nirvana.torch.modules",
    "trace": "nirvana.torch.tracing",
    "trace_values": "nirvana.torch.tracing",
}
Goal = PruningTarget
Start = InitialState
make_recipe = resolve_recipe
to_torch = lazy.to_torch

__all__ = [
    "ARMS",
    "ArmResult",
    "Barrier",
    "Evaluation",
    "FindReport",
    "Goal",
    "InitialState",
    "LevelResult",
    "MaskedNetwork",
    "Network",
    "PruningTarget",
    "RunCache",
    "SearchPlan",
    "Start",
    "TrainResult",
    "Transfer",
    "barrier",
    "build_module",
    "environment",
    "find",
    "find_level",
    "first_ticket",
    "judge",
    "load_values",
    "make_recipe",
    "plan_search",
    "read_values",
    "run_arm",
    "to_torch",
    "trace",
    "trace_values",
    "train",
    "train_replicates",
    "train_ticket",
    "transfer",
    "transfer_matrix",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _NEED_TORCH:
        raise AttributeError(f"module 'nirvana.lab' has no attribute {name!r}")
    with lazy.needs_lab():
        return getattr(importlib.import_module(_NEED_TORCH[name]), name)


def train(
    architecture: Architecture,
    values: Arrays,
    masks: Mapping[str, Mask],
    data: TaskData | ByteData,
    recipe: Recipe,
    order_seed: int,
    *,
    start_step: int = 0,
    teacher: Any = None,
    held: Arrays | None = None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    **options: Any,
) -> TrainResult:
    """Train masked values from `start_step` to the recipe's last step.

    Args:
        values: full tensors by parameter (and running statistics, where there are any).
        masks: by parameter; those without one are kept whole.
        order_seed: of the data's order, of augmentation and of dropout.
        teacher: logits of the training examples, shape (n, classes), for a recipe with `distillation`.
        held: what pruned elements are held at instead of 0, for the mask-0 action `freeze`.
        options: engine, threads, keep_weights: as `nirvana.engines.train`.

    Raises:
        Invalid, InvalidRecipe, Unavailable, Cancelled: as `nirvana.engines.train`.
    """
    initial = InitialState(values, masks, order_seed, start_step)
    spec = TrainSpec(architecture, initial, data, recipe, teacher, held)
    return engines.train(spec, Reporter(progress, should_stop), **options)


def train_replicates(
    architecture: Architecture,
    starts: Sequence[InitialState],
    data: TaskData,
    recipe: Recipe,
    *,
    teacher: Any = None,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    **options: Any,
) -> list[TrainResult]:
    """Train replicates of one network in one batch.

    Args:
        options: device, keep_weights: as `nirvana.torch.stacked.train_replicates`.

    Raises:
        Invalid, InvalidRecipe, Unavailable, Cancelled: as there.
    """
    specs = [TrainSpec(architecture, start, data, recipe, teacher) for start in starts]
    return engines.train_replicates(specs, Reporter(progress, should_stop), **options)


def first_ticket(
    task: Task,
    architecture: Architecture,
    recipe: Recipe,
    seed: int,
    *,
    data: TaskData | None = None,
    method: str = "imp",
    should_stop: ShouldStop | None = None,
) -> Ticket:
    """Return the ticket of level 0: nothing pruned, initial values from the seed, or rewound ones."""
    plan = SearchPlan(task, architecture, recipe, PruningTarget(method, levels=1), seed)
    return first_ticket_of_plan(plan, data, Reporter(None, should_stop))


def run_arm(
    ticket: Ticket,
    arm: str,
    data: TaskData,
    recipe: Recipe | None = None,
    replicates: int | range = 5,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    *,
    sealed: SealedRows | None = None,
    cache: RunCache | None = None,
    threads: int | None = None,
) -> ArmResult:
    """Train one arm of a verification; see `nirvana.verification.running.run_arms`.

    Args:
        recipe: None is the ticket's own.
        replicates: how many, from replicate 0 on, or a range of them (a top-up: range(5, 10)).
        sealed: the rows that decide, as in a verification; None: the test set.
    """
    chosen = recipe or Recipe.from_dict(dict(ticket.recipe))
    config = ArmConfig(ticket, arm, data, chosen, sealed=sealed)
    seeds = range(replicates) if isinstance(replicates, int) else replicates
    reporter = Reporter(progress, should_stop)
    return run_arms(config, [arm], seeds, reporter, cache=cache, threads=threads)[arm]


def barrier(
    ticket: Ticket,
    data: TaskData,
    recipe: Recipe | None = None,
    *,
    progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
    **options: Any,
) -> Barrier:
    """Measure linear mode connectivity; see `nirvana.verification.connectivity.barrier`."""
    return measure_barrier(ticket, data, recipe, reporter=Reporter(progress, should_stop), **options)
