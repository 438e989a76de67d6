"""`verify`: measure a ticket, a step of its plan a round (`nirvana.verification.plan.next_step`).

In a round's folder the ticket is `input.ticket`, known ones are `known/*.ticket` with their names in
`known/names.json`, and runs that were measured before are in `runs/` as the run cache has them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app.evaluations.service import find_runs, grow_pool, keep_runs, open_exam, record_evaluation
from app.jobs.service import append_events
from app.storage import ticket_key
from app.tickets.service import list_known
from nirvana import tasks
from nirvana.errors import NotFound, StorageFailed
from nirvana.format.ticket import Ticket
from nirvana.training.events import Event, OnProgress, Reporter
from nirvana.training.recipe import Recipe
from nirvana.verification.arms import ArmConfig
from nirvana.verification.evaluation import Evaluation, refuse
from nirvana.verification.gate import check_fit, check_gate, check_shapes
from nirvana.verification.plan import CheckGate, Done, Pool, Progress, TrainArms, next_step
from nirvana.verification.protocol import ARMS, BASELINES
from nirvana.verification.running import arm_keys, run_arms
from nirvana.verification.runs import ArmResult, RunCache
from nirvana.verification.verify import judge_look
from worker import Json

if TYPE_CHECKING:
    from worker.running import Prepare, RunningJob

KNOWN = 20  # tickets among which gate 0 looks for duplicates
KNOWN_BYTES = 2**28  # of their files together


async def run(job: RunningJob) -> Json:
    """Take step after step until the verdict is no longer open, and record it once. It goes on from what the
    exam's earlier verifications measured.

    A ticket that gate 0 refuses is recorded as INVALID with nothing trained.
    """
    spec = job.spec
    exam = await job.commit("exam", lambda session: open_exam(session, spec["exam"], spec["pools"]))
    before = Progress.from_dict(exam["progress"]) if exam["progress"] else Progress(exam["seed"], ())
    before = replace(before, pools={arm: Pool(*numbers) for arm, numbers in exam["pools"].items()})
    progress = before.with_looks(spec["replicates"], spec["max_replicates"])
    about, keys = dict[str, str](), dict[str, list[str]]()
    while not isinstance(step := next_step(progress), Done):
        if isinstance(step, CheckGate):
            request = {"round": "gate", "progress": progress.to_dict()}
            checked = await _run(job, "gate", request, lambda folder: _put_known(job, folder / "known"))
            progress, about, keys = Progress.from_dict(checked["progress"]), checked["about"], checked["keys"]
        elif isinstance(step, TrainArms):
            arm = step.arms[0]
            result = await _train(job, progress, step, keys[arm], about)
            progress = progress.with_arms({arm: result})
        else:
            request = {"round": "judge", "progress": progress.to_dict()}
            judged = await _run(job, f"judge {step.look.n}", request)
            progress = replace(progress, evaluation=Evaluation.from_dict(judged["evaluation"]))
            keys = judged["keys"]
    return await _record(job, progress)


async def _train(
    job: RunningJob, progress: Progress, step: TrainArms, keys: list[str], about: dict[str, str]
) -> ArmResult:
    """Train the replicates of a look of the first of its arms, and keep their runs for later verifications.

    Args:
        keys: of the runs that may be known.
    """
    arm, (base, seeds) = step.arms[0], (progress.seed, progress.seeds(step.look))
    if arm in BASELINES:
        base, seeds = progress.pools[arm].seed, progress.baselines(step.look)[arm]
    first, n = seeds.start - base, seeds.stop - base
    span = f"{first}-{n - 1}"
    request = {"round": "arm", "arm": arm, "seed": base, "first": first, "n": n}
    trained = await _run(
        job, f"arm {arm} {span}", request, lambda folder: _put_runs(job, keys, folder / "runs")
    )
    result = ArmResult.from_dict(trained["arm"])

    def work(session: Session) -> Json:
        keep_runs(session, trained["runs"], **about, arm=arm, job_id=job.id)
        append_events(session, job.id, [("arm", _arm_event(result, span))])
        if arm in BASELINES:
            grow_pool(session, job.spec["pools"][arm], base, n)
        return {}

    await job.commit(f"keep {arm} {span}", work)
    return result


async def _run(job: RunningJob, name: str, request: Json, prepare: Prepare | None = None) -> Json:
    files = {"input.ticket": ticket_key(job.spec["file"])}
    return await job.run_round(name, request, files, lambda _, result: result, prepare)


async def _record(job: RunningJob, progress: Progress) -> Json:
    """Record the evaluation and its verdict, exactly once."""
    job.total = job.done  # looks that were not needed
    assert progress.evaluation is not None
    evaluation, spec = progress.evaluation.to_dict(), job.spec

    def work(session: Session) -> Json:
        row = record_evaluation(session, spec["exam"], spec["digest"], evaluation, job.id, progress.to_dict())
        shown = {name: evaluation[name] for name in ("verdict", "reason", "replicates")}
        append_events(session, job.id, [("verdict", shown)])
        return {"evaluation": row.id, "verdict": evaluation["verdict"], "ticket": job.spec["ticket"]}

    return await job.commit("record", work)


def _put_runs(job: RunningJob, keys: Iterable[str], folder: Path) -> None:
    """Write those of the runs that are known into a folder as the run cache has them."""
    with job.worker.database.read() as session:
        known = find_runs(session, keys)
    for key, record in known.items():
        path = folder / key[:2] / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))


def _put_known(job: RunningJob, folder: Path) -> None:
    """Write other tickets of the architecture into a folder; one whose file is gone is passed over."""
    with job.worker.database.read() as session:
        rows = list_known(session, job.spec["digest"], KNOWN, KNOWN_BYTES)
    folder.mkdir()
    names = {}
    for number, (name, file_digest) in enumerate(rows):
        with contextlib.suppress(NotFound, StorageFailed):
            (folder / f"{number:02d}.ticket").write_bytes(job.worker.storage.get(ticket_key(file_digest)))
            names[f"{number:02d}.ticket"] = name
    (folder / "names.json").write_text(json.dumps(names))


def _arm_event(result: ArmResult, span: str) -> Json:
    """Return an arm's part of a look as people follow it."""
    accuracy, cached, n = fmean(result.accuracies), sum(result.cached), len(result.seeds)
    message = f"{result.arm} {span}: mean accuracy {100 * accuracy:.2f} %"
    message += f", {cached} of {n} from the cache" if cached else ""
    shown = {"arm": result.arm, "replicates": span, "test_accuracy": accuracy, "cached": cached}
    return shown | {"message": message}


def check(request: Json, progress: OnProgress) -> Json:
    """Look at the ticket without training it.

    Returns:
        `progress`, with the report, and the evaluation where gate 0 refuses the ticket; `keys` of the runs
        that the first look can use, by arm; and `about`, what the ticket's runs are kept with.
    """
    ticket, state = _ticket(request), Progress.from_dict(request["progress"])
    task, recipe = tasks.get(ticket.task), Recipe.from_dict(dict(ticket.recipe))
    check_shapes(ticket, task.input_shape, task.classes)
    progress({"kind": "gate", "message": "gate 0: the ticket without training"})
    gate = check_gate(ticket, _known(Path(request["folder"]) / "known"))
    if gate.invalid is not None:
        refused = replace(state, gate=gate, evaluation=refuse(ticket, gate, task.margin))
        return {"progress": refused.to_dict(), "keys": {}, "about": {}}
    config = _config(ticket, progress)
    check_fit(ticket, config.data, recipe)
    is_same = all(result.data == config.data_sha256 for result in state.joined.values())
    state = replace(state if is_same else state.restarted(), gate=gate)
    digests = {"architecture_digest": ticket.architecture.digest, "recipe_digest": recipe.digest}
    return {
        "progress": state.to_dict(),
        "keys": _keys(config, state, progress),
        "about": {"task": task.name} | digests,
    }


def train_arm(request: Json, progress: OnProgress) -> Json:
    """Train the replicates `first` to `n` - 1 of one arm, or take them from the runs in `runs/`.

    Returns:
        `arm`, its measurements, and `runs`, the records that are new.
    """
    folder, arm = Path(request["folder"]) / "runs", request["arm"]
    seed, first, n = request["seed"], request["first"], request["n"]
    config, seeds = _config(_ticket(request), progress), range(seed + first, seed + n)

    def pass_on(event: Event) -> None:
        progress(event | {"replicate": event["replicate"] - seed} if "replicate" in event else event)

    reporter = Reporter(pass_on, fields={"first": first, "replicates": len(seeds)})
    before = _read(folder)
    result = run_arms(config, [arm], seeds, reporter, cache=RunCache(folder))[arm]
    runs = [_record_of(text) for path, text in _read(folder).items() if before.get(path) != text]
    return {"arm": result.to_dict(), "runs": runs}


def judge(request: Json, progress: OnProgress) -> Json:
    """Give the verdict on what the arms measured in all looks so far.

    Returns:
        `evaluation`, and `keys` of the runs that the next look can use, if there is one.
    """
    ticket, state = _ticket(request), Progress.from_dict(request["progress"])
    look = state.looks[len(state.judged)]
    evaluation = judge_look(ticket, state, look, tasks.get(ticket.task).margin)
    state = replace(state, evaluation=evaluation)
    is_over = isinstance(next_step(state), Done)
    keys = {} if is_over else _keys(_config(ticket, progress), state, progress)
    return {"evaluation": evaluation.to_dict(), "keys": keys}


def _keys(config: ArmConfig, state: Progress, progress: OnProgress) -> dict[str, list[str]]:
    """Return the keys of the runs that the next look can use, by arm."""
    step, keys = next_step(state), dict[str, list[str]]()
    assert isinstance(step, TrainArms)
    for arm in ARMS:
        progress({"kind": "keys", "arm": arm})
        seeds = state.baselines(step.look).get(arm, state.seeds(step.look))
        keys[arm] = arm_keys(config.of(arm), seeds)
    return keys


def _ticket(request: Json) -> Ticket:
    return Ticket.read(Path(request["folder"]) / "input.ticket")


def _config(ticket: Ticket, progress: OnProgress) -> ArmConfig:
    recipe = Recipe.from_dict(dict(ticket.recipe))
    data, sealed = tasks.load(ticket.task, progress), tasks.load_sealed(ticket.task)
    return ArmConfig(ticket, "ticket", data, recipe, sealed=sealed)


def _known(folder: Path) -> Iterator[tuple[str, Ticket]]:
    """Yield the known tickets, one in memory at a time."""
    if not folder.exists():
        return
    for file, name in json.loads((folder / "names.json").read_text()).items():
        yield name, Ticket.read(folder / file)


def _read(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(folder.glob("*/*.json"))}


def _record_of(text: str) -> Json:
    """Return a record of the run cache without the fields that its key is the sha256 of: those of a deep
    network are a hundred times longer than what was measured."""
    return {name: value for name, value in json.loads(text).items() if name != "fields"}


ROUNDS = {"gate": check, "arm": train_arm, "judge": judge}
