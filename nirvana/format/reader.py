"""The reader of untrusted bytes: every refusal of docs/format.md, section 6.

The order is: container, manifest, architecture, masks, initial values. A step runs only when the one
before found nothing, so that what is allocated always follows from numbers that were checked.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import rfc8785

from nirvana.errors import Invalid, InvalidTicket, JsonObject, NirvanaError, NotFound, Problem, TooLarge
from nirvana.format.container import Tensor, parse_json, read_container
from nirvana.format.initial import SCHEME, Initial, Values, value_names, value_sha256, value_shape
from nirvana.format.manifest import FORMAT, InitialFields, Manifest, check_manifest, refuse
from nirvana.format.masks import Mask, decode, mask_sha256
from nirvana.networks.architecture import MAX_PARAMETERS, Architecture

MOST_KEPT_VALUES = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The most that a reader takes: a file's bytes and an architecture's parameters."""

    max_bytes: int = 512 * 2**20
    max_parameters: int = MAX_PARAMETERS


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Parts:
    """The content of a valid ticket file.

    Attributes:
        masks: without those that keep every element.
        values: name -> the initial values that were checked, pruned elements +0, so that nobody need draw
            them again; empty where they are many.
    """

    manifest: Manifest
    architecture: Architecture
    masks: dict[str, Mask]
    start: Initial
    values: dict[str, Values] = field(default_factory=dict)


def check_size(size: int, limits: Limits) -> None:
    """Refuse a file over the cap before it is read.

    Raises:
        TooLarge: naming both numbers.
    """
    if size > limits.max_bytes:
        raise TooLarge(
            f"the file has {size} bytes, expected at most {limits.max_bytes}", limit=limits.max_bytes
        )


def read_file(path: str | os.PathLike[str], limits: Limits) -> bytes:
    """Return a file's bytes, if it is there and not over the limit.

    Raises:
        NotFound, Invalid, TooLarge: which file, what was found, what was expected.
    """
    try:
        check_size(os.path.getsize(path), limits)
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise NotFound(f"there is no file {os.fspath(path)}") from None
    except OSError as error:
        raise Invalid(f"{os.fspath(path)} cannot be read: {error.strerror}") from None


def read_parts(data: bytes | memoryview, limits: Limits) -> Parts:
    """Read the parts of the ticket in these bytes.

    Raises:
        InvalidTicket: with a Problem for each thing that is wrong.
        TooLarge: over the byte cap.
    """
    check_size(len(data), limits)
    try:
        metadata, tensors = read_container(data)
        content = _parse_manifest(metadata)
    except InvalidTicket as error:
        raise InvalidTicket(error.detail, errors=[Problem("", _code(error), error.detail)]) from None
    manifest, architecture = check_manifest(content, limits.max_parameters)
    refuse(_tensor_problems(manifest, tensors, architecture))
    masks = _read_masks(manifest, tensors, architecture)
    parts = Parts(manifest, architecture, masks, _read_start(manifest["initial"], tensors))
    refuse(_digest_problems(parts))
    return parts


def _code(error: NirvanaError) -> str:
    return str(error.extra.get("problem", "container"))


def _parse_manifest(metadata: Mapping[str, str]) -> object:
    if set(metadata) != {"format", "manifest"}:
        names = ", ".join(sorted(metadata))[:200] or "nothing"
        raise InvalidTicket(f"__metadata__ has {names}, expected exactly format and manifest")
    if metadata["format"] != FORMAT:
        version = metadata["format"][:100]
        raise InvalidTicket(f"the format is {version!r}, expected {FORMAT!r}", problem="format-version")
    try:
        text = metadata["manifest"].encode()
        manifest = parse_json(text, "the manifest")
        canonical = rfc8785.dumps(cast("JsonObject", manifest))
    except (UnicodeError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise InvalidTicket(f"the manifest has no canonical form: {str(error)[:200]}") from None
    if canonical != text:
        place = next((i for i, (a, b) in enumerate(zip(canonical, text, strict=False)) if a != b), 0)
        piece = text[place : place + 40].decode(errors="replace")
        detail = f"the manifest is not canonical JSON (RFC 8785) from byte {place}: found {piece!r}"
        raise InvalidTicket(detail, problem="not-canonical")
    return manifest


def _tensor_problems(
    manifest: Manifest, tensors: Mapping[str, Tensor], architecture: Architecture
) -> Iterator[Problem]:
    """Find tensors that are missing, unexpected, or of the wrong dtype, dimensions or length."""
    initial = manifest["initial"]
    expected = {f"mask/{name}": "U8" for name in manifest["masks"]}
    if initial["kind"] == "stored":
        names = value_names(architecture, initial["rewind_step"])
        expected |= {f"initial/{name}": "F32" for name in names}
    for name in expected.keys() - tensors.keys():
        yield Problem(f"/{name}", "tensor-missing", f"the file has no tensor {name}")
    for name in tensors.keys() - expected.keys():
        yield Problem(f"/{name[:200]}", "tensor-unexpected", f"the file has a tensor {name[:200]!r} too many")
    for name in expected.keys() & tensors.keys():
        tensor = tensors[name]
        if tensor.dtype != expected[name] or len(tensor.shape) != 1:
            detail = (
                f"{name} is {tensor.dtype} {list(tensor.shape)}, expected {expected[name]}, one dimension"
            )
            yield Problem(f"/{name}", "tensor-type", detail)
        elif name.startswith("initial/"):
            parameter, length = name.removeprefix("initial/"), tensor.shape[0]
            yield from _length_problems(parameter, length, manifest, architecture)


def _length_problems(
    name: str, length: int, manifest: Manifest, architecture: Architecture
) -> Iterator[Problem]:
    allowed = [math.prod(value_shape(architecture, name))]
    if name in manifest["masks"]:
        allowed.append(manifest["masks"][name]["kept"])
    if length not in allowed:
        detail = f"{length} values of {name}, expected {' or '.join(map(str, allowed))}"
        yield Problem(f"/initial/{name}", "initial-length", detail)


def _read_masks(
    manifest: Manifest, tensors: Mapping[str, Tensor], architecture: Architecture
) -> dict[str, Mask]:
    masks, problems = {}, []
    for name, entry in manifest["masks"].items():
        frame = bytes(tensors[f"mask/{name}"].body)
        try:
            mask = decode(entry["encoding"], frame, architecture.parameters[name], entry["kept"])
        except InvalidTicket as error:
            code = "mask-popcount" if "keeps" in error.detail else "mask-encoding"
            problems.append(Problem(f"/masks/{name}", code, f"{name}: {error.detail}"))
            continue
        if (digest := mask_sha256(mask)) != entry["sha256"]:
            detail = f"the mask of {name} has sha256 {digest}, the manifest says {entry['sha256']}"
            problems.append(Problem(f"/masks/{name}/sha256", "mask-digest", detail))
        elif not mask.all():
            masks[name] = mask
    refuse(problems)
    return masks


def _read_start(fields: InitialFields, tensors: Mapping[str, Tensor]) -> Initial:
    stored: dict[str, Values] = {
        name.removeprefix("initial/"): np.frombuffer(tensor.body, "<f4").astype(np.float32)
        for name, tensor in tensors.items()
        if name.startswith("initial/")
    }
    return Initial(
        fields["kind"],
        fields["laws"],
        fields["sha256"],
        int(fields["seed"]) if "seed" in fields else None,
        fields["rewind_step"],
        stored,
        fields.get("scheme", SCHEME),
        tuple(fields.get("order", ())),
    )


def _digest_problems(parts: Parts) -> Iterator[Problem]:
    """Find values that are not finite, or not those of their digest."""
    start = parts.start
    for name, values in start.values(parts.architecture, parts.masks):
        stored = start.stored.get(name)
        if stored is not None and not np.isfinite(stored).all():
            place = int(np.flatnonzero(~np.isfinite(stored))[0])
            detail = f"value {place} of {name} is {stored[place]}, expected finite values"
            yield Problem(f"/initial/{name}", "not-finite", detail)
            continue
        digest = value_sha256(values)
        if parts.architecture.parameter_count <= MOST_KEPT_VALUES:
            parts.values[name] = values
        if digest != start.sha256[name]:
            source = "stored" if stored is not None else f"drawn from the seed by {start.scheme}"
            detail = (
                f"the values of {name} {source} have sha256 {digest}, the manifest says {start.sha256[name]}"
            )
            yield Problem(f"/initial/sha256/{name}", "initial-digest", detail)
