"""Names of accounts: which are well formed, kept for the registry itself, or look like another one."""

from __future__ import annotations

import re
from functools import cache

from confusable_homoglyphs.confusables import confusables_data

from nirvana.errors import InvalidName, Problem

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,37}[a-z0-9])?")
_WORDS = """
    about abuse account accounts admin administrator administrators admins anonymous api app architectures
    archive attestations auth badge billing blog bot bots careers changes cite contact copyright credentials
    dashboard digest diff docs download downloads dumps email error evaluations everyone export faq feed feeds
    file files guest hello help home hostmaster info internal jobs keys legal license lint localhost login
    logout mail master me metrics mirror mod moderator moderators moderation new news nirvana nobody none
    noreply no-reply null oauth official openapi operator org orgs organisation organisations organization
    organizations owner password policy postmaster press pricing privacy private protocol public readyz
    healthz register registry report reports root schema search security self sessions settings sha256
    sign-in sign-out sign-up signin signout signup similar site ssl staff static statistics stats status store
    support sysadmin system tag tags task tasks team teams terms test ticket tickets token tokens transfers
    trust undefined unknown unyank user users verification verifications verified verify webhook webhooks
    webmaster well-known www yank zoo
"""
RESERVED = frozenset(_WORDS.split())


def check_account_name(name: str) -> str:
    """Return a well-formed name. Raises: InvalidName."""
    if not _NAME.fullmatch(name):
        shown = name[:100]
        detail = f"{shown!r} is not an account name: 1 to 39 of a-z, 0-9 and '-', not first or last."
        raise InvalidName(detail, errors=[Problem("/name", "pattern", detail)])
    return name


def refuse_reserved(name: str) -> None:
    """Refuse a name that belongs to the registry, or that looks like one. Raises: InvalidName."""
    kept = _RESERVED_SKELETONS.get(skeleton(name))
    if kept is not None:
        looks = "is" if kept == name else f"looks like {kept!r}, which is"
        detail = f"{name!r} {looks} kept for the registry itself."
        raise InvalidName(detail, errors=[Problem("/name", "reserved", detail)])


def skeleton(name: str) -> str:
    """Return the same text for names that look alike: `1` as `l`, `0` as `o`, `m` as `rn`, hyphens as one.

    Reference: confusable skeletons, Unicode Technical Standard 39, section 4.
    """
    return re.sub("-+", "-", "".join(map(_shape, name)))


@cache
def _shape(character: str) -> str:
    """Return the letters that a digit looks like, or the several that one letter does; else the character."""
    for homoglyph in confusables_data.get(character, []):
        text: str = homoglyph["c"].lower()
        if text.isascii() and text.isalpha() and (character.isdigit() or len(text) > 1):
            return text
    return character


_RESERVED_SKELETONS = {skeleton(name): name for name in sorted(RESERVED)}
