"""AMC: an agent chooses each layer's density, and is rewarded with the pruned network's accuracy.

The dense network is trained once. In an episode the agent goes through the layers in order; in each it sees
a description of the layer and the rest of the budget, and sets the share of the weights that stays: the
largest ones.
The reward is the validation accuracy of the trained weights so pruned, without retraining. 100 episodes act
at random, then 200 follow the agent with noise that fades. The best episode's masks come out.

Bounds and budget: a layer keeps at least a fifth of the density asked for (the paper: 0.2, where half of the
channels stay). Its choice is cut off so that the layers after it can still keep at least that, and at most
everything: so the last layer's choice is forced, and every episode keeps exactly `search.keep` weights.

Unlike the paper's, our layers lose single weights, the budget counts weights, and actions are a layer's keep
ratio on a logarithmic scale, since at low densities most of a linear one would overdraw the budget.

Reference: He et al. 2018 (arXiv 1802.03494), sections 3.1 to 3.3 and algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid
from nirvana.networks.architecture import Architecture
from nirvana.pruning.methods import AmcOptions
from nirvana.pruning.ranking import apportion, keep_layerwise, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic, evaluate
from nirvana.torch.methods.amc_agent import Agent, State, Transition
from nirvana.torch.modules import build_module, load_values
from nirvana.training.spec import Values

NOISE, NOISE_DECAY = 0.5, 0.98
LEAST = 0.2  # of the density asked for
STATE = 11  # numbers in a state
_STREAM = 0x414D4321

Counts = tuple[int, ...]


@dataclass(frozen=True)
class Budget:
    """Bounds on the weights that each layer keeps.

    Attributes:
        sizes: weights of each layer, in order.
        keep: weights kept in all.
        least: the smallest share of a layer that stays, in (0, 1).

    Raises:
        Invalid: the layers need more weights at least than `keep`.
    """

    sizes: Counts
    keep: int
    least: float

    def __post_init__(self) -> None:
        if sum(self.floors) > self.keep:
            raise Invalid(
                f"amc cannot keep {self.keep} of {sum(self.sizes)} weights: {len(self.sizes)} layers keep at "
                f"least {sum(self.floors)}, one or more each; expected a higher density"
            )

    @property
    def floors(self) -> Counts:
        """Weights that each layer keeps at least."""
        return tuple(max(1, int(self.least * n)) for n in self.sizes)

    def bounds(self, layer: int, kept: int) -> tuple[int, int]:
        """Return the fewest and most weights that a layer may keep after earlier ones kept `kept` in all."""
        left = self.keep - kept
        fewest = max(self.floors[layer], left - sum(self.sizes[layer + 1 :]))
        return fewest, min(self.sizes[layer], left - sum(self.floors[layer + 1 :]))

    def count(self, layer: int, kept: int, action: float) -> int:
        """Count the weights that an action in [0, 1] keeps: a share `least`^(1 - action), within bounds."""
        fewest, most = self.bounds(layer, kept)
        asked = round(self.sizes[layer] * math.pow(self.least, 1 - action))
        return min(most, max(fewest, asked))

    def action(self, layer: int, count: int) -> float:
        """Return the action in [0, 1] that asks for so many weights."""
        share = max(self.least, count / self.sizes[layer])
        return 1 - math.log(share) / math.log(self.least)


@dataclass(frozen=True)
class Episode:
    """The weights that each layer kept, and the validation accuracy."""

    counts: Counts
    accuracy: float


class Trial:
    """The trained network, to be pruned to any counts. Use it inside `deterministic(seed)`.

    Attributes:
        magnitudes: |w| by layer.
    """

    def __init__(self, search: MaskSearch, trained: Values) -> None:
        self.data, self.network = search.data, build_module(search.ticket.architecture)
        load_values(self.network, trained)
        self.weights = {name: trained[name] for name in search.shapes}
        self.magnitudes = {name: np.abs(weight) for name, weight in self.weights.items()}
        self.places = {name: _places(size) for name, size in self.magnitudes.items()}

    def accuracy(self, counts: Counts) -> float:
        """Return the validation accuracy with the `counts` largest weights of each layer."""
        kept = zip(self.weights.items(), counts, strict=True)
        load_values(self.network, {name: w * (self.places[name] < count) for (name, w), count in kept})
        return evaluate(self.network, self.data.validation_x, self.data.validation_y)[1]


def find(search: MaskSearch) -> MaskResult:
    """Return the masks of the best episode; of equal ones, the first.

    Raises:
        Invalid: the density leaves too few weights for each layer to keep one.
        TrainingFailed: a loss was not finite; names the method and the step.
        Cancelled: the reporter said so.
    """
    options = search.options_as(AmcOptions)
    sizes = {name: math.prod(shape) for name, shape in search.shapes.items()}
    budget = Budget(tuple(sizes.values()), search.keep, LEAST * search.density)
    trained = search.train_dense().weights
    assert trained is not None
    with deterministic(search.seed):
        trial = Trial(search, trained)
        history = list(explore(search, budget, trial, options))
        even = apportion({name: search.density * n for name, n in sizes.items()}, search.keep)
        uniform = trial.accuracy(tuple(even.values()))
    best = max(history, key=lambda episode: episode.accuracy)
    counts = dict(zip(sizes, best.counts, strict=True))
    measured = {
        "validation_accuracy": best.accuracy,
        "warm_up_validation_accuracy": max(e.accuracy for e in history[: options.warm_up]),
        "agent_validation_accuracy": max(e.accuracy for e in history[options.warm_up :]),
        "uniform_validation_accuracy": uniform,
        "warm_up_episodes": options.warm_up,
        "episodes": len(history),
        "best_episode": history.index(best) + 1,
        "layer_densities": {name: counts[name] / n for name, n in sizes.items()},
    }
    return MaskResult(keep_layerwise(trial.magnitudes, whole_masks(search.shapes), counts), measured)


def explore(search: MaskSearch, budget: Budget, trial: Trial, options: AmcOptions) -> Iterator[Episode]:
    """Yield the episodes; the agent remembers all of them, but acts and learns after the warm-up."""
    random = np.random.default_rng([_STREAM, search.seed])
    layers, agent = layer_features(search.ticket.architecture, search.shapes), Agent(STATE, random)
    warm_up, total = options.warm_up, options.warm_up + options.episodes
    for number in range(total):
        search.reporter.check_stop("at episode {} of {}", number + 1, total)
        noise = None if number < warm_up else NOISE * NOISE_DECAY ** (number - warm_up)
        counts, states, actions = _play(budget, layers, agent, noise)
        episode = Episode(counts, trial.accuracy(counts))
        agent.remember(_transitions(states, actions, episode.accuracy))
        for _ in range(0 if noise is None else len(counts)):
            agent.learn()
        search.report(number + 1, total, f"validation accuracy {episode.accuracy:.4f}")
        yield episode


def layer_features(architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> NDArray[np.float32]:
    """Return a description of each layer: its place, outputs, inputs, kernel's elements, uses of a weight by
    one example, weights and FLOPs, each over the largest of all layers; shape (layers, 7)."""
    rows = []
    for place, (name, shape) in enumerate(shapes.items(), 1):
        weights, uses = math.prod(shape), architecture.uses[name]
        rows.append([place, shape[0], shape[1], math.prod(shape[2:]), uses, weights, weights * uses])
    features = np.array(rows, np.float32)
    return np.asarray(features / features.max(axis=0))


def state(layers: NDArray[np.float32], budget: Budget, counts: Counts, previous: float) -> State:
    """Return the agent's view before it chooses for the next layer: that layer, the shares of all weights
    that were removed so far and that lie in later layers, the share of the budget left, and its last action.
    """
    layer, total = len(counts), sum(budget.sizes)
    removed = sum(budget.sizes[:layer]) - sum(counts)
    rest = sum(budget.sizes[layer + 1 :])
    so_far = [removed / total, rest / total, 1 - sum(counts) / budget.keep, previous]
    return np.concatenate([layers[layer], np.array(so_far, np.float32)])


def _play(
    budget: Budget, layers: NDArray[np.float32], agent: Agent, noise: float | None
) -> tuple[Counts, list[State], list[float]]:
    """Walk through the layers; return counts, states, and the actions as they were carried out.

    Args:
        noise: sd of the noise on the agent's actions; None: actions at random.
    """
    counts: Counts = ()
    states, actions = list[State](), list[float]()
    for layer in range(len(budget.sizes)):
        states.append(state(layers, budget, counts, actions[-1] if actions else 0.0))
        action = float(agent.random.random()) if noise is None else agent.act(states[-1], noise)
        count = budget.count(layer, sum(counts), action)
        counts += (count,)
        actions.append(budget.action(layer, count))
    return counts, states, actions


def _transitions(states: list[State], actions: list[float], reward: float) -> list[Transition]:
    """Give every decision of an episode the reward of its end; nothing follows the last one."""
    next_states, last = [*states[1:], states[-1]], len(states) - 1
    return [
        Transition(before, action, reward, after, place == last)
        for place, (before, action, after) in enumerate(zip(states, actions, next_states, strict=True))
    ]


def _places(magnitudes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return each weight's place in its layer, the largest first, ties as in `nirvana.pruning.ranking`."""
    places = np.empty(magnitudes.size, np.int64)
    places[np.argsort(-magnitudes.ravel(), kind="stable")] = np.arange(magnitudes.size)
    return places.reshape(magnitudes.shape)
