"""Pages of organisations: one with its members, and the forms that change them. They work without script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi import Form as FormData
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.orm import Session

from app.accounts.organisations import service
from app.accounts.organisations.roles import ROLES, find_role
from app.accounts.organisations.routes import Role
from app.accounts.pages import FormCaller, SignedIn, Text, show_account
from app.accounts.routes import refuse_other_sites
from app.accounts.service import Caller
from app.accounts.sessions import csrf_token
from app.db import Json
from app.dependencies import COOKIE, DatabaseDep, Name, SessionDep, SettingsDep
from app.pages import render
from nirvana.errors import NirvanaError

router = APIRouter(dependencies=[Depends(refuse_other_sites)])


@router.get("/organisations/{organisation}", response_class=HTMLResponse)
def organisation_page(
    request: Request, organisation: Name, caller: SignedIn, session: SessionDep
) -> HTMLResponse:
    """An organisation; to its members, who they are."""
    return _show(request, session, organisation, caller)


@router.post("/organisations", response_class=HTMLResponse)
def create_organisation_page(
    request: Request, caller: FormCaller, database: DatabaseDep, settings: SettingsDep, name: Text = ""
) -> Response:
    """Make an organisation."""
    try:
        with database.write() as session:
            made = service.create_organisation(session, settings, caller.account, name).name
    except NirvanaError as error:
        with database.read() as session:
            return show_account(request, caller, session, problem=error.detail, status=422)
    return RedirectResponse(f"/organisations/{made}", 303)


class Form:
    """A form of an organisation's page: what it does is tried, and the page says what is wrong with it."""

    def __init__(
        self, request: Request, organisation: Name, caller: FormCaller, database: DatabaseDep
    ) -> None:
        self.request, self.organisation, self.database = request, organisation, database
        self.caller, self.account = caller, caller.account

    def send(self, change: Callable[[Session], object]) -> Response:
        """Make a change, and go back to the page."""
        try:
            with self.database.write() as session:
                change(session)
        except NirvanaError as error:
            with self.database.read() as session:
                return _show(self.request, session, self.organisation, self.caller, problem=error.detail)
        return RedirectResponse(f"/organisations/{self.organisation}", 303)


FormDep = Annotated[Form, Depends()]


@router.post("/organisations/{organisation}/invitations", response_class=HTMLResponse)
def invite_page(form: FormDep, account: Text = "", role: Annotated[Role, FormData()] = "reader") -> Response:
    """Invite somebody."""
    return form.send(lambda session: service.invite(session, form.account, form.organisation, account, role))


@router.post("/organisations/{organisation}/accept", response_class=HTMLResponse)
def accept_page(form: FormDep) -> Response:
    """Accept an invitation."""
    return form.send(lambda session: service.accept_invitation(session, form.account, form.organisation))


@router.post("/organisations/{organisation}/invitations/{account}/drop", response_class=HTMLResponse)
def drop_invitation_page(form: FormDep, account: Name) -> Response:
    """Decline an invitation, or withdraw one."""
    return form.send(
        lambda session: service.drop_invitation(session, form.account, form.organisation, account)
    )


@router.post("/organisations/{organisation}/members/{account}", response_class=HTMLResponse)
def change_role_page(form: FormDep, account: Name, role: Annotated[Role, FormData()]) -> Response:
    """Give a member another role."""
    return form.send(
        lambda session: service.change_role(session, form.account, form.organisation, account, role)
    )


@router.post("/organisations/{organisation}/members/{account}/remove", response_class=HTMLResponse)
def remove_member_page(form: FormDep, account: Name) -> Response:
    """Remove a member, or leave."""
    return form.send(lambda session: service.remove_member(session, form.account, form.organisation, account))


def _show(
    request: Request, session: Session, name: str, caller: Caller | None, *, problem: str | None = None
) -> HTMLResponse:
    organisation = service.get_organisation(session, name)
    role = find_role(session, caller.account, organisation) if caller is not None else None
    context: Json = {"organisation": organisation, "role": role, "roles": ROLES, "problem": problem}
    context["invited"] = None
    if caller is not None:
        invited = [
            tie for tie in service.list_invitations(session, caller.account) if tie.organisation == name
        ]
        context |= {"caller": caller, "csrf_token": csrf_token(request.cookies[COOKIE])}
        context["invited"] = invited[0] if invited else None
    if caller is not None and role is not None:
        members, invitations = service.list_members(session, caller.account, organisation)
        context |= {"members": members, "invitations": invitations}
    headers = {"Cache-Control": "no-store"} if caller is not None else None
    return render(request, "organisation.html", context, 422 if problem else 200, headers)
