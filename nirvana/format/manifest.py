"""The manifest and its rules, which hold before a tensor is read (docs/format.md, sections 2, 4 and 6).

Every check yields Problems with JSON pointers into the manifest; nothing here allocates by what a file says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import NotRequired, TypedDict, TypeGuard, cast

from nirvana.errors import InvalidArchitecture, InvalidTicket, JsonObject, Problem, raise_problems
from nirvana.format.initial import SCHEMES, allowed_laws, value_names
from nirvana.format.masks import ENCODINGS
from nirvana.format.torch_draws import TORCH_SCHEME, drawing_layers, find_replay_problems, torch_laws
from nirvana.networks.architecture import Architecture

FORMAT = "nirvana.ticket/1"
MAX_DESCRIPTION_BYTES = 64 * 1024
REQUIRED = ("format", "architecture", "prunable", "masks", "initial", "task", "recipe")
OPTIONAL = ("provenance", "claims", "license", "authors", "description")
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,99}")
_SEED = re.compile(r"0|[1-9][0-9]{0,19}")
_HEX = re.compile(r"[0-9a-f]{64}")

Problems = Iterator[Problem]


class MaskFields(TypedDict):
    """The manifest's entry of a mask."""

    kept: int
    encoding: str
    sha256: str


class InitialFields(TypedDict):
    """The manifest's object of initial values; `seed` and `scheme` come together, `order` with `torch-cpu/1`
    alone."""

    kind: str
    laws: dict[str, str]
    rewind_step: int
    sha256: dict[str, str]
    scheme: NotRequired[str]
    seed: NotRequired[str]
    order: NotRequired[list[str]]


class Claim(TypedDict):
    """A value that the submitter states."""

    task: str
    metric: str
    value: float
    replicates: int


class Manifest(TypedDict):
    """A checked manifest."""

    format: str
    architecture: JsonObject
    prunable: list[str]
    masks: dict[str, MaskFields]
    initial: InitialFields
    task: str
    recipe: JsonObject
    provenance: NotRequired[JsonObject]
    claims: NotRequired[list[Claim]]
    license: NotRequired[str]
    authors: NotRequired[list[str]]
    description: NotRequired[str]


def check_manifest(content: object, max_parameters: int) -> tuple[Manifest, Architecture]:
    """Return the manifest and its architecture, once nothing is wrong with the manifest by itself.

    Raises:
        InvalidTicket: with a Problem for each thing that is wrong.
    """
    refuse(_outline(content))
    manifest = cast("Manifest", content)
    try:
        architecture = Architecture.from_manifest(manifest["architecture"], max_parameters=max_parameters)
    except InvalidArchitecture as error:
        refuse(Problem(f"/architecture{p.pointer}", p.code, p.detail) for p in error.errors)
        raise
    refuse(_prunable(manifest["prunable"], architecture))
    refuse(_contents(manifest, architecture))
    return manifest, architecture


def refuse(problems: Iterable[Problem]) -> None:
    """Refuse a ticket with problems.

    Raises:
        InvalidTicket: there is at least one.
    """
    raise_problems(InvalidTicket, "not a valid ticket", list(problems))


def _contents(manifest: Manifest, architecture: Architecture) -> Problems:
    yield from _masks(manifest["masks"], manifest["prunable"], architecture)
    yield from _initial(cast("JsonObject", manifest["initial"]), architecture)


def _exact(fields: object, at: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Problems:
    """Yield problems unless `fields` is an object with these names."""
    if not isinstance(fields, dict):
        yield Problem(at, "type", f"found {type(fields).__name__}, expected an object")
        return
    for name in required:
        if name not in fields:
            yield Problem(f"{at}/{name}", "missing", f"{name} is missing")
    for name in fields:
        if name not in required and name not in optional:
            yield Problem(f"{at}/{name[:100]}", "unknown-field", f"{name[:100]!r} is no field of the format")


def _expect(at: str, value: object, test: bool, expected: str, code: str = "value") -> Problems:
    if not test:
        yield Problem(at, code, f"found {str(value)[:100]!r}, expected {expected}")


def _is_integer(value: object, least: int = 0) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _outline(manifest: object) -> Problems:
    if isinstance(manifest, dict) and manifest.get("format") != FORMAT:
        yield from _expect("/format", manifest.get("format"), False, FORMAT, "format-version")
        return
    yield from _exact(manifest, "", REQUIRED, OPTIONAL)
    if not isinstance(manifest, dict):
        return
    for name, (test, expected) in _SIMPLE.items():
        if name in manifest:
            yield from _expect(f"/{name}", manifest[name], test(manifest[name]), expected)
    if isinstance(manifest.get("claims"), list):
        for position, claim in enumerate(manifest["claims"]):
            yield from _claim(claim, f"/claims/{position}")


def _is_description(value: object) -> bool:
    return isinstance(value, str) and len(value.encode("utf-8", "replace")) <= MAX_DESCRIPTION_BYTES


_SIMPLE: dict[str, tuple[Callable[[object], bool], str]] = {
    "prunable": (lambda v: isinstance(v, list) and all(isinstance(n, str) for n in v), "a list of names"),
    "masks": (lambda v: isinstance(v, dict), "an object"),
    "initial": (lambda v: isinstance(v, dict), "an object"),
    "task": (lambda v: isinstance(v, str) and bool(TASK_NAME.fullmatch(v)), "a task's name"),
    "recipe": (lambda v: isinstance(v, dict), "an object"),
    "provenance": (lambda v: isinstance(v, dict), "an object"),
    "claims": (lambda v: isinstance(v, list) and len(v) <= 1000, "a list of at most 1,000 claims"),
    "license": (lambda v: isinstance(v, str) and len(v) <= 200, "a string of at most 200 characters"),
    "authors": (
        lambda v: isinstance(v, list) and len(v) <= 1000 and all(isinstance(n, str) for n in v),
        "a list of at most 1,000 names",
    ),
    "description": (_is_description, f"a string of at most {MAX_DESCRIPTION_BYTES} bytes"),
}


def _claim(claim: object, at: str) -> Problems:
    yield from _exact(claim, at, ("task", "metric", "value", "replicates"))
    if isinstance(claim, dict):
        value, replicates = claim.get("value", 0), claim.get("replicates", 1)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        yield from _expect(f"{at}/value", value, number, "a finite number")
        yield from _expect(f"{at}/replicates", replicates, _is_integer(replicates, 1), "an integer above 0")
        for name in ("task", "metric"):
            yield from _expect(f"{at}/{name}", claim.get(name), isinstance(claim.get(name), str), "a string")


def _prunable(prunable: list[str], architecture: Architecture) -> Problems:
    order = {name: position for position, name in enumerate(architecture.parameters)}
    for position, name in enumerate(prunable):
        at = f"/prunable/{position}"
        if name not in order:
            yield Problem(at, "unknown-parameter", f"the architecture has no parameter {name[:200]!r}")
        elif len(architecture.parameters[name]) < 2:
            yield Problem(at, "not-prunable", f"{name} is a bias or normalisation, which is never pruned")
    places = [order.get(name, -1) for name in prunable]
    if not prunable or any(one >= other for one, other in pairwise(places)):
        expected = "one or more parameters, each once, in the architecture's order"
        yield from _expect("/prunable", prunable, False, expected, "order")


def _masks(masks: Mapping[str, object], prunable: list[str], architecture: Architecture) -> Problems:
    for name, entry in masks.items():
        at = f"/masks/{name[:200]}"
        if name not in prunable:
            yield Problem(at, "not-prunable", f"a mask for {name[:200]!r}, which is not in prunable")
            continue
        wrong = list(_exact(entry, at, ("kept", "encoding", "sha256")))
        yield from wrong
        if wrong or not isinstance(entry, dict):
            continue
        total = math.prod(architecture.parameters[name])
        kept = entry["kept"]
        in_range = _is_integer(kept) and kept <= total
        yield from _expect(f"{at}/kept", kept, in_range, f"an integer from 1 to {total}", "mask-popcount")
        if kept == 0:
            yield Problem(f"{at}/kept", "layer-collapse", f"{name} keeps no weight: the layer collapsed")
        known = entry["encoding"] in ENCODINGS
        expected = f"one of {', '.join(ENCODINGS)}"
        yield from _expect(f"{at}/encoding", entry["encoding"], known, expected, "unknown-encoding")
        yield from _sha256(f"{at}/sha256", entry["sha256"])


def _sha256(at: str, value: object) -> Problems:
    is_hex = isinstance(value, str) and bool(_HEX.fullmatch(value))
    yield from _expect(at, value, is_hex, "64 hexadecimal digits in lower case")


def _initial(initial: JsonObject, architecture: Architecture) -> Problems:
    at = "/initial"
    seeded = ("scheme", "seed")
    kind, scheme = initial.get("kind"), initial.get("scheme")
    if kind not in ("seeded", "stored"):
        yield Problem(f"{at}/kind", "value", f"found {str(kind)[:100]!r}, expected seeded or stored")
        return
    if "scheme" in initial and scheme not in SCHEMES:  # whose fields nobody can tell
        yield from _expect(f"{at}/scheme", scheme, False, " or ".join(SCHEMES), "unknown-scheme")
        return
    both = "seed" in initial or "scheme" in initial  # a stored ticket may say which seed it came from
    required = ("kind", "laws", "rewind_step", "sha256", *(seeded if kind == "seeded" or both else ()))
    replayed = scheme == TORCH_SCHEME
    wrong = list(_exact(initial, at, required, ("order",) if replayed else ()))
    yield from wrong
    if wrong:
        return
    if "seed" in required:
        yield from _seed(initial)
    step = initial["rewind_step"]
    yield from _expect(f"{at}/rewind_step", step, _is_integer(step), "an integer of at least 0")
    if kind == "seeded" and step != 0:
        yield Problem(
            f"{at}/rewind_step", "value", f"rewind_step is {step}: values after training are stored"
        )
    laws = list(_laws(initial["laws"], architecture))
    yield from laws
    if replayed and not laws:
        yield from _replayed(initial, architecture)
    if _is_integer(step):
        yield from _names(initial["sha256"], f"{at}/sha256", value_names(architecture, step))
    if isinstance(initial["sha256"], dict):
        for name, value in initial["sha256"].items():
            yield from _sha256(f"{at}/sha256/{name[:200]}", value)


def _seed(initial: JsonObject) -> Problems:
    seed = initial["seed"]
    decimal = isinstance(seed, str) and bool(_SEED.fullmatch(seed)) and int(seed) < 2**64
    yield from _expect("/initial/seed", seed, decimal, "a decimal string below 2^64", "seed")


def _replayed(initial: JsonObject, architecture: Architecture) -> Problems:
    """Find what torch-cpu/1 cannot replay: layers, their order, or laws that are not those of PyTorch."""
    order = initial.get("order", ())
    if not isinstance(order, list | tuple) or not all(isinstance(name, str) for name in order):
        yield Problem("/initial/order", "type", f"found {str(order)[:100]!r}, expected a list of layers")
        return
    if "order" in initial and tuple(order) in ((), drawing_layers(architecture)):
        detail = "the layers' order is the architecture's, which is the default: leave it out"
        yield Problem("/initial/order", "spelled-out-default", detail)
    yield from find_replay_problems(architecture, order)
    for name, law in torch_laws(architecture).items():
        found = initial["laws"][name]
        expected = f"{law}, by {TORCH_SCHEME}"
        yield from _expect(f"/initial/laws/{name}", found, found == law, expected, "unknown-law")


def _names(fields: object, at: str, expected: list[str]) -> Problems:
    if not isinstance(fields, dict):
        yield Problem(at, "type", f"found {type(fields).__name__}, expected an object")
        return
    for name in expected:
        if name not in fields:
            yield Problem(f"{at}/{name}", "missing", f"{name} is missing")
    known = set(expected)
    for name in fields:
        if name not in known:
            yield Problem(
                f"{at}/{name[:200]}", "unknown-parameter", f"no parameter {name[:200]!r} has values"
            )


def _laws(laws: object, architecture: Architecture) -> Problems:
    yield from _names(laws, "/initial/laws", list(architecture.parameters))
    if not isinstance(laws, dict):
        return
    for name in architecture.parameters:
        allowed = allowed_laws(architecture, name)
        if name in laws:
            known = isinstance(laws[name], str) and laws[name] in allowed
            expected = f"one of {', '.join(allowed)}"
            yield from _expect(f"/initial/laws/{name}", laws[name], known, expected, "unknown-law")
