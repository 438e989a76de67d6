"""Reading a ticket from untrusted bytes, and linting one: every refusal of TICKET_FORMAT section 6.

The order is: container, manifest, architecture, masks, initial values. A step runs only when the one
before found nothing, so that what is allocated always follows from numbers that were checked.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rfc8785

from nirvana.architecture import Architecture
from nirvana.container import Tensor, parse_json, read_container
from nirvana.errors import (
    Invalid,
    InvalidTicket,
    NirvanaError,
    NotFound,
    Problem,
    TooLarge,
    raise_problems,
)
from nirvana.initial import Values
from nirvana.manifest import FORMAT, check_manifest, stored_names
from nirvana.masks import Mask, decode, mask_sha256
from nirvana.ticket import Initial, Limits, Ticket


@dataclass(frozen=True)
class LintReport:
    """What a reader finds in a file: its identity when it is a ticket, every problem when it is not."""

    ok: bool
    digest: str | None = None
    density: float | None = None
    kept: int | None = None
    total: int | None = None
    warnings: tuple[str, ...] = ()
    errors: tuple[Problem, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        members = asdict(self)
        return members | {"warnings": list(self.warnings), "errors": list(members["errors"])}


def lint(source: bytes | str | os.PathLike[str], limits: Limits = Limits()) -> LintReport:  # noqa: B008
    """Check a file or its bytes as a reader does, without raising for what is wrong inside.

    Raises:
        NotFound: there is no such file.
    """
    data = source if isinstance(source, bytes) else read_file(source, limits)
    try:
        ticket = read_ticket(data, limits)
    except (InvalidTicket, TooLarge) as error:
        return LintReport(False, errors=error.errors or (Problem("", error.code, error.detail),))
    return LintReport(
        True, ticket.digest, ticket.density, ticket.kept, ticket.total, tuple(find_warnings(ticket))
    )


def find_warnings(ticket: Ticket) -> Iterator[str]:
    """What is odd about a valid ticket."""
    if not ticket.stores_whole_tensors and ticket.start.rewind_step == 0:
        yield "the initial values of pruned weights are not stored: a verdict can be MATCHING at best"
    if not ticket.masks:
        yield "nothing is pruned: this is the dense network"


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
    """A file's bytes, if it is there and not over the limit.

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


def read_ticket(data: bytes | memoryview, limits: Limits) -> Ticket:
    """The ticket in these bytes.

    Raises:
        InvalidTicket: with a Problem for each thing that is wrong.
        TooLarge: over the byte cap.
    """
    check_size(len(data), limits)
    try:
        metadata, tensors = read_container(data)
        manifest = _parse_manifest(metadata)
    except InvalidTicket as error:
        raise InvalidTicket(error.detail, errors=[Problem("", _code(error), error.detail)]) from None
    architecture, problems = check_manifest(manifest, limits.max_parameters)
    _refuse(problems)
    assert architecture is not None
    _refuse(_tensor_problems(manifest, tensors, architecture))
    masks = _read_masks(manifest, tensors, architecture)
    ticket = _assemble(manifest, architecture, masks, _read_stored(tensors))
    _refuse(_digest_problems(ticket))
    return ticket


def _code(error: NirvanaError) -> str:
    return str(error.extra.get("problem", "container"))


def _refuse(problems: Iterator[Problem] | list[Problem]) -> None:
    raise_problems(InvalidTicket, "not a valid ticket", list(problems))


def _parse_manifest(metadata: Mapping[str, str]) -> Any:
    if set(metadata) != {"format", "manifest"}:
        found = ", ".join(sorted(metadata))[:200] or "nothing"
        raise InvalidTicket(f"__metadata__ has {found}, expected exactly format and manifest")
    if metadata["format"] != FORMAT:
        found = metadata["format"][:100]
        raise InvalidTicket(f"the format is {found!r}, expected {FORMAT!r}", problem="format-version")
    try:
        text = metadata["manifest"].encode()
        manifest = parse_json(text, "the manifest")
        canonical = rfc8785.dumps(manifest)
    except (UnicodeError, RecursionError, rfc8785.CanonicalizationError) as error:
        raise InvalidTicket(f"the manifest has no canonical form: {str(error)[:200]}") from None
    if canonical != text:
        place = next((i for i, (a, b) in enumerate(zip(canonical, text, strict=False)) if a != b), 0)
        found = text[place : place + 40].decode(errors="replace")
        detail = f"the manifest is not canonical JSON (RFC 8785) from byte {place}: found {found!r}"
        raise InvalidTicket(detail, problem="not-canonical")
    return manifest


def _tensor_problems(
    manifest: dict[str, Any], tensors: Mapping[str, Tensor], architecture: Architecture
) -> Iterator[Problem]:
    """Tensors that are missing, unexpected, or of the wrong dtype or number of dimensions."""
    expected = {f"mask/{name}": "U8" for name in manifest["masks"]}
    if manifest["initial"]["kind"] == "stored":
        names = stored_names(manifest["initial"], architecture)
        expected |= {f"initial/{name}": "F32" for name in names}
    for name in expected.keys() - tensors.keys():
        yield Problem(f"/{name}", "tensor-missing", f"the file has no tensor {name}")
    for name in tensors.keys() - expected.keys():
        yield Problem(f"/{name[:200]}", "tensor-unexpected", f"the file has a tensor {name[:200]!r} too many")
    for name in expected.keys() & tensors.keys():
        found = tensors[name]
        if found.dtype != expected[name] or len(found.shape) != 1:
            detail = f"{name} is {found.dtype} {list(found.shape)}, expected {expected[name]}, one dimension"
            yield Problem(f"/{name}", "tensor-type", detail)
        elif name.startswith("initial/"):
            yield from _length_problems(name.removeprefix("initial/"), found.shape[0], manifest, architecture)


def _length_problems(
    name: str, length: int, manifest: dict[str, Any], architecture: Architecture
) -> Iterator[Problem]:
    shape = architecture.parameters.get(name) or architecture.buffers[name]
    allowed = [math.prod(shape)]
    if name in manifest["masks"]:
        allowed.append(manifest["masks"][name]["kept"])
    if length not in allowed:
        detail = f"{length} values of {name}, expected {' or '.join(map(str, allowed))}"
        yield Problem(f"/initial/{name}", "initial-length", detail)


def _read_masks(
    manifest: dict[str, Any], tensors: Mapping[str, Tensor], architecture: Architecture
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
        if (found := mask_sha256(mask)) != entry["sha256"]:
            detail = f"the mask of {name} has sha256 {found}, the manifest says {entry['sha256']}"
            problems.append(Problem(f"/masks/{name}/sha256", "mask-digest", detail))
        elif not mask.all():
            masks[name] = mask
    _refuse(problems)
    return masks


def _read_stored(tensors: Mapping[str, Tensor]) -> dict[str, Values]:
    return {
        name.removeprefix("initial/"): np.frombuffer(tensor.body, "<f4").astype(np.float32)
        for name, tensor in tensors.items()
        if name.startswith("initial/")
    }


def _assemble(
    manifest: dict[str, Any],
    architecture: Architecture,
    masks: dict[str, Mask],
    stored: dict[str, Values],
) -> Ticket:
    fields = manifest["initial"]
    seed = int(fields["seed"]) if "seed" in fields else None
    start = Initial(fields["kind"], fields["laws"], fields["sha256"], seed, fields["rewind_step"], stored)
    return Ticket(
        architecture,
        tuple(manifest["prunable"]),
        masks,
        start,
        manifest["task"],
        manifest["recipe"],
        manifest.get("provenance", {}),
        tuple(manifest.get("claims", ())),
        manifest.get("license", ""),
        tuple(manifest.get("authors", ())),
        manifest.get("description"),
    )


def _digest_problems(ticket: Ticket) -> Iterator[Problem]:
    for name in ticket.value_names:
        stored = ticket.start.stored.get(name)
        if stored is not None and not np.isfinite(stored).all():
            place = int(np.flatnonzero(~np.isfinite(stored))[0])
            detail = f"value {place} of {name} is {stored[place]}, expected finite values"
            yield Problem(f"/initial/{name}", "not-finite", detail)
            continue
        found, expected = ticket._value_sha256(name), ticket.start.sha256[name]
        if found != expected:
            source = "stored" if stored is not None else "drawn from the seed"
            detail = f"the values of {name} {source} have sha256 {found}, the manifest says {expected}"
            yield Problem(f"/initial/sha256/{name}", "initial-digest", detail)
