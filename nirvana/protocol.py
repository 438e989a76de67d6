"""The names of the verification protocol, which service, worker and lab share (docs/verification.md)."""

from __future__ import annotations

PROTOCOL = "nirvana-verify/2"
CONTROLS = ("reinit", "rescaled", "shuffle", "random")  # what a winning ticket must beat
ARMS = ("dense", "ticket", *CONTROLS, "magnitude")
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
OPEN_VERDICTS = ("INCONCLUSIVE", "MATCHING_UNRESOLVED")  # more replicates may still decide
LOOKS = (1, 2, 4)  # a verification is judged after so many times its replicates, none past the cap
TRANSFER_VERDICTS = ("TRANSFERS", "TRANSFERS_NOT", "UNRESOLVED")
BADGES = ("REPRODUCED", "STABLE", "FAST", "TRAINABLE", "BYTE-REPRODUCIBLE")
