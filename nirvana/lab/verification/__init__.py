"""Verification: train a ticket again beside a dense baseline and controls, and say what it is."""

from __future__ import annotations

from nirvana.lab.verification.connectivity import Barrier, barrier
from nirvana.lab.verification.evaluation import Evaluation, judge
from nirvana.lab.verification.results import ArmResult
from nirvana.lab.verification.running import run_arm
from nirvana.lab.verification.runs import RunCache, home_cache
from nirvana.lab.verification.transfer import Transfer, transfer, transfer_matrix
from nirvana.lab.verification.verifying import verify
from nirvana.protocol import ARMS, PROTOCOL, VERDICTS

__all__ = [
    "ARMS",
    "PROTOCOL",
    "VERDICTS",
    "ArmResult",
    "Barrier",
    "Evaluation",
    "RunCache",
    "Transfer",
    "barrier",
    "home_cache",
    "judge",
    "run_arm",
    "transfer",
    "transfer_matrix",
    "verify",
]
