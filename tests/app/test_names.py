"""Names of accounts that look alike, and those that are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.accounts.names import RESERVED, check_account_name, refuse_reserved, skeleton
from nirvana.errors import InvalidName

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=39)


@pytest.mark.parametrize(
    ("one", "other"),
    [("paul", "pau1"), ("google", "g00gle"), ("modern", "rnodern"), ("a--b", "a-b"), ("m1", "rnl")],
)
def test_names_that_look_alike_have_one_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(("one", "other"), [("ada", "adb"), ("paul", "paui"), ("a-b", "ab"), ("s5", "55")])
def test_names_that_people_tell_apart_have_two(one: str, other: str) -> None:
    assert skeleton(one) != skeleton(other)


@given(NAMES)
def test_a_skeleton_is_its_own_and_fits_its_column(name: str) -> None:
    assert skeleton(skeleton(name)) == skeleton(name)
    assert len(skeleton(name)) <= 80


@pytest.mark.parametrize(
    "name", ["admin", "official", "api", "login", "adrnin", "0fficial", "1ogin", "no--reply"]
)
def test_what_is_kept_for_the_registry_and_its_look_alikes_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="kept for the registry"):
        refuse_reserved(name)


def test_every_reserved_name_could_be_an_accounts() -> None:
    for name in RESERVED:
        assert check_account_name(name) == name
