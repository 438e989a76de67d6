"""Tasks as bytes: the same numbers as the float32 arrays, in a quarter of the memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nirvana import tasks
from nirvana.errors import NotFound
from tests.tasks.test_published import need

PARTS = ("train", "validation", "test")

_PEAK = """
import nirvana.tasks.arrays
from nirvana import tasks

def peak():
    with open("/proc/self/status") as lines:
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

before = peak()
data = tasks.load_bytes("mnist")
print(peak() - before)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))


def check_bits(name: str) -> None:
    """x * scale - shift in float32 is what `tasks.load` has, bit by bit."""
    found, expected = tasks.load_bytes(name), tasks.load(name)
    assert found is not None
    shape = tasks.get(name).input_shape
    assert found.scale.shape == found.shift.shape == shape
    assert found.scale.dtype == found.shift.dtype == np.float32
    for part in PARTS:
        x, y = getattr(found, f"{part}_x"), getattr(found, f"{part}_y")
        assert (x.dtype, y.dtype, x.shape[1:]) == (np.uint8, np.int64, shape)
        standardised = x.astype(np.float32) * found.scale
        standardised -= found.shift
        whole = getattr(expected, f"{part}_x")
        assert np.array_equal(standardised.view(np.uint32), whole.view(np.uint32))
        assert np.array_equal(y, getattr(expected, f"{part}_y"))


def test_bytes_of_the_digits_are_standardised_to_the_same_bits() -> None:
    check_bits("digits")


def test_bytes_of_a_published_data_set_are_standardised_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need("mnist", monkeypatch)
    check_bits("mnist")


def test_bytes_of_three_channels_are_standardised_to_the_same_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, [100, 180, 256], (120, 8, 9, 3)).astype(np.uint8)
    np.savez(tmp_path / "pictures.npz", images=images, labels=np.arange(120) % 4)
    task = tasks.add(tmp_path / "pictures.npz", "pictures")
    assert np.shape(task.normalisation) == (2, 3)
    check_bits("pictures")


def test_a_task_of_floats_has_no_bytes(tmp_path: Path) -> None:
    rows = [f"{row % 7}.5,{row % 3}.25,{'abc'[row % 3]}" for row in range(120)]
    (tmp_path / "flowers.csv").write_text("\n".join(["length,width,kind", *rows]))
    tasks.add(tmp_path / "flowers.csv", "flowers")
    assert tasks.load_bytes("flowers") is None


def test_an_unknown_task_has_no_bytes_either() -> None:
    with pytest.raises(NotFound, match="task 'nowhere' is unknown"):
        tasks.load_bytes("nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_mnist_as_bytes_takes_little_more_than_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    need("mnist", monkeypatch)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert 50 < float(done.stdout) < 65  # MB: 47 + 8 of images
