"""Gate 0: initial values follow their declared law, or the ticket is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest

from nirvana import tasks
from nirvana.engines import advance
from nirvana.errors import InvalidRecipe
from nirvana.format.initial import FAN_LAWS, default_laws, draw
from nirvana.format.ticket import Ticket
from nirvana.lab import find
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import Node
from nirvana.training.spec import Values
from nirvana.verification.gate import (
    SPECTRUM_LIMIT,
    GateReport,
    check_fit,
    check_gate,
    find_untestable,
    law_p_value,
    spectrum_score,
)
from nirvana.verification.paths import effective_density
from tests.factories import as_stored, make_masks, make_ticket, torch_ticket
from tests.lab.small import SMALL, digits, network, spec_of, values_of
from tests.lab.test_arms import rewound, survivors_only


def stored_ticket(values: Values, **fields: Any) -> Ticket:
    architecture = network("mlp-100")
    laws = make_ticket("mlp-100").start.laws
    return Ticket.create(
        architecture,
        make_masks(architecture),
        task="digits",
        recipe=SMALL.to_dict(),
        laws=laws,
        stored=values,
        **fields,
    )


def refusal(ticket: Ticket) -> str | None:
    """Why gate 0 refuses a ticket, or None."""
    return check_gate(ticket).invalid


@pytest.mark.parametrize("law", FAN_LAWS)
def test_honest_draws_pass_and_draws_of_other_laws_fail(law: str) -> None:
    shape = (300, 100)
    honest = draw(law, shape, 1, 0)
    assert law_p_value(honest, law) > 1e-3
    others = {"torch_default", "kaiming_normal", "glorot_uniform", "kaiming_signed_constant"} - {law}
    assert all(law_p_value(draw(other, shape, 1, 0), law) < 1e-6 for other in others)


def test_honest_tickets_pass_for_many_seeds() -> None:
    assert all(refusal(stored_ticket(values_of(network("mlp-100"), seed))) is None for seed in range(20))
    assert refusal(make_ticket()) is None


def test_trained_weights_passed_off_as_initial_values_are_flagged() -> None:
    """Thirty steps at a rate of 0.1 are enough to be seen; biases are seen at once."""
    architecture = network("mlp-100")
    trained, _ = advance(spec_of(architecture, values_of(architecture), {}, digits(), SMALL), 30)
    reason = refusal(stored_ticket(trained))
    assert reason is not None
    assert "trained weights, or another law" in reason


def test_trained_weights_with_honest_biases_are_flagged_too() -> None:
    architecture = network("mlp-100")
    longer = SMALL.override({"steps": 200, "weight_decay": 0.0})
    trained, _ = advance(spec_of(architecture, values_of(architecture), {}, digits(), longer), 200)
    start = values_of(architecture)
    reason = refusal(stored_ticket({n: start[n] if "bias" in n else trained[n] for n in start}))
    assert reason is not None
    assert "do not follow glorot_normal" in reason


def test_constant_values_are_flagged() -> None:
    values = {name: np.full_like(v, 0.05 * v.any()) for name, v in values_of(network("mlp-100")).items()}
    assert refusal(stored_ticket(values)) is not None


def of_the_law(trained: Values, start: Values) -> Values:
    """Trained weights whose values are exactly the initial ones, in the order of the trained ones."""
    mapped = {}
    for name, values in trained.items():
        ranks = np.argsort(np.argsort(values, axis=None, kind="stable"))
        mapped[name] = np.sort(start[name], axis=None)[ranks].reshape(values.shape)
    return mapped


def test_trained_weights_with_the_laws_own_values_in_another_order_are_flagged_by_their_spectrum() -> None:
    architecture = network("lenet-300-100")
    recipe = tasks.get("digits").default_recipe("lenet-300-100")
    start = values_of(architecture)
    trained, _ = advance(spec_of(architecture, start, {}, digits(), recipe), 150)
    mapped = of_the_law(trained, start)
    assert all(law_p_value(mapped[n], "glorot_normal") > 1e-6 for n in mapped if "weight" in n)
    gate = check_gate(
        Ticket.create(
            architecture,
            {},
            task="digits",
            recipe=recipe.to_dict(),
            laws=make_ticket("lenet-300-100").start.laws,
            stored=mapped,
        )
    )
    assert gate.spectrum["fc2.weight"] > SPECTRUM_LIMIT
    assert gate.invalid is not None
    assert "Tracy-Widom" in gate.invalid


@pytest.mark.parametrize("law", FAN_LAWS)
@pytest.mark.parametrize("shape", [(10, 100), (100, 300), (64, 3, 3, 3), (4, 16)])
def test_honest_draws_have_the_spectrum_of_independent_values(law: str, shape: tuple[int, ...]) -> None:
    scores = [spectrum_score(draw(law, shape, seed, 0)) for seed in range(8)]
    assert all(score is not None and -6 < score < 4 for score in scores)


def test_the_spectrum_is_centred_as_tracy_and_widom_say() -> None:
    found = [spectrum_score(draw("glorot_normal", (60, 90), seed, 1)) for seed in range(150)]
    assert np.mean([score for score in found if score is not None]) == pytest.approx(-1.2065, abs=0.35)


def test_narrow_and_constant_matrices_have_no_score() -> None:
    assert spectrum_score(draw("glorot_normal", (3, 500), 0, 0)) is None
    assert spectrum_score(np.ones((20, 20), np.float32)) is None


def test_what_does_not_fit_together_is_invalid_and_named() -> None:
    ticket = make_ticket()
    broken = {
        "expected \\[16, 64\\]": {"fc1.weight": np.ones((64, 16), bool)},
        "which the architecture does not have": {"fc9.weight": np.ones((2, 2), bool)},
        "fc1.weight keeps no weight": {"fc1.weight": np.zeros((16, 64), bool)},
    }
    for reason, masks in broken.items():
        gate = check_gate(dataclasses.replace(ticket, masks=masks))
        assert gate.invalid is not None
        assert re.search(reason, gate.invalid)
    start = dataclasses.replace(ticket.start, seed=99)
    assert "not those of their sha256" in (refusal(dataclasses.replace(ticket, start=start)) or "")
    stored = make_ticket(stored=True)
    nan = {name: np.full_like(v, np.nan) for name, v in stored.start.stored.items()}
    start = dataclasses.replace(stored.start, stored=nan)
    assert "not all finite" in (refusal(dataclasses.replace(stored, start=start)) or "")


def test_a_network_that_is_cut_through_is_invalid() -> None:
    architecture = network("mlp-2")
    first, second = np.zeros((2, 64), bool), np.zeros((10, 2), bool)
    first[0, :3] = second[:4, 1] = True
    ticket = Ticket.create(
        architecture,
        {"fc1.weight": first, "fc2.weight": second},
        task="digits",
        recipe=SMALL.to_dict(),
        laws=make_ticket("mlp-2").start.laws,
        seed=1,
    )
    assert "no kept weight lies on a path" in (refusal(ticket) or "")


def test_what_the_gate_found_is_json() -> None:
    found = check_gate(stored_ticket(values_of(network("mlp-100"))), [("me", make_ticket("mlp-100"))])
    fields = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(fields["law"]) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert set(fields["spectrum"]) == {"fc1.weight", "fc2.weight"}
    assert fields["density"] == pytest.approx(0.2, abs=0.01)
    assert fields["duplicates"][0]["kind"] == "same-mask"


def test_stored_values_at_step_0_may_be_trained_and_later_ones_are() -> None:
    assert refusal(survivors_only()) is None
    assert find_untestable(survivors_only()) is not None
    assert refusal(rewound()) is None
    assert find_untestable(rewound()) is None
    assert find_untestable(make_ticket()) is None
    assert find_untestable(make_ticket(stored=True)) is not None
    assert find_untestable(as_stored(make_ticket())) is None


def test_a_stored_bias_is_tested_against_torchs_law_where_it_declares_it() -> None:
    honest = as_stored(torch_ticket("mlp-100"), seed=None, order=())
    assert refusal(honest) is None
    assert check_gate(honest).law["fc1.bias"] > 1e-3
    zeros = {name: np.zeros_like(v) if "bias" in name else v for name, v in honest.start.stored.items()}
    assert "fc1.bias do not follow torch_default" in str(refusal(as_stored(honest, stored=zeros)))


def test_effective_density_counts_weights_on_paths_only() -> None:
    architecture = network("mlp-2")  # 64-2-10
    first, second = np.zeros((2, 64), bool), np.zeros((10, 2), bool)
    first[0, :3] = True  # hidden 0 has inputs and no output: 3 dead weights
    first[1, :2] = True
    second[:4, 1] = True
    ticket = Ticket.create(
        architecture,
        {"fc1.weight": first, "fc2.weight": second},
        task="digits",
        recipe=SMALL.to_dict(),
        laws=make_ticket("mlp-2").start.laws,
        seed=1,
    )
    assert ticket.kept == 9
    assert effective_density(ticket) == 6 / (128 + 20)
    assert check_gate(ticket).live_density == 6 / (2 * 1 + 1 * 4), "of 2 inputs, 1 hidden unit and 4 outputs"


def test_effective_density_counts_layers_that_are_not_prunable() -> None:
    whole = make_ticket()
    ticket = make_ticket(masks={"fc2.weight": whole.masks["fc2.weight"]}, prunable=["fc2.weight"])
    report = check_gate(ticket)
    assert report.density == ticket.density == (1024 + 32) / 1184
    lost = 64 * int((~ticket.masks["fc2.weight"].any(axis=0)).sum())  # of hidden units that lead nowhere
    assert report.effective_density == (1024 + 32 - lost) / 1184


def test_a_layer_that_no_path_goes_through_is_named_with_its_share() -> None:
    branch: list[Node] = [
        {"name": "flatten", "op": "flatten"},
        {"name": "fc", "op": "linear", "in": 64, "out": 10},
        {"name": "wide", "op": "linear", "in": 64, "out": 32, "inputs": ["flatten"]},
        {"name": "narrow", "op": "linear", "in": 32, "out": 10},
        {"name": "sum", "op": "add", "inputs": ["fc", "narrow"]},
    ]
    graph = Architecture.make("branched", (1, 8, 8), branch)
    masks = {"wide.weight": np.zeros((32, 64), bool), "narrow.weight": np.zeros((10, 32), bool)}
    masks["wide.weight"][0, 0] = masks["narrow.weight"][0, 1] = True
    laws = default_laws(graph)
    report = check_gate(make_ticket(architecture=graph, masks=masks, laws=laws))
    assert report.cut_off == ("wide.weight", "narrow.weight")
    assert report.cut_off_share == (32 * 64 + 320) / (32 * 64 + 320 + 640)
    assert report.live_density == 1, "what is left is dense"
    masks["narrow.weight"][0, 0] = True
    wired = check_gate(make_ticket(architecture=graph, masks=masks, laws=laws))
    assert wired.cut_off == ()
    assert wired.live_density == (640 + 2) / (640 + 2)
    assert GateReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_the_share_of_kept_weights_that_no_mask_covers() -> None:
    assert check_gate(make_ticket()).uncovered_share == 0
    mask = make_ticket().masks["fc2.weight"]
    ticket = make_ticket(prunable=["fc2.weight"], masks={"fc2.weight": mask})
    assert check_gate(ticket).uncovered_share == 1 - mask.sum() / ticket.kept > 0.5


def test_effective_density_of_a_dense_network_is_1_through_convolutions_norms_and_shortcuts() -> None:
    for name in ("lenet-300-100", "resnet-20"):
        ticket = find(
            "digits", name, "one-shot", density=0.999, recipe=SMALL.override({"steps": 1, "batch_size": 4})
        )
        whole = ticket.tickets[0]
        assert effective_density(whole) == pytest.approx(whole.density, abs=0.01)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"batch_size": 1000}, "/recipe/batch_size"),
        ({"steps": 5, "pruning": {"mask_0_action": "freeze"}}, "/recipe/pruning/mask_0_action"),
        ({"steps": 3}, "/recipe/steps"),
    ],
)
def test_a_recipe_that_cannot_be_verified_is_refused_with_a_pointer_into_the_ticket(
    change: dict[str, Any], pointer: str
) -> None:
    ticket = make_ticket(stored=True, rewind_step=3)
    with pytest.raises(InvalidRecipe) as caught:
        check_fit(ticket, digits(), SMALL.override(change))
    assert [problem.pointer for problem in caught.value.errors] == [pointer]
