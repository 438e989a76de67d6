"""Building a network's program: which cells each kept weight reads and which gradients it brings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nirvana.architecture import Architecture
from nirvana.masks import Mask
from nirvana.ops import value
from nirvana.sparse.layout import CONVOLUTIONS, MOST_KEPT, WIDTH, Integers, Layout, Step, Value, lay_out
from nirvana.sparse.patches import find_patches, find_returns
from nirvana.sparse.program import (
    ADD,
    CONVOLUTION,
    LINEAR,
    MAX_POOL,
    MEAN_POOL,
    NODE,
    NORM,
    PATCH,
    PLACE,
    READ,
    Feed,
    Network,
    Program,
)

LEAST_CHANNELS, LEAST_WEIGHTS = 4, 32  # of a part
_OPS = {"linear": LINEAR, "batch_norm": NORM, "max_pool": MAX_POOL, "add": ADD}
_OPS |= dict.fromkeys(CONVOLUTIONS, CONVOLUTION) | dict.fromkeys(("avg_pool", "global_avg_pool"), MEAN_POOL)
_Taps = tuple[Integers, ...]  # of the stored weights: row, channel, y and x


def build(architecture: Architecture, masks: Mapping[str, Mask]) -> Program:
    """The program of a network that `find_unsupported` lets pass."""
    layout = lay_out(architecture)
    steps = [step for step in layout.steps if step.op in ("linear", *CONVOLUTIONS)]
    masked = [_kept(architecture, step, masks) for step in steps]
    links = [(step, _stored(step, kept)) for step, kept in zip(steps, masked, strict=True)]
    norms = [step for step in layout.steps if step.op == "batch_norm"]
    feed, input_cells = _find_feed(layout, links)
    network = _build_network(layout, links, norms, input_cells)
    kept = [mask[stored] for mask, (_, stored) in zip(masked, links, strict=True)]
    return Program(architecture, layout, network, feed, links, norms, np.concatenate(kept))


def _kept(architecture: Architecture, step: Step, masks: Mapping[str, Mask]) -> Mask:
    """A step's mask as (out, in / groups, kernel height, kernel width)."""
    name = f"{step.node['name']}.weight"
    shape = architecture.parameters[name]
    kept = masks.get(name, np.ones(shape, bool))
    return kept.reshape(shape[0], shape[1], *step.window.kernel)


def _stored(step: Step, kept: Mask) -> Mask:
    """The weights that are computed with: those that are kept, or all of a linear layer that keeps most."""
    return np.ones_like(kept) if step.op == "linear" and kept.mean() > MOST_KEPT else kept


def _find_feed(layout: Layout, links: list[tuple[Step, Mask]]) -> tuple[Feed, Integers]:
    """The feed, and the cell of each feature of the input.

    Where linear layers alone read the input, what no kept weight reads is left out.
    """
    features = layout.input.end
    used = np.zeros(features, bool)
    for step in layout.steps:
        if any(read.start == 0 for read in step.reads):
            used |= (
                next(kept.any((0, 2, 3)) for link, kept in links if link is step)
                if step.op == "linear"
                else True
            )
    windows, end = list[int](), 0
    for feature in np.flatnonzero(used):
        if feature >= end:
            windows.append(max(0, min(int(feature), features - WIDTH)))
            end = windows[-1] + WIDTH
    starts = np.array(windows or [0], np.int64)
    is_whole = bool(used.all())
    cells = starts if is_whole else WIDTH * np.arange(len(starts))
    places = np.zeros(max(features, WIDTH), np.int64)
    for feature, cell in zip(starts[::-1], cells[::-1], strict=True):
        places[feature : feature + WIDTH] = cell + np.arange(WIDTH)
    return Feed(starts, cells), places[:features]


def _build_network(
    layout: Layout, links: list[tuple[Step, Mask]], norms: list[Step], input_cells: Integers
) -> Network:
    counts, columns, exits = list[Integers](), list[Integers](), list[_Exits]()
    weight = 0
    for step, kept in links:
        taps = np.nonzero(kept)
        counts.append(_count_parts(step, kept, taps))
        columns.append(_read_cells(step, kept, taps, input_cells))
        exits.append(_find_exits(step, kept, taps, weight))
        weight += len(taps[0])
    nodes, reads, patches = _describe(layout, links, norms, counts, exits, weight)
    first = np.cumsum([0, *(len(one.weights) for one in exits)])
    return Network(
        nodes,
        reads,
        patches,
        np.concatenate([[0], np.cumsum(np.concatenate(counts))]),
        np.concatenate(columns).astype(np.int32),
        np.concatenate([one.starts + at for one, at in zip(exits, first, strict=False)]),
        np.concatenate([one.weights for one in exits]).astype(np.int32),
        np.concatenate([one.cells for one in exits]).astype(np.int32),
    )


def _find_parts(step: Step, weights: int, rows: int, channels: int) -> int:
    """Into how many parts the weights of each row are cut, by channel, so that what a part meets stays in the
    first cache while all rows read it; 1 for a linear layer.

    As many as leave LEAST_WEIGHTS in each: fewer cost more to begin and end than the cache gives back.
    """
    if step.op == "linear":
        return 1
    return max(1, min(channels // LEAST_CHANNELS, weights // (max(rows, 1) * LEAST_WEIGHTS)))


def _count_parts(step: Step, kept: Mask, taps: _Taps) -> Integers:
    """Weights in each part of each row."""
    row, channel, _, _ = taps
    parts = _find_parts(step, len(row), len(kept), kept.shape[1])
    part = channel * parts // kept.shape[1]
    return np.bincount(row * parts + part, minlength=len(kept) * parts)


def _read_cells(step: Step, kept: Mask, taps: _Taps, input_cells: Integers) -> Integers:
    """The cell that each kept weight reads, for the first pixel that its row makes."""
    read, window = step.reads[0], step.window
    row, channel, y, x = taps
    if step.op == "linear" and read.start == 0:
        return input_cells[channel]
    channel = channel + _first_channel(step, kept, row)
    y, x = y - window.padding[0], x - window.padding[1]
    return np.asarray(read.origin + channel * read.plane + y * read.pitch + x, np.int64)


def _first_channel(step: Step, kept: Mask, row: Integers) -> Integers:
    """The first channel that each row's group reads."""
    groups = value(step.node, "groups") if step.op in CONVOLUTIONS else 1
    return np.asarray(row // (len(kept) // groups) * kept.shape[1], np.int64)


class _Exits(NamedTuple):
    starts: Integers  # (phases x channels x parts + 1,), of their first entries
    weights: Integers
    cells: Integers
    parts: int


def _find_exits(step: Step, kept: Mask, taps: _Taps, first_weight: int) -> _Exits:
    """The kept weights by the channel that they read, and by the phase of the pixels that they reach: with a
    stride s, pixel p of the input meets those taps t for which s divides p + padding - t."""
    read, made, window = step.reads[0], step.makes, step.window
    row, channel, y, x = taps
    channel = channel + _first_channel(step, kept, row)
    stride_y, stride_x = window.stride
    phase_y, phase_x = (y - window.padding[0]) % stride_y, (x - window.padding[1]) % stride_x
    out_y = (phase_y + window.padding[0] - y) // stride_y
    out_x = (phase_x + window.padding[1] - x) // stride_x
    parts = _find_parts(step, len(row), stride_y * stride_x * read.channels, made.channels)
    place = (phase_y * stride_x + phase_x) * read.channels + channel
    place = place * parts + row * parts // made.channels
    places = stride_y * stride_x * read.channels * parts
    order = np.argsort(place.astype(np.min_scalar_type(places)), kind="stable")  # 16 bits sort by radix
    counts = np.bincount(place, minlength=places)
    cells = made.origin + row * made.plane + out_y * made.pitch + out_x
    return _Exits(np.concatenate([[0], np.cumsum(counts)]), first_weight + order, cells[order], parts)


def _describe(
    layout: Layout,
    links: list[tuple[Step, Mask]],
    norms: list[Step],
    counts: list[Integers],
    exits: list[_Exits],
    weights: int,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The records of nodes, of what they read, and of their patches."""
    places = _find_parameters(links, norms, counts, exits, weights)
    nodes, reads, patches = list[dict[str, int]](), list[dict[str, int]](), [np.zeros(0, PATCH)]
    for step in layout.steps:
        node = (
            _place(step.makes) | {"op": _OPS[step.op], "read": len(reads)} | places.get(step.makes.start, {})
        )
        for name, (y, x) in step.window._asdict().items():
            node |= {f"{name}_y": y, f"{name}_x": x}
        if step.op in CONVOLUTIONS:
            for name, found in (("patches", find_patches(step)), ("returns", find_returns(step))):
                node[name] = sum(map(len, patches))
                node[f"{name}_end"] = node[name] + len(found)
                patches.append(found)
        reads += [_place(one) | {"learns": one.learns} for one in step.reads]
        nodes.append(node | {"reads_end": len(reads)})
    seen = set[int]()
    for node in reversed(nodes):
        for read in reads[node["read"] : node["reads_end"]]:
            read["is_first"] = read["origin"] not in seen
            seen.add(read["origin"])
    return _records(nodes, NODE), _records(reads, READ), np.concatenate(patches)


def _find_parameters(
    links: list[tuple[Step, Mask]],
    norms: list[Step],
    counts: list[Integers],
    exits: list[_Exits],
    weights: int,
) -> dict[int, dict[str, int]]:
    """Where each step's parameters and exits start, by the first cell of what it makes."""
    found, row, bias, entry, channel = dict[int, dict[str, int]](), 0, weights, 0, 0
    for (step, kept), count, leaving in zip(links, counts, exits, strict=True):
        parts = len(count) // len(kept)
        own = {"row": row, "parts": parts, "exit": entry, "exit_parts": leaving.parts, "bias": bias}
        own |= {"has_bias": value(step.node, "bias"), "is_even": bool((kept == kept[:1]).all())}
        found[step.makes.start] = own
        row, bias, entry = row + len(kept) * parts, bias + len(kept), entry + len(leaving.starts)
    channels = sum(step.makes.channels for step in norms)
    for step in norms:
        gain = bias + channel
        found[step.makes.start] = {"norm": channel, "gain": gain, "bias": gain + channels}
        channel += step.makes.channels
    return found


def _place(one: Value) -> dict[str, int]:
    return {name: getattr(one, name) for name in PLACE}


def _records(rows: list[dict[str, int]], kind: np.dtype[Any]) -> NDArray[Any]:
    names = kind.names or ()
    return np.array([tuple(row.get(name, 0) for name in names) for row in rows], kind)
