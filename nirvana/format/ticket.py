"""Ticket: architecture + mask + initial values + recipe + task. Read, write, digest (docs/format.md)."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import rfc8785
from numpy.typing import NDArray

from nirvana import lazy
from nirvana.errors import JsonObject
from nirvana.files import write_atomically
from nirvana.format.container import Array, write_container
from nirvana.format.initial import SCHEME, Initial, Values, value_sha256, value_shape
from nirvana.format.manifest import FORMAT
from nirvana.format.masks import Mask, encode, kept_count, mask_sha256
from nirvana.format.reader import DEFAULT_LIMITS, Limits, read_file, read_parts
from nirvana.format.torch_draws import drawing_layers
from nirvana.networks.architecture import Architecture

if TYPE_CHECKING:
    import torch

Fields = Mapping[str, Any]  # a free object of the manifest

MEDIA_TYPE = "application/vnd.nirvana.ticket"


class Notes(TypedDict, total=False):
    """The optional fields of a ticket, which do not change what is trained."""

    provenance: Fields
    claims: tuple[Fields, ...]
    license: str
    authors: tuple[str, ...]
    description: str | None


@dataclass(frozen=True)
class Ticket:
    """A sparse network that is ready to train.

    Attributes:
        architecture: the graph.
        prunable: parameters that a mask may cover, in the architecture's order.
        masks: parameter -> boolean array of its shape, True = kept; kept whole where absent.
        start: the source of the values that training starts from; `initial` has the values.
        task: the task's name.
        recipe: JSON-able; `Recipe.from_dict` reads it.
        provenance: method, level, parent digest, tool: free fields.
        claims: {"task", "metric", "value", "replicates"} each: the submitter's word, never a verdict.
    """

    architecture: Architecture
    prunable: tuple[str, ...]
    masks: Mapping[str, Mask]
    start: Initial
    task: str
    recipe: Fields
    provenance: Fields = field(default_factory=dict)
    claims: tuple[Fields, ...] = ()
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
        recipe: Fields,
        laws: Mapping[str, str],
        seed: int | None = None,
        scheme: str = SCHEME,
        order: Sequence[str] = (),
        stored: Mapping[str, Array] | None = None,
        rewind_step: int = 0,
        prunable: Iterable[str] | None = None,
        **notes: Unpack[Notes],
    ) -> Ticket:
        """Make a ticket of its parts; digests are computed and everything is checked as a reader would.

        Args:
            masks: one for each prunable parameter that is not kept whole.
            seed: of the initial values; enough where nothing is stored.
            scheme: how values follow from the seed.
            order: (torch-cpu/1) layers that draw, in the order of construction; (): the architecture's.
            stored: name -> whole tensor of each parameter (and running statistics), for values that do
                not follow from the seed.
            notes: provenance, claims, license, authors, description.

        Raises:
            InvalidTicket: the parts do not make a ticket.
        """
        chosen = architecture.prunable if prunable is None else tuple(prunable)
        whole = {name: np.asarray(mask, bool) for name, mask in masks.items() if not np.all(mask)}
        kind = "seeded" if stored is None else "stored"
        flat = {name: np.ascontiguousarray(v, np.float32).ravel() for name, v in (stored or {}).items()}
        layers = () if tuple(order) == drawing_layers(architecture) else tuple(order)
        draft = Initial(kind, dict(laws), {}, seed, rewind_step, flat, scheme, layers)
        digests = {name: value_sha256(values) for name, values in draft.values(architecture, whole)}
        start = replace(draft, sha256=digests)
        return cls.from_bytes(cls(architecture, chosen, whole, start, task, dict(recipe), **notes).to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, limits: Limits = DEFAULT_LIMITS) -> Ticket:
        """Read the ticket in a file's bytes.

        Raises:
            InvalidTicket: it breaks a rule of docs/format.md; `errors` has a Problem for each.
            TooLarge: more bytes than `limits` allow.
        """
        parts = read_parts(data, limits)
        manifest = parts.manifest
        ticket = cls(
            parts.architecture,
            tuple(manifest["prunable"]),
            parts.masks,
            parts.start,
            manifest["task"],
            manifest["recipe"],
            manifest.get("provenance", {}),
            tuple(manifest.get("claims", ())),
            manifest.get("license", ""),
            tuple(manifest.get("authors", ())),
            manifest.get("description"),
        )
        if parts.values:
            vars(ticket)["initial"] = ticket._read_only(parts.values)
        return ticket

    @classmethod
    def read(cls, path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> Ticket:
        """Read the ticket in a file.

        Raises:
            NotFound: there is no such file.
            InvalidTicket, TooLarge: as in `from_bytes`.
        """
        return cls.from_bytes(read_file(path, limits), limits)

    def to_bytes(self) -> bytes:
        """Return the file's bytes: the same for the same ticket."""
        encoded = {name: encode(mask) for name, mask in self.masks.items()}
        tensors: dict[str, Array] = {
            f"mask/{name}": np.frombuffer(frame, np.uint8) for name, (_, frame) in encoded.items()
        }
        tensors |= {f"initial/{name}": values for name, values in self.start.stored.items()}
        manifest = self.manifest({name: encoding for name, (encoding, _) in encoded.items()})
        metadata = {"format": FORMAT, "manifest": rfc8785.dumps(manifest).decode()}
        return write_container(metadata, tensors)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file whole or not at all."""
        write_atomically(Path(path), self.to_bytes())

    def manifest(self, encodings: Mapping[str, str] | None = None) -> JsonObject:
        """Return the manifest's object.

        Args:
            encodings: of each mask; None: as `to_bytes` would write it.
        """
        if encodings is None:
            encodings = {name: encode(mask)[0] for name, mask in self.masks.items()}
        fields: JsonObject = {
            "format": FORMAT,
            "architecture": self.architecture.to_manifest(),
            "prunable": list(self.prunable),
            "masks": {
                name: {
                    "kept": int(np.count_nonzero(mask)),
                    "encoding": encodings[name],
                    "sha256": mask_sha256(mask),
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
        """The ticket's identity (docs/format.md, section 5), `sha256:<hex>`."""
        architecture = self.architecture.to_manifest()
        del architecture["name"]
        identity: JsonObject = {
            "architecture": architecture,
            "prunable": list(self.prunable),
            "masks": {name: mask_sha256(mask) for name, mask in self.masks.items()},
            "initial": dict(self.start.sha256),
            "rewind_step": self.start.rewind_step,
        }
        return "sha256:" + hashlib.sha256(rfc8785.dumps(identity)).hexdigest()

    @property
    def prunable_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: self.architecture.parameters[name] for name in self.prunable}

    @cached_property
    def total(self) -> int:
        """Weights of the whole network, prunable or not."""
        return sum(math.prod(shape) for shape in self.architecture.weights.values())

    @cached_property
    def kept(self) -> int:
        """Weights of the whole network that are kept."""
        return kept_count(self.masks, self.architecture.weights)

    @property
    def density(self) -> float:
        """Kept / total weights of the whole network, whatever `prunable` names; 1 where it has none."""
        return self.kept / self.total if self.total else 1.0

    @property
    def kept_parameters(self) -> int:
        """Parameters that are kept, biases and normalisations among them."""
        return kept_count(self.masks, self.architecture.parameters)

    @cached_property
    def prunable_total(self) -> int:
        """Weights that a mask may cover."""
        return sum(math.prod(shape) for shape in self.prunable_shapes.values())

    @cached_property
    def prunable_kept(self) -> int:
        """Those of them that are kept: what a search counts, and a control with as many weights."""
        return kept_count(self.masks, self.prunable_shapes)

    @property
    def sparsity(self) -> float:
        return 1 - self.density

    @property
    def compression(self) -> float:
        return self.total / self.kept if self.kept else 1.0

    def layers(self) -> list[JsonObject]:
        """List each weight's and prunable parameter's name, shape, kept, total and density."""
        listed = {*self.architecture.weights, *self.prunable}
        return [
            {
                "name": name,
                "shape": list(shape),
                "kept": (kept := kept_count(self.masks, {name: shape})),
                "total": math.prod(shape),
                "density": kept / math.prod(shape),
            }
            for name, shape in self.architecture.parameters.items()
            if name in listed
        ]

    def mask(self, name: str) -> Mask:
        """Return a parameter's mask, all True where it is kept whole."""
        return self.masks[name] if name in self.masks else np.ones(self.architecture.parameters[name], bool)

    def flops(self) -> int:
        """Count theoretical forward FLOPs of one example with the kept weights alone."""
        return self.architecture.flops({layer["name"]: layer["kept"] for layer in self.layers()})

    @property
    def value_names(self) -> list[str]:
        """Names that have initial values: the parameters and, after step 0, running statistics."""
        return self.start.names(self.architecture)

    @cached_property
    def initial(self) -> Mapping[str, Values]:
        """The initial values to look at: name -> float32 of the parameter's shape, pruned elements 0; read
        only."""
        return self._read_only(dict(self.start.values(self.architecture, self.masks)))

    def _read_only(self, values: Mapping[str, Values]) -> Mapping[str, Values]:
        for array in values.values():
            array.flags.writeable = False
        return MappingProxyType({name: values[name] for name in self.value_names})

    def initial_values(self) -> dict[str, Values]:
        """Return the initial values to train from: fresh arrays at each call."""
        values = dict(self.start.values(self.architecture, self.masks))
        return {name: values[name] for name in self.value_names}

    def dense_initial_values(self) -> dict[str, Values] | None:
        """Return the same before any mask, for the dense arm; None where only survivors are stored."""
        if self.start.kind == "seeded":
            return self.values_of_seed()
        if not self.stores_whole_tensors:
            return None
        stored = self.start.stored.items()
        return {name: values.reshape(value_shape(self.architecture, name)) for name, values in stored}

    def values_of_seed(self) -> dict[str, Values]:
        """Return every parameter's whole tensor at step 0, drawn by the ticket's scheme from the seed that it
        names."""
        drawn = dict(self.start.drawn(self.architecture))
        return {name: drawn[name] for name in self.architecture.parameters}

    @cached_property
    def is_redrawable(self) -> bool:
        """True where anybody can draw the initial values from a seed: seeded ones, and stored ones at step 0
        that equal the draw bit by bit, those of pruned elements too where they are stored."""
        start = self.start
        if start.kind == "seeded" or start.rewind_step or start.seed is None:
            return start.kind == "seeded"
        return all(
            np.array_equal(_bits(start.stored[name]), _bits(self._as_stored(name, drawn)))
            for name, drawn in start.drawn(self.architecture)
        )

    def _as_stored(self, name: str, drawn: Values) -> Values:
        """Return of a whole tensor the elements that the ticket stores: all, or the kept ones."""
        is_whole = self.start.stored[name].size == drawn.size
        return drawn if is_whole else drawn[self.masks[name]]

    @property
    def stores_whole_tensors(self) -> bool:
        """True where every initial value, pruned or not, is known."""
        stored = self.start.stored
        return self.start.kind == "seeded" or all(
            values.size == math.prod(value_shape(self.architecture, name)) for name, values in stored.items()
        )

    def to_torch(self) -> torch.nn.Module:
        """Return an nn.Module, rewound and masked; its masks survive every optimiser step.

        Raises:
            Unavailable: torch is not installed; names the extra that brings it.
        """
        return lazy.to_torch(self)


def _bits(values: Values) -> NDArray[np.uint32]:
    return values.ravel().view(np.uint32)
