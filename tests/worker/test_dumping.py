"""The worker's daily dump: by schedule, once for all workers, and no more when it is turned off."""

from __future__ import annotations

import time

from app.dumps.writing import list_dumps
from app.storage import make_storage
from tests.worker.arena import Arena


def test_workers_make_a_dump_by_schedule_and_none_when_it_is_off(arena: Arena) -> None:
    storage = make_storage(arena.settings)
    arena.run(NIRVANA_DUMP_CRON="* * * * * *")
    patience = time.monotonic() + 40
    while not list_dumps(storage) and time.monotonic() < patience:
        time.sleep(0.2)
    (dump,) = list_dumps(storage)
    for worker in arena.workers:
        worker.kill()
        worker.wait()
    arena.run(NIRVANA_DUMP_CRON="")
    time.sleep(8)  # it turns the schedule off, and ends what the killed one had begun
    for key in storage.keys("dumps"):
        storage.delete(key)
    time.sleep(4)
    assert arena.workers[-1].poll() is None
    assert dump["files"]["tickets.jsonl"]["rows"] == 0
    assert list_dumps(storage) == []
