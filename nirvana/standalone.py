"""The command line of an exported script: it reads the ticket and the data, trains, and prints the result.

`nirvana.exports.script` puts this module and all that it imports into each script that it writes, so none of
them may need more than NumPy and numba.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import math
import sys
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import NirvanaError
from nirvana.format.masks import Mask
from nirvana.networks.architecture import Architecture
from nirvana.sparse.engine import train
from nirvana.training.events import Reporter
from nirvana.training.recipe import Recipe
from nirvana.training.spec import ByteData, InitialState, TaskData, TrainResult, TrainSpec, Values

Array = NDArray[Any]  # of the type that a file holds

PARTS: tuple[Literal["train", "validation", "test"], ...] = ("train", "validation", "test")
IDX_FILES = ("train-images-idx3", "t10k-images-idx3", "train-labels-idx1", "t10k-labels-idx1")


class TaskFields(TypedDict):
    """The task's fields that reading its data takes: the shape of one example, and the size of each part."""

    input_shape: list[int]
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class EmbeddedTicket:
    """The ticket as a script holds it.

    Attributes:
        values: initial values by parameter, float32, pruned elements 0.
        first_step: the update at which its training starts.
        scale: float32, input_shape. shift: float32, input_shape. They standardise bytes: x * scale - shift.
    """

    architecture: Architecture
    values: Values
    masks: dict[str, Mask]
    recipe: Recipe
    first_step: int
    task: TaskFields
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


def main(digest: str, ticket: str, digits: str) -> None:
    """Train the ticket as the command line says, and print the result; leave the process at an error.

    Args:
        digest: the ticket's.
        ticket: what `read_ticket` reads, as text (see `unpack`).
        digits: the task's images and labels as text, in the order of its split; empty: not in the script.
    """
    arguments = _parse_arguments(digest)
    started = time.perf_counter()
    try:
        embedded = read_ticket(unpack(ticket))
        recipe = replace(embedded.recipe, steps=arguments.steps or embedded.recipe.steps)
        initial = InitialState(embedded.values, embedded.masks, arguments.seed, embedded.first_step)
        data = load_data(arguments.data, digits, embedded)
        spec = TrainSpec(embedded.architecture, initial, data, recipe)
        result = train(spec, Reporter(_print_message), keep_weights=True)
    except NirvanaError as error:
        sys.exit(f"train.py: {error}")
    if result.failed or result.weights is None:
        sys.exit(f"train.py: the loss was not finite at step {result.failed_step}")
    if arguments.out:
        arrays: dict[str, Any] = dict(result.weights)
        np.savez_compressed(arguments.out, **arrays)
    report = _report(result, result.weights, embedded.masks) | {"seconds": time.perf_counter() - started}
    accuracy = f"test accuracy {100 * result.early_stop_test_accuracy:.2f} %"
    print(json.dumps(report) if arguments.json else accuracy)


def _parse_arguments(digest: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Train the lottery ticket {digest}.")
    parser.add_argument("--data", help="folder of IDX files, or .npz (see the top of this file)")
    parser.add_argument("--seed", type=int, default=0, help="of the data's order")
    parser.add_argument("--steps", type=int, help="optimiser updates; default: the recipe's")
    parser.add_argument("--out", help="file (.npz) for the weights after the last step")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser.parse_args()


def unpack(text: str) -> dict[str, Array]:
    """Return the arrays of an .npz file that was compressed by zlib and written in base 85."""
    with np.load(io.BytesIO(zlib.decompress(base64.b85decode(text))), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}


def read_ticket(arrays: Mapping[str, Array]) -> EmbeddedTicket:
    """Return the ticket in a script's arrays: theta/<parameter>, mask/<parameter> as packed bits, manifest
    (UTF-8 bytes of JSON), scale and shift."""
    manifest = json.loads(arrays["manifest"].tobytes())
    values = {name[6:]: array for name, array in arrays.items() if name.startswith("theta/")}
    masks = {}
    for name, packed in arrays.items():
        if name.startswith("mask/"):
            shape = values[name[5:]].shape
            masks[name[5:]] = np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(bool)
    return EmbeddedTicket(
        Architecture.from_manifest(manifest["architecture"]),
        values,
        masks,
        Recipe.from_dict(manifest["recipe"]),
        manifest["initial"]["rewind_step"],
        manifest["task"],
        arrays["scale"],
        arrays["shift"],
    )


def load_data(path: str | None, digits: str, ticket: EmbeddedTicket) -> TaskData | ByteData:
    """Return the train, validation and test parts.

    Args:
        path: a folder of IDX files, or an .npz file; None: the digits in the script.
    """
    if path is not None and not Path(path).is_dir():
        with np.load(path, allow_pickle=False) as arrays:
            return TaskData(*(arrays[f"{part}_{kind}"] for part in PARTS for kind in "xy"))
    if path is not None:
        read = [_read_idx(Path(path) / f"{name}-ubyte.gz") for name in IDX_FILES]
        return _split(read[:2], read[2:], ticket)
    if not digits:
        sys.exit("train.py: this task's data are not in the script: give --data (see --help)")
    embedded = unpack(digits)
    return _split([embedded["images"]], [embedded["labels"]], ticket)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _split(images: list[Array], labels: list[Array], ticket: EmbeddedTicket) -> ByteData:
    """Cut one or two files, which lie end to end, into the parts; none of these begins in one file and ends
    in the other."""
    task, parts = ticket.task, list[Array]()
    files = [file.reshape(-1, *task["input_shape"]) for file in images]
    classes = np.concatenate(labels).astype(np.int64)
    ends = np.cumsum([0, *(task[part] for part in PARTS)])
    for start, end in pairwise(ends):
        file, offset = (files[0], 0) if end <= len(files[0]) else (files[-1], len(files[0]))
        parts += [file[start - offset : end - offset], classes[start:end]]
    return ByteData._make([*parts, ticket.scale, ticket.shift])


def _print_message(event: Mapping[str, object]) -> None:
    print(event["message"], file=sys.stderr)


def _report(result: TrainResult, weights: Values, masks: Mapping[str, Mask]) -> dict[str, str | int | float]:
    return {
        "test_accuracy": result.early_stop_test_accuracy,
        "early_stop_step": result.early_stop_step,
        "final_test_accuracy": result.final_test_accuracy,
        "untrained_test_accuracy": result.untrained_test_accuracy,
        "engine": result.engine,
        "kept": sum(int(mask.sum()) for mask in masks.values()),
        "nonzero": sum(int((weights[name] != 0).sum()) for name in masks),
    }
