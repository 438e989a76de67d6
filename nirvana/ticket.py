"""Ticket: architecture + mask + initial values + recipe + task. Read, write, digest (TICKET_FORMAT)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from nirvana import initial as initial_values
from nirvana import masks as masks_
from nirvana.architecture import MAX_PARAMETERS, Architecture
from nirvana.container import write_container
from nirvana.errors import missing_lab
from nirvana.files import write_atomically
from nirvana.initial import Values
from nirvana.manifest import FORMAT, stored_names
from nirvana.masks import Mask

if TYPE_CHECKING:
    import torch

MEDIA_TYPE = "application/vnd.nirvana.ticket"


@dataclass(frozen=True)
class Limits:
    """What a reader takes at most: a file's bytes and an architecture's parameters."""

    max_bytes: int = 512 * 2**20
    max_parameters: int = MAX_PARAMETERS


@dataclass(frozen=True)
class Initial:
    """Where training starts.

    Attributes:
        kind: `seeded` (all follows from the seed) or `stored` (the values lie in the file).
        laws: parameter -> law of its step-0 values.
        sha256: name -> hex digest of the full tensor with pruned elements set to +0.
        seed: 0 to 2^64 - 1; for stored values the seed that training started from, if known.
        rewind_step: optimiser updates before these values were taken; 0 = initialisation.
        stored: name -> float32, the whole tensor flattened or only its kept elements.
    """

    kind: str
    laws: Mapping[str, str]
    sha256: Mapping[str, str]
    seed: int | None = None
    rewind_step: int = 0
    stored: Mapping[str, Values] = field(default_factory=dict)

    def to_manifest(self) -> dict[str, Any]:
        """The manifest's object (TICKET_FORMAT section 2)."""
        fields = {
            "kind": self.kind,
            "laws": dict(self.laws),
            "rewind_step": self.rewind_step,
            "sha256": dict(self.sha256),
        }
        if self.seed is not None:
            fields |= {"scheme": initial_values.SCHEME, "seed": str(self.seed)}
        return fields


@dataclass(frozen=True)
class Ticket:
    """A sparse network that is ready to train.

    Attributes:
        architecture: the graph.
        prunable: parameters that a mask may cover, in the architecture's order.
        masks: parameter -> boolean array of its shape, True = kept; kept whole where absent.
        start: where the values that training starts from come from; `initial` has the values.
        task: the task's name.
        recipe: JSON-able; `Recipe.from_dict` reads it.
        provenance: method, level, parent digest, tool: free fields.
        claims: {"task", "metric", "value", "replicates"} each: what the submitter says, never a verdict.
    """

    architecture: Architecture
    prunable: tuple[str, ...]
    masks: Mapping[str, Mask]
    start: Initial
    task: str
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    claims: tuple[Mapping[str, Any], ...] = ()
    license: str = "CC-BY-4.0"
    authors: tuple[str, ...] = ()
    description: str | None = None

    @classmethod
    def create(
        cls,
        architecture: Architecture,
        masks: Mapping[str, Mask],
        *,
        task: str,
        recipe: Mapping[str, Any],
        laws: Mapping[str, str],
        seed: int | None = None,
        stored: Mapping[str, NDArray[np.floating[Any]]] | None = None,
        rewind_step: int = 0,
        prunable: Iterable[str] | None = None,
        **fields: Any,
    ) -> Ticket:
        """A ticket from its parts; digests are computed and everything is checked as a reader would.

        Args:
            masks: one for each prunable parameter that is not kept whole.
            seed: of the initial values; enough where nothing is stored.
            stored: name -> whole tensor of each parameter (and running statistics), for values that do
                not follow from the seed.
            fields: provenance, claims, license, authors, description.

        Raises:
            InvalidTicket: the parts do not make a ticket.
        """
        chosen = architecture.prunable if prunable is None else tuple(prunable)
        whole = {name: np.asarray(mask, bool) for name, mask in masks.items() if not np.all(mask)}
        kind = "seeded" if stored is None else "stored"
        flat = {name: np.ascontiguousarray(v, np.float32).ravel() for name, v in (stored or {}).items()}
        start = Initial(kind, dict(laws), {}, seed, rewind_step, flat)
        draft = cls(architecture, chosen, whole, start, task, dict(recipe), **fields)
        digests = {name: draft._value_sha256(name) for name in draft.value_names}
        start = Initial(kind, dict(laws), digests, seed, rewind_step, flat)
        return cls.from_bytes(
            cls(architecture, chosen, whole, start, task, dict(recipe), **fields).to_bytes()
        )

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, limits: Limits = Limits()) -> Ticket:
        """The ticket in a file's bytes.

        Raises:
            InvalidTicket: it breaks a rule of TICKET_FORMAT; `errors` has a Problem for each.
            TooLarge: more bytes than `limits` allow.
        """
        from nirvana.reader import read_ticket

        return read_ticket(data, limits)

    @classmethod
    def read(cls, path: str | os.PathLike[str], limits: Limits = Limits()) -> Ticket:
        """The ticket in a file.

        Raises:
            NotFound: there is no such file.
            InvalidTicket, TooLarge: as in `from_bytes`.
        """
        from nirvana.reader import read_file

        return cls.from_bytes(read_file(path, limits), limits)

    def to_bytes(self) -> bytes:
        """The file's bytes: the same for the same ticket."""
        encoded = {name: masks_.encode(mask) for name, mask in self.masks.items()}
        tensors: dict[str, NDArray[Any]] = {
            f"mask/{name}": np.frombuffer(frame, np.uint8) for name, (_, frame) in encoded.items()
        }
        tensors |= {f"initial/{name}": values for name, values in self.start.stored.items()}
        manifest = self.manifest({name: encoding for name, (encoding, _) in encoded.items()})
        metadata = {"format": FORMAT, "manifest": rfc8785.dumps(manifest).decode()}
        return write_container(metadata, tensors)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all."""
        write_atomically(Path(path), self.to_bytes())

    def manifest(self, encodings: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The manifest's object; `encodings` says how each mask is written (default: as `to_bytes` would)."""
        if encodings is None:
            encodings = {name: masks_.encode(mask)[0] for name, mask in self.masks.items()}
        fields = {
            "format": FORMAT,
            "architecture": self.architecture.to_manifest(),
            "prunable": list(self.prunable),
            "masks": {
                name: {
                    "kept": int(np.count_nonzero(mask)),
                    "encoding": encodings[name],
                    "sha256": masks_.mask_sha256(mask),
                }
                for name, mask in self.masks.items()
            },
            "initial": self.start.to_manifest(),
            "task": self.task,
            "recipe": dict(self.recipe),
            "provenance": dict(self.provenance),
            "claims": [dict(claim) for claim in self.claims],
            "license": self.license,
            "authors": list(self.authors),
        }
        return fields if self.description is None else fields | {"description": self.description}

    @cached_property
    def digest(self) -> str:
        """Identity (TICKET_FORMAT section 5), `sha256:<hex>`."""
        architecture = self.architecture.to_manifest()
        del architecture["name"]
        identity: dict[str, Any] = {
            "architecture": architecture,
            "prunable": list(self.prunable),
            "masks": {name: masks_.mask_sha256(mask) for name, mask in self.masks.items()},
            "initial": dict(self.start.sha256),
            "rewind_step": self.start.rewind_step,
        }
        return "sha256:" + hashlib.sha256(rfc8785.dumps(identity)).hexdigest()

    @property
    def prunable_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self.architecture.parameters[name] for name in self.prunable}

    @property
    def total(self) -> int:
        """Prunable weights in all."""
        return sum(math.prod(shape) for shape in self.prunable_shapes.values())

    @cached_property
    def kept(self) -> int:
        """Prunable weights kept."""
        return masks_.kept_count(self.masks, self.prunable_shapes)

    @property
    def density(self) -> float:
        return self.kept / self.total

    @property
    def sparsity(self) -> float:
        return 1 - self.density

    @property
    def compression(self) -> float:
        return self.total / self.kept

    def layers(self) -> list[dict[str, Any]]:
        """Each prunable parameter's name, shape, kept, total and density."""
        return [
            {
                "name": name,
                "shape": list(shape),
                "kept": (kept := masks_.kept_count(self.masks, {name: shape})),
                "total": math.prod(shape),
                "density": kept / math.prod(shape),
            }
            for name, shape in self.prunable_shapes.items()
        ]

    def mask(self, name: str) -> Mask:
        """A parameter's mask, all True where it is kept whole."""
        return self.masks[name] if name in self.masks else np.ones(self._shape(name), bool)

    def flops(self) -> int:
        """Theoretical forward FLOPs of one example with the kept weights alone."""
        return self.architecture.flops({layer["name"]: layer["kept"] for layer in self.layers()})

    @property
    def value_names(self) -> list[str]:
        """Names that have initial values: the parameters and, after step 0, running statistics."""
        return stored_names({"rewind_step": self.start.rewind_step}, self.architecture)

    @cached_property
    def initial(self) -> Mapping[str, Values]:
        """The initial values to look at: name -> float32 of the parameter's shape, pruned elements 0; read
        only."""
        values = self.initial_values()
        for array in values.values():
            array.flags.writeable = False
        return MappingProxyType(values)

    def initial_values(self) -> dict[str, Values]:
        """The initial values to train from: fresh arrays at each call."""
        return {name: self._values(name) for name in self.value_names}

    def dense_initial_values(self) -> dict[str, Values] | None:
        """The same before any mask, for the dense arm; None where a stored ticket keeps survivors only."""
        if self.start.kind == "seeded":
            seed = self.start.seed
            assert seed is not None
            return initial_values.draw_all(self.architecture, self.start.laws, seed)
        if not self.stores_whole_tensors:
            return None
        return {name: values.reshape(self._shape(name)) for name, values in self.start.stored.items()}

    @property
    def stores_whole_tensors(self) -> bool:
        """Whether every initial value, pruned or not, is known."""
        stored = self.start.stored
        return self.start.kind == "seeded" or all(
            values.size == math.prod(self._shape(name)) for name, values in stored.items()
        )

    def to_torch(self) -> torch.nn.Module:
        """An nn.Module, rewound and masked; its masks survive every optimiser step.

        Raises:
            Unavailable: torch is not installed; names the extra that brings it.
        """
        try:
            from nirvana.lab import to_torch
        except ModuleNotFoundError as error:
            raise missing_lab(error) from None
        return to_torch(self)

    def _shape(self, name: str) -> tuple[int, ...]:
        parameters = self.architecture.parameters
        return parameters[name] if name in parameters else self.architecture.buffers[name]

    def _values(self, name: str) -> Values:
        mask = self.masks.get(name)
        if self.start.kind == "stored":
            return _spread(self.start.stored[name], mask, self._shape(name))
        tensor = list(self.architecture.parameters).index(name)
        assert self.start.seed is not None
        law, shape, seed = self.start.laws[name], self._shape(name), self.start.seed
        if mask is None:
            return initial_values.draw(law, shape, seed, tensor)
        values = np.zeros(mask.size, np.float32)
        kept = np.flatnonzero(mask)
        values[kept] = initial_values.draw(law, shape, seed, tensor, index=kept)
        return values.reshape(shape)

    def _value_sha256(self, name: str) -> str:
        return initial_values.value_sha256(self._values(name))


def _spread(stored: Values, mask: Mask | None, shape: tuple[int, ...]) -> Values:
    """The full tensor, pruned elements +0, of stored values that are whole or of kept elements only."""
    if mask is None:
        return stored.reshape(shape).copy()
    values = np.zeros(mask.size, np.float32)
    kept = mask.ravel()
    values[kept] = stored[kept] if stored.size == mask.size else stored
    return values.reshape(shape)
