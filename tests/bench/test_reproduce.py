"""The programs behind `make reproduce` and `make bench-verdicts`, at their smallest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.reproduce import __main__ as reproduce
from benchmarks.reproduce import plan, sizes
from benchmarks.verdict_rates import __main__ as verdict_rates
from benchmarks.verdict_rates import report as rates_report
from benchmarks.verdict_rates.drawing import POOL, draw
from benchmarks.verdict_rates.planting import KINDS, TRAINED, Planting, ticket_path
from benchmarks.working import Arm, read_json
from nirvana import lab
from nirvana.format.ticket import Ticket
from nirvana.pruning.methods import METHODS
from nirvana.verification.gate import check_gate
from nirvana.verification.protocol import ARMS, VERDICTS, plan_looks
from nirvana.verification.runs import RunCache

SECONDS = re.compile(r"took .* hours|(?<=/ )[\d.]+ \|")  # all that differs when a piece is measured again


@pytest.mark.timeout(600)
def test_a_reproduction_writes_every_table_and_is_taken_up_where_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "results.md"
    call = ["--size", "tiny", "--out", str(tmp_path / "out"), "--write", str(page)]
    assert reproduce.main(call) == 0
    first = page.read_text()
    for method in METHODS:
        assert re.search(rf"(?m)^\| {method} \| ", first), method
    assert "## IMP on digits" in first
    assert any(verdict in first for verdict in VERDICTS)
    capsys.readouterr()
    (tmp_path / "out" / "arms" / "imp-digits-0-level-02-ticket-2.json").unlink()
    assert reproduce.main(call) == 0
    said = capsys.readouterr().err
    out = tmp_path / "out"
    arms = len(plan.lottery_arms(sizes.TINY)) + len(plan.method_arms(sizes.TINY, out))
    arms += len(plan.retraining_arms(sizes.TINY, out))
    assert f"arms: {arms - 1} of {arms} are there" in said
    assert SECONDS.sub("", page.read_text()) == SECONDS.sub("", first)


def test_the_sizes_are_what_the_page_says() -> None:
    assert len(sizes.DEFAULT.seeds["mnist"]) >= 3
    assert len(sizes.DEFAULT.seeds["fashion-mnist"]) >= 1
    assert sizes.FULL.recipe["steps"] == 50_000
    assert sizes.LEVELS == (0, 3, 7, 12, 15)


@pytest.mark.timeout(600)
def test_drawn_verdicts_of_planted_tickets(tmp_path: Path) -> None:
    """One ticket of each kind: drawn in the pool's own order, a verification ends as a real one does."""
    out, seeds = tmp_path / "out", verdict_rates.SEEDS[:1]
    Planting(seeds[0]).run(out)
    pooled = rates_report.pooled(out, seeds)
    assert {path.stem.rpartition("-")[0] for path in pooled} == set(KINDS) - {"trained", "disguised"}
    strong = ticket_path("strong", seeds[0])
    for arm in ARMS:
        Arm(strong, arm, POOL).run(out)
    ticket = Ticket.read(out / strong)
    arms = {arm: lab.ArmResult.from_dict(read_json(Arm(strong, arm, POOL).path(out))) for arm in ARMS}
    order = list(range(POOL))
    drawn = draw(ticket, check_gate(ticket), arms, 0.01, plan_looks(5, 20), order, order)
    real = lab.verify(ticket, replicates=5, max_replicates=20, seed=0, cache=RunCache(tmp_path / "runs"))
    assert (drawn.verdict, drawn.replicates) == (real.verdict, real.replicates)


def test_trained_weights_never_reach_the_training_of_arms(tmp_path: Path) -> None:
    Planting(103).run(tmp_path)
    gates = {kind: check_gate(Ticket.read(tmp_path / ticket_path(kind, 103))) for kind in TRAINED}
    assert gates["trained"].invalid is not None
    assert gates["disguised"].invalid is not None
    assert gates["survivors"].invalid is None
    assert gates["survivors"].untestable is not None
