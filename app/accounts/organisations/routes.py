"""REST routes of organisations: make one, see its members, invite, accept, leave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from app.accounts.organisations import service
from app.accounts.organisations.roles import find_role
from app.accounts.organisations.service import Tie
from app.accounts.service import Caller
from app.dependencies import AnyCaller, Name, OptionalCaller, SessionDep, SettingsDep, require
from app.schemas import Instant, Plain, RequestModel, ResponseModel, example, problems

router = APIRouter(prefix="/organisations", tags=["organisations"])
Role = Literal["reader", "writer", "owner"]
_AT = "2026-11-21T09:00:00Z"
_MEMBER = {"organisation": "lab", "account": "ada", "role": "owner", "created_at": _AT}
_INVITATION = _MEMBER | {"account": "bob", "role": "writer", "invited_by": "ada"}


class NewOrganisation(RequestModel):
    """An organisation to make."""

    model_config = RequestModel.model_config | example(name="vision-lab")
    name: Plain


class NewInvitation(RequestModel):
    """Somebody to invite."""

    model_config = RequestModel.model_config | example(account="bob", role="writer")
    account: Annotated[Plain, Field(max_length=200)]
    role: Role = "reader"
    """A `reader` sees private listings, a `writer` publishes, changes, yanks, an `owner` manages members."""


class NewRole(RequestModel):
    """Another role of a member."""

    model_config = RequestModel.model_config | example(role="writer")
    role: Role


class OrganisationResponse(ResponseModel):
    """An organisation."""

    model_config = ResponseModel.model_config | example(name="lab", created_at=_AT, role="owner")
    name: str
    created_at: Instant
    role: Role | None
    """The caller's; null where they are no member."""


class MemberResponse(ResponseModel):
    """A member of an organisation."""

    model_config = ResponseModel.model_config | example(**_MEMBER)
    organisation: str
    account: str
    role: Role
    created_at: Instant


class InvitationResponse(MemberResponse):
    """An invitation that is not answered yet."""

    model_config = ResponseModel.model_config | example(**_INVITATION)
    invited_by: str


class MemberPage(ResponseModel):
    """The members of an organisation; whom it has invited is shown to its owners alone."""

    model_config = ResponseModel.model_config | example(
        items=[_MEMBER], invitations=[_INVITATION], next_cursor=None
    )
    items: list[MemberResponse]
    invitations: list[InvitationResponse]
    next_cursor: str | None = None


def members_of(ties: Iterable[Tie]) -> list[MemberResponse]:
    """Return memberships as they are shown."""
    return [MemberResponse.model_validate(tie) for tie in ties]


def invitations_of(ties: Iterable[Tie]) -> list[InvitationResponse]:
    """Return invitations as they are shown."""
    return [InvitationResponse.model_validate(tie) for tie in ties]


async def whole_caller(caller: AnyCaller) -> Caller:
    """Return the caller, whose token stands for the account. Raises: Unauthenticated, Forbidden."""
    caller.need_whole("A change of an organisation's members")
    return caller


Whole = Annotated[Caller, Depends(whole_caller)]
ReadingCaller = Annotated[Caller, Depends(require("read"))]


@router.post(
    "", status_code=201, operation_id="create_organisation", responses=problems(401, 403, 409, 422, 429)
)
def create_organisation(
    body: NewOrganisation, caller: Whole, session: SessionDep, settings: SettingsDep, response: Response
) -> OrganisationResponse:
    """Make an organisation, whose owner you are. Its name is one of those that accounts have."""
    made = service.create_organisation(session, settings, caller.account, body.name)
    response.headers["Location"] = f"/api/v1/organisations/{made.name}"
    return OrganisationResponse(name=made.name, created_at=made.created_at, role="owner")


@router.get("/{organisation}", operation_id="get_organisation", responses=problems(404))
def get_organisation(organisation: Name, caller: OptionalCaller, session: SessionDep) -> OrganisationResponse:
    """An organisation, and your role in it."""
    row = service.get_organisation(session, organisation)
    role = find_role(session, caller.account, row) if caller is not None else None
    return OrganisationResponse.model_validate({"name": row.name, "created_at": row.created_at, "role": role})


@router.get("/{organisation}/members", operation_id="list_members", responses=problems(401, 403, 404))
def list_members(organisation: Name, caller: ReadingCaller, session: SessionDep) -> MemberPage:
    """The members of an organisation that you are a member of."""
    row = service.get_organisation(session, organisation)
    members, invited = service.list_members(session, caller.account, row)
    return MemberPage(items=members_of(members), invitations=invitations_of(invited))


@router.patch(
    "/{organisation}/members/{account}",
    operation_id="update_member",
    responses=problems(401, 403, 404, 409, 422),
)
def update_member(
    body: NewRole, organisation: Name, account: Name, caller: Whole, session: SessionDep
) -> MemberResponse:
    """Give a member of your organisation another role. One owner stays one."""
    changed = service.change_role(session, caller.account, organisation, account, body.role)
    return MemberResponse.model_validate(changed)


@router.delete(
    "/{organisation}/members/{account}",
    status_code=204,
    operation_id="delete_member",
    responses=problems(401, 403, 404, 409),
)
def delete_member(organisation: Name, account: Name, caller: Whole, session: SessionDep) -> Response:
    """Remove a member of your organisation, or leave one. It is over at once, for every token."""
    service.remove_member(session, caller.account, organisation, account)
    return Response(status_code=204)


@router.post(
    "/{organisation}/invitations",
    status_code=201,
    operation_id="create_invitation",
    responses=problems(401, 403, 404, 409, 422, 429),
)
def create_invitation(
    body: NewInvitation, organisation: Name, caller: Whole, session: SessionDep
) -> InvitationResponse:
    """Invite somebody to your organisation: they are no member until they accept."""
    made = service.invite(session, caller.account, organisation, body.account, body.role)
    return InvitationResponse.model_validate(made)


@router.post(
    "/{organisation}/accept", operation_id="accept_invitation", responses=problems(401, 403, 404, 429)
)
def accept_invitation(organisation: Name, caller: Whole, session: SessionDep) -> MemberResponse:
    """Accept an invitation, which `/whoami` shows."""
    return MemberResponse.model_validate(service.accept_invitation(session, caller.account, organisation))


@router.delete(
    "/{organisation}/invitations/{account}",
    status_code=204,
    operation_id="delete_invitation",
    responses=problems(401, 403, 404),
)
def delete_invitation(organisation: Name, account: Name, caller: Whole, session: SessionDep) -> Response:
    """Decline an invitation of yours, or withdraw one of your organisation."""
    service.drop_invitation(session, caller.account, organisation, account)
    return Response(status_code=204)
