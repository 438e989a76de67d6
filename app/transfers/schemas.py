"""Bodies of transfers."""

from __future__ import annotations

from app.db import Json
from app.schemas import Instant, ResponseModel, example
from app.transfers.models import Transfer

TRANSFER_EXAMPLE: Json = {
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


class TransferResponse(ResponseModel):
    """A measurement of a ticket of one task on another."""

    model_config = ResponseModel.model_config | example(**TRANSFER_EXAMPLE)
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


class TransferPage(ResponseModel):
    """One page of transfers."""

    model_config = ResponseModel.model_config | example(items=[TRANSFER_EXAMPLE], next_cursor=None)
    items: list[TransferResponse]
    next_cursor: str | None


def transfer_response(row: Transfer, name: str) -> TransferResponse:
    """Return the body of a transfer of the ticket that is listed under a name."""
    copied = ("id", "source", "task", "verdict", "replicates", "accuracy", "dense_accuracy", "job_id")
    arms = {arm: measured["accuracies"] for arm, measured in row.body["arms"].items()}
    return TransferResponse(
        **{field: getattr(row, field) for field in copied},
        ticket=row.ticket_digest,
        name=name,
        reason=row.body["reason"],
        density=row.body["density"],
        arms=arms,
        created_at=row.created_at,
    )
