"""A task of IDX files is two rows of one catalogue (docs/extending.md)."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from nirvana import lab
from nirvana.errors import DataDamaged
from nirvana.tasks import arrays, catalogue
from nirvana.tasks.files import SourceFile, file_checksum
from tests.lab.small import SMALL

SHAPES = {"x": (120, 4, 4), "y": (120,), "test-x": (40, 4, 4), "test-y": (40,)}
STRIPES = dataclasses.replace(
    catalogue.MNIST,
    name="stripes",
    title="Stripes, 4x4",
    input_shape=(1, 4, 4),
    classes=2,
    class_names=("across", "down"),
    sizes={"train": 100, "validation": 20, "test": 40},
    data_sha256=None,
    homes=(),
)


def idx_gz(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    header = struct.pack(f">I{array.ndim}I", 0x0800 | array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


@pytest.fixture(autouse=True)
def stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of stripes across (class 0) and down (class 1), and the rows that name them."""
    monkeypatch.setenv("NIRVANA_DATA", str(tmp_path))
    folder = tmp_path / "stripes"
    folder.mkdir()
    across = np.repeat(np.array([[0], [255], [0], [255]], np.uint8), 4, axis=1)
    files = []
    for name, shape in SHAPES.items():
        y = np.arange(shape[0], dtype=np.uint8) % 2
        array = y if len(shape) == 1 else np.where(y[:, None, None] == 0, across, across.T)
        path = folder / f"stripes-{name}.gz"
        path.write_bytes(idx_gz(array.astype(np.uint8)))
        files.append(SourceFile(path.name, file_checksum(path, "sha256"), shape))
    monkeypatch.setitem(catalogue.TASKS, "stripes", STRIPES)
    monkeypatch.setitem(catalogue.SOURCE_FILES, "stripes", tuple(files))
    return folder


def test_rows_give_arrays_and_trainings(tmp_path: Path) -> None:
    data = arrays.load_arrays(STRIPES)
    assert data.train_x.shape == (100, 1, 4, 4)
    assert data.test_y.tolist() == [0, 1] * 20
    report = lab.find("stripes", "mlp-8", "one-shot", density=0.5, recipe=SMALL, out=tmp_path)
    (ticket,) = report.tickets
    assert ticket.task == "stripes"
    assert ticket.architecture.input == (1, 4, 4)


def test_files_are_checked(stripes: Path) -> None:
    path = stripes / "stripes-y.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataDamaged, match=r"stripes-y\.gz"):
        arrays.load_arrays(STRIPES)
