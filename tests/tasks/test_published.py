"""The published data sets, where this machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nirvana import tasks
from nirvana.tasks.arrays import arrays_sha256, read_published


def data_folder() -> Path:
    named = os.environ.get("NIRVANA_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(params=["mnist", "fashion-mnist"])
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = data_folder()
    if not (folder / request.param).is_dir():
        pytest.skip(
            f"data set not here: no {request.param} in {folder}: set NIRVANA_DATA to the folder that holds it"
        )
    monkeypatch.setenv("NIRVANA_DATA", str(folder))
    monkeypatch.setenv("NIRVANA_OFFLINE", "1")
    return str(request.param)


def test_the_published_arrays_have_the_tasks_digest(name: str) -> None:
    assert arrays_sha256(*read_published(tasks.get(name))) == tasks.get(name).data_sha256


def test_validation_is_the_last_5000_published_training_images(name: str) -> None:
    task, parts = tasks.get(name), tasks.load(name)
    images, labels, _, test_labels = read_published(task)
    assert np.array_equal(parts.validation_x, task.normalise(images[55_000:]))
    assert np.array_equal(parts.validation_y, labels[55_000:])
    assert np.array_equal(parts.test_y, test_labels)
    assert parts.train_x.shape == (55_000, 1, 28, 28)


def test_pixels_are_standardised_by_the_training_part(name: str) -> None:
    x = tasks.load(name).train_x
    assert abs(float(x.mean(dtype=np.float64))) < 1e-3
    assert abs(float(x.std(dtype=np.float64)) - 1) < 1e-3
