"""REST routes of reports and quarantine, and their bodies."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field

from app.accounts.service import Caller
from app.dependencies import TICKET, AnyCaller, PagingDep, SessionDep, TicketReference, require
from app.moderation import service
from app.moderation.models import Moderation, Report
from app.schemas import Instant, Plain, RequestModel, ResponseModel, example, problems

router = APIRouter(tags=["moderation"])
Admin = Annotated[Caller, Depends(require("admin"))]
ReportId = Annotated[int, Path(ge=1, lt=2**53)]
Reason = Literal["abuse", "broken", "license", "misleading", "privacy", "spam", "other"]
_REPORT = {"id": 1, "reason": "license", "detail": "It is ours.", "created_at": "2026-11-21T09:00:00Z"}
_ENTRY = {"action": "quarantine", "reason": "report 1", "by": "root", "created_at": "2026-11-21T09:00:00Z"}


class NewReport(RequestModel):
    """A complaint about a ticket."""

    model_config = RequestModel.model_config | example(reason="license", detail="It is ours.")
    reason: Reason
    detail: Annotated[Plain | None, Field(max_length=2000)] = None


class ReportResponse(ResponseModel):
    """A report that was taken."""

    model_config = ResponseModel.model_config | example(**_REPORT)
    id: int
    reason: str
    detail: str | None
    created_at: Instant


class OpenReport(ReportResponse):
    """A report that nobody has looked at yet."""

    model_config = ResponseModel.model_config | example(**_REPORT, ticket="ada/lenet", by="grace")
    ticket: str
    by: str

    @classmethod
    def of(cls, row: Report) -> OpenReport:
        """A row whose account and ticket are loaded."""
        same = ReportResponse.model_validate(row).model_dump()
        return cls(**same, ticket=f"{row.ticket.owner.name}/{row.ticket.name}", by=row.account.name)


class ReportPage(ResponseModel):
    """One page of open reports."""

    model_config = ResponseModel.model_config | example(
        items=[_REPORT | {"ticket": "ada/lenet", "by": "grace"}], next_cursor=None
    )
    items: list[OpenReport]
    next_cursor: str | None


class ModerationReason(RequestModel):
    """A reason, for the record."""

    model_config = RequestModel.model_config | example(reason="report 1")
    reason: Annotated[Plain, Field(min_length=1, max_length=2000)]


class ModerationResponse(ResponseModel):
    """Something that an admin did to a ticket."""

    model_config = ResponseModel.model_config | example(**_ENTRY)
    action: str
    reason: str
    by: str
    created_at: Instant

    @classmethod
    def of(cls, row: Moderation) -> ModerationResponse:
        """A row whose account is loaded."""
        return cls(action=row.action, reason=row.reason, by=row.account.name, created_at=row.created_at)


class ModerationPage(ResponseModel):
    """What admins did to a ticket."""

    model_config = ResponseModel.model_config | example(items=[_ENTRY], next_cursor=None)
    items: list[ModerationResponse]
    next_cursor: str | None = None


@router.post(
    f"{TICKET}/reports",
    status_code=201,
    operation_id="create_report",
    responses=problems(401, 404, 409, 410, 422),
)
def create_report(
    body: NewReport, ticket: TicketReference, caller: AnyCaller, session: SessionDep
) -> ReportResponse:
    """Tell the registry's admins what is wrong with a ticket. Its owner does not see who did."""
    row = service.report_ticket(session, caller.account, ticket, body.reason, body.detail)
    return ReportResponse.model_validate(row)


@router.get("/reports", operation_id="list_reports", responses=problems(401, 403, 422))
def list_reports(_admin: Admin, session: SessionDep, paging: PagingDep) -> ReportPage:
    """The reports that nobody has looked at yet, oldest first."""
    page = service.list_reports(session, limit=paging.limit, cursor=paging.cursor)
    paging.link(next=page.next_cursor)
    return ReportPage(items=[OpenReport.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.post(
    "/reports/{report_id}/dismiss",
    status_code=204,
    operation_id="dismiss_report",
    responses=problems(401, 403, 404),
)
def dismiss_report(report_id: ReportId, _admin: Admin, session: SessionDep) -> Response:
    """Close a report without doing anything."""
    service.dismiss_report(session, report_id)
    return Response(status_code=204)


@router.post(
    f"{TICKET}/quarantine", operation_id="quarantine_ticket", responses=problems(401, 403, 404, 409, 422)
)
def quarantine(
    body: ModerationReason, ticket: TicketReference, admin: Admin, session: SessionDep
) -> ModerationResponse:
    """Hide a ticket from everybody, its owner included, and close its reports."""
    return ModerationResponse.of(service.quarantine_ticket(session, admin.account, ticket, body.reason))


@router.post(f"{TICKET}/release", operation_id="release_ticket", responses=problems(401, 403, 404, 409, 422))
def release(
    body: ModerationReason, ticket: TicketReference, admin: Admin, session: SessionDep
) -> ModerationResponse:
    """Show a ticket again as it was before its quarantine."""
    return ModerationResponse.of(service.release_ticket(session, admin.account, ticket, body.reason))


@router.get(f"{TICKET}/moderation", operation_id="list_moderation", responses=problems(401, 403, 404))
def list_moderation(ticket: TicketReference, _admin: Admin, session: SessionDep) -> ModerationPage:
    """What admins did to a ticket, newest first."""
    rows = service.list_moderation(session, ticket)
    return ModerationPage(items=[ModerationResponse.of(row) for row in rows])
