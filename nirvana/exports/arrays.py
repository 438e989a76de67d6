"""Weights as arrays: masked safetensors, and NumPy's .npz."""

from __future__ import annotations

from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from nirvana.format.container import write_container
from nirvana.format.ticket import Ticket
from nirvana.weights import Weights, json_array, write_npz


def arrays_of(ticket: Ticket, weights: Weights | None = None) -> dict[str, NDArray[np.generic]]:
    """Return every parameter's values (float32, its shape, pruned elements 0) under its own name, and each
    mask (uint8, the same shape, 1 = kept) as mask/<parameter>.

    Args:
        weights: trained ones; None: the initial values.
    """
    masks = {f"mask/{name}": ticket.mask(name).astype(np.uint8) for name in ticket.prunable}
    return {**(ticket.initial_values() if weights is None else weights.values), **masks}


def training_metadata(weights: Weights | None) -> dict[str, dict[str, Any]]:
    """Return the metadata of trained weights' training, as member `training`; none for initial values."""
    return {} if weights is None else {"training": dict(weights.training or {})}


def to_safetensors(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """Return a safetensors file for any reader of that format; `__metadata__.manifest` is the ticket's
    manifest, and `__metadata__.training` the training of trained weights."""
    manifest = rfc8785.dumps(ticket.manifest()).decode()
    metadata = {"format": "pt", "nirvana.digest": ticket.digest, "manifest": manifest}
    metadata |= {name: rfc8785.dumps(value).decode() for name, value in training_metadata(weights).items()}
    return write_container(metadata, arrays_of(ticket, weights))


def to_npz(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """Return an .npz file for `numpy.load(..., allow_pickle=False)`: the arrays, and `manifest` as UTF-8
    bytes; with trained weights `training` too.

    The same bytes for the same ticket and weights.
    """
    return write_npz(arrays_of(ticket, weights) | manifests_of(ticket, weights))


def to_csr(ticket: Ticket, weights: Weights | None = None) -> bytes:
    """Return an .npz file whose size follows the kept weights: compressed sparse rows, for SciPy.

    A weight of two or more dimensions that can be masked is NAME.data (float32), NAME.indices and NAME.indptr
    (int32) and NAME.shape (int64): (out, in), or (out, in x kernel) of a convolution.
    `scipy.sparse.csr_matrix((data, indices, indptr), shape)` reads it; every kept weight is stored, 0 or not.
    Biases, normalisation and running statistics are dense, under their own names.
    """
    values = dict(ticket.initial_values() if weights is None else weights.values)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, array in values.items():
        if array.ndim > 1 and (name in ticket.architecture.prunable or name in ticket.prunable):
            kept = ticket.mask(name) if name in ticket.prunable else np.ones(array.shape, bool)
            arrays |= _rows(name, array, kept)
        else:
            arrays[name] = array
    return write_npz(arrays | manifests_of(ticket, weights))


def manifests_of(ticket: Ticket, weights: Weights | None) -> dict[str, NDArray[np.generic]]:
    """Return the ticket's manifest, and the metadata of trained weights, as UTF-8 bytes of JSON."""
    training = {name: json_array(value) for name, value in training_metadata(weights).items()}
    return {"manifest": np.frombuffer(rfc8785.dumps(ticket.manifest()), np.uint8), **training}


def _rows(name: str, array: NDArray[np.float32], kept: NDArray[np.bool_]) -> dict[str, NDArray[np.generic]]:
    """Return a weight's kept elements in compressed sparse rows."""
    flat, mask = array.reshape(len(array), -1), kept.reshape(len(array), -1)
    starts = np.concatenate([[0], np.cumsum(mask.sum(1))])
    return {
        f"{name}.data": flat[mask],
        f"{name}.indices": np.nonzero(mask)[1].astype(np.int32),
        f"{name}.indptr": starts.astype(np.int32),
        f"{name}.shape": np.array(flat.shape, np.int64),
    }
