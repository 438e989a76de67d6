"""predict: what a trained ticket says about examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nirvana.cli.output import Json, Output, Quiet, percent

if TYPE_CHECKING:
    from nirvana.inputs import Inputs
    from nirvana.tasks import Task
    from nirvana.trained import Weights

Model = Annotated[
    str,
    typer.Argument(
        metavar="WEIGHTS", help="A file that `nirvana train --out` wrote, or a ticket: its values, untrained."
    ),
]


def predict(
    model: Model,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", "-i", help="A .npy, .npz, .csv or .tsv file, or an image (may be repeated)."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="A task's split, such as mnist/test: its examples, with accuracy.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each example.")] = 1,
    rows: Annotated[int, typer.Option(min=0, help="The most examples to print; --json prints all.")] = 20,
    label: Annotated[str | None, typer.Option(help="The array or column of labels.")] = None,
    normalised: Annotated[bool, typer.Option("--normalised", help="Inputs are standardised.")] = False,
    white: Annotated[float | None, typer.Option(min=0, help="The raw value that stands for white.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in memory as floats at a time.")] = 1000,
    engine: Annotated[str, typer.Option(help="auto, dense (torch) or sparse.")] = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say each example's class and its probability, and the accuracy where labels are known.

    Raw values are standardised by the task that the weights were trained on.
    """
    from nirvana.errors import Invalid
    from nirvana.running import choose_engine

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
    """The weights in a file of trained ones, or a ticket's initial values."""
    from nirvana.api import load
    from nirvana.trained import Weights

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
    """Raw examples, unless `normalised` says that they are standardised."""
    from nirvana.errors import Invalid
    from nirvana.inputs import Inputs, check_raw, read_inputs

    if split is not None:
        return _read_split(split, task)
    if normalised and white is not None:
        raise Invalid("--white is of raw values, expected no --normalised with it")
    found = read_inputs(paths or [], task, label)
    if white is not None:
        if not white:
            raise Invalid("--white is 0, expected the raw value of white, above 0")
        found = Inputs(found.x * (task.pixel_max / white), found.labels, found.names)
    if not normalised:
        check_raw(found.x, task)
    return found


def _read_split(named: str, expected: Task) -> Inputs:
    """A task's split, raw; `named` is its name, a slash and the split, or its name alone for the test set."""
    from nirvana import tasks
    from nirvana.errors import Invalid
    from nirvana.inputs import Inputs

    name, _, split = named.partition("/")
    task = tasks.get(name)
    if task.input_shape != expected.input_shape or task.classes != expected.classes:
        raise Invalid(
            f"{name} has inputs of {list(task.input_shape)} and {task.classes} classes, expected "
            f"{list(expected.input_shape)} and {expected.classes} as {expected.name}"
        )
    return Inputs(*tasks.load_raw(task, split or "test"))


def _logits(weights: Weights, examples: Inputs, is_raw: bool, batch_size: int, engine: str) -> Any:
    """Logits, (n, classes), a batch of examples at a time."""
    import numpy as np

    from nirvana.running import predict_logits

    parts = []
    for start in range(0, len(examples.x), batch_size):
        x = examples.x[start : start + batch_size]
        read = weights.task.normalise(x) if is_raw else x.astype(np.float32)
        parts.append(predict_logits(weights, read, engine=engine))
    return np.concatenate(parts)


def _answer(weights: Weights, examples: Inputs, logits: Any, top: int) -> dict[str, Any]:
    """What is printed: the predictions, and the accuracy where there are labels."""
    import numpy as np

    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    names, labels = weights.task.class_names, examples.labels
    predictions = []
    for place, best in enumerate(order):
        ranked = [{"class": names[i], "probability": float(probabilities[place, i])} for i in best]
        found: dict[str, Any] = {"index": place, **ranked[0]}
        found |= {"top": ranked} if top > 1 else {}
        found |= {"label": names[labels[place]]} if labels is not None else {}
        found |= {"input": examples.names[place]} if examples.names else {}
        predictions.append(found)
    answer: dict[str, Any] = {"ticket": weights.ticket, "task": weights.task.name, "n": len(logits)}
    answer["trained"] = weights.training is not None
    if labels is not None:
        answer["accuracy"] = float((order[:, 0] == labels).mean())
    return answer | {"predictions": predictions}


def _print(output: Output, answer: dict[str, Any], rows: int) -> None:
    shown = answer["predictions"][:rows]
    has_labels = "accuracy" in answer
    columns = ("example", "class", "probability", *(["label"] if has_labels else []))
    if shown:
        output.table(columns, [row for one in shown for row in _rows(one, has_labels)])
    if answer["n"] > rows:
        output.say(f"{answer['n'] - rows:,} more examples: --rows or --json prints them")
    if has_labels:
        print(f"accuracy {percent(answer['accuracy'])} of {answer['n']:,} examples")


def _rows(one: dict[str, Any], has_labels: bool) -> list[tuple[Any, ...]]:
    """A row for each class that an example may be."""
    name = one.get("input", one["index"])
    ranked = one.get("top", [one])
    label = [one["label"]] if has_labels else []
    return [(name, best["class"], f"{best['probability']:.4f}", *label) for best in ranked]
