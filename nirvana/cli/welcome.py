"""The first job of a new registry: find tickets of LeNet-300-100 on digits and verify the best sparse one."""

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

TASK, ARCHITECTURE, LEVELS, SEED, REPLICATES = "digits", "lenet-300-100", 16, 0, 5
MAX_DENSITY = 0.10
_ENDED_BADLY = ("failed", "cancelled")

Json = dict[str, Any]


def welcome(client: Client, output: Output, check: Callable[[], None]) -> None:
    """Do the first job unless it was done before or the registry has tickets of somebody else."""
    was_verified = any(client.jobs(kind="verify", state="succeeded", limit=1))
    if was_verified or (any(client.search(limit=1)) and not _earlier(client, "prune")):
        return
    output.say(f"an empty registry: finding a first ticket, {ARCHITECTURE} on {TASK}")
    print_outcome(find_and_verify(client, output, check), output)


def find_and_verify(client: Client, output: Output, check: Callable[[], None]) -> Json:
    """Run both jobs, or take up those of an interrupted earlier start.

    Args:
        check: called every second; raises when the service or its worker is gone for good.
    """
    spec = {"task": TASK, "architecture": ARCHITECTURE, "method": "imp", "levels": LEVELS, "seed": SEED}
    levels = _run_job(client, output, check, "prune", spec)["levels"]
    chosen = choose_level(levels, _margin())
    output.say(f"verifying level {chosen['level']} ({percent(chosen['density'])} of the weights)")
    spec = {"ticket": chosen["name"], "replicates": REPLICATES}
    ended = _run_job(client, output, check, "verify", spec)
    return {"address": client.endpoint, "levels": levels, "verified": chosen, "evaluation": ended}


def choose_level(levels: list[Json], margin: float) -> Json:
    """The level to verify: the sparsest of at most 10 % density that in its one run did as well on validation
    data as the dense network, within the task's margin; where none did, the densest of at most 10 %.

    The test set has no say: the verdict would be biased.
    """
    dense = levels[0]["early_stop_validation_accuracy"]
    sparse = [level for level in levels if level["density"] <= MAX_DENSITY]
    if not sparse:
        raise TrainingFailed(
            f"no level has a density of at most {MAX_DENSITY}: {len(levels)} levels are too few"
        )
    good = [level for level in sparse if level["early_stop_validation_accuracy"] >= dense - margin]
    return good[-1] if good else sparse[0]


def is_won(outcome: Json) -> bool:
    """Whether the verified ticket is WINNING at 10 % density or less."""
    is_sparse: bool = outcome["verified"]["density"] <= MAX_DENSITY
    return is_sparse and outcome["evaluation"]["verdict"] == "WINNING"


def print_outcome(outcome: Json, output: Output) -> None:
    """The table of levels and where to look at them."""
    output.data(outcome, lambda: _print_levels(outcome, output))


def _print_levels(outcome: Json, output: Output) -> None:
    evaluation, verified = outcome["evaluation"], outcome["verified"]
    rows = []
    for level in outcome["levels"]:
        is_verified = level["digest"] == verified["digest"]
        accuracies = evaluation["arms"]["ticket"] if is_verified else [level["early_stop_test_accuracy"]]
        verdict = evaluation["verdict"] if is_verified else ""
        rows.append(
            (level["level"], percent(level["density"]), mean_and_sd(accuracies), verdict, level["name"])
        )
    output.table(("level", "density", "test accuracy", "verdict", "ticket"), rows)
    dense = mean_and_sd(evaluation["arms"]["dense"])
    print(
        f"dense baseline {dense}; margin {percent(evaluation['margin'], 1)}; {evaluation.get('reason', '')}"
    )
    print(f"{outcome['address']}/tickets/{verified['name']}")


def _run_job(client: Client, output: Output, check: Callable[[], None], kind: str, spec: Json) -> Json:
    """Submit a job, or take up the one that an interrupted start submitted; what came of it."""
    from nirvana.cli.experiments import evaluation_of

    job = _earlier(client, kind) or client.submit_job(kind, spec, key=f"welcome-{kind}-{uuid.uuid4()}")
    with Watch(output, f"{ARCHITECTURE} on {TASK}") as watch:
        ended = _beside(check, lambda: follow_job(client, job["id"], watch))
    return evaluation_of(client, ended) if kind == "verify" else dict(ended["result"])


def _earlier(client: Client, kind: str) -> Json | None:
    """This account's newest job of that kind that has not ended badly, if there is one."""
    jobs = client.jobs(kind=kind, limit=20)
    return next((job for job in jobs if job["state"] not in _ENDED_BADLY), None)


def _margin() -> float:
    from nirvana import tasks

    return tasks.get(TASK).margin


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
