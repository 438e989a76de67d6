"""Bodies of tasks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.db import Json
from app.schemas import ResponseModel, example

_TASK: Json = {
    "name": "digits",
    "title": "Handwritten digits, 8 x 8",
    "description": "1,797 images of handwritten digits.",
    "input_shape": [1, 8, 8],
    "classes": 10,
    "class_names": [str(digit) for digit in range(10)],
    "metric": "test_accuracy",
    "margin": 0.01,
    "margin_reason": "about one standard error of the test set",
    "normalisation": [0.3, 0.38],
    "sizes": {"train": 1000, "validation": 297, "test": 200},
    "seal": {"rows": 300, "sha256": "6bdf" + 60 * "0", "is_public": True},
    "split": "the first 1,000, the next 297, the next 200; the last 300 are sealed",
    "license": "CC-BY-4.0",
    "source": "https://archive.ics.uci.edu/dataset/80",
    "data_sha256": None,
    "tickets": 11,
}


class SealResponse(ResponseModel):
    """Test rows that are stored apart, in no download, and read by verifications alone."""

    model_config = ResponseModel.model_config | example(**_TASK["seal"])
    rows: int
    sha256: str
    is_public: Annotated[bool, Field(description="the same rows can be had elsewhere: it proves nothing")]


class TaskResponse(ResponseModel):
    """A task: a data set with its split, metric and margin."""

    model_config = ResponseModel.model_config | example(**_TASK)
    name: str
    title: str
    description: str
    input_shape: list[int]
    classes: int
    class_names: list[str]
    metric: str
    margin: Annotated[float, Field(description="difference in accuracy below which two networks are equal")]
    margin_reason: str
    normalisation: Annotated[
        list[float] | list[list[float]], Field(description="mean and sd, or those of each channel")
    ]
    sizes: dict[str, int]
    seal: SealResponse | None
    split: str
    license: str
    source: str
    data_sha256: str | None
    tickets: Annotated[int, Field(description="public listings for it")]


class TaskPage(ResponseModel):
    """Every task."""

    model_config = ResponseModel.model_config | example(items=[_TASK], next_cursor=None)
    items: list[TaskResponse]
    next_cursor: str | None = None
