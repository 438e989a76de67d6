"""Recipes: what they hold, how they are overridden, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from nirvana.errors import InvalidRecipe
from nirvana.recipe import Recipe
from tests.factories import RECIPE

FIELDS = RECIPE.to_dict()


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
