"""The teacher of a recipe that distils."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nirvana.errors import TrainingFailed
from nirvana.format.ticket import Ticket
from nirvana.lab import RunCache, run_arm, verify
from nirvana.networks.architecture import Architecture
from nirvana.torch import dense
from nirvana.torch.dense import TEACHER_SEED, Logits
from nirvana.torch.evaluate import predict
from nirvana.torch.modules import build_module, load_values
from nirvana.training.keys import data_sha256
from nirvana.training.recipe import Recipe
from nirvana.training.spec import Arrays, TaskData
from nirvana.verification.arms import ORDER_SEED, ArmConfig, initial_state, train_spec
from tests.factories import make_ticket
from tests.lab.small import SMALL, digits, few, network, spec_of, train_dense, values_of
from tests.lab.test_arms import rewound, survivors_only

TAUGHT = SMALL.override({"distillation": {"temperature": 2.0, "weight": 0.5}, "steps": 15})


def logits_of(architecture: Architecture, values: Arrays, data: TaskData, recipe: Recipe) -> Logits:
    """The outputs of the teacher that starts from these values."""
    return dense.teacher_logits(spec_of(architecture, values, {}, data, recipe))


def arm_teacher(ticket: Ticket, recipe: Recipe) -> Logits | None:
    """The teacher of a ticket's arms."""
    config = ArmConfig(ticket, "ticket", digits(), recipe)
    return train_spec(config, initial_state(config, 0)).teacher


def test_the_teacher_is_the_dense_network_trained_without_distillation() -> None:
    plain = TAUGHT.override({"distillation": None})
    architecture = network()
    result = train_dense(
        architecture, values_of(architecture), {}, digits(), plain, TEACHER_SEED, keep_weights=True
    )
    module = build_module(architecture)
    load_values(module, result.weights or {})
    found = logits_of(architecture, values_of(architecture), digits(), TAUGHT)
    assert found.shape == (1000, 10)
    assert found.dtype == np.float32
    assert np.array_equal(found, predict(module, digits().train_x).numpy())


def test_a_teacher_is_trained_once_for_the_same_content() -> None:
    architecture = network()
    first = logits_of(architecture, values_of(architecture, 1), digits(), TAUGHT)
    pruned = TAUGHT.override({"pruning": {"rate": 0.7}, "distillation": {"temperature": 5.0, "weight": 1.0}})
    assert logits_of(architecture, values_of(architecture, 1), digits(), pruned) is first
    longer = TAUGHT.override({"steps": 16})
    for values, data, recipe in (
        (values_of(architecture, 2), digits(), TAUGHT),
        (values_of(architecture, 1), few(digits(), 100), TAUGHT),
        (values_of(architecture, 1), digits(), longer),
    ):
        assert logits_of(architecture, values, data, recipe) is not first
    assert len(dense._teachers) <= 4


def test_a_teacher_that_fails_says_so() -> None:
    architecture = network()
    with pytest.raises(TrainingFailed, match="teacher"):
        logits_of(architecture, values_of(architecture), digits(), TAUGHT.override({"learning_rate": 1e30}))


def test_all_arms_of_a_ticket_share_its_teacher() -> None:
    ticket = make_ticket(recipe=TAUGHT.to_dict())
    dense = ticket.dense_initial_values()
    assert dense is not None
    teacher = logits_of(ticket.architecture, dense, digits(), TAUGHT)
    assert arm_teacher(ticket, TAUGHT) is teacher
    expected = train_dense(
        ticket.architecture,
        ticket.initial_values(),
        ticket.masks,
        digits(),
        TAUGHT,
        ORDER_SEED,
        teacher=teacher,
    )
    found = run_arm(ticket, "ticket", digits(), replicates=1)
    assert found.final_accuracies == [expected.final_test_accuracy]
    assert verify(ticket, replicates=2, cache=None).replicates == 2
    assert arm_teacher(ticket, SMALL) is None


def test_where_the_whole_values_are_unknown_the_teacher_starts_from_the_seed_or_a_draw() -> None:
    assert arm_teacher(survivors_only(), TAUGHT) is not None
    assert arm_teacher(rewound(), TAUGHT) is arm_teacher(rewound(), TAUGHT)


def test_runs_with_different_teachers_are_different_runs(tmp_path: Path) -> None:
    cache = RunCache(tmp_path)
    one, other = (make_ticket(recipe=TAUGHT.to_dict(), seed=seed) for seed in (1, 2))
    run_arm(one, "reinit", digits(), replicates=1, cache=cache)
    assert run_arm(other, "reinit", digits(), replicates=1, cache=cache).cached == [False]
    assert run_arm(one, "reinit", digits(), replicates=1, cache=cache).cached == [True]


def test_the_datas_digest_is_of_its_content() -> None:
    data = digits()
    same = data._replace(train_x=data.train_x.copy(), test_y=data.test_y.copy())
    assert data_sha256(same) == data_sha256(data)
    flipped = data._replace(test_y=data.test_y[::-1].copy())
    assert data_sha256(flipped) != data_sha256(data)
    reshaped = data._replace(train_x=data.train_x.reshape(1000, 1, 4, 16))
    assert data_sha256(reshaped) != data_sha256(data)
