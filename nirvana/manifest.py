"""The manifest's rules: what a reader refuses before it looks at a tensor (TICKET_FORMAT sections 2, 4, 6).

Every check yields Problems with JSON pointers into the manifest; nothing here allocates by what a file says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from nirvana.architecture import Architecture
from nirvana.errors import InvalidArchitecture, Problem
from nirvana.initial import CONSTANT_LAWS, LAWS, SCHEME
from nirvana.masks import ENCODINGS

FORMAT = "nirvana.ticket/1"
MAX_DESCRIPTION_BYTES = 64 * 1024
REQUIRED = ("format", "architecture", "prunable", "masks", "initial", "task", "recipe")
OPTIONAL = ("provenance", "claims", "license", "authors", "description")
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,99}")
_SEED = re.compile(r"0|[1-9][0-9]{0,19}")
_HEX = re.compile(r"[0-9a-f]{64}")

Problems = Iterator[Problem]


def check_manifest(manifest: Any, max_parameters: int) -> tuple[Architecture | None, list[Problem]]:
    """The manifest's architecture and everything that is wrong with the manifest by itself."""
    problems = list(_outline(manifest))
    if problems:
        return None, problems
    try:
        architecture = Architecture.from_manifest(manifest["architecture"], max_parameters=max_parameters)
    except InvalidArchitecture as error:
        return None, [Problem(f"/architecture{p.pointer}", p.code, p.detail) for p in error.errors]
    problems += _prunable(manifest["prunable"], architecture)
    if not problems:
        problems += _masks(manifest["masks"], manifest["prunable"], architecture)
        problems += _initial(manifest["initial"], architecture)
    return architecture, problems


def stored_names(initial: Mapping[str, Any], architecture: Architecture) -> list[str]:
    """Names whose values have a digest: every parameter, and running statistics after training began."""
    buffers = architecture.buffers if initial["rewind_step"] > 0 else {}
    return [*architecture.parameters, *buffers]


def _exact(fields: Any, at: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Problems:
    """A problem unless `fields` is an object with these names."""
    if not isinstance(fields, dict):
        yield Problem(at, "type", f"found {type(fields).__name__}, expected an object")
        return
    for name in required:
        if name not in fields:
            yield Problem(f"{at}/{name}", "missing", f"{name} is missing")
    for name in fields:
        if name not in required and name not in optional:
            yield Problem(f"{at}/{name[:100]}", "unknown-field", f"{name[:100]!r} is no field of the format")


def _expect(at: str, value: Any, test: bool, expected: str, code: str = "value") -> Problems:
    if not test:
        yield Problem(at, code, f"found {str(value)[:100]!r}, expected {expected}")


def is_integer(value: Any, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _outline(manifest: Any) -> Problems:
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


def _is_description(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode("utf-8", "replace")) <= MAX_DESCRIPTION_BYTES


_SIMPLE: dict[str, tuple[Callable[[Any], bool], str]] = {
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


def _claim(claim: Any, at: str) -> Problems:
    yield from _exact(claim, at, ("task", "metric", "value", "replicates"))
    if isinstance(claim, dict):
        value, replicates = claim.get("value", 0), claim.get("replicates", 1)
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        yield from _expect(f"{at}/value", value, number, "a finite number")
        yield from _expect(f"{at}/replicates", replicates, is_integer(replicates, 1), "an integer above 0")
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


def _masks(masks: dict[str, Any], prunable: list[str], architecture: Architecture) -> Problems:
    for name, entry in masks.items():
        at = f"/masks/{name[:200]}"
        if name not in prunable:
            yield Problem(at, "not-prunable", f"a mask for {name[:200]!r}, which is not in prunable")
            continue
        wrong = list(_exact(entry, at, ("kept", "encoding", "sha256")))
        yield from wrong
        if wrong:
            continue
        total = math.prod(architecture.parameters[name])
        kept = entry["kept"]
        in_range = is_integer(kept) and kept <= total
        yield from _expect(f"{at}/kept", kept, in_range, f"an integer from 1 to {total}", "mask-popcount")
        if kept == 0:
            yield Problem(f"{at}/kept", "layer-collapse", f"{name} keeps no weight: the layer collapsed")
        known = entry["encoding"] in ENCODINGS
        expected = f"one of {', '.join(ENCODINGS)}"
        yield from _expect(f"{at}/encoding", entry["encoding"], known, expected, "unknown-encoding")
        yield from _sha256(f"{at}/sha256", entry["sha256"])


def _sha256(at: str, value: Any) -> Problems:
    is_hex = isinstance(value, str) and bool(_HEX.fullmatch(value))
    yield from _expect(at, value, is_hex, "64 hexadecimal digits in lower case")


def _initial(initial: dict[str, Any], architecture: Architecture) -> Problems:
    at = "/initial"
    seeded = ("scheme", "seed")
    kind = initial.get("kind")
    if kind not in ("seeded", "stored"):
        yield Problem(f"{at}/kind", "value", f"found {str(kind)[:100]!r}, expected seeded or stored")
        return
    both = "seed" in initial or "scheme" in initial  # a stored ticket may say which seed it came from
    required = ("kind", "laws", "rewind_step", "sha256", *(seeded if kind == "seeded" or both else ()))
    wrong = list(_exact(initial, at, required))
    yield from wrong
    if wrong:
        return
    if "seed" in required:
        yield from _seed(initial)
    step = initial["rewind_step"]
    yield from _expect(f"{at}/rewind_step", step, is_integer(step), "an integer of at least 0")
    if kind == "seeded" and step != 0:
        yield Problem(
            f"{at}/rewind_step", "value", f"rewind_step is {step}: values after training are stored"
        )
    yield from _laws(initial["laws"], architecture)
    if is_integer(step):
        yield from _names(initial["sha256"], f"{at}/sha256", stored_names(initial, architecture))
    if isinstance(initial["sha256"], dict):
        for name, value in initial["sha256"].items():
            yield from _sha256(f"{at}/sha256/{name[:200]}", value)


def _seed(initial: dict[str, Any]) -> Problems:
    scheme, seed = initial["scheme"], initial["seed"]
    yield from _expect("/initial/scheme", scheme, scheme == SCHEME, SCHEME, "unknown-scheme")
    decimal = isinstance(seed, str) and bool(_SEED.fullmatch(seed)) and int(seed) < 2**64
    yield from _expect("/initial/seed", seed, decimal, "a decimal string below 2^64", "seed")


def _names(found: Any, at: str, expected: list[str]) -> Problems:
    if not isinstance(found, dict):
        yield Problem(at, "type", f"found {type(found).__name__}, expected an object")
        return
    for name in expected:
        if name not in found:
            yield Problem(f"{at}/{name}", "missing", f"{name} is missing")
    known = set(expected)
    for name in found:
        if name not in known:
            yield Problem(
                f"{at}/{name[:200]}", "unknown-parameter", f"no parameter {name[:200]!r} has values"
            )


def _laws(laws: Any, architecture: Architecture) -> Problems:
    yield from _names(laws, "/initial/laws", list(architecture.parameters))
    if not isinstance(laws, dict):
        return
    for name, shape in architecture.parameters.items():
        allowed = LAWS if len(shape) > 1 else tuple(CONSTANT_LAWS)
        if name in laws:
            known = isinstance(laws[name], str) and laws[name] in allowed
            expected = f"one of {', '.join(allowed)}"
            yield from _expect(f"/initial/laws/{name}", laws[name], known, expected, "unknown-law")
