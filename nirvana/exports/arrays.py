"""Tickets as arrays: masked safetensors, and NumPy's .npz."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from nirvana.container import write_container
from nirvana.ticket import Ticket


def arrays_of(ticket: Ticket) -> dict[str, NDArray[Any]]:
    """Every parameter's initial values (float32, its shape, pruned elements 0) under its own name, and each
    mask (uint8, the same shape, 1 = kept) as mask/<parameter>."""
    masks = {f"mask/{name}": ticket.mask(name).astype(np.uint8) for name in ticket.prunable}
    return dict(ticket.initial_values()) | masks


def to_safetensors(ticket: Ticket) -> bytes:
    """A safetensors file for any reader of that format; `__metadata__.manifest` is the ticket's manifest."""
    manifest = rfc8785.dumps(ticket.manifest()).decode()
    metadata = {"format": "pt", "nirvana.digest": ticket.digest, "manifest": manifest}
    return write_container(metadata, arrays_of(ticket))


def to_npz(ticket: Ticket) -> bytes:
    """An .npz file for `numpy.load(..., allow_pickle=False)`: the arrays, and `manifest` as UTF-8 bytes.

    The same bytes for the same ticket.
    """
    manifest = np.frombuffer(rfc8785.dumps(ticket.manifest()), np.uint8)
    return write_npz(arrays_of(ticket) | {"manifest": manifest})


def write_npz(arrays: Mapping[str, NDArray[Any]], *, compress: bool = True) -> bytes:
    """An .npz file with a fixed date in it: the same bytes for the same arrays."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), method)
    return stream.getvalue()
