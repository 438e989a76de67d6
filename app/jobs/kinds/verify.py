"""`verify`: measure a ticket against a dense baseline and controls."""

from __future__ import annotations

from pydantic import Field, model_validator

from app.jobs.kinds import (
    Asker,
    Kind,
    MostReplicates,
    Plan,
    Replicates,
    Spec,
    TicketName,
    one_of_problem,
    refusal,
)
from app.tickets.models import Listing
from nirvana.errors import InvalidRecipe
from nirvana.networks.architecture import Architecture
from nirvana.tasks.recipes import check_batch_size
from nirvana.training.cost import most_flops
from nirvana.training.recipe import Recipe
from nirvana.training.schedule import check_start
from nirvana.verification.arms import baseline_sha256
from nirvana.verification.protocol import (
    ARMS,
    BASELINES,
    LOOKS,
    POOL_RUNS,
    REFERENCE,
    choose_replicates,
    count_steps,
    plan_looks,
)


class VerifySpec(Spec):
    """A verification. Without replicates: 5, topped up to 20; with `replicates` alone there is one look."""

    ticket: TicketName
    replicates: Replicates | None = Field(default=None, description="training runs of each arm")
    max_replicates: MostReplicates | None = Field(
        default=None,
        description="while the verdict is open, looks follow at 2 and 4 times the replicates, to this many",
    )

    @model_validator(mode="after")
    def _cap(self) -> VerifySpec:
        replicates, cap = choose_replicates(self.replicates, self.max_replicates)
        most = LOOKS[-1] * replicates
        if not replicates <= cap <= most:
            message = f"max_replicates is {cap}, expected an integer from {replicates} to {most}"
            raise one_of_problem("max_replicates", "range", message)
        return self


def plan(asker: Asker, spec: VerifySpec) -> Plan:
    """Look the ticket up; rounds and operations are the most that can happen.

    Raises:
        InvalidJob: there is no such ticket, its task is unknown, or nobody can verify it by its recipe.
    """
    listing = asker.find_ticket(spec.ticket, "ticket")
    replicates, cap = choose_replicates(spec.replicates, spec.max_replicates)
    architecture, task = listing.architecture, asker.find_task(listing.task, "/spec/ticket")
    recipe = _read_recipe(listing, architecture, task.sizes["train"])
    recipes = {"dense": recipe, REFERENCE: task.reference_recipe(architecture)}
    of = (architecture, listing.manifest["initial"]["laws"])
    pools = {
        arm: baseline_sha256(arm, *of, recipe, task.name, listing.exam_key) for arm, recipe in recipes.items()
    }
    full = spec.model_dump() | {"replicates": replicates, "max_replicates": cap}
    full |= {
        "task": task.name,
        "digest": listing.digest,
        "file": listing.blob.digest,
        "exam": listing.exam_key,
        "pools": pools,
    }
    steps = count_steps(plan_looks(replicates, cap))
    flops = most_flops(architecture, recipe, task.sizes) * cap * (len(ARMS) - len(BASELINES))
    for baseline in recipes.values():
        flops += most_flops(architecture, baseline, task.sizes) * POOL_RUNS
    return Plan(full, steps, architecture.parameter_count, flops)


def _read_recipe(listing: Listing, architecture: Architecture, train_examples: int) -> Recipe:
    try:
        recipe = Recipe.from_dict(listing.recipe)
        check_start(recipe, recipe.first_step(listing.rewind_step))
        check_batch_size(recipe, architecture, train_examples)
    except InvalidRecipe as error:  # listed before recipes were checked, or too large a batch for the task
        raise refusal("/spec/ticket", "recipe", f"the ticket's {error.detail}") from None
    return recipe


KIND = Kind(VerifySpec, plan)
