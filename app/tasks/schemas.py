"""Bodies of tasks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from app.db import Json
from app.pagination import Page
from app.schemas import Instant, Plain, RequestModel, ResponseModel, example
from app.tasks.boards import Entry
from app.tickets.models import Listing
from app.tickets.schemas import SUMMARY_EXAMPLE, TicketSummary, summary_of

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
    "pixel_max": 16,
    "normalisation": [0.3, 0.38],
    "sizes": {"train": 1000, "validation": 297, "test": 200},
    "seal": {"rows": 300, "sha256": "6bdf" + 60 * "0", "is_public": True},
    "split": "the first 1,000, the next 297, the next 200; the last 300 are sealed",
    "license": "CC-BY-4.0",
    "source": "https://archive.ics.uci.edu/dataset/80",
    "data_sha256": None,
    "tickets": 11,
    "owner": None,
    "data_bytes": None,
    "yanked_at": None,
    "yank_reason": None,
    "yank_detail": None,
    "removed_at": None,
}
_ESTIMATE: Json = {"mean": 0.9721, "low": 0.9695, "high": 0.9747, "n": 5}
_MEASURED: Json = {
    "interval": [0.9695, 0.9747],
    "engine": "sparse",
    "cost": {"seconds": 41.2, "flops": 3.1e11, "trainings": 35},
}
_REFERENCE: Json = {
    "architecture": "lenet-300-100",
    "total": 50200,
    "dense": _ESTIMATE,
    "reference": _ESTIMATE,
    "sealed_rows": 300,
    "measured_at": "2026-11-21T09:03:00Z",
}
_POINT: Json = {
    "owner": "ada",
    "name": "lenet-300-100-digits-07",
    "architecture": "lenet-300-100",
    "origin": "attested",
    "verdict": "WINNING",
    "kept": 3599,
    "total": 50200,
    "density": 0.0717,
    "accuracy": _ESTIMATE,
    "dense": _ESTIMATE,
    "reference": _ESTIMATE,
    "controls": {"random": _ESTIMATE},
    "engine": "sparse",
}
Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Text = Annotated[Plain, Field(pattern=r"\S")]


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
    pixel_max: Annotated[int, Field(description="the raw value that stands for 1")]
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
    owner: Annotated[str | None, Field(description="the account that made it; null: the library has it")]
    data_bytes: Annotated[int | None, Field(description="of a task that was made here: all its rows")]
    yanked_at: Instant | None
    yank_reason: str | None
    yank_detail: str | None
    removed_at: Annotated[Instant | None, Field(description="since then its data are gone")]


class MadeResponse(TaskResponse):
    """A task that was made."""

    model_config = ResponseModel.model_config | example(**_TASK, warnings=[])
    warnings: Annotated[list[str], Field(description="what is odd about its data and no error")]


class EstimateResponse(ResponseModel):
    """A mean accuracy over replicates, with Student's 95 % interval; of one replicate there is none."""

    model_config = ResponseModel.model_config | example(**_ESTIMATE)
    mean: float
    low: float | None
    high: float | None
    n: int


class ReferenceResponse(ResponseModel):
    """The registry's dense figures of a network on a task, of the newest verification of a ticket of it."""

    model_config = ResponseModel.model_config | example(**_REFERENCE)
    architecture: str
    total: Annotated[int, Field(description="weights of the network")]
    reference: Annotated[
        EstimateResponse, Field(description="the pool by the reference recipe, the task's default one")
    ]
    dense: Annotated[EstimateResponse | None, Field(description="the pool by that ticket's own recipe")]
    sealed_rows: Annotated[int, Field(description="that it was measured on; 0: on the test set")]
    measured_at: Instant


class TaskDetail(TaskResponse):
    """A task with the registry's own dense figures on it."""

    model_config = ResponseModel.model_config | example(**_TASK, references=[_REFERENCE])
    references: Annotated[
        list[ReferenceResponse], Field(description="of the networks with most verified tickets")
    ]


class TaskPage(ResponseModel):
    """One page of tasks."""

    model_config = ResponseModel.model_config | example(items=[_TASK], next_cursor=None)
    items: list[TaskResponse]
    next_cursor: str | None = None


class NewTask(RequestModel):
    """A task to make of a file. The file's own split is kept, where it has one."""

    model_config = RequestModel.model_config | example(
        name="flowers", title="Flowers of my garden", license="CC-BY-4.0", label="kind"
    )
    name: Annotated[Plain, Field(max_length=100, description="with or without `owner/` before it")]
    title: Annotated[Text, Field(max_length=200)]
    license: Annotated[Text, Field(max_length=200, description="of the data, such as CC-BY-4.0")]
    description: Annotated[Text | None, Field(max_length=2000)] = None
    label: Annotated[
        Plain | None, Field(max_length=200, description="column or array of labels; default: last, or y")
    ] = None
    drop: Annotated[
        list[Annotated[Plain, Field(max_length=200)]],
        Field(max_length=150, description="columns to leave out; the field may be repeated"),
    ] = []  # noqa: RUF012
    kind: Annotated[Literal["images", "signals", "table"] | None, Field(description="what an .npz holds")] = (
        None
    )
    image_size: Annotated[
        int | None, Field(ge=1, le=512, description="height and width that images of a .zip get")
    ] = None
    margin: Annotated[
        float | None, Field(gt=0, le=0.5, allow_inf_nan=False, description="of accuracy; default: by rule")
    ] = None
    test_share: Share = 0.2
    validation_share: Share = 0.2
    sealed_share: Annotated[
        float,
        Field(ge=0, lt=1, allow_inf_nan=False, description="of all rows, which verifications alone read"),
    ] = 0.2
    seed: Annotated[int, Field(ge=0, lt=2**63, description="of the split")] = 0


class CostResponse(ResponseModel):
    """The cost of a whole verification: all arms, without runs that were there already."""

    model_config = ResponseModel.model_config | example(**_MEASURED["cost"])
    seconds: float | None
    flops: Annotated[float | None, Field(description="theoretical, of kept weights alone")]
    trainings: int | None


class BoardEntry(TicketSummary):
    """A listing on a leaderboard; `replicates` is its n."""

    model_config = ResponseModel.model_config | example(**SUMMARY_EXAMPLE | _MEASURED)
    interval: Annotated[
        tuple[float, float] | None, Field(description="95 %, of the mean accuracy over replicates")
    ]
    engine: Annotated[str | None, Field(description="that trained the ticket: dense, sparse or stacked")]
    cost: CostResponse | None


class BoardPage(ResponseModel):
    """One page of a leaderboard."""

    model_config = ResponseModel.model_config | example(
        items=[SUMMARY_EXAMPLE | _MEASURED],
        next_cursor=None,
        previous_cursor=None,
        total=1,
        total_is_exact=True,
    )
    items: list[BoardEntry]
    next_cursor: str | None
    previous_cursor: str | None
    total: Annotated[int | None, Field(description="of all pages; on the first page only")]
    total_is_exact: Annotated[bool, Field(description="false: an estimate")]


class FrontierPoint(ResponseModel):
    """A ticket that no other one beats with as many kept weights or fewer."""

    model_config = ResponseModel.model_config | example(**_POINT)
    owner: str
    name: str
    architecture: str
    origin: str
    verdict: str | None
    kept: int
    total: Annotated[int, Field(description="weights of the dense network: where `dense` stands")]
    density: float
    accuracy: EstimateResponse | None
    dense: Annotated[EstimateResponse | None, Field(description="its network, dense, by its recipe")]
    reference: Annotated[EstimateResponse | None, Field(description="the same by the reference recipe")]
    controls: Annotated[dict[str, EstimateResponse], Field(description="with as many weights as the ticket")]
    engine: str


class FrontierResponse(ResponseModel):
    """Accuracy against kept weights: of each class of kept weights, 9 % wide, the most accurate ticket, and
    of those the ones that no smaller one beats, the smallest first."""

    model_config = ResponseModel.model_config | example(task="digits", items=[_POINT])
    task: str
    items: list[FrontierPoint]


def board_page(page: Page[Listing], entries: list[Entry], copies: dict[int, str]) -> BoardPage:
    """Return a page of a leaderboard."""
    names = BoardPage.model_fields.keys() - {"items"}
    items = [_board_entry(entry, copies) for entry in entries]
    return BoardPage.model_validate({name: getattr(page, name) for name in names} | {"items": items})


def _board_entry(entry: Entry, copies: dict[int, str]) -> Json:
    accuracy, more = entry.accuracy, dict[str, Any]()
    has_interval = accuracy is not None and accuracy.low is not None
    more["interval"] = (accuracy.low, accuracy.high) if accuracy and has_interval else None
    return summary_of(entry.row, copies) | more | {"engine": entry.engine or None, "cost": entry.cost or None}


def frontier_response(task: str, entries: list[Entry]) -> FrontierResponse:
    """Return the body of a frontier."""
    points = []
    for entry in entries:
        row = entry.row
        same = {
            name: getattr(row, name) for name in ("name", "origin", "verdict", "kept", "total", "density")
        }
        about = {"owner": row.owner.name, "architecture": row.architecture_name}
        measured = ("accuracy", "dense", "reference", "controls", "engine")
        points.append(same | about | {name: getattr(entry, name) for name in measured})
    return FrontierResponse.model_validate({"task": task, "items": points})
