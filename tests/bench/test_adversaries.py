"""Adversaries' tickets at their smallest: each is what its description says. `make bench-verdicts` measures
their verdicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.verdict_rates import adversaries, attacks
from benchmarks.verdict_rates.adversaries import ADVERSARIES, STARVING, Adversary
from benchmarks.working import read_json, write_json
from nirvana import engines, lab, tasks
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from nirvana.training.recipe import Recipe
from nirvana.verification.gate import check_gate
from nirvana.verification.protocol import BASELINES
from nirvana.weights import Weights

SEED = 7
SHALLOW = 0.85  # one level of a search


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))


def accuracies(ticket: Ticket, arm: str = "ticket", replicates: int = 1) -> list[float]:
    return lab.run_arm(ticket, arm, tasks.load(ticket.task), None, replicates, threads=1).accuracies


def untrained_accuracy(ticket: Ticket) -> float:
    return float((answers(ticket).argmax(1) == tasks.load(ticket.task).test_y).mean())


def answers(ticket: Ticket) -> NDArray[np.float32]:
    return engines.predict_logits(Weights.untrained(ticket), tasks.load(ticket.task).test_x)


def honest(density: float = SHALLOW) -> Ticket:
    return adversaries.imp(SEED, density)


def step_of(ticket: Ticket) -> Ticket:
    return adversaries.forge(ticket, recipe={"steps": 1}, provenance={"replicates": 2})


def test_a_starving_recipe_leaves_the_dense_network_at_chance_and_the_supermask_as_it_is() -> None:
    ticket = adversaries.starved(SEED, STARVING["starved-step"][1], 50)
    assert untrained_accuracy(ticket) > 0.8
    assert accuracies(ticket)[0] > 0.8
    assert accuracies(ticket, "dense")[0] < 0.3


@pytest.mark.parametrize("kind", STARVING)
def test_every_starving_recipe_is_one_that_may_be_published(kind: str) -> None:
    default = tasks.get("digits").default_recipe("lenet-300-100")
    assert default.override(STARVING[kind][1]) != default
    assert kind in ADVERSARIES


def test_a_leaked_mask_was_searched_on_the_test_part() -> None:
    data = tasks.load("digits")
    joined = adversaries.join_parts(data, ("train", "validation", "test"))
    assert np.array_equal(joined.train_x[-len(data.test_y) :], data.test_x)
    assert np.array_equal(joined.train_y[-len(data.test_y) :], data.test_y)
    leaked = adversaries.leaked(SEED, 0.6, 30)
    same, without = (adversaries.imp_on(part, SEED, 0.6, 30) for part in (joined, data))
    assert leaked.digest == same.digest != without.digest
    assert leaked.start.kind == "seeded"
    assert leaked.recipe == tasks.get("digits").default_recipe("lenet-300-100").to_dict()


@pytest.mark.parametrize("on_test", [False, True])
def test_ranked_values_are_the_draws_own_and_pass_gate_0(on_test: bool) -> None:
    ticket = adversaries.ranked(SEED, on_test, 0.2, 30, 40)
    drawn = lab.first_ticket(*plan(ticket), SEED).initial_values()
    gate = check_gate(ticket)
    assert gate.invalid is None
    assert "stored" in (gate.untestable or "")
    assert set(gate.law) == set(drawn)
    for name, values in (ticket.dense_initial_values() or {}).items():
        assert np.array_equal(np.sort(values, axis=None), np.sort(drawn[name], axis=None))
    assert untrained_accuracy(ticket) > (0.98 if on_test else 0.9)


def plan(ticket: Ticket) -> tuple[tasks.Task, Architecture, Recipe]:
    return tasks.get(ticket.task), ticket.architecture, Recipe.from_dict(dict(ticket.recipe))


def test_kept_values_hide_at_the_nearest_free_drawn_ones() -> None:
    drawn = np.array([[-2, -1, 0], [1, 2, 3]], np.float32)
    mask = np.array([[True, False, True], [False, True, False]])
    exact = np.where(mask, drawn, 9).astype(np.float32)
    assert np.array_equal(adversaries.hide_among(drawn, exact, mask)[mask], drawn[mask])
    beyond = np.where(mask, np.float32(100), 0).astype(np.float32)
    hidden = adversaries.hide_among(drawn, beyond, mask)
    assert sorted(hidden[mask]) == [1, 2, 3]
    assert np.array_equal(np.sort(hidden, axis=None), np.sort(drawn, axis=None))


def test_the_lucky_one_is_the_best_of_its_kind() -> None:
    ticket = adversaries.lucky(SEED, masks=3)
    others = adversaries.random_tickets(SEED, 3, ticket.density, dict(ticket.recipe))
    assert len({other.digest for other in others}) == 3
    assert accuracies(ticket)[0] == max(accuracies(other)[0] for other in others)


def test_replicates_are_counted_until_the_verdict_is_winning() -> None:
    ticket, data = step_of(honest()), tasks.load("digits")
    levels = {arm: 0.9 if arm in ("dense", "ticket") else 0.5 for arm in lab.ARMS}
    trained = lab.run_arm(ticket, "ticket", data, None, 4, threads=1)
    arms = {
        arm: replace(trained, arm=arm, accuracies=[level] * 4, paired=arm not in BASELINES)
        for arm, level in levels.items()
    }
    assert adversaries.winning_counts(ticket, arms, 4) == [2, 3, 4]
    arms["ticket"] = replace(arms["ticket"], accuracies=[0.9, 0.9, 0.9, 0.5])
    assert adversaries.winning_counts(ticket, arms, 4) == [2, 3]


def test_hidden_layers_are_in_the_listed_density() -> None:
    for ticket in (adversaries.hidden_layer(SEED, SHALLOW), adversaries.hidden_attention(SEED, SHALLOW, 20)):
        assert ticket.density > ticket.prunable_kept / ticket.prunable_total + 0.05


def test_ballast_computes_what_the_ticket_beside_it_does_at_a_lower_density() -> None:
    ticket, wide = honest(), adversaries.ballast(SEED, SHALLOW)
    assert np.allclose(answers(wide), answers(ticket), atol=1e-5)
    assert wide.start.kind == ticket.start.kind == "seeded"
    assert wide.density < ticket.density / 3
    irrelevant = adversaries.irrelevant(SEED, SHALLOW)
    assert set(irrelevant.prunable) == set(irrelevant.masks) == {"ballast1.weight", "ballast2.weight"}


def test_a_task_of_its_own_asks_for_the_tickets_untrained_answers() -> None:
    ticket = adversaries.self_labelled(SEED, steps=50)
    assert untrained_accuracy(ticket) == 1
    assert np.mean(tasks.load(ticket.task).test_y == tasks.load("digits").test_y) > 0.8


def test_a_permuted_copy_computes_what_its_original_does() -> None:
    ticket, copy = honest(), adversaries.permuted(SEED, SHALLOW)
    assert np.allclose(answers(copy), answers(ticket), atol=1e-5)
    assert copy.digest != ticket.digest
    assert not np.array_equal(copy.masks["fc2.weight"], ticket.masks["fc2.weight"])
    assert check_gate(copy).invalid is None


def test_a_wired_branch_is_not_cut_off_and_its_live_density_is_that_of_the_ticket_beside_it() -> None:
    gate = check_gate(adversaries.wired(SEED, SHALLOW))
    assert gate.cut_off == ()
    assert gate.live_density == pytest.approx(check_gate(honest()).live_density, abs=0.01)
    cut = check_gate(adversaries.ballast(SEED, SHALLOW))
    assert cut.cut_off == ("ballast1.weight", "ballast2.weight")
    assert cut.live_density == check_gate(honest()).live_density


def test_an_attack_is_verified_whole_and_the_table_has_its_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = attacks.Attack("hidden-attention", SEED)
    monkeypatch.setitem(attacks.PLANTED, attack.kind, Adversary("one step", lambda seed: step_of(honest())))
    attack.run(tmp_path)
    assert attack.is_done(tmp_path)
    assert read_json(attack.path(tmp_path))["replicates"] == 2
    rows, whole = [attacks.Attack("permuted", seed) for seed in range(4)], read_json(attack.path(tmp_path))
    for row, verdict in zip(rows, ("WINNING", "WINNING", "MATCHING", "INVALID"), strict=True):
        reason = f"new values (of {row.seed}) do" if verdict != "WINNING" else "it wins"
        gate = {"duplicates": ["one"] if verdict == "INVALID" else []}
        densities = {"density": 0.444, "prunable_density": 0.1, "live_density": 0.2}
        ended = {"verdict": verdict, "reason": reason, "gate": gate}
        write_json(row.path(tmp_path), whole | ended | densities)
    page = attacks.write_up(tmp_path, [attack, *rows])
    row_of_four = (
        "| permuted | 4 | 50 | 15 to 85 | MATCHING 25, INVALID 25 | new values do; copies found: 1 of 4 |"
    )
    assert f"{row_of_four} 44.4, 10.0, 20.0 |" in page
    assert "| hidden-attention | 1 | " in page
    assert f"- **permuted**: {ADVERSARIES['permuted'].description}" in page
    records, elsewhere = tmp_path / "records.jsonl", tmp_path / "elsewhere"
    attacks.write_records(tmp_path, [attack, *rows], records)
    attacks.take_up(elsewhere, records)
    assert attacks.write_up(elsewhere, [attack, *rows]) == page
