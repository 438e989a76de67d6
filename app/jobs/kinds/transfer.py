"""`transfer`: try a ticket on another task, beside that task's own ticket and controls."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from app.jobs.kinds import Asker, Kind, Name, Plan, Replicates, Spec, TicketName, invalid_job
from nirvana.errors import Problem
from nirvana.networks.architecture import Architecture
from nirvana.tasks import Task
from nirvana.training.cost import most_flops
from nirvana.verification.protocol import STANDARD_REPLICATES

ARMS = 4  # dense, ticket, reinit, shuffle; with the target's own ticket one more


class TransferSpec(Spec):
    """A trial of a ticket on a task that it was not found on."""

    ticket: TicketName = Field(examples=["ada/lenet-300-100-mnist-07"])
    task: Name = Field(description="the target", examples=["fashion-mnist"])
    own: TicketName | None = Field(default=None, description="the target's own ticket, to compare with")
    replicates: Replicates = Field(default=STANDARD_REPLICATES, description="training runs of each arm")


def plan(asker: Asker, spec: TransferSpec) -> Plan:
    """Look the tickets up and check that they fit the target.

    Raises:
        InvalidJob: an unknown ticket or task; the target is the ticket's own task or has another input shape,
            or the own ticket is of another task.
    """
    target = asker.find_task(spec.task, is_new=True)
    listing = asker.find_ticket(spec.ticket, "ticket")
    full = spec.model_dump(exclude_none=True) | {"digest": listing.digest, "file": listing.blob.digest}
    own = None if spec.own is None else asker.find_ticket(spec.own, "own")
    if own is not None:
        full["own_file"] = own.blob.digest
    architecture = listing.architecture
    own_task = None if own is None else own.task
    problems = list(find_problems(architecture, listing.task, own_task, target))
    if problems:
        raise invalid_job(problems)
    recipe = target.default_recipe(architecture.name)
    flops = most_flops(architecture, recipe, target.sizes) * spec.replicates * (ARMS + (own is not None))
    return Plan(full, 1, architecture.parameter_count, flops)


def find_problems(
    architecture: Architecture, source: str, own: str | None, target: Task
) -> Iterator[Problem]:
    """Yield what keeps a ticket of the task `source` from a target.

    Args:
        own: task of the target's own ticket, where there is one.
    """
    if source == target.name:
        detail = f"the ticket was found on {source}, expected another task: ask for a verification"
        yield Problem("/spec/task", "same-task", detail)
    if tuple(architecture.input) != tuple(target.input_shape):
        detail = f"{architecture.name} takes inputs of shape {list(architecture.input)}, but the task "
        detail += f"{target.name} has {list(target.input_shape)}"
        yield Problem("/spec/task", "does-not-fit", detail)
    if own is not None and own != target.name:
        yield Problem("/spec/own", "other-task", f"own was found on {own}, expected one of {target.name}")


KIND = Kind(TransferSpec, plan)
