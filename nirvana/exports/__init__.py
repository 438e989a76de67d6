"""A ticket in other forms: safetensors, NumPy, or a script that stands alone. Without torch.

safetensors   theta (pruned weights 0), and mask/<parameter> as U8 of the parameter's shape
numpy         the same as arrays of an .npz
script        train.py: one file, NumPy alone, that trains the ticket
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nirvana.errors import Invalid, Problem
from nirvana.exports.arrays import to_npz, to_safetensors
from nirvana.exports.script import to_script
from nirvana.ticket import Ticket


@dataclass(frozen=True)
class Export:
    """A ticket in another form: the file's bytes, its suffix and its media type."""

    content: bytes
    suffix: str
    media_type: str


FORMATS: dict[str, tuple[Callable[[Ticket], bytes], str, str]] = {
    "safetensors": (to_safetensors, ".safetensors", "application/octet-stream"),
    "numpy": (to_npz, ".npz", "application/octet-stream"),
    "script": (to_script, ".py", "text/x-python"),
}


def export_ticket(ticket: Ticket, form: str) -> Export:
    """A ticket in the form `safetensors`, `numpy` or `script`.

    Raises:
        Invalid: an unknown form, or a ticket that the form cannot express; names what it cannot.
    """
    if form not in FORMATS:
        detail = f"format is {form!r}, expected one of {', '.join(FORMATS)}"
        raise Invalid(detail, errors=[Problem("/query/format", "unknown-format", detail)])
    write, suffix, media_type = FORMATS[form]
    return Export(write(ticket), suffix, media_type)
