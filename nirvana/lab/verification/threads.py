"""Work on several threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue

Work = Callable[[threading.Event], None]


def work_off(planned: Iterable[tuple[bool, Work]], threads: int) -> None:
    """Go through `planned` on this thread while others do those pieces that may run anywhere (True); then do
    the rest here, in order, and help.

    The first exception stops the rest and is raised: each piece of work gets an event, and must end soon when
    it is set.
    """
    stop, waiting, own = threading.Event(), SimpleQueue[Work | None](), list[Work]()
    errors = list[BaseException]()

    def work(pieces: Iterable[Work]) -> None:
        try:
            for piece in pieces:
                if stop.is_set():
                    return
                piece(stop)
        except BaseException as error:
            errors.append(error)
            stop.set()

    def share(stop: threading.Event) -> None:
        for is_free, piece in planned:
            if stop.is_set():
                return
            if is_free:
                waiting.put(piece)
            else:
                own.append(piece)

    helpers = [threading.Thread(target=work, args=(_take(waiting),)) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    try:
        work([share])
        waiting.put(None)
        work(own)
        work(_take(waiting))
        for helper in helpers:
            helper.join()
    finally:
        stop.set()  # where Ctrl-C came between
        waiting.put(None)
    if errors:
        raise errors[0]


def _take(waiting: SimpleQueue[Work | None]) -> Iterator[Work]:
    """From the front, until None is met, which is left to the other threads."""
    while (piece := waiting.get()) is not None:
        yield piece
    waiting.put(None)
