"""Weights with all that is needed to use them; `nirvana train --out` writes, `nirvana predict` reads them.

The file is an .npz for `numpy.load(..., allow_pickle=False)`: every parameter and running statistic under its
own name (float32, pruned elements 0), each mask as mask/<parameter> (uint8, 1 = kept), and `manifest`, the
UTF-8 bytes of a JSON object with format, ticket (digest), architecture, task and training.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nirvana import tasks
from nirvana.environment import VERSION
from nirvana.errors import Invalid, NotFound
from nirvana.files import write_atomically
from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.tasks.task import task_from_json, task_to_json
from nirvana.training.spec import TrainResult, Values

if TYPE_CHECKING:
    from nirvana.format.ticket import Ticket
    from nirvana.tasks import Task

FORMAT = "nirvana.weights/1"


@dataclass(frozen=True)
class Weights:
    """A network's weights, what they were trained on, and how its inputs are made.

    Attributes:
        ticket: digest of the ticket that they belong to.
        values: parameters and running statistics, pruned elements 0.
        masks: parameter -> boolean array of its shape, True = kept; kept whole where absent.
        task: its normalisation makes the network's inputs of raw values, its class names its answers.
        training: JSON-able: seed, engine, step and accuracies; None: the ticket's initial values.
    """

    ticket: str
    architecture: Architecture
    values: Mapping[str, NDArray[np.float32]] = field(repr=False)
    masks: Mapping[str, Mask] = field(repr=False)
    task: Task
    training: Mapping[str, Any] | None = None

    @classmethod
    def untrained(cls, ticket: Ticket) -> Weights:
        """Return a ticket's initial values: those that a supermask predicts with.

        Raises:
            NotFound: the ticket's task is not known on this machine.
        """
        values = with_statistics(ticket.architecture, ticket.initial_values())
        return cls(ticket.digest, ticket.architecture, values, ticket.masks, tasks.get(ticket.task))

    @classmethod
    def trained(cls, ticket: Ticket, result: TrainResult, seed: int) -> Weights:
        """Return the weights after the last step of a training that kept them.

        Raises:
            Invalid: the training failed, or did not keep its weights.
        """
        if result.weights is None or result.failed:
            reason = "failed" if result.failed else "kept no weights"
            raise Invalid(f"the training {reason}, expected weights after its last step")
        training = {
            "tool": f"nirvana {VERSION}",
            "engine": result.engine,
            "seed": seed,
            "step": result.curve[-1][0],
            "test_accuracy": result.final_test_accuracy,
        }
        values = with_statistics(ticket.architecture, result.weights)
        return cls(ticket.digest, ticket.architecture, values, ticket.masks, tasks.get(ticket.task), training)

    def to_bytes(self) -> bytes:
        """Return the file's bytes: the same for the same weights."""
        masks = {f"mask/{name}": mask.astype(np.uint8) for name, mask in self.masks.items()}
        return write_npz({**self.values, **masks, "manifest": json_array(self.manifest())})

    def manifest(self) -> dict[str, Any]:
        """Return the manifest's object."""
        return {
            "format": FORMAT,
            "ticket": self.ticket,
            "architecture": self.architecture.to_manifest(),
            "task": task_to_json(self.task),
            "training": None if self.training is None else dict(self.training),
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all."""
        write_atomically(Path(path), self.to_bytes())

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Weights:
        """Read the weights in a file.

        Raises:
            NotFound: there is no such file.
            Invalid: it is not one that `write` wrote; names what it is.
        """
        if not Path(path).is_file():
            raise NotFound(f"no such file: {path}")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                manifest = _read_manifest(arrays)
                architecture = Architecture.from_manifest(manifest["architecture"])
                stored = {name: arrays[name] for name in arrays.files if name != "manifest"}
            task = task_from_json(dict(manifest["task"]))
            ticket, training = str(manifest["ticket"]), manifest["training"]
        except (ValueError, TypeError, KeyError, AttributeError, OSError, zipfile.BadZipFile) as error:
            expected = "a file that `nirvana train --out` wrote"
            raise Invalid(f"{path}: found no trained weights ({error!r}), expected {expected}") from error
        values = {name: array for name, array in stored.items() if not name.startswith("mask/")}
        masks = {name[5:]: array for name, array in stored.items() if name.startswith("mask/")}
        _check(str(path), architecture, values, masks)
        kept = {name: mask.astype(bool) for name, mask in masks.items()}
        return cls(ticket, architecture, values, kept, task, training)


def with_statistics(architecture: Architecture, values: Mapping[str, NDArray[np.float32]]) -> Values:
    """Return values with the running statistics that they lack: means 0 and variances 1, as at the start."""
    fresh = {
        name: np.full(shape, name.endswith("running_var"), np.float32)
        for name, shape in architecture.buffers.items()
    }
    return fresh | dict(values)


def write_npz(arrays: Mapping[str, NDArray[Any]], *, compress: bool = True) -> bytes:
    """Return an .npz file with a fixed date in it: the same bytes for the same arrays."""
    stream = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), method)
    return stream.getvalue()


def json_array(value: object) -> NDArray[np.uint8]:
    """Return a JSON-able object as UTF-8 bytes, the same for equal objects."""
    return np.frombuffer(json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), np.uint8)


def _read_manifest(arrays: Any) -> dict[str, Any]:
    """Read the manifest in an .npz. Raises: ValueError: there is none, or it is of another format."""
    if not hasattr(arrays, "files") or "manifest" not in arrays.files:
        raise ValueError("no manifest in it")
    manifest = json.loads(arrays["manifest"].tobytes())
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        form = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise ValueError(f"its format is {form!r}, not {FORMAT!r}")
    return manifest


def _check(
    path: str, architecture: Architecture, values: Mapping[str, Any], masks: Mapping[str, Any]
) -> None:
    """Refuse arrays that do not fit the architecture.

    Raises:
        Invalid: names the array, what was found and what was expected.
    """
    expected = architecture.parameters | architecture.buffers
    for name in sorted(expected.keys() ^ values.keys() | masks.keys() - expected.keys()):
        what = "is missing" if name in expected else "belongs to no parameter"
        raise Invalid(f"{path}: the array {name} {what}")
    for name, array in [*values.items(), *masks.items()]:
        kind = np.float32 if array is values[name] else np.uint8
        if array.shape != expected[name] or array.dtype != kind:
            raise Invalid(
                f"{path}: {name} is {array.dtype} of shape {list(array.shape)}, expected "
                f"{np.dtype(kind)} of shape {list(expected[name])}"
            )
        if not np.isfinite(array).all():
            raise Invalid(f"{path}: {name} has values that are not finite")
