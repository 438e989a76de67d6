"""The one error tree, shared by the library, the service, the worker and the client.

    NirvanaError
    ├── NotFound                 it is not here
    │   └── DataMissing          a data set's file: where it was looked for, how to get it
    ├── Gone                     it was here and was removed
    ├── Conflict                 it clashes with what is here
    │   ├── NameTaken            owner/name names another ticket
    │   ├── JobFinished          the job has ended already
    │   └── IdempotencyMismatch  the Idempotency-Key was used for another request
    ├── PreconditionFailed       If-Match does not match
    │   └── PreconditionRequired If-Match is missing
    ├── Malformed                it cannot be parsed at all
    ├── Invalid                  it parses and breaks a rule
    │   ├── InvalidTicket · InvalidArchitecture · InvalidRecipe · InvalidJob
    │   ├── InvalidQuery · InvalidCursor · InvalidName
    │   ├── InvalidSignature         a signed verdict that no known key signed
    │   └── DataDamaged              a data set's file that is not the published one
    ├── UnsupportedMedia         a media type that is not taken
    ├── TooLarge                 over a limit
    ├── RangeNotSatisfiable      a byte range outside the file
    ├── Unauthenticated          no valid token
    ├── Forbidden                a valid token that may not do this
    │   ├── MissingScope         ... because it lacks a scope
    │   └── ReadOnly             a mirror, which takes no writes
    ├── QuotaExceeded            too much at once
    │   └── RateLimited          too often
    ├── Unavailable              try again later
    │   ├── StorageFull          the blob store's disk is full
    │   └── StorageFailed        the blob store failed
    ├── NetworkError             the service could not be reached
    ├── TrainingFailed           a training run left the finite numbers
    ├── Cancelled                somebody cancelled it
    └── VerdictNotReached        the measured verdict is not the one asked for

Nothing here knows HTTP: `app/problems.py` gives each class its status, once; the client turns a
problem's `code` back into the same class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

JsonObject = dict[str, Any]  # as json.loads gives it


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (a JSON pointer), which rule (kebab-case) and, in words, what was
    found and what was expected."""

    pointer: str
    code: str
    detail: str


class NirvanaError(Exception):
    """Something went wrong that the caller can understand.

    Args:
        detail: one sentence that names what was found and what was expected.
        errors: the single problems, where there can be several.
        extra: further members for machines; values must be JSON-able.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"

    def __init__(self, detail: str, *, errors: Sequence[Problem] = (), **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.extra: JsonObject = extra

    def to_dict(self) -> JsonObject:
        """Return the error as JSON-able members: code, title, detail, errors and the extra ones."""
        members: JsonObject = {"code": self.code, "title": self.title, "detail": self.detail}
        return members | {"errors": [asdict(problem) for problem in self.errors]} | self.extra

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.detail, self.errors, self.extra)


def _rebuild(
    kind: type[NirvanaError], detail: str, errors: tuple[Problem, ...], extra: JsonObject
) -> NirvanaError:
    return kind(detail, errors=errors, **extra)


class NotFound(NirvanaError):
    code, title = "not-found", "Not found"


class DataMissing(NotFound):
    code, title = "data-missing", "Data set not found"


class Gone(NirvanaError):
    code, title = "gone", "Removed"


class Conflict(NirvanaError):
    code, title = "conflict", "Conflict"


class NameTaken(Conflict):
    code, title = "name-taken", "Name taken"


class JobFinished(Conflict):
    code, title = "job-finished", "Job has ended"


class IdempotencyMismatch(Conflict):
    code, title = "idempotency-mismatch", "Idempotency-Key used before"


class PreconditionFailed(NirvanaError):
    code, title = "precondition-failed", "Precondition failed"


class PreconditionRequired(PreconditionFailed):
    code, title = "precondition-required", "Precondition required"


class Malformed(NirvanaError):
    code, title = "malformed", "Malformed request"


class Invalid(NirvanaError):
    code, title = "invalid", "Invalid"


class InvalidTicket(Invalid):
    code, title = "invalid-ticket", "Not a valid ticket"


class InvalidArchitecture(Invalid):
    code, title = "invalid-architecture", "Not a valid architecture"


class InvalidRecipe(Invalid):
    code, title = "invalid-recipe", "Not a valid recipe"


class InvalidJob(Invalid):
    code, title = "invalid-job", "Not a valid job"


class InvalidQuery(Invalid):
    code, title = "invalid-query", "Not a valid query"


class InvalidCursor(InvalidQuery):
    code, title = "invalid-cursor", "Not a cursor of this list"


class InvalidName(Invalid):
    code, title = "invalid-name", "Not a valid name"


class InvalidSignature(Invalid):
    code, title = "invalid-signature", "Not a valid signature"


class DataDamaged(Invalid):
    code, title = "data-damaged", "Data set's file is damaged"


class UnsupportedMedia(NirvanaError):
    code, title = "unsupported-media", "Unsupported media type"


class TooLarge(NirvanaError):
    code, title = "too-large", "Too large"


class RangeNotSatisfiable(NirvanaError):
    code, title = "range-not-satisfiable", "Range not satisfiable"


class Unauthenticated(NirvanaError):
    code, title = "unauthenticated", "Not signed in"


class Forbidden(NirvanaError):
    code, title = "forbidden", "Not allowed"


class MissingScope(Forbidden):
    code, title = "missing-scope", "Token lacks a scope"


class ReadOnly(Forbidden):
    code, title = "read-only", "Read-only mirror"


class QuotaExceeded(NirvanaError):
    code, title = "quota-exceeded", "Quota exceeded"


class RateLimited(QuotaExceeded):
    code, title = "rate-limited", "Too many requests"


class Unavailable(NirvanaError):
    code, title = "unavailable", "Not available now"


class StorageFull(Unavailable):
    code, title = "storage-full", "Storage is full"


class StorageFailed(Unavailable):
    code, title = "storage-failed", "Storage failed"


class NetworkError(NirvanaError):
    code, title = "network", "Service not reached"


class TrainingFailed(NirvanaError):
    code, title = "training-failed", "Training failed"


class Cancelled(NirvanaError):
    code, title = "cancelled", "Cancelled"


class VerdictNotReached(NirvanaError):
    code, title = "verdict-not-reached", "Verdict not reached"


def error_classes() -> dict[str, type[NirvanaError]]:
    """Return every error's code with its class, by which a client turns a problem back into an exception."""

    def walk(kind: type[NirvanaError]) -> list[type[NirvanaError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in walk(child))]

    return {kind.code: kind for kind in walk(NirvanaError)}


def raise_problems(kind: type[NirvanaError], what: str, problems: Sequence[Problem]) -> None:
    """Raise `kind` with every problem, the first one in its sentence; do nothing when there is none."""
    if not problems:
        return
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    where = f" at {first.pointer}" if first.pointer else ""
    raise kind(f"{what}: {first.detail}{where}{more}", errors=problems)
