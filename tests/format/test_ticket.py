"""Tickets: written and read again, the same bytes, the same identity, readable by a stranger's reader."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rfc8785
import safetensors.numpy

import nirvana
from nirvana.errors import Invalid, InvalidTicket, NotFound, TooLarge, Unavailable
from nirvana.files import write_atomically
from nirvana.format.container import MAX_HEADER_BYTES
from nirvana.format.initial import default_laws, draw_all
from nirvana.format.lint import find_warnings, lint
from nirvana.format.reader import Limits
from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from tests.factories import RECIPE, entropy_bound_bytes, make_masks, make_ticket, put_together, take_apart
from tests.format import independent_reader


@pytest.mark.parametrize("stored", [False, True])
def test_a_ticket_survives_its_file(stored: bool, tmp_path: Path) -> None:
    ticket = make_ticket(stored=stored, description="**bold**")
    ticket.write(tmp_path / "a.ticket")
    found = Ticket.read(tmp_path / "a.ticket")
    assert found.to_bytes() == ticket.to_bytes()
    assert found.digest == ticket.digest
    assert found.description == "**bold**"
    for name, values in ticket.initial_values().items():
        assert np.array_equal(found.initial_values()[name], values)
        assert values.shape == ticket.architecture.parameters[name]


def test_the_same_parts_give_the_same_bytes_in_another_process() -> None:
    code = "import sys\nfrom tests.factories import make_ticket\n"
    code += "sys.stdout.buffer.write(make_ticket().to_bytes())"
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    assert there.stdout == make_ticket().to_bytes()


def test_pruned_values_are_zero_and_kept_ones_follow_from_the_seed() -> None:
    ticket = make_ticket()
    dense = ticket.dense_initial_values()
    assert dense is not None
    for name, values in ticket.initial_values().items():
        mask = ticket.mask(name)
        assert np.array_equal(values[mask], dense[name][mask])
        assert not values[~mask].any()


@pytest.mark.parametrize("stored", [False, True])
def test_initial_values_are_read_by_name_and_fresh_ones_never_change_the_ticket(stored: bool) -> None:
    ticket = make_ticket(stored=stored)
    before = ticket.initial["fc1.bias"].copy()
    assert set(ticket.initial) == set(ticket.architecture.parameters)
    with pytest.raises(ValueError, match="read-only"):
        ticket.initial["fc1.weight"][0] = 1
    for values in ticket.initial_values().values():
        values += 1
    assert np.array_equal(ticket.initial_values()["fc1.bias"], before)
    assert np.array_equal(ticket.initial["fc1.weight"], ticket.initial_values()["fc1.weight"])


def test_identity_ignores_encodings_claims_task_description_and_kind() -> None:
    plain = make_ticket()
    claim = {"task": "mnist", "metric": "test_accuracy", "value": 0.5, "replicates": 1}
    assert make_ticket(claims=(claim,), task="mnist", description="x", license="MIT").digest == plain.digest
    assert make_ticket(stored=True).digest == plain.digest
    assert make_ticket(seed=18).digest != plain.digest
    assert make_ticket(density=0.21).digest != plain.digest


def test_a_full_mask_is_the_same_as_no_mask() -> None:
    architecture = zoo.build("mlp-16", (1, 8, 8), 10)
    laws = default_laws(architecture)
    full = {name: np.ones(architecture.parameters[name], bool) for name in architecture.prunable}
    fields = {"task": "digits", "recipe": RECIPE.to_dict(), "laws": laws, "seed": 1}
    with_masks = Ticket.create(architecture, full, **fields)  # type: ignore[arg-type]
    without = Ticket.create(architecture, {}, **fields)  # type: ignore[arg-type]
    assert with_masks.digest == without.digest
    assert without.density == 1
    assert lint(without.to_bytes()).warnings == ("nothing is pruned: this is the dense network",)


def test_a_stored_ticket_may_keep_the_survivors_alone() -> None:
    whole = make_ticket(stored=True)
    values = {name: v[whole.mask(name)] for name, v in whole.initial_values().items()}
    partial = make_ticket(stored=True)
    manifest, tensors = take_apart(partial.to_bytes())
    tensors |= {f"initial/{name}": kept for name, kept in values.items()}
    found = Ticket.from_bytes(put_together(manifest, tensors))
    assert found.digest == whole.digest
    assert found.dense_initial_values() is None
    assert "MATCHING at best" in lint(found.to_bytes()).warnings[0]


def test_running_statistics_travel_with_rewound_values() -> None:
    architecture = zoo.build("resnet-20", (1, 8, 8), 10)
    laws = default_laws(architecture)
    values = draw_all(architecture, laws, 1)
    values |= {name: np.full(shape, 0.5, np.float32) for name, shape in architecture.buffers.items()}
    ticket = Ticket.create(
        architecture,
        make_masks(architecture),
        task="digits",
        recipe={},
        laws=laws,
        stored=values,
        rewind_step=500,
        seed=1,
    )
    assert ticket.initial_values()["norm.running_mean"].tolist() == [0.5] * 16
    assert Ticket.from_bytes(ticket.to_bytes()).digest == ticket.digest


@pytest.mark.parametrize("name", ["mlp-16", "lenet-300-100", "conv-2", "resnet-20"])
@pytest.mark.parametrize("stored", [False, True])
def test_a_reader_written_from_the_page_alone_agrees(name: str, stored: bool) -> None:
    for law in ("glorot_normal", "kaiming_uniform", "torch_default", "kaiming_signed_constant"):
        architecture = zoo.build(name, (1, 8, 8), 10)
        ticket = make_ticket(name, stored=stored, laws=default_laws(architecture, law), seed=2**63 + 12345)
        found = independent_reader.read(ticket.to_bytes())
        assert found["digest"] == ticket.digest
        assert found["density"] == ticket.density
        for parameter, values in ticket.initial_values().items():
            assert np.array_equal(found["values"][parameter], values)
        if name == "resnet-20":
            break  # its philox is slow: one law is enough


def test_the_independent_reader_is_short() -> None:
    lines = Path(independent_reader.__file__).read_text().splitlines()
    assert len([line for line in lines if line.strip()]) <= 130


def test_safetensors_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    ticket = make_ticket(stored=True)
    ticket.write(tmp_path / "a.ticket")
    theirs = safetensors.numpy.load_file(tmp_path / "a.ticket")
    assert {name.split("/")[0] for name in theirs} == {"mask", "initial"}
    _, tensors = take_apart(ticket.to_bytes())
    text = rfc8785.dumps(ticket.manifest()).decode()
    data = safetensors.numpy.save(tensors, {"format": "nirvana.ticket/1", "manifest": text})
    assert Ticket.from_bytes(data).digest == ticket.digest


def test_a_sparse_ticket_takes_its_entropy_and_a_small_manifest() -> None:
    architecture = zoo.build("lenet-300-100", (1, 28, 28), 10)
    masks = make_masks(architecture, 0.036)
    recipe = make_ticket().recipe
    laws = default_laws(architecture)
    ticket = Ticket.create(architecture, masks, task="mnist", recipe=recipe, laws=laws, seed=17)
    assert len(ticket.to_bytes()) <= 1.06 * entropy_bound_bytes(masks.values()) + 4096


def test_density_sparsity_and_compression_come_from_the_masks() -> None:
    ticket = make_ticket(density=0.25)
    assert (ticket.kept, ticket.total) == (256 + 40, 1184)
    assert ticket.density == 0.25
    assert ticket.sparsity == 0.75
    assert ticket.compression == 4
    assert ticket.flops() == 2 * 296
    assert [layer["density"] for layer in ticket.layers()] == [0.25, 0.25]


def test_density_is_of_the_whole_network_whatever_the_submitter_calls_prunable() -> None:
    whole = make_ticket(density=0.25)
    masks = {"fc2.weight": whole.masks["fc2.weight"]}
    ticket = make_ticket(masks=masks, prunable=["fc2.weight"])
    assert (ticket.prunable_kept, ticket.prunable_total) == (40, 160)
    assert (ticket.kept, ticket.total) == (1024 + 40, 1184)
    assert ticket.density == (1024 + 40) / 1184 == independent_reader.read(ticket.to_bytes())["density"]
    assert ticket.kept_parameters == 1024 + 16 + 40 + 10
    assert [(layer["name"], layer["kept"]) for layer in ticket.layers()] == [
        ("fc1.weight", 1024),
        ("fc2.weight", 40),
    ]
    assert ticket.flops() == 2 * 1064
    assert [warning for warning in find_warnings(ticket) if "fc1.weight" in warning]
    assert not list(find_warnings(whole))


def test_attention_and_embeddings_count_and_normalisations_do_not() -> None:
    nodes: list[dict[str, Any]] = [
        {"name": "embed", "op": "embedding", "tokens": 5, "features": 4},
        {"name": "norm", "op": "layer_norm", "shape": [6, 4]},
        {"name": "attention", "op": "self_attention", "features": 4, "heads": 2},
        {"name": "fc", "op": "linear", "in": 4, "out": 3},
    ]
    architecture = Architecture.make("tiny", (6,), nodes)
    ticket = make_ticket(architecture=architecture, masks={"fc.weight": np.eye(3, 4, dtype=bool)})
    assert (ticket.total, ticket.kept) == (20 + 48 + 16 + 12, 20 + 48 + 16 + 3)
    assert ticket.kept_parameters == ticket.architecture.parameter_count - 9
    assert ticket.density == ticket.kept / ticket.total


def test_a_network_without_weights_has_a_density_and_no_division_by_zero() -> None:
    architecture = Architecture.make("bare", (2, 4), [{"name": "norm", "op": "layer_norm", "shape": [2, 4]}])
    mask = np.arange(8).reshape(2, 4) > 3
    ticket = make_ticket(architecture=architecture, masks={"norm.weight": mask}, prunable=["norm.weight"])
    assert (ticket.density, ticket.compression, ticket.kept, ticket.total) == (1, 1, 0, 0)
    assert (ticket.kept_parameters, ticket.prunable_kept) == (12, 4)


def test_a_file_that_is_not_there_or_no_file_or_too_large_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no file .*nothing\.ticket"):
        Ticket.read(tmp_path / "nothing.ticket")
    with pytest.raises(Invalid, match="cannot be read"):
        Ticket.read(tmp_path)
    path = tmp_path / "a.ticket"
    make_ticket().write(path)
    with pytest.raises(TooLarge, match=r"bytes, expected at most 100"):
        Ticket.read(path, Limits(max_bytes=100))


def test_a_huge_sparse_file_is_refused_by_its_size_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.ticket"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(TooLarge, match=str(2**40)):
        lint(path)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ticket"
    make_ticket().write(path)
    before = path.read_bytes()
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
    code = f"{limited} import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    code += f"from tests.factories import make_ticket; make_ticket(density=0.5).write({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "File too large" in done.stderr
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.ticket"]


def test_an_atomic_write_makes_its_folder(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "file", b"x")
    assert (tmp_path / "deep" / "file").read_bytes() == b"x"


def test_wrong_parts_never_become_a_ticket() -> None:
    architecture = zoo.build("mlp-16", (1, 8, 8), 10)
    laws = default_laws(architecture)
    empty = {"fc1.weight": np.zeros((16, 64), bool)}
    with pytest.raises(InvalidTicket, match="collapsed"):
        Ticket.create(architecture, empty, task="digits", recipe={}, laws=laws, seed=1)
    with pytest.raises(InvalidTicket, match="which is not in prunable"):
        Ticket.create(
            architecture, {"fc1.bias": np.zeros(16, bool)}, task="digits", recipe={}, laws=laws, seed=1
        )
    assert MAX_HEADER_BYTES == 4 * 2**20


@pytest.mark.parametrize("value", [1e20, 1e21, 5e-324, 2.0**53 - 1, 2.0**53, -1e17, 0.1])
def test_any_finite_number_survives_in_a_recipe(value: float) -> None:
    ticket = make_ticket(recipe={"learning_rate": value})
    assert Ticket.from_bytes(ticket.to_bytes()).recipe == {"learning_rate": value}


def test_a_module_without_torch_installed_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("nirvana.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(nirvana, "torch", raising=False)  # put back, or a half-imported one would stay
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Unavailable, match=r"torch is not installed here: pip install .*lab"):
        make_ticket().to_torch()
