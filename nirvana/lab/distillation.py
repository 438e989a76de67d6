"""The teacher of a recipe that distils: the same network, dense, trained by the recipe without distillation.

Reference: Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network" (arXiv 1503.02531).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from nirvana.architecture import Architecture
from nirvana.errors import TrainingFailed
from nirvana.initial import value_sha256
from nirvana.lab.evaluate import predict
from nirvana.lab.modules import build_module, load_values
from nirvana.lab.train import train
from nirvana.recipe import Recipe
from nirvana.tasks import TaskData
from nirvana.training import ShouldStop

TEACHER_SEED = 0x54454143 << 16  # "TEAC": of the teacher's data order; no search or arm uses it by chance
_MOST_TEACHERS = 4  # kept in this process
Logits = NDArray[np.float32]
_teachers: dict[str, Logits] = {}
_digests: list[tuple[TaskData, str]] = []


def teacher_logits(
    architecture: Architecture,
    dense_values: Mapping[str, NDArray[np.float32]],
    data: TaskData,
    recipe: Recipe,
    *,
    start_step: int = 0,
    should_stop: ShouldStop | None = None,
) -> Logits:
    """The teacher's outputs for the training examples, with the weights of its last step.

    Trained once a process for the same architecture, values, data and recipe.

    Args:
        dense_values: what the teacher starts from, by parameter.
        start_step: the update at which those values were taken.

    Returns:
        float32, shape (training examples, classes).

    Raises:
        TrainingFailed: a loss of the teacher's was not finite.
        Cancelled: `should_stop` said so.
    """
    key = teacher_key(architecture, dense_values, data, recipe, start_step)
    if key not in _teachers:
        while len(_teachers) >= _MOST_TEACHERS:
            _teachers.pop(next(iter(_teachers)))
        _teachers[key] = _train_teacher(architecture, dense_values, data, recipe, start_step, should_stop)
    return _teachers[key]


def teacher_key(
    architecture: Architecture,
    dense_values: Mapping[str, NDArray[np.float32]],
    data: TaskData,
    recipe: Recipe,
    start_step: int = 0,
) -> str:
    """Hex sha256 over all that the teacher's outputs follow from."""
    fields: dict[str, Any] = {
        "architecture": architecture.digest,
        "values": {name: value_sha256(value) for name, value in dense_values.items()},
        "data": data_sha256(data),
        "recipe": training_fields(_without_teacher(recipe)),
        "start_step": start_step,
    }
    return hashlib.sha256(rfc8785.dumps(fields)).hexdigest()


def training_fields(recipe: Recipe) -> dict[str, Any]:
    """The recipe's fields that decide how given masks and values train: not how they were pruned or drawn."""
    fields = recipe.to_dict()
    return {name: value for name, value in fields.items() if name not in ("pruning", "initial_law")}


def data_sha256(data: TaskData) -> str:
    """Hex sha256 of a task's arrays as they are trained on, with their shapes; remembered for two of them."""
    for known, digest in _digests:
        if known is data:
            return digest
    sha = hashlib.sha256()
    for array in data:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    _digests[:] = [(data, sha.hexdigest()), *_digests[:1]]
    return sha.hexdigest()


def _without_teacher(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, distillation=None, start_step=None)


def _train_teacher(
    architecture: Architecture,
    values: Mapping[str, NDArray[np.float32]],
    data: TaskData,
    recipe: Recipe,
    start_step: int,
    should_stop: ShouldStop | None,
) -> Logits:
    plain = _without_teacher(recipe)
    result = train(
        architecture,
        values,
        {},
        data,
        plain,
        TEACHER_SEED,
        start_step=start_step,
        should_stop=should_stop,
        keep_weights=True,
    )
    if result.failed or result.weights is None:
        raise TrainingFailed(f"the teacher's loss was not finite at step {result.failed_step}")
    network = build_module(architecture)
    load_values(network, result.weights)
    return predict(network, data.train_x).numpy()
