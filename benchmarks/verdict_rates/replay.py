"""`python -m benchmarks.verdict_rates.replay`: attacks on a registry that runs, through its REST API alone.

A service and a worker are started on loopback in a home of their own, as `nirvana up` starts them. Ada is
honest; Eve attacks. Each row is an attack, what it got before `nirvana-verify/3`, and what it gets now.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.verdict_rates import adversaries
from benchmarks.verdict_rates.adversaries import ADVERSARIES, forge, imp
from benchmarks.working import say
from nirvana.cli.output import Output
from nirvana.cli.up import start_registry
from nirvana.client.rest import Client
from nirvana.errors import NirvanaError
from nirvana.format.ticket import Ticket
from nirvana.training.cost import environment
from nirvana.verification.protocol import PROTOCOL

SEED = 100
Fields = dict[str, Any]
Row = tuple[str, str, str]


class Account:
    """Somebody with a token, who publishes tickets and asks for verifications."""

    def __init__(self, endpoint: str, name: str) -> None:
        with Client(endpoint) as stranger:
            token = stranger.create_account(name)["token"]["secret"]
        self.name, self.client = name, Client(endpoint, token)

    def publish(self, ticket: Ticket, name: str) -> str:
        """Publish a ticket, and return its full name."""
        self.client.publish(ticket.to_bytes(), name)
        return f"{self.name}/{name}"

    def verify(self, name: str, **counts: int) -> str:
        """Return how a verification ended: its verdict, or why there was none."""
        try:
            job = self.client.submit_job("verify", {"ticket": name, **counts})
        except NirvanaError as error:
            return f"refused: {error.detail}"
        while job["state"] in ("queued", "running"):
            time.sleep(0.2)
            job = self.client.job(job["id"])
        return str(job["result"]["verdict"] if job["state"] == "succeeded" else f"failed: {job['reason']}")

    def attest(self, name: str) -> str:
        """Have a ticket's search run again; return what its listing shows then."""
        job = self.client.attest(name)
        while job["state"] in ("queued", "running"):
            time.sleep(0.2)
            job = self.client.job(job["id"])
        return self.shown(name)

    def shown(self, name: str) -> str:
        """Return the verdict that a listing shows, with its origin."""
        listing = self.client.ticket(name)
        return f"{listing['verdict']}, {listing['origin'].replace('-', ' ')}"

    def wins(self) -> set[str]:
        """Return the names that a search for winning tickets gives, unless it asks for more."""
        return {f"{one['owner']}/{one['name']}" for one in self.client.search(verdict="WINNING")}


def replay(ada: Account, eve: Account) -> Iterator[Row]:
    """Yield (attack, what it got before, what it gets now)."""
    honest = ada.publish(imp(SEED), "honest")
    ada.verify(honest)
    before = ada.shown(honest)
    yield "(an honest ticket, 10 %)", "WINNING", f"{before}; after its attestation {ada.attest(honest)}"
    yield from _moves(ada, eve, honest)
    for kind, before in BEFORE.items():
        say(f"replaying {kind}")
        ticket = ADVERSARIES[kind].plant(SEED)
        name = eve.publish(_claiming(ticket), kind)
        asked = ticket.provenance.get("replicates")
        eve.verify(name, **({"replicates": asked} if asked else {}))
        yield (
            f"{kind}: {ADVERSARIES[kind].description}",
            before,
            f"{_outcome(eve, name)}; {_try_attesting(eve, name)}",
        )
    yield from _clones_and_copies(ada, eve, honest)


BEFORE = {
    "starved-step": "WINNING, gap +85.6 pp",
    "starved-short": "WINNING",
    "starved-decay": "dense at 71.3 %",
    "starved-l1": "dense at 87.2 %",
    "starved-batch": "dense starved",
    "leaked-labels": "WINNING",
    "leaked-seal": "WINNING",
    "ranked": "WINNING",
    "ranked-on-test": "WINNING",
    "lucky": "WINNING",
    "hidden-layer": "listed at 10 % density",
    "ballast": "WINNING",
}


def _moves(ada: Account, eve: Account, honest: str) -> Iterator[Row]:
    """Yield attacks that once moved a verdict from one recipe, law or owner to another."""
    sparse = eve.publish(imp(SEED, adversaries.SPARSE), "sparse")
    eve.verify(sparse)
    before = eve.shown(sparse)
    short = eve.publish(forge(imp(SEED, adversaries.SPARSE), recipe=SHORT), "sparse-short")
    other = eve.verify(short, replicates=20)
    now = f"{before}; after it {eve.shown(sparse)} (the short recipe: {other})"
    yield "1a: the same 2 % ticket again with 10 steps, n = 20", "the first listing is WINNING", now

    was = ada.shown(honest)
    for label, changed in (("1200 steps", {"steps": 1200}), ("rate 5", {"learning_rate": 5.0})):
        name = eve.publish(forge(imp(SEED), recipe=changed), label.replace(" ", "-"))
        verdict = eve.verify(name, replicates=20)
        now = f"{was}; after it {ada.shown(honest)} (Eve's: {verdict})"
        yield f"1b: another account, the honest ticket with {label}, n = 20", "the owner loses WINNING", now

    name = eve.publish(_lying(imp(SEED)), "false-law")
    verdict = eve.verify(name)
    now = f"{was}; after it {ada.shown(honest)} (Eve's: {verdict})"
    yield "1c: the same masks and values, stored, under a false law", "the owner is INVALID for ever", now


SHORT: Fields = {"steps": 10, "evaluate_every": 1}


def _claiming(ticket: Ticket) -> Ticket:
    """Give a ticket the provenance of an honest search."""
    level = int(imp(SEED, ticket.density).provenance["level"]) if ticket.density < 1 else 0
    story = {"method": "imp", "level": level, "order_seed": str(SEED), "density": ticket.density}
    start = {"seed": ticket.start.seed} if ticket.start.kind == "seeded" else {"stored": ticket.start.stored}
    return forge(ticket, provenance=dict(ticket.provenance) | story, **start)


def _try_attesting(account: Account, name: str) -> str:
    try:
        return f"after an attestation that its provenance asks for: {account.attest(name)}"
    except NirvanaError as error:
        return f"its forged provenance is refused: {error.errors[0].detail if error.errors else error.detail}"


def _lying(ticket: Ticket) -> Ticket:
    values = ticket.dense_initial_values()
    assert values is not None
    laws = ticket.start.laws.items()
    false = {name: "kaiming_signed_constant" if law != "zeros" else law for name, law in laws}
    return forge(ticket, stored=values, seed=None, laws=false)


def _outcome(account: Account, name: str) -> str:
    listing = account.client.ticket(name)
    found = "is" if name in account.wins() else "is not"
    gap = "" if listing["accuracy_gap"] is None else f", gap {100 * listing['accuracy_gap']:+.1f} pp"
    density = f"{100 * listing['density']:.1f} %"
    return f"{account.shown(name)}{gap}, density {density}; {found} among the winning ones"


def _clones_and_copies(ada: Account, eve: Account, honest: str) -> Iterator[Row]:
    clones = forge(imp(SEED), recipe={"batch_size": 1000})
    try:
        now = eve.verify(eve.publish(clones, "clones"))
    except NirvanaError as error:
        now = f"refused: {error.detail}"
    yield "5: batches of all the training data: replicates are clones", "[0.716] * 5, a verdict", now
    for label, ticket in (("a byte copy", imp(SEED)), ("hidden units permuted", adversaries.permuted(SEED))):
        name = eve.publish(ticket, label.replace(" ", "-"))
        eve.verify(name)
        listing = eve.client.ticket(name)
        yield (
            f"7: {label}, by somebody else",
            "a second win, without a word",
            (f"copy of {listing['copy_of']}; {_outcome(eve, name)}"),
        )


@contextmanager
def registry() -> Iterator[str]:
    """Run a registry in a home of its own, and yield its address."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["NIRVANA_HOME"] = home
        with start_registry(Output(quiet=True), port=0) as running:
            yield running.client.endpoint


def main() -> int:
    """Print the table."""
    np.seterr(all="ignore")
    where = ", ".join(f"{name} {value}" for name, value in environment().items())
    print(
        "# Attacks on a registry that runs\n\n"
        "Written by `python -m benchmarks.verdict_rates.replay`; nothing here was typed in. A service and a "
        "worker on loopback, their REST interface alone: Ada is honest, Eve attacks, one ticket of each kind "
        f"(seed {SEED}; the registry draws the seeds of the verifications, so a row may end otherwise "
        f"another time), digits, protocol `{PROTOCOL}`. *Before*: what the attack got by `nirvana-verify/2`, "
        "as it was measured when these attacks were found. Rates over 20 tickets a kind are in "
        "[adversary-rates](adversary-rates.md).\n\n"
        f"Machine and versions: {where}.\n"
    )
    print("| attack | before | now |\n|---|---|---|")
    with registry() as endpoint:
        for row in replay(Account(endpoint, "ada"), Account(endpoint, "eve")):
            print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
