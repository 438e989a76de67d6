"""Bodies of evaluations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.db import Json
from app.evaluations.models import Attestation, Evaluation
from app.schemas import Instant, ResponseModel, example
from nirvana.verification.protocol import PROTOCOL

EVALUATION_EXAMPLE: Json = {
    "id": 1,
    "ticket": "sha256:" + "5f" * 32,
    "exam": "7c" * 32,
    "seed": 3141592653589000,
    "job_id": "0b8f6c1e-5f43-4c43-9c55-8b4f5c2f5d11",
    "task": "digits",
    "protocol": PROTOCOL,
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


class EvaluationResponse(ResponseModel):
    """A measured verdict; besides these fields, all that was measured: arms, tests, cost, seeds."""

    model_config = ResponseModel.model_config | example(**EVALUATION_EXAMPLE) | ConfigDict(extra="allow")
    id: int
    ticket: str
    exam: str | None = Field(description="the listings of this exam have this verdict")
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


class EvaluationPage(ResponseModel):
    """One page of a ticket's evaluations."""

    model_config = ResponseModel.model_config | example(items=[EVALUATION_EXAMPLE], next_cursor=None)
    items: list[EvaluationResponse]
    next_cursor: str | None


SIGNED_EXAMPLE: Json = {
    "payload": "eyJ0eXBlIjoibmlydmFuYS12ZXJkaWN0In0",
    "protected": "eyJhbGciOiJFZDI1NTE5In0",
    "signature": "c2lnbmF0dXJl",
}
KEY_EXAMPLE: Json = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "VguqWyB5ARWkEocweQsCemeXTQyUCmHLIBd2BLBo-H8",
    "alg": "Ed25519",
    "use": "sig",
    "kid": "rjfd76TVcU0vENuJtTE1YcnRfQ1aH8mnCCR5oUm2R28",
}


class SignedVerdict(ResponseModel):
    """A verdict as a JWS in JSON (RFC 7515): the payload is base64url of `{type, version, registry,
    evaluation}` in canonical JSON (RFC 8785)."""

    model_config = ResponseModel.model_config | example(**SIGNED_EXAMPLE)
    payload: str
    protected: str
    signature: str


class Key(ResponseModel):
    """A public key (RFC 7517 and 8037)."""

    model_config = ResponseModel.model_config | example(**KEY_EXAMPLE)
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    alg: Literal["Ed25519"]
    use: Literal["sig"]
    kid: str


class KeySet(ResponseModel):
    """Public keys, the newest first."""

    model_config = ResponseModel.model_config | example(keys=[KEY_EXAMPLE])
    keys: list[Key]


ATTESTATION_EXAMPLE: Json = {
    "ticket": "sha256:" + "3f" * 32,
    "task": "digits",
    "outcome": "same",
    "found": "sha256:" + "3f" * 32,
    "overlap": 1.0,
    "job_id": "0e2c8b4e-5b0c-4a57-9b8e-1d1a1f0c6f5e",
    "environment": {"nirvana": "0.1.0"},
    "created_at": "2026-11-21T09:03:00Z",
}


class AttestationResponse(ResponseModel):
    """What came out when the registry's worker ran a ticket's search."""

    model_config = ResponseModel.model_config | example(**ATTESTATION_EXAMPLE)
    ticket: str
    task: str
    outcome: Literal["found", "same", "differs"]
    found: Annotated[str, Field(description="digest of the ticket that came out")]
    overlap: Annotated[float, Field(description="of its masks with the ticket's, beyond what chance gives")]
    job_id: str
    environment: Json
    created_at: Instant


class AttestationPage(ResponseModel):
    """The attestations of a ticket, newest first."""

    model_config = ResponseModel.model_config | example(items=[ATTESTATION_EXAMPLE], next_cursor=None)
    items: list[AttestationResponse]
    next_cursor: str | None = None


def attestation_response(row: Attestation) -> AttestationResponse:
    """Return the body of an attestation."""
    same = ("task", "outcome", "overlap", "job_id", "environment", "created_at")
    fields = {name: getattr(row, name) for name in same}
    return AttestationResponse(ticket=row.ticket_digest, found=row.found_digest, **fields)


def evaluation_response(row: Evaluation) -> EvaluationResponse:
    """Return the body of an evaluation."""
    names = ("id", "job_id", "task", "protocol", "verdict", "replicates", "margin", "created_at")
    more = ("accuracy", "accuracy_sd", "dense_accuracy")
    fields = {name: getattr(row, name) for name in (*names, *more)}
    fields |= {"ticket": row.ticket_digest, "exam": row.exam_key, "reason": row.body.get("reason", "")}
    return EvaluationResponse(**row.body | fields)
