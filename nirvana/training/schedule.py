"""The batches of a training: the examples that each update sees.

Batches: the epochs' orders (Philox, seed `order_seed`; `nirvana.format.initial.epoch_order`) are laid end to
end and cut into batches, so every batch is full, a batch may straddle two epochs, and no example is left out.
Update number s takes the examples from s x batch_size on, so a training that starts at step k goes on where
one of k steps ended: order, schedule and warm-up alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from nirvana.errors import InvalidRecipe, Problem
from nirvana.format.initial import Index, epoch_order
from nirvana.training.recipe import Recipe, pointers_below

if TYPE_CHECKING:  # an exported script carries this module, and reads no ticket
    from nirvana.format.ticket import Ticket


def batch_indices(order_seed: int, n: int, batch_size: int, start_step: int) -> Iterator[Index]:
    """Yield each batch's indices, int64, shape (batch_size,), from update `start_step` on, without an end."""
    epoch, offset = divmod(start_step * batch_size, n)
    order = epoch_order(order_seed, epoch, n)[offset:]
    while True:
        while len(order) < batch_size:
            epoch += 1
            order = np.concatenate([order, epoch_order(order_seed, epoch, n)])
        yield order[:batch_size]
        order = order[batch_size:]


def check_start(recipe: Recipe, start_step: int) -> None:
    """Refuse a training that would have no step.

    Raises:
        InvalidRecipe: it starts at or past the recipe's last step.
    """
    if start_step >= recipe.steps:
        detail = f"training starts at step {start_step}, expected less than the recipe's {recipe.steps} steps"
        raise InvalidRecipe(detail, errors=[Problem("/steps", "past-the-end", detail)])


def check_augmentation(recipe: Recipe, shape: tuple[int, ...]) -> None:
    """Refuse augmentation of inputs that are no images.

    Raises:
        InvalidRecipe: both are named.
    """
    if recipe.augmentation and len(shape) != 3:
        detail = f"augmentation needs images, but the input has shape {list(shape)}"
        raise InvalidRecipe(detail, errors=[Problem("/augmentation", "does-not-fit", detail)])


def check_recipe(ticket: Ticket) -> Recipe:
    """Return the recipe of a ticket, by the rules that its training keeps to.

    Raises:
        InvalidRecipe: nobody can train the ticket by it; each problem with its pointer below `/recipe`.
    """
    with pointers_below("/recipe"):
        recipe = Recipe.from_dict(dict(ticket.recipe))
        check_start(recipe, recipe.first_step(ticket.start.rewind_step))
        check_augmentation(recipe, ticket.architecture.input)
    return recipe
