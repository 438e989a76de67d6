"""Exports that other tools read."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import Invalid
from nirvana.exports import export_ticket
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture


def make_ticket(architecture: str = "mlp-32", task: str = "digits", **recipe: object) -> Ticket:
    return ticket_of(zoo.build(architecture, (1, 8, 8), 10), task, **recipe)


def ticket_of(graph: Architecture, task: str = "digits", **recipe: object) -> Ticket:
    rng = np.random.default_rng(0)
    masks = {name: rng.random(graph.parameters[name]) < 0.5 for name in graph.prunable}
    known = tasks.get("digits").default_recipe(graph.name)
    chosen = known.override(recipe).to_dict()
    return Ticket.create(graph, masks, task=task, recipe=chosen, laws=default_laws(graph), seed=1)


def test_safetensors_reads_the_masked_values_and_the_masks() -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    ticket = make_ticket()
    arrays = safetensors.load(export_ticket(ticket, "safetensors").content)
    values = ticket.initial_values()
    assert set(arrays) == {*values, *(f"mask/{name}" for name in ticket.prunable)}
    assert all(np.array_equal(arrays[name], array) for name, array in values.items())
    assert np.array_equal(arrays["mask/fc1.weight"], ticket.mask("fc1.weight"))
    assert not arrays["fc1.weight"][arrays["mask/fc1.weight"] == 0].any()


def test_numpy_reads_the_same_and_the_manifest() -> None:
    ticket = make_ticket()
    with np.load(io.BytesIO(export_ticket(ticket, "numpy").content), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["fc2.weight"], ticket.initial_values()["fc2.weight"])
        assert np.array_equal(arrays["mask/fc2.weight"], ticket.mask("fc2.weight"))
        assert json.loads(arrays["manifest"].tobytes()) == ticket.manifest()


@pytest.mark.parametrize("form", ["safetensors", "numpy", "csr", "onnx", "script"])
def test_an_export_is_the_same_bytes_every_time(form: str) -> None:
    assert export_ticket(make_ticket(), form).content == export_ticket(make_ticket(), form).content


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        Invalid, match="format is 'exe', expected one of safetensors, numpy, csr, onnx, script"
    ):
        export_ticket(make_ticket(), "exe")
