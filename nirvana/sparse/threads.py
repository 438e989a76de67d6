"""Threads that work on one update together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from nirvana.sparse.layout import Integers


class Share(NamedTuple):
    """One thread's part: its number, counted from 0, of how many, and how often any has arrived at a wait."""

    number: int
    threads: int
    arrivals: Integers


def make_shares(threads: int) -> list[Share]:
    """A share for each of the threads that work on one update."""
    arrivals = np.zeros(8, np.int64)  # a cache line, of which the first is used
    return [Share(number, threads, arrivals) for number in range(threads)]


class Threads:
    """As many threads as there are shares; they begin with the first call that needs them."""

    def __init__(self, count: int) -> None:
        self.shares = make_shares(count)
        self._pools = [ThreadPoolExecutor(1) for _ in self.shares[1:]]

    def run(self, function: Callable[..., Any], *arguments: Any, tail: tuple[Any, ...]) -> Any:
        """The first thread's answer of an entry point, which all call at once, each with its share."""
        others = [
            pool.submit(function, *arguments, share, *tail)
            for pool, share in zip(self._pools, self.shares[1:], strict=True)
        ]
        found = function(*arguments, self.shares[0], *tail)
        for other in others:
            other.result()
        return found
