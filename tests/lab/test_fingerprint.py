"""Fingerprints: the same for every order of the units, and for nothing else."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest

from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS
from nirvana.verification.fingerprint import MOST_UNITS, SKETCH, fingerprint, sketch
from tests.factories import make_masks, make_ticket, permute_units


@pytest.mark.parametrize("name", ["mlp-16", "lenet-300-100", "conv-2", "resnet-20"])
def test_units_in_another_order_leave_the_fingerprint_and_change_the_digest(name: str) -> None:
    ticket = make_ticket(name)
    own = fingerprint(ticket)
    assert own is not None
    assert own.startswith("sha256:")
    assert len(own) == 71
    for seed in range(3):
        copy = permute_units(ticket, seed)
        assert copy.digest != ticket.digest
        assert fingerprint(copy) == own


def rebuilt(ticket: Ticket, **changes: Any) -> Ticket:
    """A stored ticket of the same parts, some changed."""
    values = ticket.dense_initial_values() or {}
    fields: dict[str, Any] = {
        "architecture": ticket.architecture,
        "masks": dict(ticket.masks),
        "stored": values,
    }
    fields = fields | {"laws": ticket.start.laws, "rewind_step": ticket.start.rewind_step} | changes
    return Ticket.create(
        fields.pop("architecture"), fields.pop("masks"), task="digits", recipe=ticket.recipe, **fields
    )


def test_one_bit_of_a_kept_weight_a_bias_or_a_mask_changes_it_and_a_pruned_weight_does_not() -> None:
    ticket = make_ticket(stored=True)
    own, mask = fingerprint(ticket), ticket.masks["fc1.weight"]
    kept, pruned = (tuple(np.argwhere(mask == is_kept)[0]) for is_kept in (True, False))

    def with_value(name: str, place: tuple[int, ...]) -> str | None:
        values = ticket.dense_initial_values() or {}
        array = values[name].copy()
        array[place] = np.nextafter(array[place], np.float32(1))
        return fingerprint(rebuilt(ticket, stored=values | {name: array}))

    assert fingerprint(rebuilt(ticket)) == own
    assert with_value("fc1.weight", kept) != own
    assert with_value("fc1.weight", pruned) == own
    assert with_value("fc1.bias", (0,)) != own
    moved = mask.copy()
    moved[kept], moved[pruned] = False, True
    assert fingerprint(rebuilt(ticket, masks={**ticket.masks, "fc1.weight": moved})) != own


def test_names_dead_units_and_minus_zero_hide_no_copy() -> None:
    ticket = make_ticket(stored=True)
    own, values = fingerprint(ticket), ticket.dense_initial_values() or {}
    nodes = [dict(node, name=f"x{place}") for place, node in enumerate(ticket.architecture.nodes)]
    renamed = Architecture.make("mine", ticket.architecture.input, nodes)
    names = dict(zip(ticket.architecture.parameters, renamed.parameters, strict=True))
    copy = rebuilt(
        ticket,
        architecture=renamed,
        masks={names[name]: mask for name, mask in ticket.masks.items()},
        stored={names[name]: array for name, array in values.items()},
        laws={names[name]: law for name, law in ticket.start.laws.items()},
    )
    assert fingerprint(copy) == own
    negative = values | {"fc1.bias": -values["fc1.bias"]}  # zeros
    assert not negative["fc1.bias"].any()
    assert fingerprint(rebuilt(ticket, stored=negative)) == own
    masks = {name: mask.copy() for name, mask in ticket.masks.items()}
    masks["fc2.weight"][:, 0] = False
    masks["fc2.weight"][0, 1] = True
    dead = rebuilt(ticket, masks=masks)
    more = masks["fc1.weight"].copy()
    more[0] = ~more[0]  # unit 0 leads nowhere
    padded = rebuilt(ticket, masks=masks | {"fc1.weight": more})
    assert fingerprint(padded) == fingerprint(dead) != own


def test_inputs_have_fixed_places_and_kernels_and_flattened_channels_too() -> None:
    ticket = make_ticket("conv-2", stored=True)
    own, values = fingerprint(ticket), ticket.dense_initial_values() or {}
    first = ticket.architecture.prunable[0]
    turned = values[first][..., ::-1].copy()
    masks = {**ticket.masks, first: ticket.masks[first][..., ::-1].copy()}
    assert fingerprint(rebuilt(ticket, stored=values | {first: turned}, masks=masks)) != own
    fc = next(name for name in ticket.architecture.prunable if name.startswith("fc"))
    rolled = values | {fc: np.roll(values[fc], 1, axis=1)}
    masks = {**ticket.masks, fc: np.roll(ticket.masks[fc], 1, axis=1)}
    assert fingerprint(rebuilt(ticket, stored=rolled, masks=masks)) != own


def test_other_seeds_other_masks_and_another_input_size_have_other_fingerprints() -> None:
    tickets = [make_ticket(seed=seed) for seed in range(4)]
    tickets += [make_ticket(masks=make_masks(tickets[0].architecture, 0.2, seed)) for seed in (5, 6)]
    assert len({fingerprint(ticket) for ticket in tickets}) == 6
    nodes: list[dict[str, Any]] = [
        {"name": "conv", "op": "conv2d", "in": 1, "out": 3, "kernel": 3},
        {"name": "pool", "op": "global_avg_pool"},
    ]
    sizes = [make_ticket(architecture=Architecture.make("c", (1, n, n), nodes)) for n in (8, 9)]
    assert sizes[0].start.sha256 == sizes[1].start.sha256
    assert fingerprint(sizes[0]) != fingerprint(sizes[1])


def test_a_near_copy_shares_most_of_the_sketch_and_others_share_none() -> None:
    ticket = make_ticket("lenet-300-100")
    own = set(sketch(ticket))
    assert 0 < len(own) <= SKETCH
    assert all(0 <= number < 2**63 for number in own)
    assert set(sketch(permute_units(ticket, 4))) == own
    masks = {name: mask.copy() for name, mask in ticket.masks.items()}
    flat = masks["fc1.weight"].ravel()
    moved = np.random.default_rng(0).choice(np.flatnonzero(flat), round(0.01 * flat.sum()), replace=False)
    flat[moved] = False
    assert len(own & set(sketch(rebuilt(ticket, masks=masks)))) >= SKETCH // 2
    assert not own & set(sketch(make_ticket("lenet-300-100", masks=make_masks(ticket.architecture, 0.2, 8))))


def test_what_has_no_first_layer_with_a_mask_has_no_sketch() -> None:
    assert sketch(make_ticket(density=1)) == []
    assert sketch(make_ticket(architecture=zoo.build("transformer-1-20", (8,), 10))) == []
    whole_rows = np.zeros((16, 64), bool)
    whole_rows[:3] = True
    masks = {**make_ticket().masks, "fc1.weight": whole_rows}
    assert sketch(make_ticket(masks=masks)) == []


def test_running_statistics_and_groups_count() -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "conv", "op": "conv2d", "in": 1, "out": 4, "kernel": 3, "padding": 1},
        {"name": "bn", "op": "batch_norm", "channels": 4},
        {"name": "deep", "op": "conv2d", "in": 4, "out": 4, "kernel": 3, "groups": 4},
        {"name": "pool", "op": "global_avg_pool"},
        {"name": "fc", "op": "linear", "in": 4, "out": 10},
    ]
    graph = Architecture.make("deep", (1, 8, 8), nodes)
    plain = make_ticket(architecture=graph, stored=True)
    values = (plain.dense_initial_values() or {}) | {
        "bn.running_mean": np.arange(4, dtype=np.float32),
        "bn.running_var": np.ones(4, np.float32),
    }
    rewound = rebuilt(plain, stored=values, rewind_step=5)
    order = np.array([2, 0, 3, 1])
    swapped = {k: v[order] if not k.startswith("fc") else v for k, v in values.items()}
    swapped["fc.weight"] = values["fc.weight"][:, order]
    masks = {k: m[order] if k != "fc.weight" else m[:, order] for k, m in plain.masks.items()}
    assert fingerprint(rebuilt(plain, stored=swapped, masks=masks, rewind_step=5)) == fingerprint(rewound)
    moved = values | {"bn.running_mean": np.ones(4, np.float32)}
    assert fingerprint(rebuilt(plain, stored=moved, rewind_step=5)) != fingerprint(rewound)


def test_ops_without_a_rule_have_no_fingerprint() -> None:
    for name, shape in (("transformer-1", (8, 8)), ("transformer-1-20", (8,))):
        assert fingerprint(make_ticket(architecture=zoo.build(name, shape, 10))) is None
    known = {"linear", "conv1d", "conv2d", "batch_norm", "layer_norm", "relu", "gelu", "tanh", "flatten"}
    known |= {"global_avg_pool", "max_pool", "avg_pool", "add", "dropout"}
    assert OPS.keys() - known == {"embedding", "self_attention"}  # a new op: a rule, or a line here


def test_a_layer_along_another_axis_than_the_units_is_refused() -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "conv", "op": "conv1d", "in": 2, "out": 3, "kernel": 1},
        {"name": "fc", "op": "linear", "in": 8, "out": 4},
        {"name": "flat", "op": "flatten"},
        {"name": "last", "op": "linear", "in": 12, "out": 10},
    ]
    assert fingerprint(make_ticket(architecture=Architecture.make("x", (2, 8), nodes))) is None
    assert fingerprint(make_ticket(architecture=Architecture.make("y", (2, 8), [
        {"name": "fc", "op": "linear", "in": 8, "out": 4},
        {"name": "norm", "op": "layer_norm", "shape": [4]},
        {"name": "flat", "op": "flatten"},
        {"name": "last", "op": "linear", "in": 8, "out": 10},
    ]))) is not None  # fmt: skip


def test_shapes_that_say_billions_of_units_are_refused_before_anything_is_allocated() -> None:
    wide = math.isqrt(MOST_UNITS) + 1
    nodes: list[dict[str, Any]] = [
        {"name": "conv", "op": "conv2d", "in": 1, "out": 1, "kernel": 1},
        {"name": "flat", "op": "flatten"},
        *({"name": f"relu{n}", "op": "relu"} for n in range(50)),
    ]
    for side in (wide, 2**20):
        ticket = make_ticket(architecture=Architecture.make("huge", (1, side, side), nodes))
        before = time.perf_counter()
        assert fingerprint(ticket) is None
        assert sketch(ticket) == []
        assert time.perf_counter() - before < 1
