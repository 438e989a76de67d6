"""Recipes: what they hold, how they are overridden, what they refuse."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nirvana.errors import InvalidRecipe
from nirvana.training.recipe import MOST_STEPS, Pruning, Recipe, change_schema, learning_rate
from tests.factories import RECIPE

FIELDS = RECIPE.to_dict()
NAMES = [field.name for field in dataclasses.fields(Recipe)]
PRUNING_NAMES = [field.name for field in dataclasses.fields(Pruning)]
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([True, 0, -1, 1, 1.0, 2**31, 2**53 - 1, 2**53, 10**12, 10**400])
)
WORDS = st.text(max_size=8) | st.sampled_from(["adam", "cosine", "step", "crop", "reinit", "zero", "freeze"])
JSON = st.recursive(
    st.none() | NUMBERS | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(WORDS | st.sampled_from(["kind", "at", "factor", "weight", "temperature"]), inner)
    ),
    max_leaves=8,
)
DEEP: list[Any] = []
for _ in range(10_000):
    DEEP = [DEEP]


def test_a_round_trip_changes_nothing() -> None:
    assert Recipe.from_dict(FIELDS) == RECIPE
    assert Recipe.from_dict(FIELDS).digest == RECIPE.digest


def test_an_override_replaces_fields_and_merges_pruning() -> None:
    found = RECIPE.override({"steps": 7, "pruning": {"rate": 0.5}})
    assert (found.steps, found.pruning.rate, found.pruning.scope) == (7, 0.5, "layerwise")
    assert found.learning_rate == RECIPE.learning_rate
    assert found.digest != RECIPE.digest


def test_layer_rates_come_before_the_output_rate_and_that_before_the_rate() -> None:
    pruning = RECIPE.override({"pruning": {"output_rate": 0.1, "layer_rates": {"conv.weight": 0.15}}}).pruning
    assert pruning.layer_rate("conv.weight", is_output=True) == 0.15
    assert pruning.layer_rate("fc.weight", is_output=True) == 0.1
    assert pruning.layer_rate("fc.weight", is_output=False) == 0.2


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"optimizer": "lion"}, "/optimizer", "value"),
        ({"learning_rate": 0}, "/learning_rate", "value"),
        ({"learning_rate": float("nan")}, "/learning_rate", "value"),
        ({"learning_rate": "0.1"}, "/learning_rate", "value"),
        ({"steps": 0}, "/steps", "value"),
        ({"steps": 1.5}, "/steps", "value"),
        ({"batch_size": True}, "/batch_size", "value"),
        ({"momentum": 1}, "/momentum", "value"),
        ({"weight_decay": -1}, "/weight_decay", "value"),
        ({"nesterov": "yes"}, "/nesterov", "value"),
        ({"schedule": {"kind": "staircase"}}, "/schedule/kind", "value"),
        ({"schedule": {"kind": "step", "at": [5]}}, "/schedule", "fields"),
        ({"schedule": {"kind": "step", "at": [0], "factor": 0.1}}, "/schedule", "value"),
        ({"schedule": "cosine"}, "/schedule", "value"),
        ({"schedule": {"kind": ["cosine"]}}, "/schedule/kind", "value"),
        ({"augmentation": ["crop", "crop"]}, "/augmentation", "value"),
        ({"augmentation": [["crop"]]}, "/augmentation", "value"),
        ({"initial_law": "chaos"}, "/initial_law", "value"),
        ({"test_peeking": True}, "/test_peeking", "reads-test-set"),
        ({"pruning": {"rate": 1}}, "/pruning/rate", "value"),
        ({"pruning": {"scope": "both"}}, "/pruning/scope", "value"),
        ({"pruning": {"layer_rates": {"fc.weight": 2}}}, "/pruning/layer_rates", "value"),
        ({"pruning": {"rewind_step": 20}}, "/pruning/rewind_step", "past-the-end"),
        ({"pruning": {"rewind": 1}}, "/pruning/rewind", "unknown-field"),
        ({"pruning": 3}, "/pruning", "value"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], pointer: str, code: str) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        Recipe.from_dict(FIELDS | change)
    assert [(problem.pointer, problem.code) for problem in caught.value.errors] == [(pointer, code)]


@pytest.mark.parametrize("fields", [None, [], "adam", {}])
def test_what_is_no_recipe_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidRecipe):
        Recipe.from_dict(fields)


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"optimizer": {}}, "/optimizer", "value"),
        ({"optimizer": ["adam"]}, "/optimizer", "value"),
        ({"schedule": {"kind": []}}, "/schedule/kind", "value"),
        ({"schedule": {"kind": {}}}, "/schedule/kind", "value"),
        ({"schedule": {"kind": "step", "at": [1] * 101, "factor": 0.5}}, "/schedule", "value"),
        ({"schedule": {"kind": "step", "at": [1], "factor": 1e4}}, "/schedule", "value"),
        ({"schedule": {"kind": "step", "at": [[1]], "factor": 0.5}}, "/schedule", "value"),
        ({"steps": 2**53 - 1}, "/steps", "value"),
        ({"steps": 10**12}, "/steps", "value"),
        ({"steps": 10**400}, "/steps", "value"),
        ({"steps": 10**5000}, "/steps", "value"),
        ({"steps": DEEP}, "/steps", "value"),
        ({"batch_size": 65_537}, "/batch_size", "value"),
        ({"evaluate_every": MOST_STEPS + 1}, "/evaluate_every", "value"),
        ({"warmup_steps": MOST_STEPS + 1}, "/warmup_steps", "value"),
        ({"warmup_steps": 2.0}, "/warmup_steps", "value"),
        ({"learning_rate": 2**53}, "/learning_rate", "value"),
        ({"learning_rate": 10**400}, "/learning_rate", "value"),
        ({"start_step": 10**400}, "/start_step", "value"),
        ({"pruning": {"rewind_step": 10**12}}, "/pruning/rewind_step", "value"),
        ({"a/b~c": 1}, "/a~1b~0c", "unknown-field"),
        ({"\ud800": 1}, "/?", "unknown-field"),
        ({"x" * 10**6: "y" * 10**6}, "/" + "x" * 200, "unknown-field"),
    ],
)
def test_a_hostile_value_is_refused_by_name_in_a_few_words(
    change: dict[str, Any], pointer: str, code: str
) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        Recipe.from_dict(FIELDS | change)
    problem = next(one for one in caught.value.errors if one.code == code)
    assert problem.pointer == pointer
    assert len(caught.value.detail.encode()) < 2000


def read(fields: Any) -> Recipe | InvalidRecipe:
    """Return the recipe of the fields, or the refusal: nothing else is raised."""
    try:
        return Recipe.from_dict(fields)
    except InvalidRecipe as error:
        return error


def check_refused_or_whole(fields: Any) -> None:
    """A refusal has words for people; what is taken can be written and followed."""
    found = read(fields)
    if isinstance(found, InvalidRecipe):
        assert found.errors
        assert len(json.dumps(found.to_dict())) < 50_000
        assert all(problem.pointer.encode() or not problem.pointer for problem in found.errors)
        return
    assert Recipe.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert found.digest.startswith("sha256:")
    for step in (0, found.steps // 2, found.steps - 1):
        assert not math.isnan(learning_rate(found, step))


@settings(max_examples=150, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(NAMES), JSON, min_size=1, max_size=3))
@example(changes={"schedule": {"kind": "step", "at": [1] * 100, "factor": 1000}, "learning_rate": 1e300})
def test_odd_json_in_a_field_is_an_invalid_recipe_or_a_recipe(changes: dict[str, Any]) -> None:
    check_refused_or_whole(FIELDS | changes)


@settings(max_examples=100, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(PRUNING_NAMES), JSON, min_size=1, max_size=3))
def test_odd_json_in_a_field_of_pruning_is_an_invalid_recipe_or_a_recipe(changes: dict[str, Any]) -> None:
    fields = FIELDS | {"pruning": FIELDS["pruning"] | changes}
    check_refused_or_whole(fields)
    found = read(fields)
    if isinstance(found, InvalidRecipe):
        assert all(problem.pointer.startswith("/pruning/") for problem in found.errors)


@settings(max_examples=100, deadline=None)
@given(fields=JSON, name=WORDS)
def test_odd_json_for_a_whole_recipe_or_as_a_new_field_is_refused(fields: Any, name: str) -> None:
    check_refused_or_whole(fields)
    if name not in NAMES:
        with pytest.raises(InvalidRecipe):
            Recipe.from_dict(FIELDS | {name: fields})


def test_the_schema_takes_what_a_recipe_takes_and_no_other_value() -> None:
    """Of each field alone: values at the ends of its range, and those just past them."""
    schema = change_schema()
    assert sorted(schema["properties"]) == sorted(NAMES)
    assert sorted(schema["properties"]["pruning"]["properties"]) == sorted(PRUNING_NAMES)
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        0.5,
        1,
        1.5,
        MOST_STEPS - 1,
        MOST_STEPS,
        MOST_STEPS + 1,
        "adam",
        [],
        {},
    ]
    values += [
        "global",
        "zero",
        "glorot_normal",
        ["crop"],
        ["crop", "crop"],
        {"kind": "cosine"},
        {"kind": []},
    ]
    values += [{"kind": "step", "at": [5], "factor": 0.1}, {"kind": "step", "at": [0], "factor": 0.1}]
    values += [
        {"temperature": 4, "weight": 1},
        {"temperature": 4, "weight": 2},
        {"fc1.weight": 0.5},
        {"a": 1},
    ]
    for value in values:
        for name, rule in schema["properties"].items():
            if name != "pruning":
                assert _takes(rule, value) == (not _pointers({name: value})), (name, value)
        for name, rule in schema["properties"]["pruning"]["properties"].items():
            assert _takes(rule, value) == (not _pointers({"pruning": {name: value}})), (name, value)


def _takes(schema: dict[str, Any], value: object) -> bool:
    return bool(jsonschema_rs.is_valid(schema, value))


def _pointers(change: dict[str, Any]) -> list[str]:
    """Problems of single fields: what concerns two of them is no schema's business."""
    try:
        RECIPE.override(change)
    except InvalidRecipe as error:
        return [one.pointer for one in error.errors if one.code in ("value", "fields")]
    return []
