"""The first job of a new registry: find tickets of LeNet-300-100 on digits, and verify two of them.

The levels to verify, and the one that must win, follow from their densities: no result has a say.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from nirvana.cli.jobs import evaluation_of, follow_job
from nirvana.cli.output import Output, Watch, mean_and_sd, percent
from nirvana.errors import JsonObject, TrainingFailed

if TYPE_CHECKING:
    from nirvana.client.rest import Client

TASK, ARCHITECTURE = "digits", "lenet-300-100"
MUST_WIN = 0.10
SEED = 100  # of bench-verdicts' first strong ticket: orders are drawn, so it must win by a wide margin
SPEC = {"task": TASK, "architecture": ARCHITECTURE, "method": "imp", "density": MUST_WIN, "seed": SEED}
DENSITIES = (MUST_WIN, 0.50)  # of each, the first level of at most that is verified, in this order
_ENDED_BADLY = ("failed", "cancelled")


def welcome(client: Client, output: Output, check: Callable[[], None]) -> None:
    """Do the first job unless it was done before or the registry has tickets of somebody else."""
    is_ours = _earlier(client, "prune", SPEC) is not None
    verified = list(client.jobs(kind="verify", state="succeeded", limit=100))
    if len(verified) >= len(DENSITIES) or (any(client.search(limit=1)) and not is_ours):
        return
    output.say(f"an empty registry: finding a first ticket, {ARCHITECTURE} on {TASK}")
    print_outcome(find_and_verify(client, output, check), output)


def find_and_verify(client: Client, output: Output, check: Callable[[], None]) -> JsonObject:
    """Run both jobs, or resume those of an interrupted earlier start.

    Args:
        check: called every second; raises when the service or its worker is gone for good.
    """
    levels = _run_job(client, output, check, "prune", SPEC)["levels"]
    evaluations = {}
    for level in levels_to_verify(levels):
        output.say(f"verifying level {level['level']} ({percent(level['density'])} of the weights)")
        evaluations[level["name"]] = _run_job(client, output, check, "verify", {"ticket": level["name"]})
    attested = {name: next(client.attestations(name), None) for name in evaluations}
    made = {"levels": levels, "evaluations": evaluations, "attestations": attested}
    return {"address": client.endpoint} | made


def levels_to_verify(levels: list[JsonObject]) -> list[JsonObject]:
    """Return the first level of at most each of `DENSITIES`; the one that must win comes first."""
    chosen = [next((level for level in levels if level["density"] <= density), None) for density in DENSITIES]
    if chosen[0] is None:
        raise TrainingFailed(f"no level has a density of at most {MUST_WIN}: {len(levels)} are too few")
    return [level for level in chosen if level is not None]


def is_won(outcome: JsonObject) -> bool:
    """Tell whether the first level of at most 10 % density is WINNING."""
    first = levels_to_verify(outcome["levels"])[0]
    won: bool = outcome["evaluations"][first["name"]]["verdict"] == "WINNING"
    return won


def print_outcome(outcome: JsonObject, output: Output) -> None:
    """Print the table of levels and the address of the first ticket."""
    output.data(outcome, lambda: _print_levels(outcome, output))


def _print_levels(outcome: JsonObject, output: Output) -> None:
    evaluations = outcome["evaluations"]
    rows = []
    for level in outcome["levels"]:
        evaluation = evaluations.get(level["name"])
        verified = [mean_and_sd(evaluation["arms"][arm]) if evaluation else "" for arm in ("ticket", "dense")]
        verdict = evaluation["verdict"] if evaluation else ""
        found = (percent(level["density"]), percent(level["early_stop_test_accuracy"]))
        rows.append((level["level"], *found, *verified, verdict))
    from nirvana.verification.verdicts import explain_measurement

    output.table(("level", "density", "in the search", "verified", "dense baseline", "verdict"), rows)
    first = levels_to_verify(outcome["levels"])[0]
    evaluation = evaluations[first["name"]]
    print(f"level {first['level']}: {evaluation['verdict']}, n = {evaluation['replicates']}, ", end="")
    print(f"margin {percent(evaluation['margin'], 1)}: {evaluation.get('reason', '')}")
    for line in explain_measurement(evaluation):
        print(f"  {line}")
    if found := outcome["attestations"][first["name"]]:
        print(f"  attested from birth: the registry's own worker found it (job {found['job_id']})")
    print(f"{outcome['address']}/tickets/{first['name']}")


def _run_job(
    client: Client, output: Output, check: Callable[[], None], kind: str, spec: JsonObject
) -> JsonObject:
    """Submit a job, or resume the one that an interrupted start submitted; return its result."""
    job = _earlier(client, kind, spec) or client.submit_job(kind, spec, key=f"welcome-{uuid.uuid4()}")
    with Watch(output, f"{ARCHITECTURE} on {TASK}") as watch:
        ended = _beside(check, lambda: follow_job(client, job["id"], watch))
    return evaluation_of(client, ended) if kind == "verify" else dict(ended["result"])


def _earlier(client: Client, kind: str, spec: JsonObject) -> JsonObject | None:
    """Return this account's newest such job that has not ended badly, if there is one."""
    for job in client.jobs(kind=kind, limit=100):
        if job["state"] not in _ENDED_BADLY and spec.items() <= job["spec"].items():
            return dict(job)
    return None


def _beside(check: Callable[[], None], work: Callable[[], JsonObject]) -> JsonObject:
    """Return the result of `work()`, run in a thread while this one calls `check` every second.

    Not the other way round: the kernel ends a restarted worker with the thread that started it.
    """
    done: list[JsonObject] = []
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
