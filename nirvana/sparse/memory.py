"""What compiled code works on: examples as rows, room for a batch, parameters and the optimiser's memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid
from nirvana.recipe import Recipe
from nirvana.sparse.layout import WIDTH, Floats, Tile
from nirvana.sparse.program import Examples, Program, Rule, Space, State

if TYPE_CHECKING:
    from nirvana.tasks import ByteData, TaskData

SPLITS = ("train", "validation", "test")


def choose_lanes(batch_size: int, has_pixels: bool = False) -> Tile:
    """How many examples a tile has, 16 an item: the least of 16, 32 and 64 that holds a batch, or 64.

    Images have 16: registers then hold the sums of many pixels, and the caches more of a tile.
    """
    if has_pixels:
        return (0,)
    lanes = next((lanes for lanes in (16, 32) if lanes >= batch_size), 64)
    return (0,) * (lanes // WIDTH)


def choose_tile(program: Program, batch_size: int) -> tuple[Tile, bool | None]:
    """A tile's lanes, and whether the network has pixels: True, or None, for which less is compiled."""
    return choose_lanes(batch_size, program.has_pixels), program.has_pixels or None


def make_space(program: Program, lanes: Tile, batch_size: int, threads: int = 1) -> Space:
    """Room for one tile, or for as many as a batch has where batch norm looks at all of it."""
    from nirvana.sparse.vectors import CELLS

    step = WIDTH * len(lanes)
    slots = -(-batch_size // step) if program.norms else 1
    cells = program.layout.cells
    channels = sum(norm.makes.channels for norm in program.norms)
    sizes = (slots * cells * step, slots * cells * step, slots * step, 3 * step, threads * CELLS * step)
    outputs, deltas, live, rows, turned = (aligned(size) for size in sizes)
    leaving, moments = (
        np.zeros(shape, np.float32) for shape in (program.weights if program.has_pixels else 0, (2, channels))
    )
    return Space(outputs, deltas, live, rows, turned, leaving, moments, cells, slots)


def aligned(size: int) -> Floats:
    """Zeros that start at a cache line, as the kernels' vectors need it."""
    whole = np.zeros(size + WIDTH, np.float32)
    start = -whole.ctypes.data % (4 * WIDTH) // 4
    return whole[start : start + size]


def make_state(program: Program, values: Mapping[str, Floats]) -> State:
    """Parameters and running statistics from whole tensors; the rest is 0."""
    parameters = program.pack(values)
    gradients, first, second = (np.zeros_like(parameters) for _ in range(3))
    kept = np.ones(0 if program.kept.all() else len(parameters), np.float32)
    kept[: len(program.kept)] = program.kept[: len(kept)]
    return State(parameters, gradients, first, second, program.pack_running(values), kept)


def copy_state(state: State) -> State:
    """What evaluation needs of a state, as it is now."""
    return state._replace(parameters=state.parameters.copy(), running=state.running.copy())


def make_rule(recipe: Recipe) -> Rule:
    """The recipe's optimiser."""
    is_adam, decay = recipe.optimizer != "sgd", float(recipe.weight_decay)
    is_decoupled = recipe.optimizer == "adamw"
    return Rule(
        is_adam,
        recipe.nesterov,
        float(recipe.beta1 if is_adam else recipe.momentum),
        float(recipe.beta2),
        float(recipe.epsilon),
        0.0 if is_decoupled else decay,
        decay if is_decoupled else 0.0,
    )


def read_splits(data: TaskData | ByteData, program: Program) -> dict[str, Examples]:
    """Examples as rows of features, and labels, of each split: checked, for compiled code checks nothing.

    Raises:
        Invalid: another number of features than the network reads, no label for each example, or a label
            that is no class.
    """
    features, classes = program.layout.input.end, program.layout.last.channels
    found = {}
    for name in SPLITS:
        x, y = getattr(data, f"{name}_x"), getattr(data, f"{name}_y")
        if x.shape != (len(y), *x.shape[1:]) or math.prod(x.shape[1:]) != features or not len(y):
            raise Invalid(f"{name} has x {x.shape} and y {y.shape}, expected {features} features each")
        if y.min() < 0 or y.max() >= classes:
            raise Invalid(f"{name} has labels {y.min()} to {y.max()}, expected 0 to {classes - 1}")
        found[name] = make_examples(x, y, getattr(data, "scale", None), getattr(data, "shift", None))
    return found


def make_examples(
    x: NDArray[np.float32] | NDArray[np.uint8],
    labels: NDArray[np.int64],
    scale: Floats | None = None,
    shift: Floats | None = None,
) -> Examples:
    """Examples as compiled code reads them: without a copy where that is possible.

    Args:
        x: (n, *shape), float32, or uint8 with a scale and a shift of that shape.
    """
    rows = _as_rows(x)
    scaling = [np.ones(x.shape[1:], np.float32) if part is None else part for part in (scale, shift)]
    floats, pixels = np.zeros((0, rows.shape[1]), np.float32), np.zeros((0, rows.shape[1]), np.uint8)
    parts = (rows, pixels) if rows.dtype == np.float32 else (floats, rows)
    arrays = [
        *parts,
        *(_as_rows(part[None])[0] for part in scaling),
        np.require(labels, np.int64, ["C", "A"]),
    ]
    return Examples(*(_locked(array) for array in arrays))


def _as_rows(x: NDArray[Any]) -> NDArray[Any]:
    """Examples as rows of at least 16 features, those that are missing 0; bytes stay bytes."""
    kind = np.uint8 if x.dtype == np.uint8 else np.float32
    rows = np.require(x.reshape(len(x), math.prod(x.shape[1:])), kind, ["C", "A"])
    missing = WIDTH - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, missing))) if missing > 0 else rows


def _locked(array: NDArray[Any]) -> NDArray[Any]:
    """A view that may not be written to: code is compiled for these alone."""
    view = array.view()
    view.flags.writeable = False
    return view
