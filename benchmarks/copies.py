"""`python -m benchmarks.copies`: how often copies of tickets are found, and others are taken for copies.

Tickets: every level of IMP to 2 % density on digits, LeNet-300-100, seeds 0 to 7. Copies have their hidden
units in another order; near-copies also have a share of the kept weights moved to pruned places, and every
value multiplied by 1 + noise x a normal number.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np

from nirvana import lab
from nirvana.format.masks import Mask
from nirvana.format.ticket import Ticket
from nirvana.verification.duplicates import compare
from nirvana.verification.fingerprint import fingerprint, sketch
from tests.factories import permute_units

SEEDS, DENSITY = range(8), 0.02
CHANGES = ((0.01, 1e-3), (0.01, 0.1), (0.03, 1e-3))  # share of kept weights moved, noise of values
EVERY, PAIRS = 3, 250  # of the tickets; pairs of levels, at most
Key = tuple[int, int]  # seed, level
Tickets = dict[Key, Ticket]


def main() -> None:
    """Find the tickets and print the table."""
    tickets = {key: ticket for seed in SEEDS for key, ticket in _find(seed)}
    where = f"digits, LeNet-300-100, IMP to {100 * DENSITY:g} %, seeds 0 to {SEEDS[-1]}"
    print(f"{len(tickets)} tickets of {where}\n")
    print("| what | found |\n|---|---|")
    for what, found, of in itertools.chain(_permuted(tickets), _changed(tickets), _others(tickets)):
        print(f"| {what} | {found} of {of} |", flush=True)


def _find(seed: int) -> Iterator[tuple[Key, Ticket]]:
    found = lab.find("digits", "lenet-300-100", density=DENSITY, seed=seed).tickets
    for level, ticket in enumerate(found[1:], 1):
        yield (seed, level), ticket


def _permuted(tickets: Tickets) -> Iterator[tuple[str, int, int]]:
    same = sum(fingerprint(permute_units(t, i)) == fingerprint(t) for i, t in enumerate(tickets.values()))
    yield "units permuted: the same fingerprint", same, len(tickets)
    yield "different fingerprints", len({fingerprint(t) for t in tickets.values()}), len(tickets)


def _changed(tickets: Tickets) -> Iterator[tuple[str, int, int]]:
    """Near-copies of every third ticket: found by gate 0, and near enough by their sketch to be looked at."""
    some = list(tickets.items())[::EVERY]
    sketches = {key: set(sketch(ticket)) for key, ticket in tickets.items()}
    for share, noise in CHANGES:
        found = ranked = 0
        for number, (key, ticket) in enumerate(some):
            copy = near_copy(ticket, number, share, noise)
            found += compare(ticket, str(key), copy, fingerprint(ticket)).kind == "near-copy"
            shared = Counter({other: len(set(sketch(copy)) & sketches[other]) for other in tickets})
            ranked += key in [other for other, _ in shared.most_common(2)]
        what = f"units permuted, {100 * share:g} % moved, noise {noise:g}"
        yield f"{what}: `near-copy`", found, len(some)
        yield f"{what}: most of the sketch shared, or second most", ranked, len(some)


def near_copy(ticket: Ticket, seed: int, share: float, noise: float) -> Ticket:
    """Return the ticket with its units permuted, `share` of each mask moved and its values noisy."""
    generator, copy = np.random.default_rng(seed), permute_units(ticket, seed)
    values = {
        name: (value * (1 + noise * generator.standard_normal(value.shape))).astype(np.float32)
        for name, value in (copy.dense_initial_values() or {}).items()
    }
    return Ticket.create(
        ticket.architecture,
        {name: _moved(mask, share, generator) for name, mask in copy.masks.items()},
        task=ticket.task,
        recipe=ticket.recipe,
        laws=ticket.start.laws,
        stored=values,
    )


def _moved(mask: Mask, share: float, generator: np.random.Generator) -> Mask:
    moved = mask.ravel().copy()
    kept, pruned = np.flatnonzero(moved), np.flatnonzero(~moved)
    count = min(len(pruned), max(1, round(share * len(kept))))
    moved[generator.choice(kept, count, replace=False)] = False
    moved[generator.choice(pruned, count, replace=False)] = True
    return moved.reshape(mask.shape)


def _others(tickets: Tickets) -> Iterator[tuple[str, int, int]]:
    """Tickets that are no copies of each other: levels of one search, and the same levels of two seeds."""
    pairs = list(itertools.combinations(tickets, 2))
    kinds = {
        "two levels of one search, taken for copies": [pair for pair in pairs if pair[0][0] == pair[1][0]],
        "the same level of two seeds, taken for copies": [pair for pair in pairs if pair[0][1] == pair[1][1]],
    }
    for what, of_kind in kinds.items():
        some = np.random.default_rng(0).permutation(len(of_kind))[:PAIRS]
        chosen = [of_kind[i] for i in some]
        flagged = sum(
            bool(compare(tickets[a], str(b), tickets[b], fingerprint(tickets[a])).kind) for a, b in chosen
        )
        yield what, flagged, len(chosen)


if __name__ == "__main__":
    main()
