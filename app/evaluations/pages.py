"""Evaluations on pages: one in words and rows, and the text of the protocol.

An evaluation keeps the members of the protocol that it was made with, so each may be missing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.db import Json
from app.evaluations.models import Evaluation
from app.pages import render
from nirvana.errors import Invalid, NotFound
from nirvana.training.recipe import Recipe
from nirvana.verification.verdicts import explain_measurement

PROTOCOL_FILE = Path(__file__).parents[2] / "docs" / "verification.md"
ARM_MEANINGS = {
    "dense": "nothing pruned, by the same recipe: one of a pool a column",
    "reference": "nothing pruned, by the registry's recipe: one of a pool a column",
    "ticket": "its mask, its initial values",
    "reinit": "its mask, values drawn anew",
    "rescaled": "the same, scaled to each layer's density",
    "shuffle": "mask shuffled within layers",
    "random": "a random mask, even over layers",
    "magnitude": "the largest initial values",
    "signs": "its mask, values drawn anew with its signs",
}

router = APIRouter()


@router.get("/protocol", response_class=HTMLResponse)
def protocol_page(request: Request) -> HTMLResponse:
    """The text of the verification protocol."""
    return render(request, "protocol.html", {"text": protocol_html(PROTOCOL_FILE)})


@lru_cache(maxsize=2)
def protocol_html(path: Path) -> str:
    """Render a markdown file of ours as HTML. Raises: NotFound."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NotFound("The protocol's text is not installed here: docs/verification.md.") from error
    from markdown_it import MarkdownIt  # a few per cent of the service's start, for one page

    rendered: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return rendered


def describe_evaluation(row: Evaluation) -> Json:
    """Return the words and rows of an evaluation on a page, beside its verdict."""
    body = row.body
    return {
        "reason": body.get("reason", ""),
        "badges": [name for name, has in _part(body, "badges").items() if has],
        "gate": list(_gate_lines(body)),
        "duplicates": _part(body, "gate").get("duplicates", []),
        "looks": body.get("looks", []),
        "tracks": _part(body, "tracks"),
        "arms": list(_arm_rows(body)),
        "cost": list(_cost_lines(body)),
        "measured": list(explain_measurement(body)),
        "recipe": _recipe_digest(body),
    }


def _part(body: Json, name: str) -> Json:
    part: Json = body.get(name) or {}
    return part


def _gate_lines(body: Json) -> Iterator[str]:
    gate = _part(body, "gate")
    if not gate:
        return
    if gate.get("invalid"):
        yield "it refuses the ticket, so nothing was trained"
    if gate.get("law"):
        law = gate["law"].values()
        smallest = f"smallest p = {min(law):.2g} of {len(law)} tensors"
        yield f"the initial values against their declared law: {smallest}"
    if gate.get("spectrum"):
        worst = max(gate["spectrum"].values())
        yield f"largest singular value of a weight matrix: {worst:+.1f} Tracy-Widom units"
    if not (gate.get("law") or gate.get("spectrum") or gate.get("untestable") or gate.get("invalid")):
        yield "the initial values are drawn from the seed, or were taken after step 0: no law to test"
    if gate.get("untestable"):
        yield str(gate["untestable"])
    if gate.get("effective_density") is not None:
        yield f"effective density (kept and on a path to the output): {100 * gate['effective_density']:.2f} %"
    if gate.get("live_density") is not None:
        yield f"density without units that no path goes through: {100 * gate['live_density']:.2f} %"


def _arm_rows(body: Json) -> Iterator[Json]:
    failed, cached = _part(body, "failed"), _part(body, "cached")
    for arm, values in _part(body, "arms").items():
        marks = failed.get(arm) or [False] * len(values)
        yield {
            "name": arm,
            "meaning": ARM_MEANINGS.get(arm, ""),
            "cells": list(zip(values, marks, strict=False)),
            "cached": cached.get(arm, 0),
        }


def _cost_lines(body: Json) -> Iterator[str]:
    """Yield the cost in trainings of the dense network; protocol 1 did not keep it."""
    cost = _part(body, "cost")
    dense, trainings = cost.get("dense_trainings") or {}, cost.get("trainings")
    if not trainings and not dense:
        return
    cached = sum(_part(body, "cached").values())
    yield f"{trainings} trainings" + (f", and {cached} taken from earlier verifications" if cached else "")
    if dense.get("by_flops") is not None:
        yield f"by theoretical sparse operations as much as {dense['by_flops']:.1f} dense trainings"
    if dense.get("by_seconds") is not None:
        yield f"by seconds as much as {dense['by_seconds']:.1f}"


def _recipe_digest(body: Json) -> str | None:
    try:
        return Recipe.from_dict(dict(body["recipe"])).digest
    except (Invalid, KeyError, TypeError, ValueError):
        return None
