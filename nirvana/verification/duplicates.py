"""Tickets that are there already: the same one, the same masks, or nearly, in whatever order of their units.

Units are matched layer by layer, from the inputs on, by the weights that they keep and the values of these.
Levels of one search are nested, so they overlap by construction: at a rate of 0.2 two neighbours share 0.8 of
their union, which is no near-duplicate here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.format.initial import Values
from nirvana.format.masks import Mask, mask_sha256
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture, inputs_of
from nirvana.networks.ops import OPS, Node, Shape, value
from nirvana.verification.fingerprint import fingerprint
from nirvana.verification.overlaps import count_shared

NEAR_DUPLICATE = 0.9  # of the overlap beyond what chance gives masks of these densities
MOST_MATCHED = 2048  # units of one layer: their matching takes seconds

Order = NDArray[np.intp]  # for each unit of the ticket, the other's unit that stands in its place
Weight = tuple[Mask, Values]


@dataclass(frozen=True)
class Overlap:
    """The share of a ticket that is in a known one of the same architecture.

    Attributes:
        name: of the known ticket.
        kind: `duplicate` (the same digest), `same-mask` (every layer's mask is the same, the values are not)
            or `near-duplicate`; with the units in another order, `permuted-copy` (the same fingerprint) or
            `near-copy`, and then the other fields are of the masks with their units matched.
        same_layers: prunable parameters whose masks are the same.
        jaccard: weights kept by both / by either, over all layers.
        containment: weights kept by both / by the smaller of the two.
        beyond_chance: (jaccard - c) / (1 - c), c being what random masks of these layer densities share.
    """

    name: str
    kind: str
    same_layers: tuple[str, ...]
    jaccard: float
    containment: float
    beyond_chance: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return asdict(self) | {"same_layers": list(self.same_layers)}


def find_duplicates(ticket: Ticket, known: Iterable[tuple[str, Ticket]]) -> list[Overlap]:
    """Return those of the known tickets that are this one or nearly, or have its masks or nearly."""
    return list(_overlaps(ticket, known))


def _overlaps(ticket: Ticket, known: Iterable[tuple[str, Ticket]]) -> Iterator[Overlap]:
    own = fingerprint(ticket)
    for name, other in known:
        if other.architecture.digest != ticket.architecture.digest or other.prunable != ticket.prunable:
            continue
        overlap = compare(ticket, name, other, own)
        if overlap.kind:
            yield overlap


def compare(ticket: Ticket, name: str, other: Ticket, own: str | None = None) -> Overlap:
    """Return the overlap with a ticket of the same architecture; `kind` is empty where there is little.

    Args:
        own: the ticket's fingerprint; without it, units are compared in the order that they have.
    """
    plain = _overlap(ticket, name, {layer: other.mask(layer) for layer in ticket.prunable})
    if ticket.digest == other.digest:
        return replace(plain, kind="duplicate")
    if plain.kind or own is None:
        return plain
    is_same = own == fingerprint(other)
    least, most = sorted((ticket.prunable_kept, other.prunable_kept))
    matched = match_units(ticket, other) if is_same or least >= NEAR_DUPLICATE * most else None
    best = plain if matched is None else _overlap(ticket, name, matched)
    if is_same:
        return replace(best, kind="permuted-copy")
    return replace(best, kind="near-copy") if best.kind else plain


def _overlap(ticket: Ticket, name: str, others_masks: Mapping[str, Mask]) -> Overlap:
    """Return the overlap with masks, place by place; `kind` says no more than the masks do."""
    pairs = [(ticket.mask(layer), others_masks[layer]) for layer in ticket.prunable]
    counts = count_shared(pairs)
    (kept, others), jaccard, beyond = counts["kept"], counts["jaccard"], counts["beyond_chance"]
    same = tuple(
        layer
        for layer, (a, b) in zip(ticket.prunable, pairs, strict=True)
        if mask_sha256(a) == mask_sha256(b)
    )
    has_same_masks = len(same) == len(pairs) and kept < ticket.prunable_total
    kind = "near-duplicate" if beyond >= NEAR_DUPLICATE else ""
    kind = "same-mask" if has_same_masks else kind
    return Overlap(name, kind, same, jaccard, counts["both"] / min(kept, others), beyond)


def match_units(ticket: Ticket, other: Ticket) -> dict[str, Mask] | None:
    """Return another ticket's masks of the prunable parameters with its units in the ticket's order.

    The inputs have fixed places. A layer's units are matched one to one, so that most weights are kept by
    both, those of like values counting up to double; a sum has one order for all that it adds up.

    Args:
        other: of the same architecture, each op of which has a rule in `fingerprint`.

    Returns:
        None where a layer has groups, more than MOST_MATCHED units, or units along another axis than the
        first.
    """
    graph, classes = ticket.architecture, _unit_classes(ticket.architecture)
    orders: dict[str, Order | None] = {"": None}  # of each class; None: every place is its own
    masks = {layer: other.mask(layer) for layer in ticket.prunable}
    before: list[str] = []
    for node in graph.nodes:
        name, source = node["name"], (inputs_of(node, before) or [""])[0]
        before, inputs = [name], orders[classes[source]]
        if OPS[node["op"]].flattens:
            orders.setdefault(classes[name], _spread(inputs, graph.shapes.get(source, graph.input)))
        elif OPS[node["op"]].unit_axis is not None:
            if not _is_matched(node, graph):
                return None
            weight = f"{name}.weight"
            theirs = _reorder(other, weight, inputs)
            if classes[name] not in orders:
                orders[classes[name]] = _match(_reorder(ticket, weight, None), theirs)
            if weight in masks:
                rows = orders[classes[name]]
                masks[weight] = theirs[0] if rows is None else theirs[0][rows]
    return masks


def _is_matched(node: Node, graph: Architecture) -> bool:
    has_groups = "groups" in OPS[node["op"]].fields and value(node, "groups") > 1
    is_row = OPS[node["op"]].unit_axis == 0 or len(graph.shapes[node["name"]]) == 1
    return is_row and not has_groups and graph.shapes[node["name"]][0] <= MOST_MATCHED


def _unit_classes(graph: Architecture) -> dict[str, str]:
    """Return a class for each node; nodes of one class have their units in one order."""
    classes, before = {"": ""}, list[str]()
    for node in graph.nodes:
        op, sources = OPS[node["op"]], inputs_of(node, before) or [""]
        makes_units = op.flattens or op.unit_axis is not None
        tied = {classes[source] for source in sources} if not makes_units else {node["name"]}
        first = min(tied)  # the input's own, where it is one of them
        if len(tied) > 1:
            classes = {name: first if one in tied else one for name, one in classes.items()}
        classes[node["name"]] = first
        before = [node["name"]]
    return classes


def _spread(order: Order | None, shape: Shape) -> Order | None:
    """Return the order of the places of units (units, ...) in row-major order."""
    if order is None:
        return None
    places = math.prod(shape[1:])
    return (order[:, None] * places + np.arange(places)).ravel()


def _reorder(ticket: Ticket, weight: str, inputs: Order | None) -> Weight:
    mask, values = ticket.mask(weight), ticket.initial[weight]
    return (mask, values) if inputs is None else (mask[:, inputs], values[:, inputs])


def _match(own: Weight, theirs: Weight) -> Order:
    """Match rows one to one, so that the sum of what they share is largest."""
    from scipy.optimize import linear_sum_assignment

    shared = np.zeros((len(own[0]), len(own[0])))
    for side in (0, 1):
        one, other = (
            weight[side].reshape(len(weight[side]), -1).astype(np.float32) for weight in (own, theirs)
        )
        scale = math.sqrt(float((one**2).sum()) * float((other**2).sum()))
        shared += one @ other.T / (scale or 1)
    order: Order = linear_sum_assignment(shared, maximize=True)[1]
    return order
