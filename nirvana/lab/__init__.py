"""The lab: where torch lives. Build modules, train, prune, verify; no server is needed.

lab.find("digits", "lenet-300-100", levels=10)     tickets of every level
lab.verify(ticket, replicates=5)                   a verdict, measured against controls
lab.to_torch(ticket)                               a module whose masks hold under any optimiser
"""

from __future__ import annotations

from nirvana.lab.engines import train
from nirvana.lab.environment import environment
from nirvana.lab.finding import find, find_level, first_ticket, make_recipe, train_ticket
from nirvana.lab.goal import Goal
from nirvana.lab.masked import MaskedNetwork, to_torch
from nirvana.lab.modules import Network, build_module, load_values, read_values
from nirvana.lab.replicates import Start, train_replicates
from nirvana.lab.report import FindReport, LevelResult
from nirvana.lab.tracing import trace, trace_values
from nirvana.lab.verification import (
    ARMS,
    ArmResult,
    Barrier,
    Evaluation,
    RunCache,
    Transfer,
    barrier,
    judge,
    run_arm,
    transfer,
    transfer_matrix,
    verify,
)
from nirvana.training import TrainResult

__all__ = [
    "ARMS",
    "ArmResult",
    "Barrier",
    "Evaluation",
    "FindReport",
    "Goal",
    "LevelResult",
    "MaskedNetwork",
    "Network",
    "RunCache",
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
