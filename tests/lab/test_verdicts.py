"""The verdict table of SCIENCE 4.5, row by row."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from nirvana.verification.protocol import CONTROLS, VERDICTS
from nirvana.verification.verdicts import Findings, decide

HELD = dict.fromkeys(CONTROLS, True)
NOT_HELD = dict.fromkeys(CONTROLS, False)
BEATEN = dict.fromkeys(CONTROLS, True)
NOT_BEATEN = dict.fromkeys(CONTROLS, False)


def findings(**fields: Any) -> Findings:
    """Those of a winning ticket, with some of them changed."""
    best: dict[str, Any] = {"replicates": 5, "matches": True, "holds": NOT_HELD, "beaten": BEATEN}
    return Findings(**(best | fields))


ROWS: list[tuple[str, dict[str, Any]]] = [
    ("INVALID", {"invalid": "trained weights"}),
    ("INVALID", {"invalid": "trained weights", "replicates": 1}),
    ("INCONCLUSIVE", {"replicates": 1}),
    ("INCONCLUSIVE", {"dense_failed": 0.6}),
    ("INCONCLUSIVE", {"dense_failed": 1.0, "random_matches": True}),
    ("WINNING", {"dense_failed": 0.5}),
    ("NOT_MATCHING", {"below": ("dense",), "matches": False}),
    ("INCONCLUSIVE", {"matches": False}),
    ("INCONCLUSIVE", {"matches": False, "random_matches": True, "holds": HELD}),
    ("TRIVIAL", {"random_matches": True, "holds": HELD, "beaten": NOT_BEATEN}),
    ("WINNING", {"random_matches": True}),
    ("LAYER_RATIO_ONLY", {"random_matches": True, "holds": HELD | {"random": False}}),
    (
        "MATCHING_UNRESOLVED",
        {"random_matches": True, "beaten": BEATEN | {"random": False}},
    ),
    ("LAYER_RATIO_ONLY", {"holds": NOT_HELD | {"reinit": True, "shuffle": True}, "beaten": NOT_BEATEN}),
    ("STRUCTURE_ONLY", {"holds": NOT_HELD | {"reinit": True}, "beaten": BEATEN | {"reinit": False}}),
    ("LAYER_RATIO_ONLY", {"holds": NOT_HELD | {"rescaled": True, "shuffle": True}}),
    ("STRUCTURE_ONLY", {"holds": NOT_HELD | {"rescaled": True}, "beaten": BEATEN | {"rescaled": False}}),
    (
        "MATCHING_UNRESOLVED",
        {"holds": NOT_HELD | {"shuffle": True}, "beaten": NOT_BEATEN | {"reinit": True, "random": True}},
    ),
    ("INIT_ONLY", {"holds": NOT_HELD | {"shuffle": True}, "beaten": BEATEN | {"shuffle": False}}),
    ("MATCHING_UNRESOLVED", {"beaten": BEATEN | {"reinit": False}}),
    ("MATCHING_UNRESOLVED", {"beaten": BEATEN | {"random": False}}),
    ("MATCHING_UNRESOLVED", {"holds": NOT_HELD | {"reinit": True}, "beaten": NOT_BEATEN}),
    ("MATCHING_UNRESOLVED", {"holds": NOT_HELD | {"random": True}, "beaten": BEATEN | {"random": False}}),
    ("MATCHING", {"rewind_step": 500}),
    ("MATCHING", {"rewind_step": 500, "stops_later": True}),
    ("MATCHING", {"stops_later": True}),
    ("NOT_MATCHING", {"below": ("reference",), "matches": False}),
    ("MATCHING", {"starved": True}),
    ("TRIVIAL", {"starved": True, "random_matches": True, "holds": HELD, "beaten": NOT_BEATEN}),
    ("MATCHING", {"untestable": "its values are stored"}),
    ("INCONCLUSIVE", {"alike": True}),
    ("INVALID", {"alike": True, "invalid": "trained weights"}),
    ("MATCHING", {"cut_off": ("ballast.weight",)}),
    ("MATCHING", {"mostly_uncovered": True}),
    ("MATCHING", {"needs_no_training": True}),
    ("WINNING", {}),
]


@pytest.mark.parametrize(("verdict", "fields"), ROWS)
def test_each_row_of_the_table(verdict: str, fields: dict[str, Any]) -> None:
    found, reason = decide(findings(**fields))
    assert found == verdict
    assert reason


def test_the_rows_cover_every_verdict() -> None:
    assert {verdict for verdict, _ in ROWS} == set(VERDICTS)


def test_every_outcome_lands_somewhere_and_winning_needs_everything() -> None:
    outcomes = [(False, False), (True, False), (False, True)]  # undecided, holds, beaten
    flags = itertools.product([False, True], repeat=4)
    for below, random_matches, later, rewound in flags:
        for controls in itertools.product(outcomes, repeat=4):
            holds = {name: held for name, (held, _) in zip(CONTROLS, controls, strict=True)}
            beaten = {name: beat for name, (_, beat) in zip(CONTROLS, controls, strict=True)}
            verdict, _ = decide(
                Findings(
                    5,
                    below=("reference",) if below else (),
                    matches=not below,
                    random_matches=random_matches,
                    holds=holds,
                    beaten=beaten,
                    rewind_step=10 * rewound,
                    stops_later=later,
                )
            )
            assert verdict in VERDICTS
            wins = all(beaten.values()) and not (below or later or rewound)
            assert (verdict == "WINNING") == wins
