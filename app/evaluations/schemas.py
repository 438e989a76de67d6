"""Bodies of evaluations."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from app.evaluations.models import Evaluation
from app.schemas import Answer, Instant, example

EVALUATION_EXAMPLE: dict[str, Any] = {
    "id": 1,
    "ticket": "sha256:" + "5f" * 32,
    "job_id": "0b8f6c1e-5f43-4c43-9c55-8b4f5c2f5d11",
    "task": "digits",
    "protocol": "nirvana-verify/2",
    "verdict": "WINNING",
    "reason": "it matches the dense baseline and beats every control",
    "replicates": 5,
    "margin": 0.01,
    "accuracy": 0.9721,
    "accuracy_sd": 0.0021,
    "dense_accuracy": 0.9705,
    "created_at": "2026-11-21T09:03:00Z",
    "arms": {"dense": [0.97, 0.971], "ticket": [0.972, 0.973]},
}


class EvaluationShown(Answer):
    """A measured verdict; besides these fields, all that was measured: arms, tests, cost, seeds."""

    model_config = Answer.model_config | example(**EVALUATION_EXAMPLE) | ConfigDict(extra="allow")
    id: int
    ticket: str
    job_id: str | None
    task: str
    protocol: str
    verdict: str
    reason: str
    replicates: int
    margin: float
    accuracy: float | None
    accuracy_sd: float | None
    dense_accuracy: float | None
    created_at: Instant


class EvaluationPage(Answer):
    """One page of a ticket's evaluations."""

    model_config = Answer.model_config | example(items=[EVALUATION_EXAMPLE], next_cursor=None)
    items: list[EvaluationShown]
    next_cursor: str | None


def show_evaluation(row: Evaluation) -> EvaluationShown:
    """The body of an evaluation."""
    names = ("id", "job_id", "task", "protocol", "verdict", "replicates", "margin", "created_at")
    more = ("accuracy", "accuracy_sd", "dense_accuracy")
    fields = {name: getattr(row, name) for name in (*names, *more)}
    fields |= {"ticket": row.ticket_digest, "reason": row.body.get("reason", "")}
    return EvaluationShown(**row.body | fields)
