"""Found masks and values under the architecture's names and in its shapes, each of them checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.architecture import Architecture
from nirvana.errors import Invalid, Problem
from nirvana.initial import default_laws
from nirvana.lab.importing.found import Found
from nirvana.lab.importing.names import is_buffer, plain_shape
from nirvana.masks import Mask

Values = dict[str, NDArray[np.float32]]


def map_masks(found: Found, names: Mapping[str, str], graph: Architecture) -> dict[str, Mask]:
    """Masks under the architecture's names.

    Raises:
        Invalid: one for no parameter, of another shape, with other values than 0 and 1, or of what is never
            pruned.
    """
    masks = {}
    for theirs, array in found.masks.items():
        ours = names.get(theirs, theirs)
        if ours not in graph.parameters:
            raise _problem(theirs, "unknown-parameter", f"a mask for {theirs}, which is no parameter")
        mask = _as_mask(theirs, array, graph.parameters[ours])
        if ours in graph.prunable:
            masks[ours] = mask
        elif not mask.all() and not found.inferred:
            detail = (
                f"the mask of {theirs} prunes a bias, normalisation or embedding, which tickets keep whole"
            )
            raise _problem(theirs, "not-prunable", detail)
    return masks


def _as_mask(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> Mask:
    if plain_shape(array.shape) != plain_shape(shape):
        detail = f"the mask of {name} has shape {list(array.shape)}, its parameter {list(shape)}"
        raise _problem(name, "shape", detail)
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        raise _problem(name, "mask-value", f"the mask of {name} has the value {wrong[0]}, expected 0 and 1")
    return array.astype(bool).reshape(shape)


def map_values(found: Found, names: Mapping[str, str], graph: Architecture) -> Values:
    """Initial values under the architecture's names; running statistics where training had begun.

    Raises:
        Invalid: values that are not finite, or running statistics that are missing.
    """
    assert found.values is not None
    layers = {theirs.rpartition(".")[0]: ours.rpartition(".")[0] for theirs, ours in names.items()}
    values: Values = {}
    for theirs, array in found.values.items():
        layer, _, leaf = theirs.rpartition(".")
        ours = f"{layers.get(layer)}.{leaf}" if is_buffer(theirs) else names[theirs]
        if is_buffer(theirs) and (not found.rewind_step or ours not in graph.buffers):
            continue
        shape = graph.buffers[ours] if is_buffer(theirs) else graph.parameters[ours]
        values[ours] = _as_values(theirs, array, shape)
    laws = default_laws(graph)
    for name in graph.parameters.keys() - values.keys():  # of a batch norm without weights
        values[name] = np.full(graph.parameters[name], 1.0 if laws[name] == "ones" else 0.0, np.float32)
    missing = [name for name in graph.buffers if found.rewind_step and name not in values]
    if missing:
        detail = (
            f"found no {missing[0]}, expected running statistics with values after {found.rewind_step} steps"
        )
        raise _problem(missing[0], "missing", detail)
    return {name: values[name] for name in (*graph.parameters, *graph.buffers) if name in values}


def _as_values(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    values = np.asarray(array, np.float32)
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values))[0])
        detail = f"value {place} of {name} is {values.ravel()[place]}, expected finite values"
        raise _problem(name, "not-finite", detail)
    return values.reshape(shape)


def _problem(name: str, code: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[Problem(f"/{name}", code, detail)])
