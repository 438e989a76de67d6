"""Other people's parameter names, and which of an architecture's parameters each one is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from nirvana.architecture import Architecture
from nirvana.errors import Invalid, Problem
from nirvana.ops import Shape

Shapes = Mapping[str, Shape]
T = TypeVar("T")

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_PREFIXES = (
    "module.",
    "model.",
    "_orig_mod.",
)  # DataParallel, open_lth, torch.compile
_MASK_PREFIX, _MASK_DOT = "mask_", "___"  # a buffer of open_lth's PrunedModel


def strip_prefixes(arrays: Mapping[str, T]) -> dict[str, T]:
    """The same under names without a wrapper's prefix, where every one of them has it."""
    found = {_attention_name(name): array for name, array in arrays.items()}
    while prefix := next((p for p in _PREFIXES if found and all(n.startswith(p) for n in found)), None):
        found = {name.removeprefix(prefix): array for name, array in found.items()}
    return found


def _attention_name(name: str) -> str:
    """torch.nn.MultiheadAttention has `in_proj_weight` where architectures have `in_proj.weight`."""
    return name.replace("in_proj_weight", "in_proj.weight").replace("in_proj_bias", "in_proj.bias")


def masked_parameter(name: str) -> str | None:
    """The parameter that an array's name says it masks; None where it is no mask's name.

    `mask/fc1.weight` (a ticket's export), `fc1.weight_mask` (torch.nn.utils.prune, SynFlow, ShrinkBench) and
    `mask_fc1___weight` (open_lth).
    """
    if name.startswith("mask/"):
        return name.removeprefix("mask/")
    if name.startswith(_MASK_PREFIX) and _MASK_DOT in name:
        return name.removeprefix(_MASK_PREFIX).replace(_MASK_DOT, ".")
    return name.removesuffix("_mask") if name.endswith("_mask") else None


def is_buffer(name: str) -> bool:
    """Whether the name is of a batch norm's running statistics or its counter."""
    return name.rpartition(".")[2] in BUFFERS


def match_names(
    found: Shapes, architecture: Architecture, *, ordered: bool, complete: bool
) -> dict[str, str]:
    """Which of the architecture's parameters each found one is: by name; else by order, where the sequences
    of kinds (weight, bias) and shapes are the same; else by shape, where no two are the same.

    Args:
        found: name -> shape.
        ordered: whether the order of `found` is the network's.
        complete: whether `found` are all parameters of a network. Such a network may lack biases and batch
            norm's weights; one that is not complete may have any of the names, or all prunable weights.

    Returns:
        found name -> the architecture's.

    Raises:
        Invalid: nothing fits; `errors` lists both sides.
    """
    own = strip_prefixes({name: name for name in architecture.parameters})
    if all(name in own for name in found):
        named = {name: own[name] for name in found}
        _check_shapes(found, named, architecture)
        _check_complete(named, architecture, complete)
        return named
    for names in _candidates(architecture, complete):
        wanted = {name: architecture.parameters[name] for name in names}
        matched = (_match_order(found, wanted) if ordered else None) or _match_shapes(found, wanted)
        if matched:
            return matched
    raise _no_match(found, architecture)


def fit_architecture(architecture: Architecture, present: Iterable[str]) -> Architecture:
    """The architecture without the biases that a complete network does not have."""
    known = set(present)
    nodes = [
        {**node, "bias": False}
        if f"{node['name']}.weight" in known
        and f"{node['name']}.bias" not in known
        and node["op"] in ("linear", "conv1d", "conv2d")
        else dict(node)
        for node in architecture.nodes
    ]
    return replace(architecture, nodes=tuple(nodes))


def plain_shape(shape: Shape) -> Shape:
    """The shape of the matrix that a convolution of kernel 1 is; any other shape as it is."""
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape


def _kind(name: str, shape: Shape) -> tuple[str, Shape]:
    return name.rpartition(".")[2], plain_shape(shape)


def _in_order(shapes: Shapes) -> list[str]:
    """Names by their layer's first appearance, the weight first: torch's pruning moves it behind the bias."""
    layers = {name.rpartition(".")[0]: place for place, name in reversed(list(enumerate(shapes)))}

    def rank(name: str) -> tuple[int, bool]:
        return layers[name.rpartition(".")[0]], not name.endswith("weight")

    return sorted(shapes, key=rank)


def _match_order(found: Shapes, wanted: Shapes) -> dict[str, str] | None:
    theirs, ours = _in_order(found), _in_order(wanted)
    if [_kind(n, found[n]) for n in theirs] != [_kind(n, wanted[n]) for n in ours]:
        return None
    return dict(zip(theirs, ours, strict=True))


def _match_shapes(found: Shapes, wanted: Shapes) -> dict[str, str] | None:
    theirs = {_kind(name, shape): name for name, shape in found.items()}
    ours = {_kind(name, shape): name for name, shape in wanted.items()}
    if len(theirs) < len(found) or len(ours) < len(wanted) or theirs.keys() != ours.keys():
        return None
    return {name: ours[kind] for kind, name in theirs.items()}


def _candidates(architecture: Architecture, complete: bool) -> list[list[str]]:
    """The sets of parameters that a found network may be made of."""
    names = list(architecture.parameters)
    if not complete:
        return [names, list(architecture.prunable)]
    biases, norms = _optional(architecture)
    return [[n for n in names if n not in left_out] for left_out in (set(), biases, norms, biases | norms)]


def _optional(architecture: Architecture) -> tuple[set[str], set[str]]:
    """Biases of linear and convolution layers; batch norms' weights and biases."""
    ops = {node["name"]: node["op"] for node in architecture.nodes}
    op = {name: ops.get(name.rpartition(".")[0]) for name in architecture.parameters}
    biases = {n for n in op if n.endswith(".bias") and op[n] in ("linear", "conv1d", "conv2d")}
    return biases, {n for n in op if op[n] == "batch_norm"}


def _check_shapes(found: Shapes, named: Mapping[str, str], architecture: Architecture) -> None:
    for theirs, ours in named.items():
        expected = architecture.parameters[ours]
        if plain_shape(found[theirs]) != plain_shape(expected):
            detail = (
                f"{theirs} has shape {list(found[theirs])}, "
                f"but {ours} of {architecture.name} has shape {list(expected)}"
            )
            raise Invalid(detail, errors=[Problem(f"/{theirs}", "shape", detail)])


def _check_complete(named: Mapping[str, str], architecture: Architecture, complete: bool) -> None:
    biases, norms = _optional(architecture)
    missing = [n for n in architecture.parameters if n not in {*named.values(), *biases, *norms}]
    if complete and missing:
        detail = f"found no values of {missing[0]}, expected them for each weight of {architecture.name}"
        raise Invalid(detail, errors=[Problem(f"/{name}", "missing", f"no {name}") for name in missing])


def _no_match(found: Shapes, architecture: Architecture) -> Invalid:
    twice = [kind for kind, n in Counter(_kind(n, s) for n, s in found.items()).items() if n > 1]
    detail = (
        f"the {len(found)} parameters found are not those of {architecture.name} "
        f"({len(architecture.parameters)}), neither by name nor by order and shape"
    )
    hint = "rename them in the file to the architecture's names" if twice else "is it this architecture?"
    both = [("found", found), ("expected", architecture.parameters)]
    lists = [(side, ", ".join(f"{n} {list(s)}" for n, s in shapes.items())) for side, shapes in both]
    problems = [Problem(f"/{side}", "names", text) for side, text in lists]
    return Invalid(f"{detail}: {hint}", errors=problems)
