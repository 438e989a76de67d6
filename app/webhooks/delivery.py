"""Deliveries: a signed POST to an address that was looked up and checked, and to no other.

A signature has a form that many receivers have code for: `Nirvana-Signature: t=1764300000,v1=...`, v1 being
the hex HMAC-SHA256 by the webhook's secret over `{t}.{body}`. A receiver refuses an old `t`.

A name is resolved once, every address of it must be public, and the connection goes to one of those: what the
name means a moment later is not asked. Redirects are not followed.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
import time
from urllib.parse import urlsplit

import httpx
from sqlalchemy.orm import Session

from app.changes.schemas import ChangeResponse, changes_after
from app.changes.service import last_serial
from app.db import Database
from app.webhooks.service import Webhook, claim, list_due, note_delivery, note_failure
from nirvana.environment import VERSION

SECONDS = 10.0
MOST_CHANGES = 100  # of one delivery


class NotDelivered(Exception):
    """A delivery failed; the message says why."""


def deliver_due(database: Database, *, allow_private: bool = False) -> int:
    """Deliver what is due, one delivery a webhook; return how many receivers took theirs.

    Args:
        allow_private: addresses of this network too.
    """
    with database.read() as session:
        due = list_due(session)
    return sum(_deliver(database, webhook_id, allow_private) for webhook_id in due)


def _deliver(database: Database, webhook_id: int, allow_private: bool) -> bool:
    with database.write() as session:
        webhook = claim(session, webhook_id)
        if webhook is None:
            return False
        items, position = _pending(session, webhook)
    try:
        if items:
            send(webhook, items, allow_private=allow_private)
    except NotDelivered as error:
        with database.write() as session:
            note_failure(session, webhook_id, str(error))
        return False
    with database.write() as session:
        note_delivery(session, webhook_id, webhook.position, position)
    return bool(items)


def _pending(session: Session, webhook: Webhook) -> tuple[list[ChangeResponse], int]:
    """Return the changes to send, and the position after them: past those too that nobody may see."""
    newest = last_serial(session)  # before the changes are read, so that none is passed over
    items = changes_after(session, webhook.position, MOST_CHANGES)
    position = items[-1].serial if items else newest
    if len(items) < MOST_CHANGES:
        position = max(position, newest)
    return [item for item in items if item.kind in webhook.kinds], position


def send(webhook: Webhook, items: list[ChangeResponse], *, allow_private: bool = False) -> None:
    """Send changes to a webhook's receiver. Raises: NotDelivered."""
    plain = [item.model_dump(mode="json") for item in items]
    body = json.dumps({"webhook": webhook.id, "items": plain}, separators=(",", ":")).encode()
    parts = urlsplit(webhook.url)
    host, address = str(parts.hostname), resolve(webhook.url, allow_private=allow_private)
    headers = {
        "Host": parts.netloc.rpartition("@")[2],
        "Content-Type": "application/json",
        "User-Agent": f"nirvana-webhook/{VERSION}",
        "Nirvana-Delivery": f"{webhook.id}-{items[-1].serial}",
        "Nirvana-Signature": sign(webhook.secret, body, int(time.time())),
    }
    pinned = httpx.URL(webhook.url).copy_with(host=address)
    try:
        with (
            httpx.Client(timeout=SECONDS, follow_redirects=False, trust_env=False) as client,
            client.stream(
                "POST", pinned, content=body, headers=headers, extensions={"sni_hostname": host}
            ) as answer,
        ):
            status = answer.status_code  # the body is nobody's business
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NotDelivered(f"{host}: {type(error).__name__}") from error
    if not 200 <= status < 300:
        raise NotDelivered(f"{host} answered {status}")


def sign(secret: str, body: bytes, instant: int) -> str:
    """Return the signature header of a body sent at an instant (seconds since 1970)."""
    code = hmac.new(secret.encode(), f"{instant}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={instant},v1={code}"


def resolve(url: str, *, allow_private: bool = False) -> str:
    """Return an address of a URL's host, all of whose addresses are public.

    Raises:
        NotDelivered: it has none, or one that is not public.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError) as error:
        raise NotDelivered(f"{parts.hostname} has no address") from error
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not allow_private and not is_public(address):
            raise NotDelivered(f"{parts.hostname} is at {address}, which is no public address")
    return addresses[0]


def is_public(address: str) -> bool:
    """Tell whether an address is of the public network, the one within it too where it wraps another."""
    one = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(one, ipaddress.IPv6Address):
        inner = one.ipv4_mapped or one.sixtofour or (one.teredo[1] if one.teredo else None)
        if inner is None and one in ipaddress.ip_network("64:ff9b::/96"):  # NAT64
            inner = ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return one.is_global and not one.is_multicast
