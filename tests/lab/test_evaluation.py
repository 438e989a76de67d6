"""From measurements to verdicts, and the whole protocol on small networks."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import pytest

from nirvana import tasks
from nirvana.errors import Cancelled, Invalid
from nirvana.format.ticket import Ticket
from nirvana.lab import ARMS, ArmResult, first_ticket, judge, verify
from nirvana.training.cost import Cost
from nirvana.verification.gate import check_gate
from nirvana.verification.protocol import BASELINES, PROTOCOL
from tests.factories import as_stored, make_ticket, torch_ticket
from tests.lab.small import SMALL, network
from tests.lab.test_arms import rewound, survivors_only
from tests.lab.test_gate import stored_ticket

DENSE = [0.970, 0.972, 0.968, 0.970, 0.974]
WINNING = {
    "dense": DENSE,
    "reference": DENSE,
    "ticket": [0.968, 0.972, 0.970, 0.970, 0.972],
    "reinit": [0.940, 0.936, 0.950, 0.930, 0.944],
    "rescaled": [0.942, 0.938, 0.946, 0.934, 0.940],
    "shuffle": [0.90, 0.91, 0.89, 0.90, 0.92],
    "random": [0.80, 0.79, 0.83, 0.81, 0.80],
    "magnitude": [0.93, 0.94, 0.92, 0.93, 0.94],
    "signs": [0.96, 0.962, 0.958, 0.96, 0.961],
}


def arm(name: str, accuracies: list[float], steps: list[int] | None = None, **fields: Any) -> ArmResult:
    n = len(accuracies)
    measured = ArmResult(
        arm=name,
        seeds=list(range(n)),
        accuracies=accuracies,
        final_accuracies=accuracies,
        untrained_accuracies=[0.1] * n,
        early_stop_steps=steps or [300] * n,
        failed=[False] * n,
        test_accuracies=accuracies,
        untrained_test_accuracies=[0.1] * n,
        validation_losses=[0.1 + 0.01 * j for j in range(n)],
        paired=name not in BASELINES,
        density=0.1,
        cost=Cost(1.0, 10, 100, 10, 1000),
        environment={"torch": "x"},
    )
    return dataclasses.replace(measured, **fields)


def arms(**changed: list[float]) -> list[ArmResult]:
    measured = WINNING | changed
    return [arm(name, measured[name]) for name in ARMS]


def stopping(dense: list[int], ticket: list[int]) -> list[ArmResult]:
    steps = {"dense": dense, "ticket": ticket}
    return [arm(name, WINNING[name], steps.get(name)) for name in ARMS]


def verdict(measured: list[ArmResult], ticket: Ticket | None = None, margin: float = 0.01) -> str:
    return judge(ticket or make_ticket(), measured, margin).verdict


def test_a_ticket_that_matches_and_beats_every_control_wins() -> None:
    assert verdict(arms()) == "WINNING"


@pytest.mark.parametrize(
    ("expected", "changed"),
    [
        ("NOT_MATCHING", {"ticket": [0.90, 0.91, 0.90, 0.90, 0.91]}),
        ("INCONCLUSIVE", {"ticket": [0.96, 0.98, 0.95, 0.94, 0.98]}),
        ("TRIVIAL", {"random": DENSE}),
        ("LAYER_RATIO_ONLY", {"reinit": DENSE, "shuffle": DENSE}),
        ("STRUCTURE_ONLY", {"reinit": DENSE}),
        ("STRUCTURE_ONLY", {"rescaled": DENSE}),
        ("LAYER_RATIO_ONLY", {"rescaled": DENSE, "shuffle": DENSE}),
        ("WINNING", {"magnitude": DENSE}),
        ("WINNING", {"signs": DENSE}),
        ("INIT_ONLY", {"shuffle": DENSE}),
        ("MATCHING_UNRESOLVED", {"reinit": [0.99, 0.93, 0.97, 0.94, 0.96]}),
    ],
)
def test_measurements_land_in_their_row(expected: str, changed: dict[str, list[float]]) -> None:
    assert verdict(arms(**changed)) == expected


def test_a_control_within_the_margin_holds_even_when_it_is_significantly_worse() -> None:
    slightly_worse = [value - 0.004 for value in WINNING["ticket"]]
    found = judge(make_ticket(), arms(reinit=slightly_worse), 0.01)
    assert found.measurements["tests"]["holm"]["reinit"] < 0.05
    assert found.measurements["tests"]["holds"]["reinit"]
    assert found.verdict == "STRUCTURE_ONLY"
    assert judge(make_ticket(), arms(reinit=slightly_worse), 0.0039).verdict == "WINNING"


def test_a_later_early_stop_makes_a_winning_ticket_a_matching_one_and_ties_do_not() -> None:
    assert verdict(stopping([100, 120, 110, 100, 110], [200, 220, 190, 210, 200])) == "MATCHING"
    assert verdict(stopping([100] * 5, [200] * 5)) == "MATCHING"
    assert verdict(stopping([100] * 5, [50] * 5)) == "WINNING"
    assert verdict(stopping([260, 300, 300, 280, 300], [300] * 5)) == "WINNING"
    assert verdict(stopping([100] * 5, [110] * 5)) == "WINNING", "one interval of 10 steps later"
    assert verdict(stopping([100] * 5, [111] * 5)) == "MATCHING"


def test_the_order_of_replicates_does_not_matter() -> None:
    expected = judge(make_ticket(), arms(), 0.01).to_dict()
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        mixed = [
            dataclasses.replace(
                a,
                seeds=list(order),
                accuracies=[a.accuracies[i] for i in order],
                test_accuracies=[a.test_accuracies[i] for i in order],
            )
            for a in arms()
        ]
        found = judge(make_ticket(), mixed, 0.01).to_dict()
        assert json.dumps({**found, "final": 0}) == json.dumps({**expected, "final": 0})


def test_one_replicate_is_a_smoke_test_and_never_a_verdict() -> None:
    found = judge(make_ticket(), [arm(name, WINNING[name][:1]) for name in ARMS], 0.01)
    assert found.verdict == "INCONCLUSIVE"
    assert "smoke" in found.reason
    json.dumps(found.to_dict(), allow_nan=False)


def test_identical_replicates_are_judged_without_nan() -> None:
    same = {name: [WINNING[name][0]] * 5 for name in ARMS}
    found = judge(make_ticket(), arms(**same), 0.01)
    assert found.verdict == "WINNING"
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_failed_replicate_at_chance_costs_the_verdict() -> None:
    assert verdict(arms(ticket=[0.968, 0.972, 0.10, 0.970, 0.972])) in ("INCONCLUSIVE", "NOT_MATCHING")


def test_a_rewound_ticket_matches_at_best_and_so_does_one_that_stores_survivors_alone() -> None:
    assert verdict(arms(), rewound()) == "MATCHING"
    found = judge(survivors_only(), arms(), 0.01)
    assert found.verdict == "MATCHING"
    assert "its values are stored, not drawn from a seed, so nobody can tell that they were not trained" in (
        found.reason
    )


def test_values_that_break_their_law_are_invalid_whatever_was_measured() -> None:
    values = {name: 3 * v for name, v in stored_ticket_values().items()}
    assert verdict(arms(), stored_ticket(values)) == "INVALID"
    assert verdict(arms(), stored_ticket(stored_ticket_values())) == "MATCHING"


def test_replicates_that_are_one_run_say_nothing() -> None:
    clones = [
        dataclasses.replace(one, validation_losses=[0.25] * 5) if one.arm == "ticket" else one
        for one in arms()
    ]
    found = judge(make_ticket(), clones, 0.01)
    assert found.verdict == "INCONCLUSIVE"
    assert "the same run, to the last bit" in found.reason
    chance = [dataclasses.replace(a, accuracies=[1.0] * 5) if a.arm == "ticket" else a for a in arms()]
    assert verdict(chance) == "WINNING", "equal accuracies of different runs are no clones"


def test_a_ticket_that_needs_no_training_does_not_win() -> None:
    ready = [
        dataclasses.replace(one, untrained_accuracies=[0.962] * 5) if one.arm == "ticket" else one
        for one in arms()
    ]
    found = judge(make_ticket(), ready, 0.01)
    assert found.verdict == "MATCHING"
    assert "needs no training" in found.reason
    assert judge(make_ticket(), ready, 0.008).verdict == "WINNING"


def test_a_ticket_of_a_network_that_is_mostly_cut_off_does_not_win() -> None:
    gate = check_gate(make_ticket())
    for share, expected in ((0.09, "WINNING"), (0.11, "MATCHING")):
        cut = dataclasses.replace(gate, cut_off=("ballast.weight",), cut_off_share=share)
        found = judge(make_ticket(), arms(), 0.01, gate=cut)
        assert found.verdict == expected
        assert ("ballast.weight" in found.reason) is (expected == "MATCHING")


def test_a_ticket_whose_weights_lie_mostly_in_layers_without_a_mask_does_not_win() -> None:
    gate = check_gate(make_ticket())
    for share, expected in ((0.5, "WINNING"), (0.51, "MATCHING")):
        found = judge(make_ticket(), arms(), 0.01, gate=dataclasses.replace(gate, uncovered_share=share))
        assert found.verdict == expected
        assert ("no mask covers" in found.reason) is (expected == "MATCHING")


def test_winning_needs_values_that_a_seed_draws_again() -> None:
    stored = judge(make_ticket(stored=True), arms(), 0.01)
    assert stored.verdict == "MATCHING"
    assert "its values are stored" in stored.reason
    assert stored.measurements["gate"]["untestable"] is not None
    for seeded in (make_ticket(), torch_ticket()):
        assert verdict(arms(), seeded) == "WINNING"
        for kept in (False, True):
            assert verdict(arms(), as_stored(seeded, kept=kept)) == "WINNING", (
                "the seed that it names draws them"
            )
            assert verdict(arms(), as_stored(seeded, kept=kept, seed=5)) == "MATCHING", "another seed"


def stored_ticket_values() -> dict[str, Any]:
    from tests.lab.small import values_of

    return values_of(network("mlp-100"))


def test_an_unpaired_dense_arm_is_compared_by_welch() -> None:
    measured = [dataclasses.replace(a, paired=a.arm != "dense") for a in arms()]
    tests = judge(make_ticket(), measured, 0.01).measurements["tests"]
    assert tests["ticket-dense"]["method"] == "welch"
    assert tests["ticket-reinit"]["method"] == "paired"


def test_the_evaluation_says_everything_that_goes_with_a_number() -> None:
    found = judge(make_ticket(), arms(), 0.01).to_dict()
    assert found["protocol"] == PROTOCOL == "nirvana-verify/3"
    assert found["arms"] == WINNING
    assert (found["replicates"], found["margin"]) == (5, 0.01)
    assert found["seeds"]["replicates"] == [0, 1, 2, 3, 4]
    assert found["cost"]["flops_sparse"] == 10 * len(ARMS)
    assert found["environment"] == {"torch": "x"}
    assert found["rules"]["relative_error_within_1.1"] is True
    assert found["rules"]["trainable_share"] == 1
    assert found["rules"]["claim"] is None
    json.dumps(found, allow_nan=False)


def test_arms_of_changed_data_are_refused() -> None:
    mixed = [dataclasses.replace(a, data="ab" if a.arm == "dense" else "cd") for a in arms()]
    with pytest.raises(Invalid, match="different data"):
        judge(make_ticket(), mixed, 0.01)


def test_a_smaller_alpha_asks_for_more() -> None:
    close = {"ticket": [0.966, 0.972, 0.965, 0.966, 0.965]}
    assert verdict(arms(**close)) == "WINNING"
    found = judge(make_ticket(), arms(**close), 0.01, alpha=0.002, looks=[{"n": 2}])
    assert found.verdict == "INCONCLUSIVE"
    assert found.measurements["looks"] == [{"n": 2}, {"n": 5, "alpha": 0.002, "verdict": "INCONCLUSIVE"}]
    for alpha in (0, 0.06):
        with pytest.raises(Invalid, match="alpha"):
            judge(make_ticket(), arms(), 0.01, alpha=alpha)


def test_arms_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(Invalid, match="expected"):
        judge(make_ticket(), arms()[:4], 0.01)
    with pytest.raises(Invalid, match="replicates differ"):
        judge(make_ticket(), [*arms()[:-1], arm("signs", [0.8] * 4)], 0.01)
    with pytest.raises(Invalid, match="margin is 1"):
        judge(make_ticket(), arms(), 1)
    with pytest.raises(Invalid, match="a verdict needs each"):
        verify(make_ticket(), arms=("dense", "ticket"))


def test_the_better_baseline_decides_and_a_starved_one_takes_winning_away() -> None:
    better = judge(make_ticket(), arms(reference=[0.99, 0.992, 0.991, 0.99, 0.993]), 0.01)
    assert (better.verdict, better.reason.rpartition("than ")[2]) == (
        "NOT_MATCHING",
        "the registry's dense networks by the reference recipe",
    )
    starved = judge(make_ticket(), arms(dense=[0.12, 0.10, 0.11, 0.13, 0.12]), 0.01)
    assert starved.verdict == "MATCHING"
    assert "stays below the registry's reference" in starved.reason
    assert starved.measurements["tests"]["ticket-reference"]["method"] == "welch"


@pytest.mark.usefixtures("brief_reference")
def test_a_mask_that_keeps_everything_is_trivial() -> None:
    ticket = first_ticket(tasks.get("digits"), network("mlp-32"), SMALL.override({"steps": 60}), 0)
    found = verify(ticket, replicates=5, seed=0, margin=0.1, cache=None)
    assert found.verdict == "TRIVIAL"
    assert found.measurements["arms"]["shuffle"] == found.measurements["arms"]["ticket"]


def test_verifying_again_gives_the_same_measurements_and_counts_its_progress() -> None:
    events = list[dict[str, Any]]()
    ticket = make_ticket()
    one = verify(ticket, replicates=2, seed=3, progress=events.append, cache=None).to_dict()
    again = verify(ticket, replicates=2, seed=3, cache=None).to_dict()
    assert {**one, "cost": 0} == {**again, "cost": 0}
    done = [event["done"] for event in events if event["kind"] == "arm"]
    assert done == list(range(1, 23))
    assert all(event["total"] == 22 for event in events if event["kind"] == "arm")


def test_verifying_can_be_cancelled() -> None:
    with pytest.raises(Cancelled):
        verify(make_ticket(), replicates=2, should_stop=lambda: True, cache=None)
