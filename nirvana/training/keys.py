"""Digests of what a training follows from: the keys under which runs and teachers are kept."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from nirvana.format.initial import value_sha256
from nirvana.format.masks import mask_sha256
from nirvana.training.recipe import Recipe
from nirvana.training.spec import ByteData, TaskData, TrainSpec

Fields = dict[str, Any]
_digests: list[tuple[TaskData | ByteData, str]] = []


def run_key(fields: Fields) -> str:
    """Return the hex sha256 of the fields' canonical JSON."""
    return hashlib.sha256(rfc8785.dumps(fields)).hexdigest()


def run_fields(spec: TrainSpec, engine: str, teacher: str | None) -> Fields:
    """Return all that a run follows from; pruned elements count as 0, whatever was there.

    Args:
        engine: its bits differ, so it counts.
        teacher: its key, where the recipe distils.
    """
    initial = spec.initial
    masked = {
        name: np.where(initial.masks[name], value, np.float32(0)) if name in initial.masks else value
        for name, value in initial.values.items()
    }
    sealed = {"sealed": arrays_sha256(spec.sealed)} if spec.sealed else {}
    return sealed | {
        "architecture": spec.architecture.digest,
        "data": data_sha256(spec.data),
        "recipe": training_fields(spec.recipe),
        "masks": {name: mask_sha256(mask) for name, mask in initial.masks.items() if not mask.all()},
        "values": {name: value_sha256(value) for name, value in masked.items()},
        "order_seed": initial.order_seed,
        "start_step": initial.start_step,
        "teacher": teacher,
        "engine": engine,
    }


def teacher_key(spec: TrainSpec) -> str:
    """Return the hex sha256 over all that a teacher's outputs follow from.

    Args:
        spec: its initial state is what the teacher starts from, whole; its recipe is the student's.
    """
    fields: Fields = {
        "architecture": spec.architecture.digest,
        "values": {name: value_sha256(value) for name, value in spec.initial.values.items()},
        "data": data_sha256(spec.data),
        "recipe": training_fields(without_teacher(spec.recipe)),
        "start_step": spec.initial.start_step,
    }
    return run_key(fields)


def training_fields(recipe: Recipe) -> Fields:
    """Return the recipe's fields that decide how given masks and values train: not how they were pruned or
    drawn."""
    fields = recipe.to_dict()
    return {name: value for name, value in fields.items() if name not in ("pruning", "initial_law")}


def without_teacher(recipe: Recipe) -> Recipe:
    """Return the recipe that the teacher trains by."""
    return dataclasses.replace(recipe, distillation=None, start_step=None)


def data_sha256(data: TaskData | ByteData) -> str:
    """Return the hex sha256 of a task's arrays as they are trained on, with their shapes; remembered for two
    of them."""
    for known, digest in _digests:
        if known is data:
            return digest
    digest = arrays_sha256(data)
    _digests[:] = [(data, digest), *_digests[:1]]
    return digest


def arrays_sha256(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the hex sha256 of arrays with their types and shapes."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()
