"""How a path names a ticket: `owner/name`, or `sha256:` and 64 hex digits."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path
from starlette.convertors import StringConvertor, register_url_convertor


class ReferenceConvertor(StringConvertor):
    """The part of a path that names a ticket."""

    regex = r"sha256:[^/]+|(?!sha256:)[^/]+/[^/]+"


register_url_convertor("ticket", ReferenceConvertor())

TicketReference = Annotated[
    str,
    Path(
        description="`owner/name`, or `sha256:` and 64 hex digits", examples=["ada/lenet-300-100-digits-07"]
    ),
]
