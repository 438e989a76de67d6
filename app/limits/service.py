"""Rules of limits: who may go on, who has to wait, and for how long."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

from limits import RateLimitItem
from limits.errors import StorageError
from limits.strategies import FixedWindowRateLimiter

from app.limits.counters import make_counters
from app.limits.rates import Payer, read_rates
from app.settings import Settings
from nirvana.errors import RateLimited, Unavailable

log = logging.getLogger("nirvana.app")
BUSY_SECONDS = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Standing:
    """What is left to somebody of a rate.

    Attributes:
        window_seconds: of the rate. reset_seconds: until it begins anew.
    """

    action: str
    most: int
    window_seconds: int
    remaining: int
    reset_seconds: int
    is_over: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """The headers that say so. Reference: draft-ietf-httpapi-ratelimit-headers-10."""
        return {
            "RateLimit-Policy": f'"{self.action}";q={self.most};w={self.window_seconds}',
            "RateLimit": f'"{self.action}";r={self.remaining};t={self.reset_seconds}',
        }

    def check(self) -> None:
        """Refuse what is over the rate. Raises: RateLimited."""
        if self.is_over:
            detail = f"{self.action}: expected at most {self.most} in {self.window_seconds} s"
            raise RateLimited(
                f"{detail}; try again in {self.reset_seconds} s.",
                action=self.action,
                limit=self.most,
                window_seconds=self.window_seconds,
                retry_after_seconds=self.reset_seconds,
            )


class Limiter:
    """The counters of this service. Where they fail nobody is refused: a limit is no reason to be down."""

    def __init__(self, settings: Settings) -> None:
        self.rates = read_rates(settings.rates) if settings.limits == "on" else {}
        self.is_remote = "://" in settings.limit_storage
        self._strategy = FixedWindowRateLimiter(make_counters(settings.limit_storage))

    def hit(self, action: str, payer: Payer, cost: int = 1) -> Standing | None:
        """Count a request and return what is left; None where nothing is counted."""
        return self._ask(action, payer, cost, self._strategy.hit)

    def look(self, action: str, payer: Payer, cost: int = 1) -> Standing | None:
        """Return what is left, and count nothing."""
        return self._ask(action, payer, cost, self._strategy.test)

    def _ask(self, action: str, payer: Payer, cost: int, ask: Callable[..., bool]) -> Standing | None:
        rate = self.rates.get((action, payer.is_signed_in))
        if rate is None:
            return None
        try:
            is_over = not ask(rate, action, payer.key, cost=cost)
            return self._standing(action, rate, payer, is_over)
        except StorageError as error:
            log.warning("requests are not counted: %s", type(error.args[0]).__name__)
            return None

    def _standing(self, action: str, rate: RateLimitItem, payer: Payer, is_over: bool) -> Standing:
        window = self._strategy.get_window_stats(rate, action, payer.key)
        reset = max(1, math.ceil(window.reset_time - time.time()))
        return Standing(action, rate.amount, rate.get_expiry(), window.remaining, reset, is_over)


class Places:
    """Places that are held for long, such as streams; in this process alone."""

    def __init__(self, most: int, most_each: int, what: str = "streams") -> None:
        self.most, self.most_each, self.what = most, most_each, what
        self._held: Counter[str] = Counter()

    @contextmanager
    def hold(self, payer: Payer) -> Iterator[None]:
        """Hold a place.

        Raises:
            RateLimited: somebody holds too many. Unavailable: all are taken.
        """
        held = self._held[payer.key]
        if held >= self.most_each:
            detail = f"You hold {held} {self.what}, expected fewer than {self.most_each}; end one."
            raise RateLimited(detail, retry_after_seconds=BUSY_SECONDS)
        if self._held.total() >= self.most:
            raise Unavailable("Every place is taken; try again.", retry_after_seconds=BUSY_SECONDS)
        self._held[payer.key] += 1
        try:
            yield
        finally:
            self._held[payer.key] -= 1
            self._held += Counter()  # drops the zeros


class Connections:
    """The open connections of a process, by address. The app hands it to the server as its lifespan's state.

    Attributes:
        header_seconds: longest time until a request's headers are there.
    """

    KEY = "connections"

    def __init__(self, settings: Settings) -> None:
        self.header_seconds = settings.header_seconds
        self._most = settings.max_connections_per_address
        self._proxies = [ip_network(one, strict=False) for one in settings.proxies]
        self._open: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Count a connection; return whether it may stay."""
        self._open[address] += 1
        return self._open[address] <= self._most or self._is_proxy(address)

    def leave(self, address: str) -> None:
        """Count a connection no more."""
        self._open[address] -= 1
        if self._open[address] <= 0:
            del self._open[address]

    def _is_proxy(self, address: str) -> bool:
        try:
            return any(ip_address(address) in network for network in self._proxies)
        except ValueError:  # a socket file: whoever serves there is in front
            return True


class Line:
    """Threads for one kind of heavy work, and a line before them that is not endless: whatever waits holds a
    file in memory.

    Args:
        niceness: of the threads, so that they give way to those that answer (Linux).
    """

    def __init__(self, threads: int, most_waiting: int, niceness: int = 0) -> None:
        self.threads, self.most_waiting = threads, most_waiting
        self._pool = ThreadPoolExecutor(threads, "line", _give_way, (niceness,))
        self._held = set[Future[Any]]()  # of those who wait and those whose turn it is

    async def run(self, work: Callable[[], T]) -> T:
        """Do some work in a thread when it is its turn. Raises: Unavailable: the line is too long."""
        self.check()
        future = self._pool.submit(work)
        self._held.add(future)
        future.add_done_callback(self._held.discard)  # when the work is done, whoever went away meanwhile
        return await asyncio.wrap_future(future)

    def check(self) -> None:
        """Refuse one more in the line, before its body is read. Raises: Unavailable: it is too long."""
        if len(self._held) >= self.threads + self.most_waiting:
            detail = f"{self.most_waiting} others wait for this already; try again."
            raise Unavailable(detail, retry_after_seconds=BUSY_SECONDS)


def _give_way(niceness: int) -> None:
    """Lower the priority of this thread alone; only Linux knows one of a thread."""
    if niceness and sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + niceness))
