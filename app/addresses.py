"""Addresses of callers, and the networks that stand for one caller or one person."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from fastapi import Request

SITE = (24, 48)  # prefix lengths of IPv4 and IPv6: what one provider or house has
LINE = (32, 64)  # what one customer has


def address_of(request: Request) -> str:
    """Return the address that a request came from; behind a trusted proxy, the one that it names."""
    return request.client.host if request.client else ""


def site_of(request: Request) -> str:
    """Return the network that a request came from, as `SITE` has it; callers without an address share one."""
    return network_of(address_of(request)) or "unknown"


def network_of(address: str, lengths: tuple[int, int] = SITE) -> str | None:
    """Return the network of an address, or None where it is none (a socket file).

    Args:
        lengths: of the prefix, in IPv4 and in IPv6.
    """
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    return str(ip_network((mapped, lengths[mapped.version == 6]), strict=False))
