"""REST routes of webhooks."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Path, Response
from pydantic import AfterValidator, Field

from app.accounts.service import Caller
from app.dependencies import SessionDep, require
from app.schemas import Instant, Plain, RequestModel, ResponseModel, example, problems
from app.webhooks.service import Webhook, create_webhook, get_webhook, list_webhooks, replay

router = APIRouter(tags=["webhooks"])
Owner = Annotated[Caller, Depends(require("publish"))]
WebhookId = Annotated[int, Path(ge=1, lt=2**31)]


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("expected http:// or https://, a host, and no user name")
    if parts.port == 0 or any(ord(character) <= 32 for character in url):
        raise ValueError("expected an address without spaces and with a port that is one")
    return url


class NewWebhook(RequestModel):
    """An address to send changes to."""

    model_config = RequestModel.model_config | example(url="https://example.org/hook", kinds=["verdict"])
    url: Annotated[Plain, Field(min_length=8, max_length=2000), AfterValidator(_check_url)]
    kinds: list[Plain] = Field(default_factory=list, max_length=20, description="of changes; none: all")


class Replay(RequestModel):
    """The changes to send again."""

    model_config = RequestModel.model_config | example(since=0)
    since: Annotated[int, Field(strict=True, ge=0, lt=2**31, description="serial after which to begin")]


_WEBHOOK = {
    "id": 1,
    "url": "https://example.org/hook",
    "kinds": ["verdict"],
    "position": 7,
    "failures": 0,
    "last_error": None,
    "next_try_at": "2026-11-28T09:00:00Z",
    "disabled_at": None,
    "created_at": "2026-11-28T09:00:00Z",
}


class WebhookResponse(ResponseModel):
    """An address that changes are sent to."""

    model_config = ResponseModel.model_config | example(**_WEBHOOK)
    id: int
    url: str
    kinds: list[str]
    position: Annotated[int, Field(description="serial of the last change that the receiver took")]
    failures: Annotated[int, Field(description="in a row; each doubles the wait before the next try")]
    last_error: str | None
    next_try_at: Instant
    disabled_at: Instant | None
    created_at: Instant


class CreatedWebhook(WebhookResponse):
    """A new webhook, and the secret of its signatures, which is shown this once."""

    model_config = ResponseModel.model_config | example(**_WEBHOOK | {"secret": "whsec_..."})
    secret: str


class WebhookPage(ResponseModel):
    """An account's webhooks, newest first."""

    model_config = ResponseModel.model_config | example(items=[_WEBHOOK], next_cursor=None)
    items: list[WebhookResponse]
    next_cursor: str | None = None


@router.post(
    "/webhooks", operation_id="create_webhook", status_code=201, responses=problems(401, 403, 422, 429)
)
def post_webhook(body: NewWebhook, caller: Owner, session: SessionDep) -> CreatedWebhook:
    """Have changes sent to an address, signed. See docs/longevity.md."""
    return CreatedWebhook.model_validate(create_webhook(session, caller.account, body.url, body.kinds))


@router.get("/webhooks", operation_id="list_webhooks", responses=problems(401, 403))
def get_webhooks(caller: Owner, session: SessionDep) -> WebhookPage:
    """Your webhooks, and how their deliveries go."""
    rows = list_webhooks(session, caller.account)
    return WebhookPage(items=[WebhookResponse.model_validate(row) for row in rows])


@router.delete(
    "/webhooks/{webhook_id}",
    operation_id="delete_webhook",
    status_code=204,
    responses=problems(401, 403, 404, 422),
)
def delete_webhook(webhook_id: WebhookId, caller: Owner, session: SessionDep) -> Response:
    """Send nothing there any more."""
    session.delete(get_webhook(session, caller.account, webhook_id))
    return Response(status_code=204)


@router.post(
    "/webhooks/{webhook_id}/replay",
    operation_id="replay_webhook",
    responses=problems(401, 403, 404, 422),
)
def replay_webhook(
    webhook_id: WebhookId, body: Replay, caller: Owner, session: SessionDep
) -> WebhookResponse:
    """Send every change after a serial again, and turn the webhook on if it was off."""
    row: Webhook = get_webhook(session, caller.account, webhook_id)
    replay(session, row, body.since)
    return WebhookResponse.model_validate(row)
