"""Tickets that try to steer, buy or move their verdict: one small function each, from a seed to a ticket.

Planted losers (planting.py) are wrong in mask or values alone. An adversary also chooses the recipe, the
network, the task or the number of replicates, and uses all that is public. `ADVERSARIES` lists them; `HONEST`
are tickets without any lever, to compare with.
`replicates` in a ticket's provenance, where it is there, is the number that its author asks for.
Their settings were chosen to win under `nirvana-verify/2` on seeds 100 to 102.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.verdict_rates.drawing import draw
from benchmarks.verdict_rates.planting import ARCHITECTURE, DENSITY, TASK
from nirvana import engines, lab, tasks
from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import Node
from nirvana.tasks import Task, TaskData
from nirvana.tasks.task import PARTS
from nirvana.training.recipe import Recipe
from nirvana.training.spec import Arrays, Values
from nirvana.verification.arms import random_masks
from nirvana.verification.gate import check_gate
from nirvana.verification.protocol import ARMS, plan_looks
from nirvana.weights import Weights

SPARSE, LEAKY, SHY, SPREAD = 0.02, 0.03, 0.06, 0.20  # densities
SEARCH_STEPS = 1_000  # of a search that takes its time; the recipe that is pushed is the default one
GAIN = 100.0
BALLAST = 2_000  # hidden units that nothing reaches
FEATURES = 32  # of a row's token
Fields = dict[str, Any]
Array = NDArray[np.float32]
Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Adversary:
    """One way to attack a verdict.

    Attributes:
        description: one line.
        plant: seed -> the ticket that is pushed.
        original: seed -> the public ticket that it copies; None where it copies none.
    """

    description: str
    plant: Callable[[int], Ticket]
    original: Callable[[int], Ticket] | None = None


def forge(ticket: Ticket, **changes: Any) -> Ticket:
    """Make the ticket again with other parts: arguments of `Ticket.create`, and fields of the recipe."""
    parts: Fields = {
        "architecture": ticket.architecture,
        "masks": ticket.masks,
        "task": ticket.task,
        "laws": ticket.start.laws,
        "seed": ticket.start.seed,
        "prunable": ticket.prunable,
        "provenance": {"method": "adversary"},
    }
    recipe = dict(ticket.recipe) | changes.pop("recipe", {})
    return Ticket.create(**parts | changes, recipe=recipe)


@lru_cache
def imp(seed: int, density: float = DENSITY) -> Ticket:
    """Find an honest ticket."""
    return lab.find(TASK, ARCHITECTURE, "imp", density=density, seed=seed).tickets[-1]


@lru_cache
def supermask(seed: int, density: float = DENSITY, task: str = TASK, steps: int = 250) -> Ticket:
    """Find a mask by which untrained values score, so that its author has no need of a training."""
    search = {"steps": steps}
    found = lab.find(task, ARCHITECTURE, "edge-popup", density=density, seed=seed, recipe=search)
    return forge(found.tickets[-1], recipe=tasks.get(task).default_recipe(ARCHITECTURE).to_dict())


# The recipe: it starves or wrecks the dense baseline, which it trains too


def starved(seed: int, recipe: Fields, steps: int = 250) -> Ticket:
    """Push a supermask, searched for so many steps, with a recipe by which nothing else learns."""
    return forge(supermask(seed, steps=steps), recipe=recipe)


def hurried(seed: int, density: float = SPARSE, steps: int = 10) -> Ticket:
    """Push a ticket that is too sparse to match, with a recipe too short for the dense network."""
    return forge(imp(seed, density), recipe={"steps": steps, "evaluate_every": 1})


# The mask and the values: they know more than a draw and a search may


def patient(seed: int, density: float = LEAKY, steps: int = SEARCH_STEPS) -> Ticket:
    """Search honestly for as long as `leaked` does."""
    return imp_on(tasks.load(TASK), seed, density, steps)


def leaked(seed: int, density: float = LEAKY, steps: int = SEARCH_STEPS) -> Ticket:
    """Search the mask by IMP on all of the task's labels, those of its test part too."""
    return imp_on(join_parts(tasks.load(TASK), PARTS), seed, density, steps)


def leaked_with_seal(seed: int, density: float = LEAKY, steps: int = SEARCH_STEPS) -> Ticket:
    """Search the mask on the sealed rows too, as on a task that has none, or whose rows are public."""
    everything, sealed = join_parts(tasks.load(TASK), PARTS), tasks.load_sealed(TASK)
    assert sealed is not None
    x, y = np.concatenate([everything.train_x, sealed.x]), np.concatenate([everything.train_y, sealed.y])
    return imp_on(everything._replace(train_x=x, train_y=y), seed, density, steps)


def ranked(
    seed: int, on_test: bool, density: float = LEAKY, steps: int = SEARCH_STEPS, rounds: int = 150
) -> Ticket:
    """Train the kept weights within the range of their law, then pass them off as drawn: see `hide_among`.

    They are trained on the train and validation parts, or on the test part; the mask was searched without it.
    """
    data = join_parts(tasks.load(TASK), ("train", "validation"))
    ticket = imp_on(data, seed, density, steps)
    start = ticket.dense_initial_values()
    assert start is not None
    trained = train_within(ticket, start, join_parts(data, ("test",)) if on_test else data, rounds)
    stored = start | {
        name: hide_among(start[name], trained[name], ticket.mask(name)) for name in ticket.masks
    }
    return forge(ticket, stored=stored, seed=None)


def join_parts(data: TaskData, parts: Sequence[str]) -> TaskData:
    """Return a task that trains on these parts."""
    x, y = (np.concatenate([getattr(data, f"{part}_{axis}") for part in parts]) for axis in "xy")
    return data._replace(train_x=x, train_y=y)


def imp_on(data: TaskData, seed: int, density: float, steps: int) -> Ticket:
    """Search by IMP on data of one's own, each level trained for `steps` updates."""
    target, recipe = lab.PruningTarget("imp", density=density), {"steps": steps, "evaluate_every": steps}
    plan = lab.plan_search(TASK, ARCHITECTURE, target, seed=seed, recipe=recipe)
    following: Ticket | None = lab.first_ticket(plan.task, plan.architecture, plan.recipe, seed, data=data)
    while following is not None:
        ticket = following
        _, following = lab.find_level(ticket, data, seed, target)
    return forge(ticket, recipe=plan.task.default_recipe(ARCHITECTURE).to_dict())


def train_within(ticket: Ticket, start: Arrays, data: TaskData, rounds: int) -> Values:
    """Train the kept weights alone, biases at 0, and clamp them to the drawn range every few updates.

    Inputs are scaled up, which changes no answer of such a network: its outputs are then large enough to
    learn from, small as the weights stay.
    """
    recipe = replace(Recipe.from_dict(dict(ticket.recipe)), steps=10, evaluate_every=10)
    loud, values = data._replace(train_x=data.train_x * GAIN), dict(start)
    for number in range(rounds):
        run = lab.train(
            ticket.architecture, values, ticket.masks, loud, recipe, number, threads=1, keep_weights=True
        )
        assert run.weights is not None
        for name in ticket.masks:
            values[name] = np.clip(run.weights[name], start[name].min(), start[name].max())
    return values


def hide_among(drawn: Array, trained: Array, mask: NDArray[np.bool_]) -> Array:
    """Place the drawn values, all of them and no other, so that each kept one is near its trained value.

    The trained values are clamped to the draw's range, and each takes the next drawn value of its rank that
    is still free; the others lie at random.
    """
    pool, wanted = np.sort(drawn, axis=None), trained[mask]
    order, n = np.argsort(wanted, kind="stable"), int(mask.sum())
    places = np.searchsorted(pool, np.clip(wanted[order], pool[0], pool[-1]))
    steps = np.arange(n)
    places = np.maximum.accumulate(np.minimum(places, pool.size - n + steps) - steps) + steps
    kept = np.empty(n, np.float32)
    kept[order] = pool[places]
    values = np.empty(mask.shape, np.float32)
    values[mask] = kept
    values[~mask] = np.random.default_rng(0).permutation(np.delete(pool, places))
    return values


# Luck


def lucky(seed: int, masks: int = 100, steps: int = 10) -> Ticket:
    """Push the best of many random masks, with a recipe that wrecks the dense network and the largest batches
    that there may be, so that replicates vary little."""
    data = tasks.load(TASK)
    recipe: Fields = {"learning_rate": 0.1, "batch_size": len(data.train_y) // 10, "steps": steps}
    recipe["evaluate_every"] = steps
    candidates = random_tickets(seed, masks, SPREAD, recipe)
    return max(candidates, key=lambda one: lab.run_arm(one, "ticket", data, None, 1, threads=1).accuracies[0])


def counted(seed: int, density: float = SHY, most: int = 10) -> Ticket:
    """Push a ticket that hardly matches, and ask for that number of replicates by which it wins."""
    ticket, data = imp(seed, density), tasks.load(TASK)
    arms = {arm: lab.run_arm(ticket, arm, data, None, most, threads=1) for arm in ARMS}
    counts = winning_counts(ticket, arms, most)
    asked = {"replicates": counts[0]} if counts else {}
    return forge(ticket, provenance={"method": "adversary"} | asked)


def winning_counts(ticket: Ticket, arms: Mapping[str, lab.ArmResult], most: int) -> list[int]:
    """Return the numbers of replicates, 2 to `most`, after which a verification ends in WINNING.

    Args:
        arms: trained with the seeds that it will have, if they are public.
    """
    gate, margin = check_gate(ticket), tasks.get(ticket.task).margin
    order = range(most)
    ends = {n: draw(ticket, gate, arms, margin, plan_looks(n), order, order) for n in range(2, most + 1)}
    return [n for n, end in ends.items() if end.verdict == "WINNING"]


def random_tickets(seed: int, count: int, density: float, recipe: Fields) -> list[Ticket]:
    """Make tickets with random masks and one draw of values."""
    first = lab.find(TASK, ARCHITECTURE, "random", density=density, seed=seed).tickets[-1]
    return [forge(first, masks=random_masks(first, seed * count + k), recipe=recipe) for k in range(count)]


# The network: weights that no density counts, or that count and do nothing


def hidden_layer(seed: int, density: float = DENSITY) -> Ticket:
    """Leave the first layer out of `prunable`: it is whole, and the density says nothing of it."""
    whole, rest = "fc1.weight", ["fc2.weight", "fc3.weight"]
    shapes = zoo.build(ARCHITECTURE, tasks.get(TASK).input_shape, 10).parameters
    sizes = {name: int(np.prod(shapes[name])) for name in (whole, *rest)}
    kept = sizes[whole] + density * sum(sizes[name] for name in rest)
    recipe = {"pruning": {"layer_rates": {whole: 0.0}}}
    found = lab.find(TASK, ARCHITECTURE, "imp", density=kept / sum(sizes.values()), seed=seed, recipe=recipe)
    return forge(found.tickets[-1], prunable=rest)


def hidden_attention(seed: int, density: float = SPREAD, steps: int = 250) -> Ticket:
    """Let attention do the work, whose weights no mask covers by default."""
    task = add_rows()
    nodes: list[Node] = [
        {"name": "embed", "op": "linear", "in": 8, "out": FEATURES},
        {"name": "position", "op": "layer_norm", "shape": [8, FEATURES]},
        {"name": "attention", "op": "self_attention", "features": FEATURES, "heads": 4},
        {"name": "sum", "op": "add", "inputs": ["position", "attention"]},
        {"name": "flatten", "op": "flatten"},
        {"name": "fc", "op": "linear", "in": 8 * FEATURES, "out": 10},
    ]
    graph = Architecture.make("rows-attention", task.input_shape, nodes)
    recipe = {"steps": steps}
    return lab.find(task, graph, "imp", density=density, seed=seed, recipe=recipe).tickets[-1]


def ballast(seed: int, density: float = DENSITY) -> Ticket:
    """Put an honest ticket beside a wide branch that its mask cuts off, so that its density is lower."""
    ticket = imp(seed, density)
    masks = dict(ticket.masks) | {name: np.zeros(shape, bool) for name, shape in _BRANCH.items()}
    masks["ballast1.weight"][0, 0] = masks["ballast2.weight"][0, 1] = True  # no path: 1 is another unit
    return with_branch(ticket, masks)


def wired(seed: int, density: float = DENSITY) -> Ticket:
    """Leave a path of two weights through the branch, so that no layer of it is cut off."""
    ticket = ballast(seed, density)
    masks = {name: mask.copy() for name, mask in ticket.masks.items()}
    masks["ballast2.weight"][0, 0] = True
    return forge(ticket, masks=masks)


def irrelevant(seed: int, density: float = DENSITY) -> Ticket:
    """Keep the network whole and unlisted, and let the mask cover a branch beside it alone."""
    masks = {name: np.zeros(shape, bool) for name, shape in _BRANCH.items()}
    masks["ballast1.weight"][0, 0] = masks["ballast2.weight"][0, 0] = True
    return with_branch(imp(seed, density), masks, prunable=list(_BRANCH))


_BRANCH = {"ballast1.weight": (BALLAST, 64), "ballast2.weight": (10, BALLAST)}


def with_branch(ticket: Ticket, masks: Masks, **changes: Any) -> Ticket:
    """Add a branch from input to output whose parameters come last: the others keep their draws."""
    graph, last = ticket.architecture, ticket.architecture.nodes[-1]["name"]
    branch: list[Node] = [
        {"name": "ballast1", "op": "linear", "in": 64, "out": BALLAST, "bias": False, "inputs": ["flatten"]},
        {"name": "ballast_relu", "op": "relu"},
        {"name": "ballast2", "op": "linear", "in": BALLAST, "out": 10, "bias": False},
        {"name": "sum", "op": "add", "inputs": [last, "ballast2"]},
    ]
    wide = Architecture.make("lenet-with-a-branch", graph.input, [*graph.nodes, *branch])
    laws = dict(ticket.start.laws) | dict.fromkeys(_BRANCH, ticket.start.laws["fc1.weight"])
    parts = {"architecture": wide, "masks": masks, "laws": laws, "prunable": wide.prunable}
    return forge(ticket, **parts | changes)


# Tasks of one's own


def self_labelled(seed: int, density: float = DENSITY, steps: int = 250) -> Ticket:
    """Push a ticket for a task whose labels, those of the test part too, are its own untrained answers."""
    name = "self-labelled"
    add_task(name, images=load_digits())
    ticket = supermask(seed, density, name, steps)
    data = tasks.load(name)
    answers = [engines.predict_logits(Weights.untrained(ticket), x).argmax(1) for x in data[::2]]
    add_task(name, images=load_digits(), labels=np.concatenate(answers))
    return forge(ticket)


def add_rows() -> Task:
    """Add the digits as eight rows of eight numbers, which attention can read."""
    return add_task("digits-rows", signals=load_digits()[:, 0])


def load_digits() -> NDArray[np.uint8]:
    """Return all images of the task, train, validation and test, (1797, 1, 8, 8)."""
    return np.concatenate([tasks.load_raw(TASK, part)[0] for part in PARTS])


def add_task(name: str, labels: NDArray[np.int64] | None = None, **x: NDArray[np.uint8]) -> Task:
    """Add a task of one's own with the parts of digits.

    Args:
        labels: of all examples; None: those of digits.
        x: the examples, under the name of their kind.
    """
    data = tasks.load(TASK)
    parts = np.repeat(PARTS, [len(y) for y in data[1::2]])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "examples.npz"
        y = np.concatenate(data[1::2]) if labels is None else labels
        np.savez(path, allow_pickle=False, split=parts, labels=y, **x)
        return tasks.add(path, name, margin=tasks.get(TASK).margin, replace=True)


# Copies


def permuted(seed: int, density: float = DENSITY) -> Ticket:
    """Copy a ticket with its hidden units in another order: the same function, other masks and values."""
    ticket, orders = imp(seed, density), np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = dict(ticket.dense_initial_values() or {})
    arrays |= {f"mask of {name}": mask for name, mask in ticket.masks.items()}
    for layer, following in (("fc1", "fc2"), ("fc2", "fc3")):
        order = orders.permutation(len(arrays[f"{layer}.bias"]))
        for name in (f"{layer}.weight", f"{layer}.bias", f"mask of {layer}.weight"):
            arrays[name] = arrays[name][order]
        for name in (f"{following}.weight", f"mask of {following}.weight"):
            arrays[name] = arrays[name][:, order]
    masks = {name: arrays.pop(f"mask of {name}") for name in ticket.masks}
    return forge(ticket, masks=masks, stored=arrays, seed=None)


_SGD = {"optimizer": "sgd", "learning_rate": 0.1}
STARVING: dict[str, tuple[str, Fields]] = {
    "starved-step": ("a recipe of one step at 1e-9", {"steps": 1, "learning_rate": 1e-9}),
    "starved-decay": ("AdamW with weight decay 30", {"optimizer": "adamw", "weight_decay": 30.0}),
    "starved-l1": ("l1 0.01", {"l1": 0.01}),
    "starved-batch": ("batches of one example", {"batch_size": 1}),
    "augmented": ("images of 8 x 8 cropped and flipped", {"augmentation": ["crop", "flip"]}),
    "distilled": (
        "distilled by SGD at a temperature of 1e-4",
        _SGD | {"distillation": {"temperature": 1e-4, "weight": 1.0}},
    ),
}
ADVERSARIES = {
    kind: Adversary(f"supermask at 10 %, {means}", partial(starved, recipe=recipe))
    for kind, (means, recipe) in STARVING.items()
} | {
    "starved-short": Adversary("IMP at 2 %, a recipe of 10 steps", hurried),
    "leaked-labels": Adversary("IMP at 3 % on train, validation and test labels, default recipe", leaked),
    "leaked-seal": Adversary("the same, the sealed rows' labels too", leaked_with_seal),
    "ranked": Adversary(
        "IMP at 3 %, its weights trained; drawn values are given to them by rank",
        partial(ranked, on_test=False),
    ),
    "ranked-on-test": Adversary("the same, trained on the test part", partial(ranked, on_test=True)),
    "lucky": Adversary("best of 100 random masks at 20 %, the largest batches, rate 0.1", lucky),
    "counted": Adversary("IMP at 6 %, as many replicates as win by public seeds", counted),
    "hidden-layer": Adversary("prunable is [fc2, fc3], fc1 is whole", hidden_layer),
    "hidden-attention": Adversary("attention does the work, which no mask covers", hidden_attention),
    "ballast": Adversary("IMP at 10 % beside 2,000 hidden units that it cuts off", ballast),
    "wired": Adversary("the same, with one path of two weights through them", wired),
    "irrelevant": Adversary("the network whole, the mask covers a branch beside it", irrelevant),
    "self-labelled": Adversary("a task labelled by the ticket's own untrained answers", self_labelled),
    "permuted": Adversary("IMP at 10 % of somebody else, hidden units permuted", permuted, imp),
}
HONEST = {
    f"honest-{100 * density:.0f}": Adversary(
        f"IMP at {100 * density:.0f} %, nothing else", partial(imp, density=density)
    )
    for density in (SPARSE, LEAKY, SHY, DENSITY)
} | {"patient": Adversary("IMP at 3 %, as long a search as for leaked-labels, on training data", patient)}
