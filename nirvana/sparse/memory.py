"""Arguments of compiled code: examples as rows, buffers for a batch, parameters and the optimiser's state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid
from nirvana.sparse.layout import VECTOR_WIDTH, Floats, StaticSize
from nirvana.sparse.program import AllOps, Examples, OptimizerParams, Program, State, Workspace
from nirvana.training.recipe import Recipe
from nirvana.training.spec import ByteData, TaskData, TrainSpec

SPLITS = ("train", "validation", "test")


def choose_lanes(batch_size: int, has_images: bool = False) -> StaticSize:
    """Choose how many examples a tile has, 16 an item: the least of 16, 32 and 64 that holds a batch, or 64.

    Images have 16: registers then hold the sums of many pixels, and the caches more of a tile.
    """
    if has_images:
        return (0,)
    lanes = next((lanes for lanes in (16, 32) if lanes >= batch_size), 64)
    return (0,) * (lanes // VECTOR_WIDTH)


def choose_tile(program: Program, batch_size: int) -> tuple[StaticSize, AllOps]:
    """Choose a tile's lanes, and `all_ops`: True, or None for linear layers alone."""
    return choose_lanes(batch_size, program.needs_all_ops), True if program.needs_all_ops else None


def make_workspace(program: Program, lanes: StaticSize, batch_size: int, threads: int = 1) -> Workspace:
    """Allocate one tile, or as many as a batch has where batch norm reads all of it."""
    from nirvana.sparse.vectors import COLUMN_BLOCK

    tile_size = VECTOR_WIDTH * len(lanes)
    tiles = -(-batch_size // tile_size) if program.norms else 1
    positions = program.layout.positions
    channels = sum(norm.output.channels for norm in program.norms)
    return Workspace(
        outputs=aligned_zeros(tiles * positions * tile_size),
        deltas=aligned_zeros(tiles * positions * tile_size),
        lane_mask=aligned_zeros(tiles * tile_size),
        loss_scratch=aligned_zeros(3 * tile_size),
        transposed=aligned_zeros(threads * COLUMN_BLOCK * tile_size),
        csc_weights=np.zeros(program.weight_count if program.needs_all_ops else 0, np.float32),
        batch_stats=np.zeros((2, channels), np.float32),
        positions=positions,
        tiles=tiles,
    )


def aligned_zeros(size: int) -> Floats:
    """Return zeros that start at a cache line, as the kernels' vectors need it."""
    whole = np.zeros(size + VECTOR_WIDTH, np.float32)
    start = -whole.ctypes.data % (4 * VECTOR_WIDTH) // 4
    return whole[start : start + size]


def make_state(program: Program, values: Mapping[str, Floats]) -> State:
    """Make a state of parameters and running statistics from whole tensors; the rest is 0."""
    parameters = program.pack(values)
    gradients, first, second = (np.zeros_like(parameters) for _ in range(3))
    mask = np.ones(0 if program.kept.all() else len(parameters), np.float32)
    mask[: len(program.kept)] = program.kept[: len(mask)]
    return State(parameters, gradients, first, second, program.pack_running(values), mask)


def copy_state(state: State) -> State:
    """Copy the parts of a state that evaluation reads."""
    return state._replace(parameters=state.parameters.copy(), running=state.running.copy())


def make_optimizer_params(recipe: Recipe) -> OptimizerParams:
    """Make the recipe's optimiser's parameters: floats, for numba compiles for integers anew."""
    is_adam, decay = recipe.optimizer != "sgd", float(recipe.weight_decay)
    is_decoupled = recipe.optimizer == "adamw"
    return OptimizerParams(
        is_adam=is_adam,
        is_nesterov=recipe.nesterov,
        momentum=float(recipe.beta1 if is_adam else recipe.momentum),
        beta2=float(recipe.beta2),
        epsilon=float(recipe.epsilon),
        weight_decay=0.0 if is_decoupled else decay,
        decoupled_decay=decay if is_decoupled else 0.0,
    )


def read_splits(spec: TrainSpec, program: Program) -> dict[str, Examples]:
    """Return each split as rows of features, and labels: checked, for compiled code checks nothing.

    Raises:
        Invalid: another number of features than the network reads, no label for each example, or a label
            that is no class.
    """
    features, classes = program.layout.input.end, program.layout.logits.channels
    splits = {}
    for name in (*SPLITS, "sealed") if spec.sealed else SPLITS:
        x, y = spec.rows(name)
        if x.shape != (len(y), *x.shape[1:]) or math.prod(x.shape[1:]) != features or not len(y):
            raise Invalid(f"{name} has x {x.shape} and y {y.shape}, expected {features} features each")
        if y.min() < 0 or y.max() >= classes:
            raise Invalid(f"{name} has labels {y.min()} to {y.max()}, expected 0 to {classes - 1}")
        splits[name] = make_examples(x, y, *_scaling(spec.data, x))
    return splits


def _scaling(data: TaskData | ByteData, x: NDArray[Any]) -> tuple[Floats | None, Floats | None]:
    """Return what standardises rows that are bytes."""
    return (None, None) if x.dtype != np.uint8 or isinstance(data, TaskData) else (data.scale, data.shift)


def make_examples(
    x: NDArray[np.float32] | NDArray[np.uint8],
    labels: NDArray[np.int64],
    scale: Floats | None = None,
    shift: Floats | None = None,
) -> Examples:
    """Make examples as compiled code reads them: without a copy where that is possible.

    Args:
        x: (n, *shape), float32, or uint8 with a scale and a shift of that shape.
    """
    rows = _as_rows(x)
    scaling = [np.ones(x.shape[1:], np.float32) if part is None else part for part in (scale, shift)]
    floats, pixels = np.zeros((0, rows.shape[1]), np.float32), np.zeros((0, rows.shape[1]), np.uint8)
    parts = (rows, pixels) if rows.dtype == np.float32 else (floats, rows)
    scales, shifts = (_as_rows(part[None])[0] for part in scaling)
    arrays = (*parts, scales, shifts, np.require(labels, np.int64, ["C", "A"]))
    return Examples(*(_read_only(array) for array in arrays))


def _as_rows(x: NDArray[Any]) -> NDArray[Any]:
    """Return examples as rows of at least 16 features, those that are missing 0; bytes stay bytes."""
    kind = np.uint8 if x.dtype == np.uint8 else np.float32
    rows = np.require(x.reshape(len(x), math.prod(x.shape[1:])), kind, ["C", "A"])
    missing = VECTOR_WIDTH - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing))) if missing > 0 else rows


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a read-only view: code is compiled for these alone."""
    view = array.view()
    view.flags.writeable = False
    return view
