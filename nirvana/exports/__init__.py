"""A ticket in other forms, for other tools. Without torch.

safetensors   the values (pruned weights 0), and mask/<parameter> as U8 of the parameter's shape
numpy         the same as arrays of an .npz
csr           an .npz of compressed sparse rows, for SciPy: its size follows the kept weights
onnx          a model for onnxruntime and others: dense weights with zeros
script        train.py: one file that stands alone and trains the ticket

The values are the ticket's initial ones or, given `weights`, trained ones; a script holds initial ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nirvana.errors import Invalid, Problem
from nirvana.exports.arrays import to_csr, to_npz, to_safetensors
from nirvana.exports.onnx import to_onnx
from nirvana.exports.script import to_script
from nirvana.format.ticket import Ticket
from nirvana.weights import Weights


@dataclass(frozen=True)
class Export:
    """A ticket in another form: the file's bytes, its suffix and its media type."""

    content: bytes
    suffix: str
    media_type: str


Write = Callable[[Ticket, Weights | None], bytes]

FORMATS: dict[str, tuple[Write, str, str]] = {
    "safetensors": (to_safetensors, ".safetensors", "application/octet-stream"),
    "numpy": (to_npz, ".npz", "application/octet-stream"),
    "csr": (to_csr, ".csr.npz", "application/octet-stream"),
    "onnx": (to_onnx, ".onnx", "application/octet-stream"),
    "script": (to_script, ".py", "text/x-python"),
}


def export_ticket(ticket: Ticket, form: str, weights: Weights | None = None) -> Export:
    """Export a ticket in one of FORMATS.

    Args:
        weights: trained from this ticket, written in place of its initial values.

    Raises:
        Invalid: an unknown form, a ticket that the form cannot express (names what it cannot), or weights
            that were trained from another ticket.
        Unavailable: the form needs a package that is not installed.
    """
    if form not in FORMATS:
        detail = f"format is {form!r}, expected one of {', '.join(FORMATS)}"
        raise Invalid(detail, errors=[Problem("/query/format", "unknown-format", detail)])
    if weights is not None and weights.ticket != ticket.digest:
        raise Invalid(f"the weights were trained from {weights.ticket}, expected {ticket.digest}")
    write, suffix, media_type = FORMATS[form]
    return Export(write(ticket, weights), suffix, media_type)
