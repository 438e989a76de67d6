"""Duplicates and near-duplicates among known tickets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nirvana.format.ticket import Ticket
from nirvana.lab import find
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.verification.duplicates import compare, find_duplicates, match_units
from tests.factories import make_masks, make_ticket, permute_units
from tests.lab.small import SMALL


def changed(ticket: Ticket, share: float) -> Ticket:
    """The same ticket with some of each layer's kept weights moved elsewhere."""
    masks, start = {}, ticket.start
    for name, mask in ticket.masks.items():
        flat = mask.ravel().copy()
        n = round(share * flat.sum())
        kept, free = np.flatnonzero(flat)[:n], np.flatnonzero(~flat)[:n]
        flat[kept], flat[free] = False, True
        masks[name] = flat.reshape(mask.shape)
    return Ticket.create(
        ticket.architecture,
        masks,
        task=ticket.task,
        recipe=ticket.recipe,
        laws=start.laws,
        seed=start.seed if start.kind == "seeded" else None,
        stored=ticket.dense_initial_values() if start.kind == "stored" else None,
    )


def kinds(ticket: Ticket, *known: Ticket) -> list[str]:
    return [overlap.kind for overlap in find_duplicates(ticket, ((str(i), t) for i, t in enumerate(known)))]


def test_the_same_ticket_is_a_duplicate_whatever_its_file_says_besides() -> None:
    found = find_duplicates(make_ticket(), [("ada/first", make_ticket(authors=("Bob",), stored=True))])
    assert [(overlap.kind, overlap.name) for overlap in found] == [("duplicate", "ada/first")]
    assert found[0].same_layers == ("fc1.weight", "fc2.weight")
    assert (found[0].jaccard, found[0].containment, found[0].beyond_chance) == (1, 1, 1)


def test_the_same_masks_with_other_values_and_nearly_the_same_masks_are_told_apart() -> None:
    ticket = make_ticket()
    assert kinds(ticket, make_ticket(seed=18)) == ["same-mask"]
    assert kinds(ticket, changed(ticket, 0.02)) == ["near-duplicate"]
    assert kinds(ticket, changed(ticket, 0.2)) == []
    assert kinds(make_ticket(density=0.9), make_ticket(density=0.9, seed=3)) == ["same-mask"]


def test_copies_with_their_units_in_another_order_are_found_exact_or_nearly() -> None:
    for name in ("mlp-16", "conv-2", "resnet-20"):
        ticket = make_ticket(name)
        copy = permute_units(ticket, 3)
        found = find_duplicates(ticket, [("bob/copy", copy)])
        assert [overlap.kind for overlap in found] == ["permuted-copy"]
        assert found[0].jaccard > 0.95  # units that lead nowhere are alike
        assert compare(ticket, "bob/copy", copy).kind == ""  # the order that they have shows nothing
        near = changed(copy, 0.01)
        assert near.digest != copy.digest
        assert kinds(ticket, near) == ["near-copy"]
        assert kinds(ticket, make_ticket(name, seed=18, masks=make_masks(ticket.architecture, 0.2, 5))) == []


def test_units_that_cannot_be_matched_are_not_and_nothing_is_said() -> None:
    conv: list[dict[str, Any]] = [
        {"name": "conv", "op": "conv2d", "in": 1, "out": 4, "kernel": 3},
        {"name": "deep", "op": "conv2d", "in": 4, "out": 4, "kernel": 3, "groups": 2},
        {"name": "flat", "op": "flatten"},
        {"name": "fc", "op": "linear", "in": 64, "out": 10},
    ]
    grouped = make_ticket(architecture=Architecture.make("grouped", (1, 8, 8), conv))
    other = make_ticket(architecture=grouped.architecture, masks=make_masks(grouped.architecture, 0.2, 7))
    assert match_units(grouped, other) is None
    assert kinds(grouped, other) == []
    tokens = make_ticket(architecture=zoo.build("transformer-1", (8, 8), 10))
    masks = make_masks(tokens.architecture, 0.2, 7)
    assert kinds(tokens, make_ticket(architecture=tokens.architecture, masks=masks)) == []


def test_overlap_is_counted_over_all_layers() -> None:
    ticket = make_ticket()
    half = changed(ticket, 0.5)
    both = sum(int((ticket.mask(n) & half.mask(n)).sum()) for n in ticket.prunable)
    found = compare(ticket, "half", half)
    assert found.jaccard == pytest.approx(both / (2 * ticket.kept - both))
    assert found.containment == pytest.approx(both / ticket.kept)


def test_random_masks_of_a_high_density_are_no_near_duplicates() -> None:
    one, other = make_ticket(density=0.95), changed(make_ticket(density=0.95), 0.05)
    found = compare(one, "other", other)
    assert found.jaccard > 0.89
    assert found.beyond_chance < 0.1
    assert kinds(one, other) == []


def test_levels_of_one_search_are_contained_in_each_other_and_no_duplicates() -> None:
    levels = find("digits", "mlp-16", levels=3, recipe=SMALL).tickets
    found = compare(levels[3], "level 2", levels[2])
    assert found.containment == 1
    assert found.kind == ""
    assert kinds(levels[0], levels[1], levels[2]) == []


def test_dense_networks_and_other_architectures_share_no_masks() -> None:
    assert kinds(make_ticket(density=1), make_ticket(density=1, seed=3)) == []
    assert kinds(make_ticket(), make_ticket("mlp-8")) == []
