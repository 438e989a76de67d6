"""AMC: bounds, budget and exact totals as laws; the agent by small cases; what a search reports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nirvana.errors import Cancelled, Invalid
from nirvana.pruning.ranking import keep_layerwise, whole_masks
from nirvana.pruning.search import MaskResult, MaskSearch
from nirvana.torch.evaluate import deterministic, evaluate
from nirvana.torch.methods.amc import STATE, Budget, Trial, find, layer_features, state
from nirvana.torch.methods.amc_agent import Agent, Transition, truncated_normal
from nirvana.torch.modules import build_module, load_values
from tests.lab.test_methods_in_training import make_search

BUDGET = Budget((100, 200, 10), 31, 0.02)  # at least 2, 4 and 1


def test_bounds_by_hand() -> None:
    """The first may take all but 4 + 1; after 26, the second has 4; the last takes what is left."""
    assert BUDGET.floors == (2, 4, 1)
    assert BUDGET.bounds(0, 0) == (2, 26)
    assert BUDGET.bounds(1, 26) == (4, 4)
    assert BUDGET.bounds(1, 2) == (19, 28)
    assert BUDGET.bounds(2, 30) == (1, 1)


def test_actions_are_shares_on_a_logarithmic_scale() -> None:
    assert BUDGET.count(0, 0, 0.0) == 2
    assert BUDGET.count(0, 0, 0.5) == round(100 * 0.02**0.5)
    assert BUDGET.count(0, 0, 1.0) == 26
    assert BUDGET.action(0, 2) == pytest.approx(0)
    assert BUDGET.action(0, 100) == pytest.approx(1)
    assert BUDGET.action(0, BUDGET.count(0, 0, 0.5)) == pytest.approx(0.5, abs=0.01)


@given(
    st.lists(st.integers(1, 3000), min_size=1, max_size=8),
    st.floats(0.01, 0.99),
    st.lists(st.floats(0, 1), min_size=8, max_size=8),
)
def test_any_actions_keep_the_bounds_and_exactly_the_budget(
    sizes: list[int], density: float, actions: list[float]
) -> None:
    keep = max(1, round(density * sum(sizes)))
    try:
        budget = Budget(tuple(sizes), keep, 0.2 * density)
    except Invalid:
        assert keep < 1.25 * len(sizes) + 1
        return
    kept = 0
    for layer, wanted in zip(range(len(sizes)), actions, strict=False):
        count = budget.count(layer, kept, wanted)
        assert budget.floors[layer] <= count <= sizes[layer]
        assert -1e-9 <= budget.action(layer, count) <= 1 + 1e-9
        kept += count
    assert kept == keep


def test_less_than_a_weight_a_layer_is_refused() -> None:
    with pytest.raises(Invalid, match="amc cannot keep 2 of 310 weights: 3 layers keep at least 3"):
        Budget((100, 200, 10), 2, 0.001)
    with pytest.raises(Invalid, match="amc cannot keep 1 of 1184 weights"):
        find(make_search("amc", density=0.001, should_stop=lambda: True))


def test_a_state_says_what_the_layer_is_and_what_is_left() -> None:
    search = make_search("amc")
    layers = layer_features(search.ticket.architecture, search.shapes)
    assert layers.tolist() == [[0.5, 1, 1, 1, 1, 1, 1], [1, 10 / 16, 16 / 64, 1, 1, 160 / 1024, 160 / 1024]]
    budget = Budget((1024, 160), 300, 0.05)
    first, second = state(layers, budget, (), 0.0), state(layers, budget, (225,), 0.4)
    assert first[7:].tolist() == pytest.approx([0, 160 / 1184, 1, 0])
    assert second[7:].tolist() == pytest.approx([(1024 - 225) / 1184, 0, 0.25, 0.4])
    assert first.shape == second.shape == (STATE,)
    assert first.dtype == np.float32


def test_noise_stays_between_0_and_1_and_centres_on_the_choice() -> None:
    random = np.random.default_rng(0)
    wide = [truncated_normal(random, 0.02, 0.5) for _ in range(500)]
    assert min(wide) >= 0
    assert max(wide) <= 1
    assert np.std([truncated_normal(random, 0.5, 0.01) for _ in range(500)]) == pytest.approx(0.01, rel=0.2)


def test_the_agent_learns_which_action_pays() -> None:
    """One decision, worth 1 - |action - 0.8|: the choice moves from the middle towards 0.8."""
    with deterministic(0):
        random = np.random.default_rng(0)
        agent, here = Agent(2, random), np.ones(2, np.float32)
        before = agent.act(here, 0)
        for action in random.random(300):
            agent.remember([Transition(here, float(action), 1 - abs(float(action) - 0.8), here, True)])
        for _ in range(400):
            agent.learn()
        after = agent.act(here, 0)
    assert abs(before - 0.5) < 0.1
    assert abs(after - 0.8) < abs(before - 0.8) - 0.1


def test_a_trial_prunes_as_the_registrys_rule_does() -> None:
    search = make_search("amc")
    trained = search.train_dense().weights
    assert trained is not None
    with deterministic(0):
        found = Trial(search, trained).accuracy((200, 50))
        scores = {name: np.abs(trained[name]) for name in search.shapes}
        masks = keep_layerwise(scores, whole_masks(search.shapes), {"fc1.weight": 200, "fc2.weight": 50})
        network = build_module(search.ticket.architecture)
        load_values(network, trained | {name: trained[name] * mask for name, mask in masks.items()})
        assert evaluate(network, search.data.validation_x, search.data.validation_y)[1] == found


@pytest.fixture(scope="module")
def searched() -> tuple[MaskSearch, MaskResult]:
    search = make_search("amc", density=0.1, options={"warm_up": 30, "episodes": 30})
    return search, find(search)


def test_the_best_episode_comes_out_and_is_reported(searched: tuple[MaskSearch, MaskResult]) -> None:
    search, found = searched
    measured = found.measured
    sizes = {name: mask.size for name, mask in found.masks.items()}
    assert sum(int(mask.sum()) for mask in found.masks.values()) == search.keep
    assert measured["layer_densities"] == {
        name: int(mask.sum()) / sizes[name] for name, mask in found.masks.items()
    }
    assert all(density >= 0.02 - 1 / sizes[name] for name, density in measured["layer_densities"].items())
    assert measured["validation_accuracy"] == max(
        measured["warm_up_validation_accuracy"], measured["agent_validation_accuracy"]
    )
    assert measured["episodes"] == 60
    assert 1 <= measured["best_episode"] <= 60


def test_it_beats_the_same_density_in_every_layer(searched: tuple[MaskSearch, MaskResult]) -> None:
    measured = searched[1].measured
    assert measured["validation_accuracy"] > measured["uniform_validation_accuracy"]


def test_the_same_seed_replays_the_same_search(searched: tuple[MaskSearch, MaskResult]) -> None:
    again = find(make_search("amc", density=0.1, options={"warm_up": 30, "episodes": 30}))
    assert again.measured == searched[1].measured
    assert all(np.array_equal(mask, searched[1].masks[name]) for name, mask in again.masks.items())


def test_a_search_is_cancelled_between_episodes() -> None:
    events: list[str] = []

    def hear(event: dict[str, object]) -> None:
        if event["kind"] == "search":
            events.append(str(event["message"]))

    with pytest.raises(Cancelled, match="cancelled at episode 4 of 8"):
        find(
            make_search(
                "amc",
                progress=hear,
                should_stop=lambda: len(events) == 3,
                options={"warm_up": 4, "episodes": 4},
            )
        )
