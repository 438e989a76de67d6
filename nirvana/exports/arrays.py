"""Weights as arrays: masked safetensors, and NumPy's .npz."""

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
from nirvana.trained import Weights, json_array


def arrays_of(ticket: Ticket, weights: Weights | None = None) -> dict[str, NDArray[Any]]:
    """Every parameter's values (float32, its shape, pruned elements 0) under its own name, and each mask
    (uint8, the same shape, 1 = kept) as mask/<parameter>.

    Args:
        weights: trained ones; None: the initial values.
    """
    masks = {f"mask/{name}": ticket.mask(name).astype(np.uint8) for name in ticket.prunable}
    return dict(ticket.initial_values() if weights is None else weights.values) | masks


def said_of(weights: Weights | None) -> dict[str, Any]:
    """What an export of trained weights says of their training: nothing for initial values."""
    return {} if weights is None else {"training": dict(weights.training or {})}


def to_safetensors(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """A safetensors file for any reader of that format; `__metadata__.manifest` is the ticket's manifest, and
    `__metadata__.training` what trained weights come from."""
    manifest = rfc8785.dumps(ticket.manifest()).decode()
    metadata = {"format": "pt", "nirvana.digest": ticket.digest, "manifest": manifest}
    said = {name: rfc8785.dumps(value).decode() for name, value in said_of(weights).items()}
    return write_container(metadata | said, arrays_of(ticket, weights))


def to_npz(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """An .npz file for `numpy.load(..., allow_pickle=False)`: the arrays, and `manifest` as UTF-8 bytes; with
    trained weights `training` too.

    The same bytes for the same ticket and weights.
    """
    return write_npz(arrays_of(ticket, weights) | manifests_of(ticket, weights))


def to_csr(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """An .npz file that costs what is kept: weights in compressed sparse rows, for SciPy.

    A weight of two or more dimensions that can be masked is NAME.data (float32), NAME.indices and NAME.indptr
    (int32) and NAME.shape (int64): (out, in), or (out, in x kernel) of a convolution.
    `scipy.sparse.csr_matrix((data, indices, indptr), shape)` reads it; every kept weight is stored, 0 or not.
    Biases, normalisation and running statistics are dense, under their own names.
    """
    values = dict(ticket.initial_values() if weights is None else weights.values)
    arrays: dict[str, NDArray[Any]] = {}
    for name, array in values.items():
        if array.ndim > 1 and (name in ticket.architecture.prunable or name in ticket.prunable):
            kept = ticket.mask(name) if name in ticket.prunable else np.ones(array.shape, bool)
            arrays |= _rows(name, array, kept)
        else:
            arrays[name] = array
    return write_npz(arrays | manifests_of(ticket, weights))


def manifests_of(ticket: Ticket, weights: Weights | None) -> dict[str, NDArray[Any]]:
    """The ticket's manifest, and what is said of trained weights, as UTF-8 bytes of JSON."""
    said = {name: json_array(value) for name, value in said_of(weights).items()}
    return {"manifest": np.frombuffer(rfc8785.dumps(ticket.manifest()), np.uint8)} | said


def _rows(name: str, array: NDArray[np.float32], kept: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
    """A weight's kept elements, row by row."""
    flat, mask = array.reshape(len(array), -1), kept.reshape(len(array), -1)
    starts = np.concatenate([[0], np.cumsum(mask.sum(1))])
    return {
        f"{name}.data": flat[mask],
        f"{name}.indices": np.nonzero(mask)[1].astype(np.int32),
        f"{name}.indptr": starts.astype(np.int32),
        f"{name}.shape": np.array(flat.shape, np.int64),
    }


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
