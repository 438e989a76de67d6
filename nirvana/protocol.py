"""The names of the verification protocol, which service, worker and lab share (docs/verification.md)."""

from __future__ import annotations

PROTOCOL = "nirvana-verify/1"
CONTROLS = ("reinit", "shuffle", "random")
ARMS = ("dense", "ticket", *CONTROLS)
VERDICTS = (
    "INVALID",
    "NOT_MATCHING",
    "INCONCLUSIVE",
    "TRIVIAL",
    "LAYER_RATIO_ONLY",
    "STRUCTURE_ONLY",
    "INIT_ONLY",
    "MATCHING_UNRESOLVED",
    "MATCHING",
    "WINNING",
)
