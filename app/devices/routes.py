"""REST routes of device codes, and the page where their users answer."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import Field

from app.accounts.pages import FormCaller, SignedIn
from app.accounts.routes import refuse_other_sites
from app.accounts.schemas import Secret, TokenResponse, TokenWithSecret
from app.accounts.service import FIRST_SCOPES
from app.accounts.sessions import csrf_token
from app.addresses import site_of
from app.dependencies import COOKIE, SessionDep, SettingsDep
from app.devices import service
from app.pages import render
from app.schemas import Plain, RequestModel, ResponseModel, example, problems
from nirvana.errors import NirvanaError

router = APIRouter(tags=["accounts"])
pages = APIRouter(dependencies=[Depends(refuse_other_sites)])
Typed = Annotated[str, Form(max_length=100)]
EXAMPLE_CODE = service.PREFIX + "x" * 43


class NewDeviceCode(RequestModel):
    """A token that a command line asks for."""

    model_config = RequestModel.model_config | example(name="laptop", scopes=["read", "publish"])
    name: Annotated[Plain, Field(min_length=1, max_length=100)] = "command line"
    scopes: list[Literal["read", "publish", "yank", "job"]] = Field(
        default_factory=lambda: list(FIRST_SCOPES),  # type: ignore[arg-type]
        min_length=1,
        max_length=10,
    )


class DeviceCodeResponse(ResponseModel):
    """A code for the command line to keep, and one for its user to type (RFC 8628)."""

    model_config = ResponseModel.model_config | example(
        device_code=EXAMPLE_CODE,
        user_code="BCDF-GHJK",
        verification_uri="https://registry.example/device",
        expires_in_seconds=600,
        interval_seconds=service.INTERVAL_SECONDS,
    )
    device_code: Annotated[str, Field(description="to fetch the token with; show it to nobody")]
    user_code: Annotated[str, Field(description="for the user to type into the page")]
    verification_uri: Annotated[str, Field(description="address of the page")]
    expires_in_seconds: int
    interval_seconds: Annotated[int, Field(description="ask no more often for the token")]


class FetchToken(RequestModel):
    """The code that a token is fetched with."""

    model_config = RequestModel.model_config | example(device_code=EXAMPLE_CODE)
    device_code: Secret


class Pending(ResponseModel):
    """Nobody has answered yet."""

    model_config = ResponseModel.model_config | example(state="asked")
    state: Literal["asked"] = "asked"


@router.post(
    "/device-codes",
    status_code=201,
    operation_id="create_device_code",
    responses=problems(422, 503),
)
def create_device_code(
    body: NewDeviceCode, request: Request, session: SessionDep, settings: SettingsDep
) -> DeviceCodeResponse:
    """Ask for a token: show `user_code` to your user, who types it at `verification_uri`, and fetch the token
    meanwhile."""
    secret, user_code = service.ask_for_token(session, body.name, body.scopes, site_of(request))
    return DeviceCodeResponse(
        device_code=secret,
        user_code=user_code,
        verification_uri=f"{settings.public_url}/device",
        expires_in_seconds=int(service.LIFE.total_seconds()),
        interval_seconds=service.INTERVAL_SECONDS,
    )


@router.post(
    "/device-codes/token",
    operation_id="fetch_device_token",
    response_model=TokenWithSecret,
    responses={
        202: {"description": "Nobody has answered yet", "model": Pending},
        **problems(403, 404, 422, 429),
    },
)
def fetch_token(body: FetchToken, session: SessionDep) -> Response:
    """The token that was granted, once; 202 while nobody has answered, 403 where it was denied."""
    made = service.fetch_token(session, body.device_code)
    if made is None:
        return _answer(Pending(), 202)
    token, secret = made
    return _answer(TokenWithSecret(**TokenResponse.model_validate(token).model_dump(), secret=secret), 200)


def _answer(body: ResponseModel, status: int) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(body.model_dump_json(), status, headers, "application/json")


@pages.get("/device", response_class=HTMLResponse)
def device_form(request: Request, caller: SignedIn) -> Response:
    """The form to type a code into."""
    if caller is None:
        return RedirectResponse(f"/sign-in?{urlencode({'after': '/device'})}", 303)
    return _page(request, caller)


@pages.post("/device", response_class=HTMLResponse)
def device_page(request: Request, caller: FormCaller, session: SessionDep, code: Typed = "") -> HTMLResponse:
    """What the command line asks for, to be granted or denied."""
    try:
        return _page(request, caller, question=service.find_question(session, code))
    except NirvanaError as error:
        return _page(request, caller, problem=error.detail, status=422)


@pages.post("/device/answer", response_class=HTMLResponse)
def device_answer_page(
    request: Request, caller: FormCaller, session: SessionDep, code: Typed = "", answer: Typed = ""
) -> HTMLResponse:
    """Grant or deny the token."""
    is_granted = answer == "grant"
    try:
        service.answer_question(session, caller, code, is_granted=is_granted)
    except NirvanaError as error:
        return _page(request, caller, problem=error.detail, status=422)
    return _page(request, caller, done="granted" if is_granted else "denied")


def _page(
    request: Request,
    caller: FormCaller,
    *,
    status: int = 200,
    question: service.DeviceCode | None = None,
    problem: str | None = None,
    done: str | None = None,
) -> HTMLResponse:
    context = {
        "caller": caller,
        "csrf_token": csrf_token(request.cookies[COOKIE]),
        "question": question,
        "problem": problem,
        "done": done,
    }
    return render(request, "device.html", context, status, {"Cache-Control": "no-store"})
