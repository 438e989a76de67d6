"""predict: the classes that a trained ticket gives to examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nirvana.cli.experiments import Engine
from nirvana.cli.output import Json, Output, Quiet, percent
from nirvana.errors import Invalid, JsonObject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nirvana.tasks import Task
    from nirvana.tasks.inputs import Inputs
    from nirvana.weights import Weights

Model = Annotated[
    str,
    typer.Argument(
        metavar="WEIGHTS", help="File of `nirvana train --out`, or a ticket: its values, untrained."
    ),
]


def predict(
    model: Model,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", "-i", help="A .npy, .npz, .csv or .tsv file, or an image; may be repeated."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Split of a task, such as mnist/test: its examples, with accuracy.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to name for each example.")] = 1,
    rows: Annotated[int, typer.Option(min=0, help="Maximum examples to print; --json prints all.")] = 20,
    label: Annotated[str | None, typer.Option(help="Array or column of labels.")] = None,
    normalised: Annotated[bool, typer.Option("--normalised", help="Inputs are standardised.")] = False,
    white: Annotated[float | None, typer.Option(min=0, help="Raw value that stands for white.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in memory as floats at a time.")] = 1000,
    engine: Engine = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print each example's class and its probability, and the accuracy where labels are known.

    Raw values are standardised by the task that the weights were trained on.
    """
    from nirvana.engines import choose_engine

    output = Output(json, quiet)
    if bool(inputs) == bool(task):
        raise Invalid("expected either --input FILE or --task NAME/SPLIT, such as --task mnist/test")
    weights = read_weights(model)
    if weights.training is None:
        output.say("these are a ticket's initial values, untrained: nirvana train --out FILE trains them")
    choice = choose_engine(engine, weights.architecture, weights.masks, None)
    if choice.reason:
        output.say(f"torch answers: {choice.reason}")
    examples = _read_examples(inputs, task, weights.task, label, normalised, white)
    is_raw = not normalised or task is not None
    logits = _logits(weights, examples, is_raw, batch_size, choice.engine)
    answer = _answer(weights, examples, logits, top) | {"engine": choice.engine}
    output.data(answer, lambda: _print(output, answer, rows))


def read_weights(model: str) -> Weights:
    """Read the weights in a file of trained ones, or a ticket's initial values."""
    from nirvana.client.api import load
    from nirvana.weights import Weights

    if Path(model).suffix == ".npz":
        return Weights.read(model)
    return Weights.untrained(load(model))


def _read_examples(
    paths: list[Path] | None,
    split: str | None,
    task: Task,
    label: str | None,
    normalised: bool,
    white: float | None,
) -> Inputs:
    """Read raw examples, unless `normalised` says that they are standardised."""
    from nirvana.tasks.inputs import Inputs, check_raw, read_inputs

    if split is not None:
        return _read_split(split, task)
    if normalised and white is not None:
        raise Invalid("--white is of raw values, expected no --normalised with it")
    inputs = read_inputs(paths or [], task, label)
    if white is not None:
        if not white:
            raise Invalid("--white is 0, expected the raw value of white, above 0")
        inputs = Inputs(inputs.x * (task.pixel_max / white), inputs.labels, inputs.names)
    if not normalised:
        check_raw(inputs.x, task)
    return inputs


def _read_split(named: str, expected: Task) -> Inputs:
    """Read a split, raw; `named` is NAME/SPLIT of a task, or its NAME alone for the test set."""
    from nirvana import tasks
    from nirvana.tasks.inputs import Inputs

    name, _, split = named.partition("/")
    task = tasks.get(name)
    if task.input_shape != expected.input_shape or task.classes != expected.classes:
        raise Invalid(
            f"{name} has inputs of {list(task.input_shape)} and {task.classes} classes, expected "
            f"{list(expected.input_shape)} and {expected.classes} as {expected.name}"
        )
    return Inputs(*tasks.load_raw(task, split or "test"))


def _logits(
    weights: Weights, examples: Inputs, is_raw: bool, batch_size: int, engine: str
) -> NDArray[np.float32]:
    """Return logits, (n, classes), computed a batch of examples at a time."""
    import numpy as np

    from nirvana.engines import predict_logits

    parts = []
    for start in range(0, len(examples.x), batch_size):
        x = examples.x[start : start + batch_size]
        standardised = weights.task.normalise(x) if is_raw else x.astype(np.float32)
        parts.append(predict_logits(weights, standardised, engine=engine))
    return np.concatenate(parts)


def _answer(weights: Weights, examples: Inputs, logits: NDArray[np.float32], top: int) -> JsonObject:
    """Return the predictions, and the accuracy where there are labels."""
    import numpy as np

    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    names, labels = weights.task.class_names, examples.labels
    predictions = []
    for place, best in enumerate(order):
        ranked = [{"class": names[i], "probability": float(probabilities[place, i])} for i in best]
        prediction: JsonObject = {"index": place, **ranked[0]}
        prediction |= {"top": ranked} if top > 1 else {}
        prediction |= {"label": names[labels[place]]} if labels is not None else {}
        prediction |= {"input": examples.names[place]} if examples.names else {}
        predictions.append(prediction)
    answer: JsonObject = {"ticket": weights.ticket, "task": weights.task.name, "n": len(logits)}
    answer["trained"] = weights.training is not None
    if labels is not None:
        answer["accuracy"] = float((order[:, 0] == labels).mean())
    return answer | {"predictions": predictions}


def _print(output: Output, answer: JsonObject, rows: int) -> None:
    shown = answer["predictions"][:rows]
    has_labels = "accuracy" in answer
    columns = ("example", "class", "probability", *(["label"] if has_labels else []))
    if shown:
        output.table(columns, [row for one in shown for row in _rows(one, has_labels)])
    if answer["n"] > rows:
        output.say(f"{answer['n'] - rows:,} more examples: --rows or --json prints them")
    if has_labels:
        print(f"accuracy {percent(answer['accuracy'])} of {answer['n']:,} examples")


def _rows(one: JsonObject, has_labels: bool) -> list[tuple[object, ...]]:
    """Return a row for each class that an example may be."""
    name = one.get("input", one["index"])
    ranked = one.get("top", [one])
    label = [one["label"]] if has_labels else []
    return [(name, best["class"], f"{best['probability']:.4f}", *label) for best in ranked]
