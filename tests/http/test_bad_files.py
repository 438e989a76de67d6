"""Every bad file of the issue, over HTTP: a typed answer, a pointer, and nothing stored."""

from __future__ import annotations

import hashlib
import io
import json
import pickle  # noqa: TID251 - made here only to be refused
import time
import zipfile
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nirvana.errors import InvalidRecipe, InvalidTicket
from nirvana.format.initial import default_laws
from nirvana.format.masks import mask_sha256
from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.training.schedule import check_recipe
from tests import factories
from tests.factories import make_masks, make_ticket, put_together, take_apart
from tests.format.test_recipe import JSON
from tests.registry import TICKET_TYPE, Registry, pointers, problem

DATA = make_ticket().to_bytes()
STORED = make_ticket(stored=True).to_bytes()
MASK = "mask/fc1.weight"
RECIPE = factories.RECIPE.to_dict()


def frame(body: bytes) -> Any:
    return np.frombuffer(zstandard.ZstdCompressor(level=19).compress(body), np.uint8)


def one_terabyte_header() -> bytes:
    return (10**12).to_bytes(8, "little") + DATA[8:]


def zstd_bomb() -> bytes:
    manifest, tensors = take_apart(DATA)
    return put_together(manifest, tensors | {MASK: frame(bytes(256 * 2**20))})


def with_mask(shape: tuple[int, ...], kept: int, said: int) -> bytes:
    manifest, tensors = take_apart(DATA)
    mask = np.zeros(shape, bool)
    mask.flat[:kept] = True
    manifest["masks"]["fc1.weight"] = {"kept": said, "encoding": "bits", "sha256": mask_sha256(mask)}
    return put_together(manifest, tensors | {MASK: frame(np.packbits(mask.ravel()).tobytes())})


def with_other_name() -> bytes:
    manifest, tensors = take_apart(DATA)
    manifest["masks"]["fc9.weight"] = manifest["masks"].pop("fc1.weight")
    tensors["mask/fc9.weight"] = tensors.pop(MASK)
    return put_together(manifest, tensors)


def with_nan() -> bytes:
    manifest, tensors = take_apart(STORED)
    name = next(name for name in tensors if name.startswith("initial/"))
    values = tensors[name].copy()
    values[0] = np.nan
    return put_together(manifest, tensors | {name: values})


def changed(*path: Any, to: Any) -> bytes:
    manifest, tensors = take_apart(DATA)
    place = manifest
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = to
    return put_together(manifest, tensors)


BAD: dict[str, tuple[Any, str | None]] = {
    "truncated": (lambda: DATA[: len(DATA) // 2], None),
    "empty": (lambda: b"", None),
    "a header that announces 1 TB": (one_terabyte_header, None),
    "a zstd bomb": (zstd_bomb, "/masks/fc1.weight"),
    "a mask of the wrong shape": (lambda: with_mask((16, 63), 9, 9), "/masks/fc1.weight"),
    "a mask of the wrong name": (with_other_name, "/masks/fc9.weight"),
    "a wrong popcount": (lambda: with_mask((16, 64), 9, 8), "/masks/fc1.weight"),
    "layer collapse": (lambda: with_mask((16, 64), 0, 0), "/masks/fc1.weight/kept"),
    "another digest of initial values": (
        lambda: changed("initial", "sha256", "fc1.weight", to="0" * 64),
        "/initial/sha256/fc1.weight",
    ),
    "not a number": (with_nan, "/initial"),
    "an unknown op": (
        lambda: changed("architecture", "nodes", 1, "op", to="exec"),
        "/architecture/nodes/1/op",
    ),
    "a cyclic graph": (
        lambda: changed("architecture", "nodes", 2, "inputs", to=["fc2"]),
        "/architecture/nodes/2/inputs",
    ),
    "10^9 parameters": (
        lambda: changed("architecture", "nodes", 1, "out", to=10**9),
        "/architecture/nodes",
    ),
    "a NUL character": (lambda: changed("license", to="CC\0BY"), "/license"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused_with_a_pointer_and_leaves_nothing(registry: Registry, what: str) -> None:
    make, pointer = BAD[what]
    data = make()
    began = time.monotonic()
    body = problem(registry.publish(data, "bad"), 422, "invalid-ticket")
    assert time.monotonic() - began < 5
    assert body["errors"]
    if pointer is not None:
        assert pointers(body)[0].startswith(pointer)
    assert registry.search() == []
    assert not list((registry.settings.home / "blobs").rglob("*.ticket"))


def test_a_pickle_is_refused_by_name_whatever_it_is_called(registry: Registry) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    for data in (pickle.dumps({"fc1.weight": 1}), zipped.getvalue()):
        assert "pickle" in problem(registry.publish(data, "bad"), 415, "unsupported-media")["detail"]


BAD_RECIPES: dict[str, tuple[Any, str]] = {
    "empty": ({}, "/recipe/optimizer"),
    "foreign": ({"epochs": 90, "lr": 0.1}, "/recipe/optimizer"),
    "an optimiser that is an object": (RECIPE | {"optimizer": {}}, "/recipe/optimizer"),
    "2^53 - 1 steps": (RECIPE | {"steps": 2**53 - 1}, "/recipe/steps"),
    "a kind of schedule that is a list": (RECIPE | {"schedule": {"kind": []}}, "/recipe/schedule/kind"),
    "an unknown field": (RECIPE | {"colour": "red"}, "/recipe/colour"),
    "an unknown field with a slash": (RECIPE | {"a/b": 1}, "/recipe/a~1b"),
    "a number that is a word": (RECIPE | {"learning_rate": "0.1"}, "/recipe/learning_rate"),
    "a whole number that is true": (RECIPE | {"batch_size": True}, "/recipe/batch_size"),
    "pruning that is null": (RECIPE | {"pruning": None}, "/recipe/pruning"),
    "deep nesting": (RECIPE | {"schedule": json.loads("[" * 90 + "]" * 90)}, "/recipe/schedule"),
    "no step to train": (RECIPE | {"start_step": 20}, "/recipe/start_step"),
}


@pytest.mark.parametrize("what", BAD_RECIPES)
def test_a_recipe_that_cannot_be_trained_is_refused_at_publish_and_by_lint(
    registry: Registry, what: str
) -> None:
    recipe, pointer = BAD_RECIPES[what]
    data = changed("recipe", to=recipe)
    body = problem(registry.publish(data, "bad"), 422, "invalid-recipe")
    assert pointer in pointers(body)
    assert pointer in body["detail"] or len(body["errors"]) > 1
    raw = registry.http.post("/api/v1/tickets:lint", content=data, headers={"Content-Type": TICKET_TYPE})
    assert raw.status_code == 200, raw.text
    assert (raw.json()["ok"], raw.json()["errors"]) == (False, body["errors"])
    assert registry.search() == []
    assert not list((registry.settings.home / "blobs").rglob("*.ticket"))


def test_a_recipe_that_ends_before_the_ticket_begins_is_refused(registry: Registry) -> None:
    late = make_ticket(stored=True, rewind_step=19).to_bytes()
    assert registry.publish(late, "late").status_code == 201
    past = make_ticket(stored=True, rewind_step=20).to_bytes()
    assert pointers(problem(registry.publish(past, "past"), 422, "invalid-recipe")) == ["/recipe/steps"]


def test_an_augmentation_of_what_is_no_image_is_refused(registry: Registry) -> None:
    architecture = zoo.build("mlp-16", (64,), 10)
    recipe = RECIPE | {"augmentation": ["flip"]}
    laws = default_laws(architecture)
    ticket = Ticket.create(
        architecture, make_masks(architecture), task="table", recipe=recipe, laws=laws, seed=1
    )
    body = problem(registry.publish(ticket.to_bytes(), "table"), 422, "invalid-recipe")
    assert pointers(body) == ["/recipe/augmentation"]


def test_more_operations_than_a_database_counts_are_refused(registry: Registry) -> None:
    """Three weights slid over 10^20 places: the file is small, and its FLOPs are past 64 bits."""
    nodes: list[dict[str, Any]] = [
        {"name": "conv", "op": "conv2d", "in": 1, "out": 2, "kernel": 1},
        {"name": "pool", "op": "global_avg_pool"},
        {"name": "fc", "op": "linear", "in": 2, "out": 10},
    ]
    architecture = Architecture.make("wide", (1, 10**10, 10**10), nodes)
    laws = default_laws(architecture)
    ticket = Ticket.create(architecture, {}, task="digits", recipe=RECIPE, laws=laws, seed=1)
    body = problem(registry.publish(ticket.to_bytes(), "wide"), 422, "invalid-ticket")
    assert pointers(body) == ["/architecture"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(RECIPE)), value=JSON)
def test_odd_json_in_a_recipe_is_published_only_if_it_can_be_trained(
    registry: Registry, name: str, value: Any
) -> None:
    try:
        data = changed("recipe", to=RECIPE | {name: value})
        ticket = Ticket.from_bytes(data)
    except (ValueError, RecursionError, InvalidTicket):  # no canonical JSON has it
        return
    answer = registry.publish(data, "odd-" + hashlib.sha256(data).hexdigest()[:12])
    try:
        check_recipe(ticket)
    except InvalidRecipe:
        assert pointers(problem(answer, 422, "invalid-recipe"))[0].startswith(f"/recipe/{name}")
    else:
        assert answer.status_code in (200, 201), answer.text
