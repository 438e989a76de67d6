"""Networks that stand for one caller or one person."""

from __future__ import annotations

import pytest
from fastapi import Request

from app.addresses import LINE, SITE, network_of, site_of


@pytest.mark.parametrize(
    ("address", "site", "line"),
    [
        ("203.0.113.77", "203.0.113.0/24", "203.0.113.77/32"),
        ("::ffff:203.0.113.77", "203.0.113.0/24", "203.0.113.77/32"),
        ("2001:db8:1:2::3", "2001:db8:1::/48", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/48", "fe80::/64"),
        ("", None, None),
        ("/run/socket", None, None),
        ("203.0.113.77, 10.0.0.1", None, None),
    ],
)
def test_an_address_lies_in_a_site_and_on_a_line(address: str, site: str | None, line: str | None) -> None:
    assert (network_of(address, SITE), network_of(address, LINE)) == (site, line)


def test_whoever_comes_without_an_address_is_one_newcomer_and_not_vouched_for() -> None:
    assert site_of(Request({"type": "http", "client": None})) == "unknown"
    assert site_of(Request({"type": "http", "client": ("198.51.100.7", 1)})) == "198.51.100.0/24"
