"""`attest`: run a ticket's search again, and see whether it gives the ticket."""

from __future__ import annotations

from app.jobs.kinds import Asker, Kind, Plan, Spec, TicketName, moved, refusal
from nirvana.errors import Invalid
from nirvana.pruning.provenance import Origin, read_origin, search_spec
from nirvana.tasks.recipes import check_batch_size


class AttestSpec(Spec):
    """An attestation: of a ticket whose provenance names its method, its level and its seed."""

    ticket: TicketName


def plan(asker: Asker, spec: AttestSpec) -> Plan:
    """Look the ticket up, and resolve its search; the last level's training is left out.

    Raises:
        InvalidJob: there is no such ticket, it is attested already, or its provenance cannot be run, with
            what is missing.
    """
    listing = asker.find_ticket(spec.ticket, "ticket")
    if listing.origin == "attested":
        raise refusal("/spec/ticket", "attested", f"{spec.ticket} is attested already")
    if listing.visibility != "public":  # its job and its attestation name it, and are everybody's to see
        raise refusal("/spec/ticket", "private", f"{spec.ticket} is private, expected a public ticket")
    task = asker.find_task(listing.task, "/spec/ticket")
    try:
        origin = read_origin(listing.manifest, task)
        check_batch_size(origin.plan.recipe, origin.plan.architecture, task.sizes["train"])
    except Invalid as error:
        raise moved(error, "/spec/ticket") from None
    full = spec.model_dump() | search_spec(origin)
    full |= {"digest": listing.digest, "file": listing.blob.digest, "level": origin.level}
    return Plan(full, origin.trainings + 1, origin.plan.architecture.parameter_count, _flops(origin))


def _flops(origin: Origin) -> int:
    """Return the operations of the search, without its last training."""
    return origin.plan.flops * origin.trainings // max(1, origin.plan.trainings)


KIND = Kind(AttestSpec, plan)
