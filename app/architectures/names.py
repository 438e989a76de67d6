"""Names of networks, which people must be able to tell from each other."""

from __future__ import annotations

import re

from nirvana.errors import InvalidArchitecture, Problem

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._+ -]{0,98}[A-Za-z0-9_+])?")


def check_name(name: str, at: str) -> str:
    """Return a network's name, which people must be able to tell from another one: plain ASCII.

    Args:
        at: JSON pointer of the name.

    Raises:
        InvalidArchitecture: a character that may look like another one, or like none.
    """
    if not _NAME.fullmatch(name):
        detail = f"{name[:100]!a} is not a network's name: 1 to 100 of A-Z, a-z, 0-9, spaces and '._+-'"
        raise InvalidArchitecture(f"name: {detail}.", errors=[Problem(at, "pattern", detail)])
    return name
