"""Other tools' parameter names, and masks and values under the architecture's names, each of them checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, Problem
from nirvana.format.initial import default_laws
from nirvana.format.masks import Mask
from nirvana.importers.checkpoints import Array, ForeignTicket
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS, Shape
from nirvana.training.spec import Values

Shapes = Mapping[str, Shape]
T = TypeVar("T")

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_PREFIXES = ("module.", "model.", "_orig_mod.")  # DataParallel, open_lth, torch.compile
_MASK_PREFIX, _MASK_DOT = "mask_", "___"  # a buffer of open_lth's PrunedModel


def strip_prefixes(arrays: Mapping[str, T]) -> dict[str, T]:
    """Return the same under names without a wrapper's prefix, where every one of them has it."""
    plain = {_attention_name(name): array for name, array in arrays.items()}
    while prefix := next((p for p in _PREFIXES if plain and all(n.startswith(p) for n in plain)), None):
        plain = {name.removeprefix(prefix): array for name, array in plain.items()}
    return plain


def _attention_name(name: str) -> str:
    """Return `in_proj.weight` for `in_proj_weight`, as torch.nn.MultiheadAttention has it."""
    return name.replace("in_proj_weight", "in_proj.weight").replace("in_proj_bias", "in_proj.bias")


def masked_parameter(name: str) -> str | None:
    """Return the parameter that an array masks by its name; None where it is no mask's name.

    `mask/fc1.weight` (a ticket's export), `fc1.weight_mask` (torch.nn.utils.prune, SynFlow, ShrinkBench) and
    `mask_fc1___weight` (open_lth).
    """
    if name.startswith("mask/"):
        return name.removeprefix("mask/")
    if name.startswith(_MASK_PREFIX) and _MASK_DOT in name:
        return name.removeprefix(_MASK_PREFIX).replace(_MASK_DOT, ".")
    return name.removesuffix("_mask") if name.endswith("_mask") else None


def is_buffer(name: str) -> bool:
    """Tell a batch norm's running statistics or counter by the name."""
    return name.rpartition(".")[2] in BUFFERS


def without_buffers(arrays: Mapping[str, T]) -> dict[str, T]:
    """Return the parameters alone."""
    return {name: array for name, array in arrays.items() if not is_buffer(name)}


def match_names(
    shapes: Shapes, architecture: Architecture, *, ordered: bool, complete: bool
) -> dict[str, str]:
    """Match foreign parameters with the architecture's: by name; else by order, where the sequences of kinds
    (weight, bias) and shapes are the same; else by shape, where no two are the same.

    Args:
        shapes: foreign name -> shape.
        ordered: whether the order of `shapes` is the network's.
        complete: whether `shapes` are all parameters of a network. Such a network may lack biases and batch
            norm's weights; one that is not complete may have any of the names, or all prunable weights.

    Returns:
        foreign name -> the architecture's.

    Raises:
        Invalid: nothing fits; `errors` lists both sides.
    """
    own = strip_prefixes({name: name for name in architecture.parameters})
    if all(name in own for name in shapes):
        named = {name: own[name] for name in shapes}
        _check_shapes(shapes, named, architecture)
        _check_complete(named, architecture, complete)
        return named
    for names in _candidates(architecture, complete):
        wanted = {name: architecture.parameters[name] for name in names}
        matched = (_match_order(shapes, wanted) if ordered else None) or _match_shapes(shapes, wanted)
        if matched:
            return matched
    raise _no_match(shapes, architecture)


def fit_architecture(architecture: Architecture, present: Iterable[str]) -> Architecture:
    """Return the architecture without the biases that a complete network does not have."""
    known = set(present)
    nodes = [
        {**node, "bias": False}
        if f"{node['name']}.weight" in known
        and f"{node['name']}.bias" not in known
        and "bias" in OPS[node["op"]].fields
        else dict(node)
        for node in architecture.nodes
    ]
    return replace(architecture, nodes=tuple(nodes))


def plain_shape(shape: Shape) -> Shape:
    """Return the shape of the matrix that a convolution of kernel 1 is; any other shape as it is."""
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape


def _kind(name: str, shape: Shape) -> tuple[str, Shape]:
    return name.rpartition(".")[2], plain_shape(shape)


def _in_order(shapes: Shapes) -> list[str]:
    """Sort names by their layer's first appearance, the weight first: torch's pruning moves it behind the
    bias."""
    layers = {name.rpartition(".")[0]: place for place, name in reversed(list(enumerate(shapes)))}

    def rank(name: str) -> tuple[int, bool]:
        return layers[name.rpartition(".")[0]], not name.endswith("weight")

    return sorted(shapes, key=rank)


def _match_order(shapes: Shapes, wanted: Shapes) -> dict[str, str] | None:
    theirs, ours = _in_order(shapes), _in_order(wanted)
    if [_kind(n, shapes[n]) for n in theirs] != [_kind(n, wanted[n]) for n in ours]:
        return None
    return dict(zip(theirs, ours, strict=True))


def _match_shapes(shapes: Shapes, wanted: Shapes) -> dict[str, str] | None:
    theirs = {_kind(name, shape): name for name, shape in shapes.items()}
    ours = {_kind(name, shape): name for name, shape in wanted.items()}
    if len(theirs) < len(shapes) or len(ours) < len(wanted) or theirs.keys() != ours.keys():
        return None
    return {name: ours[kind] for kind, name in theirs.items()}


def _candidates(architecture: Architecture, complete: bool) -> list[list[str]]:
    """Return the sets of parameters that a foreign network may be made of."""
    names = list(architecture.parameters)
    if not complete:
        return [names, list(architecture.prunable)]
    biases, norms = _optional(architecture)
    return [[n for n in names if n not in left_out] for left_out in (set(), biases, norms, biases | norms)]


def _optional(architecture: Architecture) -> tuple[set[str], set[str]]:
    """Return biases of layers that can be without; batch norms' weights and biases."""
    biases, norms = set[str](), set[str]()
    for node in architecture.nodes:
        op = OPS[node["op"]]
        names = {f"{node['name']}.{suffix}" for suffix in op.parameters(node)}
        if "bias" in op.fields:
            biases |= {name for name in names if name.endswith(".bias")}
        if op.normalises and op.per_channel:
            norms |= names
    return biases, norms


def _check_shapes(shapes: Shapes, named: Mapping[str, str], architecture: Architecture) -> None:
    for theirs, ours in named.items():
        expected = architecture.parameters[ours]
        if plain_shape(shapes[theirs]) != plain_shape(expected):
            detail = (
                f"{theirs} has shape {list(shapes[theirs])}, "
                f"but {ours} of {architecture.name} has shape {list(expected)}"
            )
            raise Invalid(detail, errors=[Problem(f"/{theirs}", "shape", detail)])


def _check_complete(named: Mapping[str, str], architecture: Architecture, complete: bool) -> None:
    biases, norms = _optional(architecture)
    missing = [n for n in architecture.parameters if n not in {*named.values(), *biases, *norms}]
    if complete and missing:
        detail = f"found no values of {missing[0]}, expected them for each weight of {architecture.name}"
        raise Invalid(detail, errors=[Problem(f"/{name}", "missing", f"no {name}") for name in missing])


def _no_match(shapes: Shapes, architecture: Architecture) -> Invalid:
    twice = [kind for kind, n in Counter(_kind(n, s) for n, s in shapes.items()).items() if n > 1]
    detail = (
        f"the {len(shapes)} parameters found are not those of {architecture.name} "
        f"({len(architecture.parameters)}), neither by name nor by order and shape"
    )
    hint = "rename them in the file to the architecture's names" if twice else "is it this architecture?"
    both = [("found", shapes), ("expected", architecture.parameters)]
    lists = [(side, ", ".join(f"{n} {list(s)}" for n, s in named.items())) for side, named in both]
    problems = [Problem(f"/{side}", "names", text) for side, text in lists]
    return Invalid(f"{detail}: {hint}", errors=problems)


# masks and values


def map_masks(foreign: ForeignTicket, names: Mapping[str, str], graph: Architecture) -> dict[str, Mask]:
    """Return masks under the architecture's names.

    Args:
        names: from `match_names`.

    Raises:
        Invalid: one for no parameter, of another shape, with other values than 0 and 1, or of what is never
            pruned.
    """
    masks = {}
    for theirs, array in foreign.masks.items():
        ours = names.get(theirs, theirs)
        if ours not in graph.parameters:
            raise _problem(theirs, "unknown-parameter", f"a mask for {theirs}, which is no parameter")
        mask = _as_mask(theirs, array, graph.parameters[ours])
        if ours in graph.prunable:
            masks[ours] = mask
        elif not mask.all() and not foreign.inferred:
            detail = (
                f"the mask of {theirs} prunes a bias, normalisation or embedding, which tickets keep whole"
            )
            raise _problem(theirs, "not-prunable", detail)
    return masks


def _as_mask(name: str, array: Array, shape: tuple[int, ...]) -> Mask:
    if plain_shape(array.shape) != plain_shape(shape):
        detail = f"the mask of {name} has shape {list(array.shape)}, its parameter {list(shape)}"
        raise _problem(name, "shape", detail)
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        raise _problem(name, "mask-value", f"the mask of {name} has the value {wrong[0]}, expected 0 and 1")
    return array.astype(bool).reshape(shape)


def map_values(foreign: ForeignTicket, names: Mapping[str, str], graph: Architecture) -> Values:
    """Return initial values under the architecture's names, and running statistics where training had begun.

    Args:
        names: from `match_names`.

    Raises:
        Invalid: values that are not finite, or running statistics that are missing.
    """
    assert foreign.values is not None
    layers = {theirs.rpartition(".")[0]: ours.rpartition(".")[0] for theirs, ours in names.items()}
    values: Values = {}
    for theirs, array in foreign.values.items():
        layer, _, leaf = theirs.rpartition(".")
        ours = f"{layers.get(layer)}.{leaf}" if is_buffer(theirs) else names[theirs]
        if is_buffer(theirs) and (not foreign.rewind_step or ours not in graph.buffers):
            continue
        shape = graph.buffers[ours] if is_buffer(theirs) else graph.parameters[ours]
        values[ours] = _as_values(theirs, array, shape)
    laws = default_laws(graph)
    for name in graph.parameters.keys() - values.keys():  # of a batch norm without weights
        values[name] = np.full(graph.parameters[name], 1.0 if laws[name] == "ones" else 0.0, np.float32)
    if foreign.rewind_step:
        _check_statistics(values, graph, foreign.rewind_step)
    return {name: values[name] for name in (*graph.parameters, *graph.buffers) if name in values}


def _check_statistics(values: Values, graph: Architecture, step: int) -> None:
    missing = next((name for name in graph.buffers if name not in values), None)
    if missing:
        detail = f"found no {missing}, expected running statistics with values after {step} steps"
        raise _problem(missing, "missing", detail)


def _as_values(name: str, array: Array, shape: tuple[int, ...]) -> NDArray[np.float32]:
    values = np.asarray(array, np.float32)
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values))[0])
        detail = f"value {place} of {name} is {values.ravel()[place]}, expected finite values"
        raise _problem(name, "not-finite", detail)
    return values.reshape(shape)


def _problem(name: str, code: str, detail: str) -> Invalid:
    return Invalid(detail, errors=[Problem(f"/{name}", code, detail)])
