"""What the benchmarks train: networks, data of their shape, and masks of a density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from nirvana import lab, tasks
from nirvana.errors import DataMissing
from nirvana.format.initial import default_laws, draw_all, random_mask
from nirvana.format.masks import Mask
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.tasks import TaskData
from nirvana.training.recipe import Pruning, Recipe
from nirvana.training.spec import InitialState, TrainSpec, Values

SEED = 0  # of initial values, of the data's order and of masks
MASKING_STEPS = 1000  # of the brief training whose weights' sizes choose masks
ENDLESS = 10**7  # steps of a recipe that nothing runs to its end
_SYNTHETIC = {"train": 4096, "validation": 256, "test": 256}
Masks = dict[str, Mask]


@dataclass(frozen=True)
class Subject:
    """A network with all that training it needs.

    Attributes:
        recipe: without an end; its batch size is set with `with_batch`.
        pixels: what the data are, in words.
        trained: weights whose sizes choose the masks; None: masks are drawn.
    """

    name: str
    architecture: Architecture
    data: TaskData
    values: Values
    recipe: Recipe
    pixels: str
    trained: Values | None = None

    def with_batch(self, batch: int) -> Recipe:
        return replace(self.recipe, batch_size=batch)

    def spec(self, masks: Masks, batch: int) -> TrainSpec:
        """Its training under masks, by batches of a size."""
        start = InitialState(self.values, masks, SEED)
        return TrainSpec(self.architecture, start, self.data, self.with_batch(batch))

    def masks(self, share: float, *, is_uniform: bool = False) -> Masks:
        """Masks that keep `share` of the prunable weights; layers keep what the recipe's rates leave them, or
        all of them the same. By size of the trained weight, or drawn."""
        kept = layer_counts(self.architecture, Pruning() if is_uniform else self.recipe.pruning, share)
        if share == 1:
            return {}
        if self.trained is not None:
            return {name: largest(self.trained[name], count) for name, count in kept.items()}
        return {
            name: random_mask(self.architecture.parameters[name], count, SEED, tensor)
            for tensor, (name, count) in enumerate(kept.items())
        }


def layer_counts(architecture: Architecture, pruning: Pruning, share: float) -> dict[str, int]:
    """Weights of each layer after as many rounds of layerwise pruning (not a whole number) as leave `share`
    of them all; a recipe that prunes globally counts as one rate for all layers."""
    sizes = {name: math.prod(architecture.parameters[name]) for name in architecture.prunable}
    last = architecture.prunable[-1]
    rates = dict.fromkeys(sizes, 0.2)
    if pruning.scope == "layerwise":
        rates = {name: pruning.layer_rate(name, is_output=name == last) for name in sizes}
    low, high = 0.0, 200.0  # rounds
    for _ in range(60):
        rounds = (low + high) / 2
        left = sum(size * (1 - rates[name]) ** rounds for name, size in sizes.items())
        low, high = (rounds, high) if left > share * sum(sizes.values()) else (low, rounds)
    return {name: max(1, round(size * (1 - rates[name]) ** low)) for name, size in sizes.items()}


def largest(weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]], count: int) -> Mask:
    """A mask of the `count` largest |weights|."""
    mask = np.zeros(weight.size, bool)
    mask[np.argsort(-np.abs(weight).ravel(), kind="stable")[:count]] = True
    return mask.reshape(weight.shape)


@cache
def lenet() -> Subject:
    """LeNet-300-100 on MNIST, or on pixels drawn at random where MNIST is not here."""
    try:
        data, pixels = tasks.load("mnist"), "MNIST"
    except DataMissing:
        data, pixels = synthetic((1, 28, 28)), "pixels drawn at random (MNIST is not here)"
    architecture = zoo.build("lenet-300-100", (1, 28, 28), 10)
    values = draw_all(architecture, default_laws(architecture), SEED)
    recipe = tasks.get("mnist").default_recipe("lenet-300-100")
    brief = replace(recipe, steps=MASKING_STEPS, evaluate_every=MASKING_STEPS)
    trained = lab.train(architecture, values, {}, data, brief, SEED, engine="dense", keep_weights=True)
    endless = replace(recipe, steps=ENDLESS)
    return Subject("LeNet-300-100", architecture, data, values, endless, pixels, weights_of(trained.weights))


@cache
def convolutional(name: str) -> Subject:
    """A convolutional network of the zoo on images (3, 32, 32) drawn at random, with drawn masks."""
    architecture = zoo.build(name, (3, 32, 32), 10)
    recipe = tasks.get("cifar-10").default_recipe(name)
    values = draw_all(architecture, default_laws(architecture, recipe.initial_law), SEED)
    data = synthetic((3, 32, 32))
    endless = replace(recipe, steps=ENDLESS, schedule={"kind": "constant"})
    return Subject(name, architecture, data, values, endless, "pixels drawn at random")


def synthetic(shape: tuple[int, ...], classes: int = 10) -> TaskData:
    """Normally distributed pixels and uniform labels, seed `SEED`."""
    random = np.random.default_rng(SEED)
    x = {split: random.standard_normal((n, *shape), np.float32) for split, n in _SYNTHETIC.items()}
    y = {split: random.integers(0, classes, n) for split, n in _SYNTHETIC.items()}
    return TaskData(x["train"], y["train"], x["validation"], y["validation"], x["test"], y["test"])


def weights_of(weights: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] | None) -> Values:
    """Weights that a training was asked to keep."""
    assert weights is not None, "the training kept no weights"
    return dict(weights)
