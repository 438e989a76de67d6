"""Bodies of transfers."""

from __future__ import annotations

from typing import Any

from app.schemas import Answer, Instant, example
from app.transfers.models import Transfer

TRANSFER_EXAMPLE: dict[str, Any] = {
    "id": 1,
    "ticket": "sha256:" + "5f" * 32,
    "name": "ada/lenet-300-100-mnist-07",
    "source": "mnist",
    "task": "fashion-mnist",
    "verdict": "UNRESOLVED",
    "reason": "there is no ticket of the target's own to compare with",
    "replicates": 5,
    "accuracy": 0.871,
    "dense_accuracy": 0.874,
    "density": 0.1,
    "arms": {"dense": [0.874, 0.873], "ticket": [0.871, 0.872]},
    "job_id": "0b8f6c1e-5f43-4c43-9c55-8b4f5c2f5d11",
    "created_at": "2026-11-21T09:03:00Z",
}


class TransferShown(Answer):
    """What a ticket of one task measured on another."""

    model_config = Answer.model_config | example(**TRANSFER_EXAMPLE)
    id: int
    ticket: str
    name: str
    source: str
    task: str
    verdict: str
    reason: str
    replicates: int
    accuracy: float
    dense_accuracy: float
    density: float
    arms: dict[str, list[float]]
    job_id: str
    created_at: Instant


class TransferPage(Answer):
    """One page of transfers."""

    model_config = Answer.model_config | example(items=[TRANSFER_EXAMPLE], next_cursor=None)
    items: list[TransferShown]
    next_cursor: str | None


def show_transfer(row: Transfer, name: str) -> TransferShown:
    """The body of a transfer of the ticket that is listed under a name."""
    copied = ("id", "source", "task", "verdict", "replicates", "accuracy", "dense_accuracy", "job_id")
    arms = {arm: measured["accuracies"] for arm, measured in row.body["arms"].items()}
    return TransferShown(
        **{field: getattr(row, field) for field in copied},
        ticket=row.ticket_digest,
        name=name,
        reason=row.body["reason"],
        density=row.body["density"],
        arms=arms,
        created_at=row.created_at,
    )
