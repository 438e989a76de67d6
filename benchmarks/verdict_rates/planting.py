"""Tickets of which it is known beforehand what they are: strong ones, and losers that pose as winners.

| kind | mask | values |
|---|---|---|
| strong | IMP at 10 % | its own |
| reinit | IMP's | a new draw, declared as a seed |
| shuffled | IMP's, permuted within each layer | the strong one's |
| random | at random, as many weights | the strong one's |
| dense-mask | all kept | the strong one's |
| inverted | what IMP pruned | the strong one's |
| smallest | IMP that keeps the smallest weights, at 10 % | the strong one's |
| trained | largest trained weights, 10 % | trained ones, passed off as initial |
| disguised | the same | trained ones mapped by rank to the law that they are declared to follow |
| survivors | the same | trained ones, those of pruned weights not stored |
| mild-reinit, mild-shuffled, mild-random | as above, of IMP at 41 % | as above |

The mild ones often match the dense network, so that only the controls tell them from winners.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nirvana import engines, lab, tasks
from nirvana.format.initial import draw_all, shuffle_mask
from nirvana.format.ticket import Ticket
from nirvana.pruning.imp import masks_at_density
from nirvana.training.recipe import Recipe
from nirvana.training.spec import InitialState, TrainSpec, Values
from nirvana.verification.arms import random_masks

TASK, ARCHITECTURE, DENSITY, MILD_DENSITY = "digits", "lenet-300-100", 0.10, 0.41
STRONG = "strong"
TRAINED = ("trained", "disguised", "survivors")
MILD = ("mild-reinit", "mild-shuffled", "mild-random")
LOSERS = ("reinit", "shuffled", "random", "dense-mask", "inverted", "smallest", *TRAINED, *MILD)
KINDS = (STRONG, *LOSERS)
_OTHER_SEED = 10_000


def ticket_path(kind: str, seed: int) -> Path:
    """A planted ticket's file, below the folder of the benchmark."""
    return Path("tickets") / f"{kind}-{seed}.ticket"


@dataclass(frozen=True)
class Planting:
    """The tickets of all kinds that grow from one seed."""

    seed: int

    def is_done(self, out: Path) -> bool:
        return all((out / ticket_path(kind, self.seed)).exists() for kind in KINDS)

    def run(self, out: Path) -> None:
        for kind, ticket in plant(self.seed).items():
            ticket.write(out / ticket_path(kind, self.seed))


def plant(seed: int) -> dict[str, Ticket]:
    """One ticket of each kind."""
    strong = lab.find(TASK, ARCHITECTURE, "imp", density=DENSITY, seed=seed).tickets[-1]
    smallest = {"pruning": {"criterion": "small_final"}}
    found = {STRONG: strong} | _controls(strong, seed)
    mild = lab.find(TASK, ARCHITECTURE, "imp", density=MILD_DENSITY, seed=seed).tickets[-1]
    found |= {f"mild-{name}": ticket for name, ticket in _controls(mild, seed).items()}
    found["dense-mask"] = _planted(strong, {})
    found["inverted"] = _planted(strong, {name: ~mask for name, mask in strong.masks.items()})
    last = lab.find(TASK, ARCHITECTURE, "imp", density=DENSITY, seed=seed, recipe=smallest).tickets[-1]
    found["smallest"] = _planted(strong, last.masks)
    return found | _trained(strong, seed)


def _controls(ticket: Ticket, seed: int) -> dict[str, Ticket]:
    """What a verification's controls are, as tickets."""
    places = {name: place for place, name in enumerate(ticket.architecture.parameters)}
    shuffled = {name: shuffle_mask(mask, _OTHER_SEED, places[name]) for name, mask in ticket.masks.items()}
    return {
        "reinit": _planted(ticket, ticket.masks, seed=seed + _OTHER_SEED),
        "shuffled": _planted(ticket, shuffled),
        "random": _planted(ticket, random_masks(ticket, _OTHER_SEED)),
    }


def _trained(strong: Ticket, seed: int) -> dict[str, Ticket]:
    recipe = Recipe.from_dict(dict(strong.recipe))
    start = draw_all(strong.architecture, strong.start.laws, seed)
    spec = TrainSpec(strong.architecture, InitialState(start, {}, seed), tasks.load(TASK), recipe)
    weights = engines.train(spec, engine="dense", keep_weights=True).weights
    assert weights is not None
    masks = masks_at_density(weights, {}, strong.prunable, recipe.pruning, DENSITY)
    plain = {name: value if value.ndim > 1 else np.zeros_like(value) for name, value in weights.items()}
    survivors = {name: value[masks[name]] if name in masks else value for name, value in plain.items()}
    return {
        "trained": _planted(strong, masks, seed=None, stored=plain),
        "disguised": _planted(strong, masks, seed=None, stored=disguise(plain, start)),
        "survivors": _planted(strong, masks, seed=None, stored=survivors),
    }


def disguise(weights: Values, start: Values) -> Values:
    """Each tensor with the values of `start` in the order of the trained weights."""
    mapped = {}
    for name, values in weights.items():
        ranks = np.argsort(np.argsort(values, axis=None, kind="stable"), kind="stable")
        mapped[name] = np.sort(start[name], axis=None)[ranks].reshape(values.shape)
    return mapped


def _planted(strong: Ticket, masks: Any, **start: Any) -> Ticket:
    seed = start.pop("seed", strong.start.seed)
    return Ticket.create(
        strong.architecture,
        masks,
        task=strong.task,
        recipe=dict(strong.recipe),
        laws=strong.start.laws,
        seed=seed,
        provenance={"method": "planted"},
        **start,
    )
