"""What the sparse engine says that it cannot do, where it pays, and what it needs."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nirvana
from nirvana import sparse
from nirvana.engines import choose_engine
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.training.recipe import Pruning, Recipe
from tests.factories import make_masks
from tests.lab.small import SMALL, network

FLATTEN = {"name": "flatten", "op": "flatten"}
FC1 = {"name": "fc1", "op": "linear", "in": 64, "out": 8}
FC2 = {"name": "fc2", "op": "linear", "in": 8, "out": 10}
RELU = {"name": "relu1", "op": "relu"}


def find(*nodes: dict[str, Any], input: tuple[int, ...] = (1, 8, 8), **fields: Any) -> str | None:
    architecture = Architecture.make("made", input, list(nodes))
    return sparse.find_unsupported(architecture, dataclasses.replace(SMALL, **fields), {})


def test_all_of_the_zoo_but_transformers_is_supported() -> None:
    for name in ("mlp-32", "lenet-5", "conv-2", "conv-6", "resnet-20", "resnet-18", "vgg-11"):
        assert sparse.find_unsupported(zoo.build(name, (3, 32, 32), 10), SMALL, {}) is None
    assert sparse.find_unsupported(zoo.build("conv1d-3", (9, 64), 10), SMALL, {}) is None
    found = sparse.find_unsupported(zoo.build("transformer-2", (9, 64), 10), SMALL, {})
    assert found is not None
    assert found.startswith("linear (")


def test_a_batch_norm_that_sees_one_value_is_named() -> None:
    norm = {"name": "norm", "op": "batch_norm", "channels": 8}
    assert find(FLATTEN, FC1, norm, FC2, batch_size=2) is None
    found = find(FLATTEN, FC1, norm, FC2, batch_size=1)
    assert found is not None
    assert "norm" in found


def test_chains_of_linear_layers_are_supported() -> None:
    assert find(FLATTEN, FC1, RELU, FC2) is None
    assert find(FLATTEN, FC1, {"name": "a", "op": "tanh"}, FC2, RELU) is None
    assert find(FC1, FC2, input=(64,)) is None
    for optimizer in ("sgd", "adam", "adamw"):
        assert find(FLATTEN, FC1, FC2, optimizer=optimizer) is None


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((FLATTEN, FC1, {"name": "drop", "op": "dropout", "rate": 0.5}, FC2), "dropout"),
        ((FLATTEN, FC1, {"name": "norm", "op": "layer_norm", "shape": [8]}, FC2), "layer_norm"),
        ((FLATTEN, FC1, {"name": "bend", "op": "gelu"}, FC2), "gelu (bend)"),
        ((FLATTEN, FC1, RELU, {**FC2, "inputs": ["fc1"]}), "nobody reads relu1"),
        ((FLATTEN,), "no linear layer and no convolution"),
        (({"name": "conv1", "op": "conv2d", "in": 1, "out": 10, "kernel": 3},), "shape [10, 6, 6]"),
    ],
)
def test_nodes_that_are_not_are_named(nodes: tuple[dict[str, Any], ...], message: str) -> None:
    found = find(*nodes)
    assert found is not None
    assert message in found


def test_a_linear_layer_over_tokens_is_named() -> None:
    found = find({"name": "each", "op": "linear", "in": 8, "out": 4}, input=(3, 8))
    assert found is not None
    assert "each" in found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"distillation": {"temperature": 4.0, "weight": 0.5}}, "distillation"),
        ({"l1": 1e-4}, "l1"),
        ({"augmentation": ("flip",)}, "augmentation"),
        ({"pruning": Pruning(mask_0_action="freeze")}, "freeze"),
    ],
)
def test_fields_of_a_recipe_that_are_not_are_named(fields: dict[str, Any], message: str) -> None:
    found = find(FLATTEN, FC1, RELU, FC2, **fields)
    assert found is not None
    assert message in found


def test_a_mask_on_a_bias_is_named() -> None:
    found = sparse.find_unsupported(network(), SMALL, {"fc1.bias": np.ones(16, bool)})
    assert found is not None
    assert "fc1.bias" in found


def test_sparse_networks_and_small_ones_pay_and_large_dense_ones_do_not() -> None:
    large, small = zoo.build("conv-2", (3, 32, 32), 10), network("mlp-16")
    plan = Recipe("adam", 1e-3, 60, 100)
    assert not sparse.pays(large, {}, plan)
    assert not sparse.pays(large, make_masks(large, 0.8), plan)
    assert sparse.pays(large, make_masks(large, 0.3), plan)
    assert sparse.pays(small, {}, plan)


def test_an_update_of_a_millisecond_is_worth_a_second_thread() -> None:
    plan = Recipe("adam", 1e-3, 60, 100)
    small, large = network("lenet-300-100"), zoo.build("conv-2", (3, 32, 32), 10)
    assert sparse.count_useful_threads(small, make_masks(small, 0.05), plan, 8) == 1
    assert sparse.count_useful_threads(large, make_masks(large, 0.05), plan, 8) == 8
    assert sparse.count_useful_threads(large, {}, plan, 1) == 1
    many_waits = zoo.build("lenet-5", (3, 32, 32), 10)  # a millisecond, but four tiles of twelve nodes
    assert sparse.count_useful_threads(many_waits, make_masks(many_waits, 0.1), plan, 8) == 1


def test_a_training_that_several_threads_may_share_pays_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Recipe("adam", 1e-3, 60, 100)
    large = zoo.build("conv-2", (3, 32, 32), 10)
    assert sparse.pays(large, {}, plan, 8)
    assert choose_engine("auto", large, {}, plan).engine == "dense"
    monkeypatch.setenv("NIRVANA_THREADS", "8")
    assert choose_engine("auto", large, {}, plan, None).engine == "sparse"
    assert choose_engine("auto", large, {}, plan, 1).engine == "dense"


def run(code: str, folder: Path, **environment: str) -> str:
    """What `code` prints in a fresh process that finds the package in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_needs_neither_numba_nor_torch() -> None:
    code = "import nirvana, nirvana.sparse, sys; print({'numba', 'torch', 'scipy'} & set(sys.modules))"
    assert run(code, Path(nirvana.__file__).parents[1]).strip() == "set()"


def test_a_missing_numba_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    found = find(FLATTEN, FC1, FC2)
    assert found == "numba is not installed here: pip install 'nirvana-tickets[sparse]'"


def test_compiled_code_needs_no_torch_and_no_cache_folder(tmp_path: Path) -> None:
    """A copy of the package whose cache folders can be made nowhere: each is below a file."""
    shutil.copytree(Path(nirvana.__file__).parent, tmp_path / "nirvana", ignore=_leave_out)
    blocked = tmp_path / "file"
    blocked.touch()
    (tmp_path / "nirvana" / "sparse" / "__pycache__").touch()
    code = """
import sys
from nirvana.sparse import kernels
assert kernels.run_batches.stats.cache_path is None, kernels.run_batches.stats.cache_path

@kernels.entry_point
def double(x):
    return 2 * x

print(double(21), "torch" in sys.modules)
"""
    names = ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "LOCALAPPDATA", "IPYTHONDIR")
    places = {name: str(blocked / "none") for name in names}
    assert run(code, tmp_path, **places).strip() == "42 False"


REGISTERS = """
from llvmlite import binding

real = binding.get_host_cpu_features
binding.get_host_cpu_features = lambda: dict(real()) | {"avx512f": IS_WIDE}
from nirvana.sparse.vectors import ACCUMULATORS
binding.get_host_cpu_features = real
print(ACCUMULATORS)
"""
NUMBA = """
import numba

numba.version_info = VERSION
from nirvana.sparse.compiling import make_inline_pipeline
print(make_inline_pipeline(True) is None)
"""
TRAINING = """
from nirvana import sparse
from nirvana.networks import zoo
from nirvana.training.recipe import Recipe
from tests.factories import make_masks
from tests.lab.small import digits, spec_of, values_of

architecture = zoo.build("NETWORK", (1, 8, 8), 10)
masks, recipe = make_masks(architecture, 0.3), Recipe("sgd", 0.1, 60, 10, evaluate_every=1)
result = sparse.train(spec_of(architecture, values_of(architecture), masks, digits(), recipe))
print(*(loss for _, loss, *_ in result.curve[1:]))
"""


def train(before: str, network: str, folder: Path) -> tuple[str, NDArray[Any]]:
    """What `before` prints in a fresh process, and the losses of a training there after it."""
    code = before + TRAINING.replace("NETWORK", network)
    said, losses = run(code, Path(nirvana.__file__).parents[1], NUMBA_CACHE_DIR=str(folder)).splitlines()
    return said, np.array(losses.split(), float)


def test_processors_of_long_and_of_short_registers_train_alike(tmp_path: Path) -> None:
    """Each way of cutting a batch and of adding up; one of them is this machine's."""
    short, long = (
        train(REGISTERS.replace("IS_WIDE", str(is_wide)), "conv-2", tmp_path / str(is_wide))
        for is_wide in (False, True)
    )
    assert (short[0], long[0]) == ("4", "16")
    np.testing.assert_allclose(short[1], long[1], rtol=1e-4)


def test_a_version_of_numba_that_nobody_tried_trains_alike(tmp_path: Path) -> None:
    """It compiles as numba does by itself, which takes longer; nothing else differs."""
    tried, other = (
        train(NUMBA.replace("VERSION", version), "mlp-16", tmp_path / version)
        for version in ("(0, 68, 1)", "(0, 999, 0)")
    )
    assert (tried[0], other[0]) == ("False", "True")
    assert np.array_equal(tried[1], other[1])


def _leave_out(folder: str, names: list[str]) -> set[str]:
    return {"__pycache__", "torch", "cli"} & set(names)
