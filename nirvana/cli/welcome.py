"""The first job of a new registry: find tickets of LeNet-300-100 on digits, and verify two of them.

Which levels are verified, and which one must win, follows from their densities: no result has a say.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nirvana.cli.following import follow_job
from nirvana.cli.output import Output, mean_and_sd, percent
from nirvana.cli.progress import Watch
from nirvana.errors import TrainingFailed

if TYPE_CHECKING:
    from nirvana.client import Client

TASK, ARCHITECTURE, REPLICATES = "digits", "lenet-300-100", 10
MUST_WIN = 0.10
SPEC = {"task": TASK, "architecture": ARCHITECTURE, "method": "imp", "density": MUST_WIN, "seed": 0}
DENSITIES = (MUST_WIN, 0.50)  # of each, the first level of at most that is verified, in this order
_ENDED_BADLY = ("failed", "cancelled")

Json = dict[str, Any]


def welcome(client: Client, output: Output, check: Callable[[], None]) -> None:
    """Do the first job unless it was done before or the registry has tickets of somebody else."""
    is_ours = _earlier(client, "prune", SPEC) is not None
    verified = list(client.jobs(kind="verify", state="succeeded", limit=100))
    if len(verified) >= len(DENSITIES) or (any(client.search(limit=1)) and not is_ours):
        return
    output.say(f"an empty registry: finding a first ticket, {ARCHITECTURE} on {TASK}")
    print_outcome(find_and_verify(client, output, check), output)


def find_and_verify(client: Client, output: Output, check: Callable[[], None]) -> Json:
    """Run both jobs, or take up those of an interrupted earlier start.

    Args:
        check: called every second; raises when the service or its worker is gone for good.
    """
    levels = _run_job(client, output, check, "prune", SPEC)["levels"]
    evaluations = {}
    for level in levels_to_verify(levels):
        output.say(f"verifying level {level['level']} ({percent(level['density'])} of the weights)")
        spec = {"ticket": level["name"], "replicates": REPLICATES}
        evaluations[level["name"]] = _run_job(client, output, check, "verify", spec)
    return {"address": client.endpoint, "levels": levels, "evaluations": evaluations}


def levels_to_verify(levels: list[Json]) -> list[Json]:
    """The first level of at most each of `DENSITIES`; the one that must win comes first."""
    found = [next((level for level in levels if level["density"] <= density), None) for density in DENSITIES]
    if found[0] is None:
        raise TrainingFailed(f"no level has a density of at most {MUST_WIN}: {len(levels)} are too few")
    return [level for level in found if level is not None]


def is_won(outcome: Json) -> bool:
    """Whether the first level of at most 10 % density is WINNING."""
    first = levels_to_verify(outcome["levels"])[0]
    won: bool = outcome["evaluations"][first["name"]]["verdict"] == "WINNING"
    return won


def print_outcome(outcome: Json, output: Output) -> None:
    """The table of levels and where to look at them."""
    output.data(outcome, lambda: _print_levels(outcome, output))


def _print_levels(outcome: Json, output: Output) -> None:
    evaluations = outcome["evaluations"]
    rows = []
    for level in outcome["levels"]:
        evaluation = evaluations.get(level["name"])
        accuracies = evaluation["arms"]["ticket"] if evaluation else [level["early_stop_test_accuracy"]]
        dense = mean_and_sd(evaluation["arms"]["dense"]) if evaluation else ""
        verdict = evaluation["verdict"] if evaluation else ""
        rows.append((level["level"], percent(level["density"]), mean_and_sd(accuracies), dense, verdict))
    output.table(("level", "density", "test accuracy", "dense baseline", "verdict"), rows)
    first = levels_to_verify(outcome["levels"])[0]
    evaluation = evaluations[first["name"]]
    print(f"level {first['level']}: {evaluation['verdict']}, n = {evaluation['replicates']}, ", end="")
    print(f"margin {percent(evaluation['margin'], 1)}: {evaluation.get('reason', '')}")
    print(f"{outcome['address']}/tickets/{first['name']}")


def _run_job(client: Client, output: Output, check: Callable[[], None], kind: str, spec: Json) -> Json:
    """Submit a job, or take up the one that an interrupted start submitted; what came of it."""
    from nirvana.cli.experiments import evaluation_of

    job = _earlier(client, kind, spec) or client.submit_job(kind, spec, key=f"welcome-{uuid.uuid4()}")
    with Watch(output, f"{ARCHITECTURE} on {TASK}") as watch:
        ended = _beside(check, lambda: follow_job(client, job["id"], watch))
    return evaluation_of(client, ended) if kind == "verify" else dict(ended["result"])


def _earlier(client: Client, kind: str, spec: Json) -> Json | None:
    """This account's newest such job that has not ended badly, if there is one."""
    for job in client.jobs(kind=kind, limit=100):
        if job["state"] not in _ENDED_BADLY and spec.items() <= job["spec"].items():
            return dict(job)
    return None


def _beside(check: Callable[[], None], work: Callable[[], Json]) -> Json:
    """What `work()` gives, in a thread, while this one calls `check` every second.

    Not the other way round: the kernel ends a restarted worker with the thread that started it.
    """
    done: list[Json] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(1.0)
        check()
    if failed:
        raise failed[0]
    return done[0]
