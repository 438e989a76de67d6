"""The scheme torch-cpu/1 gives the bits of the torch that is installed, and refuses what it cannot replay."""

from __future__ import annotations

import copy
import dataclasses
import os
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nirvana.errors import InvalidTicket
from nirvana.format.initial import REINIT, SCHEME, draw_all
from nirvana.format.lint import lint
from nirvana.format.ticket import Ticket
from nirvana.format.torch_draws import TORCH_SCHEME, drawing_layers, replay, torch_laws
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from tests.factories import as_stored, put_together, take_apart, torch_ticket
from tests.format import independent_reader
from tests.format.test_refusals import refusal

SEEDS = [0, 1, 42, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
SIZES = [1, 2, 15, 16, 17, 300]
Module = dict[str, nn.Module]


def linear(name: str, n_in: int, n_out: int, **fields: Any) -> dict[str, Any]:
    return {"name": name, "op": "linear", "in": n_in, "out": n_out, **fields}


def same_bits(architecture: Architecture, layers: Module, seed: int, order: tuple[str, ...] = ()) -> bool:
    """Tell whether a replay has the bits of the layers, by the architecture's names."""
    drawn = dict(replay(architecture, seed, order))
    assert set(drawn) == set(architecture.parameters)
    theirs = {
        f"{name}.{part.replace('in_proj_', 'in_proj.')}": tensor.detach().numpy()
        for name, layer in layers.items()
        for part, tensor in layer.named_parameters()
    }
    assert set(theirs) == set(drawn)
    return all(
        np.array_equal(drawn[name].view(np.uint32), values.view(np.uint32)) for name, values in theirs.items()
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_of_every_size_have_torchs_bits(seed: int, bias: bool) -> None:
    pairs = [(n_in, n_out) for n_in in SIZES for n_out in SIZES]
    for n_in, n_out in pairs:
        graph = Architecture.make(
            "two", (n_in,), [linear("a", n_in, n_out, bias=bias), linear("b", n_out, 5)]
        )
        torch.manual_seed(seed)
        layers: Module = {"a": nn.Linear(n_in, n_out, bias=bias), "b": nn.Linear(n_out, 5)}
        assert same_bits(graph, layers, seed), (n_in, n_out)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_have_torchs_bits(seed: int, bias: bool) -> None:
    graph = Architecture.make(
        "convs",
        (4, 40, 40),
        [
            {"name": "c1", "op": "conv2d", "in": 4, "out": 6, "kernel": 3, "bias": bias},
            {"name": "n1", "op": "batch_norm", "channels": 6},
            {"name": "c2", "op": "conv2d", "in": 6, "out": 17, "kernel": [3, 5], "bias": bias},
            {"name": "pool", "op": "global_avg_pool"},
            linear("fc", 17, 10, bias=bias),
        ],
    )
    torch.manual_seed(seed)
    layers: Module = {
        "c1": nn.Conv2d(4, 6, 3, bias=bias),
        "n1": nn.BatchNorm2d(6),
        "c2": nn.Conv2d(6, 17, (3, 5), bias=bias),
        "fc": nn.Linear(17, 10, bias=bias),
    }
    assert same_bits(graph, layers, seed)


def test_grouped_and_one_dimensional_convolutions_norms_and_attention_have_torchs_bits() -> None:
    graph = Architecture.make(
        "mixed",
        (8, 12),
        [
            {"name": "conv", "op": "conv1d", "in": 8, "out": 16, "kernel": 3, "padding": 1, "groups": 4},
            {"name": "norm", "op": "layer_norm", "shape": [12]},
            {"name": "attention", "op": "self_attention", "features": 12, "heads": 3},
            linear("fc", 12, 7),
        ],
    )
    for seed in SEEDS:
        torch.manual_seed(seed)
        layers: Module = {
            "conv": nn.Conv1d(8, 16, 3, padding=1, groups=4),
            "norm": nn.LayerNorm(12),
            "attention": nn.MultiheadAttention(12, 3, batch_first=True),
            "fc": nn.Linear(12, 7),
        }
        assert same_bits(graph, layers, seed)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**64 - 1), st.lists(st.integers(1, 70), min_size=2, max_size=5))
def test_perceptrons_of_any_widths_and_seeds_have_torchs_bits(seed: int, widths: list[int]) -> None:
    pairs = list(pairwise(widths))
    graph = Architecture.make("mlp", (widths[0],), [linear(f"l{i}", *pair) for i, pair in enumerate(pairs)])
    torch.manual_seed(seed)
    assert same_bits(graph, {f"l{i}": nn.Linear(*pair) for i, pair in enumerate(pairs)}, seed)


def test_a_large_layer_has_torchs_bits() -> None:
    """More elements than are drawn at a time, and no multiple of that."""
    torch.manual_seed(7)
    graph = Architecture.make("large", (1031,), [linear("a", 1031, 1013), linear("b", 1013, 3)])
    assert same_bits(graph, {"a": nn.Linear(1031, 1013), "b": nn.Linear(1013, 3)}, 7)


def test_the_order_of_construction_decides_and_not_that_of_use() -> None:
    graph = Architecture.make("three", (9,), [linear("a", 9, 8), linear("b", 8, 7), linear("c", 7, 6)])
    torch.manual_seed(3)
    c, a, b = nn.Linear(7, 6), nn.Linear(9, 8), nn.Linear(8, 7)
    layers: Module = {"a": a, "b": b, "c": c}
    assert same_bits(graph, layers, 3, ("c", "a", "b"))
    assert not same_bits(graph, layers, 3)


def test_a_draw_between_the_seed_and_the_constructors_gives_other_bits() -> None:
    graph = Architecture.make("one", (9,), [linear("a", 9, 8)])
    torch.manual_seed(3)
    torch.rand(1)
    assert not same_bits(graph, {"a": nn.Linear(9, 8)}, 3)


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="an x86-64 processor with AVX2"
)
def test_torchs_code_without_fused_operations_has_other_bits() -> None:
    """The page says that the scheme is the fused one: its uniform draws are those of processors with FMA."""
    program = (
        "import sys, torch; torch.manual_seed(1); torch.set_num_threads(1);"
        "sys.stdout.buffer.write(torch.nn.Linear(300, 100).weight.detach().numpy().tobytes())"
    )
    graph = Architecture.make("one", (300,), [linear("a", 300, 100)])
    ours = dict(replay(graph, 1))["a.weight"].ravel()
    for capability, fused in (("default", False), ("avx2", True)):
        environment = os.environ | {"ATEN_CPU_CAPABILITY": capability}
        run = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, env=environment, check=True
        )
        theirs = np.frombuffer(run.stdout, np.float32)
        assert np.array_equal(ours, theirs) == fused
        assert np.allclose(ours, theirs, atol=1e-8)


# tickets


def test_a_ticket_of_the_scheme_stores_no_values_and_has_torchs() -> None:
    torch.manual_seed(42)
    module = nn.Sequential(nn.Linear(64, 16), nn.Linear(16, 10))
    ticket = Ticket.from_bytes(torch_ticket().to_bytes())
    theirs = [tensor.detach().numpy() for tensor in module.state_dict().values()]
    whole = ticket.dense_initial_values()
    assert whole is not None
    assert list(whole) == list(ticket.architecture.parameters)
    assert all(np.array_equal(ours, tensor) for ours, tensor in zip(whole.values(), theirs, strict=True))
    assert np.array_equal(ticket.initial["fc1.weight"], theirs[0] * ticket.mask("fc1.weight"))
    assert (ticket.start.kind, dict(ticket.start.stored), ticket.start.order) == ("seeded", {}, ())
    assert ticket.is_redrawable


@pytest.mark.parametrize("name", ["mlp-16", "lenet-300-100", "conv-2", "resnet-20"])
def test_a_reader_written_from_the_page_alone_agrees(name: str) -> None:
    architecture = zoo.build(name, (1, 8, 8), 10)
    for order in ((), tuple(reversed(drawing_layers(architecture)))):
        ticket = torch_ticket(name, 2**63 + 5, order=order)
        read = independent_reader.read(ticket.to_bytes())
        assert read["digest"] == ticket.digest
        for parameter, values in ticket.initial_values().items():
            assert np.array_equal(read["values"][parameter], values)


def test_an_order_that_is_the_architectures_is_left_out() -> None:
    assert torch_ticket(order=("fc1", "fc2")).to_bytes() == torch_ticket().to_bytes()
    assert torch_ticket(order=("fc2", "fc1")).start.order == ("fc2", "fc1")
    assert torch_ticket(order=("fc2", "fc1")).digest != torch_ticket().digest


def changed(**initial: Any) -> bytes:
    """A ticket's file with other fields of `initial`."""
    manifest, tensors = copy.deepcopy(take_apart(torch_ticket().to_bytes()))
    manifest["initial"] |= initial
    return put_together(manifest, tensors)


@pytest.mark.parametrize(
    ("initial", "pointer", "code"),
    [
        ({"order": ["fc1", "fc2"]}, "/initial/order", "spelled-out-default"),
        ({"order": []}, "/initial/order", "spelled-out-default"),
        ({"order": ["fc1"]}, "/initial/order", "order"),
        ({"order": ["fc2", "fc1", "fc1"]}, "/initial/order", "order"),
        ({"order": ["fc2", "fc9"]}, "/initial/order", "order"),
        ({"order": ["relu1", "fc2", "fc1"]}, "/initial/order", "order"),
        ({"order": "fc1"}, "/initial/order", "type"),
        ({"order": [["fc1"], 2]}, "/initial/order", "type"),
        ({"order": None}, "/initial/order", "type"),
        ({"scheme": "torch-cuda/1"}, "/initial/scheme", "unknown-scheme"),
        ({"scheme": "torch-cpu/2", "order": ["fc2", "fc1"], "x": 1}, "/initial/scheme", "unknown-scheme"),
        ({"scheme": ["torch-cpu/1"]}, "/initial/scheme", "unknown-scheme"),
        ({"scheme": None}, "/initial/scheme", "unknown-scheme"),
        ({"scheme": SCHEME, "order": ["fc2", "fc1"]}, "/initial/order", "unknown-field"),
        ({"seed": "-1"}, "/initial/seed", "seed"),
        ({"seed": str(2**64)}, "/initial/seed", "seed"),
        ({"seed": "43"}, "/initial/sha256/fc1.weight", "initial-digest"),
        ({"order": ["fc2", "fc1"]}, "/initial/sha256/fc2.weight", "initial-digest"),
        ({"scheme": SCHEME}, "/initial/sha256/fc1.weight", "initial-digest"),
        ({"rewind_step": 1}, "/initial/rewind_step", "value"),
    ],
)
def test_what_breaks_the_scheme_is_refused(initial: dict[str, Any], pointer: str, code: str) -> None:
    assert (pointer, code) in refusal(changed(**initial))


def test_laws_that_are_not_torchs_are_refused() -> None:
    laws = dict(torch_ticket().start.laws)
    assert laws["fc1.bias"] == "torch_default"
    for name, law in (("fc1.weight", "kaiming_normal"), ("fc1.bias", "zeros")):
        assert (f"/initial/laws/{name}", "unknown-law") in refusal(changed(laws=laws | {name: law}))


def test_values_of_another_digest_are_named_with_both_digests() -> None:
    digests = dict(torch_ticket().start.sha256)
    report = lint(changed(sha256=digests | {"fc2.bias": "0" * 64}))
    (problem,) = report.errors
    assert problem.pointer == "/initial/sha256/fc2.bias"
    assert f"fc2.bias drawn from the seed by torch-cpu/1 have sha256 {digests['fc2.bias']}" in problem.detail
    assert "the manifest says " + "0" * 64 in problem.detail


def embedding() -> Architecture:
    nodes = [{"name": "words", "op": "embedding", "tokens": 9, "features": 4}, linear("fc", 4, 3)]
    return Architecture.make("words", (5,), nodes)


def test_an_embedding_is_refused_and_named() -> None:
    graph = embedding()
    laws = torch_laws(graph) | {"words.weight": "kaiming_normal"}
    with pytest.raises(InvalidTicket) as caught:
        Ticket.create(graph, {}, task="x", recipe={}, laws=laws, seed=1, scheme=TORCH_SCHEME)
    assert [(p.pointer, p.code) for p in caught.value.errors] == [("/initial/scheme", "no-replay")]
    assert "embedding (words)" in caught.value.errors[0].detail


def test_an_embedding_in_a_file_is_refused_before_anything_is_drawn() -> None:
    graph = embedding()
    laws = torch_laws(graph) | {"words.weight": "kaiming_normal"}
    ticket = Ticket.create(graph, {}, task="x", recipe={}, laws=laws, seed=1)
    manifest, tensors = copy.deepcopy(take_apart(ticket.to_bytes()))
    manifest["initial"]["scheme"] = TORCH_SCHEME
    assert refusal(put_together(manifest, tensors)) == [("/initial/scheme", "no-replay")]


def test_an_order_of_very_many_names_is_refused_at_once() -> None:
    data = changed(order=["fc1"] * 200_000)
    start = time.perf_counter()
    assert ("/initial/order", "order") in refusal(data)
    assert time.perf_counter() - start < 2


# stored values


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("order", [(), ("fc2", "fc1")])
def test_stored_values_that_a_named_seed_draws_count_as_seeded(kept: bool, order: tuple[str, ...]) -> None:
    seeded = torch_ticket(order=order)
    stored = as_stored(seeded, kept=kept)
    assert stored.start.kind == "stored"
    assert stored.digest == seeded.digest
    assert stored.is_redrawable
    assert not any("stored" in warning for warning in lint(stored.to_bytes()).warnings)
    assert not as_stored(seeded, kept=kept, seed=None, order=()).is_redrawable
    assert not as_stored(seeded, kept=kept, seed=43).is_redrawable


def test_one_bit_in_a_pruned_place_is_enough_not_to_count_as_seeded() -> None:
    """The dense baseline starts from pruned values too: nobody may starve it."""
    seeded = torch_ticket()
    stored = as_stored(seeded)
    place = int(np.flatnonzero(~seeded.mask("fc1.weight"))[0])
    values = {name: array.copy() for name, array in stored.start.stored.items()}
    values["fc1.weight"].view(np.uint32)[place] ^= 1
    changed_ticket = dataclasses.replace(stored, start=dataclasses.replace(stored.start, stored=values))
    assert not Ticket.from_bytes(changed_ticket.to_bytes()).is_redrawable
    assert "MATCHING at best" in " ".join(lint(changed_ticket.to_bytes()).warnings)


def test_minus_zero_is_not_zero() -> None:
    stored = as_stored(torch_ticket("resnet-20"))
    name = next(name for name, law in stored.start.laws.items() if law == "zeros")
    assert stored.is_redrawable
    values = {**stored.start.stored, name: -stored.start.stored[name]}
    other = dataclasses.replace(stored, start=dataclasses.replace(stored.start, stored=values))
    assert not other.is_redrawable


def test_controls_draw_biases_by_torchs_law_from_our_own_scheme() -> None:
    ticket = torch_ticket()
    fresh = draw_all(ticket.architecture, ticket.start.laws, 1, REINIT)
    bound = 1 / 8
    assert 0.5 * bound < np.abs(fresh["fc1.bias"]).max() <= bound
    assert not np.array_equal(fresh["fc1.bias"], ticket.values_of_seed()["fc1.bias"])
    assert len(set(fresh["fc1.bias"].tolist())) == 16
