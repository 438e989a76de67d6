"""Gate 0: initial values follow their declared law, or the ticket is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nirvana.initial import FAN_LAWS, draw
from nirvana.lab import find
from nirvana.lab.train import advance
from nirvana.lab.verification.gate import effective_density, find_invalid, find_untestable, law_p_value
from nirvana.ticket import Ticket
from nirvana.training import Values
from tests.factories import make_masks, make_ticket
from tests.lab.small import SMALL, digits, network, values_of
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


@pytest.mark.parametrize("law", FAN_LAWS)
def test_honest_draws_pass_and_draws_of_other_laws_fail(law: str) -> None:
    shape = (300, 100)
    honest = draw(law, shape, 1, 0)
    assert law_p_value(honest, law) > 1e-3
    others = {"torch_default", "kaiming_normal", "glorot_uniform", "kaiming_signed_constant"} - {law}
    assert all(law_p_value(draw(other, shape, 1, 0), law) < 1e-6 for other in others)


def test_honest_tickets_pass_for_many_seeds() -> None:
    assert all(find_invalid(stored_ticket(values_of(network("mlp-100"), seed))) is None for seed in range(20))
    assert find_invalid(make_ticket()) is None


def test_trained_weights_passed_off_as_initial_values_are_flagged() -> None:
    """Thirty steps at a rate of 0.1 are enough to be seen; biases are seen at once."""
    architecture = network("mlp-100")
    trained, _ = advance(architecture, values_of(architecture), digits(), SMALL, 0, 30)
    reason = find_invalid(stored_ticket(trained))
    assert reason is not None
    assert "trained weights, or another law" in reason


def test_trained_weights_with_honest_biases_are_flagged_too() -> None:
    architecture = network("mlp-100")
    longer = SMALL.override({"steps": 200, "weight_decay": 0.0})
    trained, _ = advance(architecture, values_of(architecture), digits(), longer, 0, 200)
    start = values_of(architecture)
    reason = find_invalid(stored_ticket({n: start[n] if "bias" in n else trained[n] for n in start}))
    assert reason is not None
    assert "do not follow glorot_normal" in reason


def test_constant_values_are_flagged() -> None:
    values = {name: np.full_like(v, 0.05 * v.any()) for name, v in values_of(network("mlp-100")).items()}
    assert find_invalid(stored_ticket(values)) is not None


def test_survivors_alone_cannot_be_tested_and_rewound_values_need_not() -> None:
    assert find_invalid(survivors_only()) is None
    assert find_untestable(survivors_only()) is not None
    assert find_invalid(rewound()) is None
    assert find_untestable(rewound()) is None
    assert find_untestable(make_ticket()) is None


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


def test_effective_density_of_a_dense_network_is_1_through_convolutions_norms_and_shortcuts() -> None:
    for name in ("lenet-300-100", "resnet-20"):
        ticket = find(
            "digits", name, "one-shot", density=0.999, recipe=SMALL.override({"steps": 1, "batch_size": 4})
        )
        whole = ticket.tickets[0]
        assert effective_density(whole) == pytest.approx(whole.density, abs=0.01)
