"""Arrays of a user's .npz file: examples and labels, in one part or three.

An array is known by the words of its name, parted by underscores: `x`, `images`, `signals` or `data` hold
examples, `y` or `labels` their classes; `train`, `validation` (`val`, `valid`) or `test` say which part. So
`x` and `y`, `train_images` and `train_labels`, `x_train` and `y_train` are all understood, and an array
`split` of the three words beside `x` and `y`.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from nirvana.tasks.examples import Examples, check_size, compact, listed, read_parts, refuse
from nirvana.tasks.task import PARTS, Array

KINDS = ("images", "signals", "table")

_EXAMPLES = {"x": None, "data": None, "features": "table", "images": "images", "signals": "signals"}
_LABELS = ("y", "labels", "label", "targets", "target")
_PART_WORDS = {"train": 0, "validation": 1, "val": 1, "valid": 1, "test": 2, "sealed": 3}
_CHANNELS = (1, 3, 4)
_DIMENSIONS = {"images": (3, 4), "signals": (3,), "table": (2, 3, 4)}
_SIGNAL_RATIO = 4  # a float array whose sides differ by more is taken for signals

Arrays = dict[str, Array]


def read_npz(path: Path, label: str | None = None, kind: str | None = None) -> Examples:
    """Read the examples of an .npz file.

    Args:
        label: the labels' array; None: found by its name.
        kind: what the arrays are, one of `KINDS`; None: by name, type and shape.

    Raises:
        Invalid: no such file, no such arrays, Python objects in it, or arrays that do not fit together.
    """
    arrays = _load(path)
    check_size(sum(array.size for array in arrays.values()), "the file")
    names = _sort_names(arrays, label)
    if kind is None:
        kind = next((_EXAMPLES[word] for word in _words(names[0][0]) if _EXAMPLES.get(word)), None)
    elif arrays[names[0][0]].ndim not in _DIMENSIONS[kind]:
        shape = list(arrays[names[0][0]].shape)
        detail = f"array {names[0][0]!r} has shape {shape}, expected {kind}: {_DIMENSIONS[kind]} dimensions"
        raise refuse(f"/arrays/{names[0][0]}", "shape", detail)
    xs = [_shaped(arrays[x], x, kind) for x, _, _ in names]
    ys = [_flat(arrays[y], y, len(xs[place]), names[place][0]) for place, (_, y, _) in enumerate(names)]
    if len({x.shape[1:] for x in xs}) > 1:
        shapes = ", ".join(f"{n[0]}: {list(x.shape[1:])}" for n, x in zip(names, xs, strict=True))
        raise refuse("/arrays", "shapes-differ", f"examples of the parts differ in shape: {shapes}")
    parts = None
    if len(names) > 1:
        parts = np.concatenate([np.full(len(x), n[2], np.uint8) for n, x in zip(names, xs, strict=True)])
    elif "split" in arrays:
        parts = read_parts(_flat(arrays["split"], "split", len(xs[0]), names[0][0]), "/arrays/split")
    return Examples(compact(np.concatenate(xs)), np.concatenate(ys), names[0][1], parts)


def _load(path: Path) -> Arrays:
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise refuse("", "npz", "found a single array (.npy), expected an .npz file with names")
            return {name: _read(archive, name) for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError) as error:
        raise refuse(
            "", "npz", f"found no .npz file ({error}), expected one as numpy.savez writes it"
        ) from error


def _read(archive: NpzFile, name: str) -> Array:
    try:
        return np.asarray(archive[name])
    except ValueError as error:
        detail = (
            f"array {name!r} cannot be read ({error}): arrays of Python objects are pickles, which are never "
            f"read; save numbers, or text as array.astype(str)"
        )
        raise refuse(f"/arrays/{name}", "objects", detail) from error


def _words(name: str) -> list[str]:
    return name.lower().split("_")


def _sort_names(arrays: Arrays, label: str | None) -> list[tuple[str, str, int]]:
    """Return (examples, labels, part) for each part there is, train first."""
    xs: dict[int | None, str] = {}
    ys: dict[int | None, str] = {}
    for name in arrays:
        words = _words(name)
        part = next((_PART_WORDS[word] for word in words if word in _PART_WORDS), None)
        if name == label or (label is None and any(word in _LABELS for word in words)):
            ys.setdefault(part, name)
        elif any(word in _EXAMPLES for word in words):
            xs.setdefault(part, name)
    pairs = [(xs[part], ys[part], part) for part in (None, 0, 1, 2, 3) if part in xs and part in ys]
    if label is not None and label not in arrays:
        detail = f"there is no array {label!r}, expected one of {listed(arrays)}"
        raise refuse(f"/arrays/{label}", "unknown-array", detail)
    if not pairs:
        detail = (
            f"found the arrays {listed(arrays) or 'none'}, expected examples (x or images) and labels (y or "
            f"labels), or train_x, train_y, test_x and test_y"
        )
        raise refuse("/arrays", "unknown-arrays", detail)
    if pairs[0][2] is None:
        return [(pairs[0][0], pairs[0][1], 0)]
    missing = [PARTS[part] for part in (0, 2) if part not in {pair[2] for pair in pairs}]
    if missing:
        detail = (
            f"found the arrays {listed(arrays)}, expected examples and labels for {' and '.join(missing)}"
        )
        raise refuse("/arrays", "part-missing", detail)
    return [(x, y, part) for x, y, part in pairs if part is not None]


def _flat(values: Array, name: str, expected: int, examples: str) -> Array:
    """Return labels (n,) of text, integers or floats; (n, 1) is taken too."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "biufUS":
        detail = (
            f"array {name!r} has shape {list(values.shape)} and type {values.dtype}, expected one label (an "
            f"integer or text) for each example"
        )
        raise refuse(f"/arrays/{name}", "labels", detail)
    if len(values) != expected:
        detail = (
            f"array {examples!r} has {expected:,} examples and {name!r} {len(values):,}, expected as many"
        )
        raise refuse(f"/arrays/{name}", "length", detail)
    if values.dtype.kind in "bSU":
        return np.char.strip(values.astype(np.str_))
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)


def _shaped(x: Array, name: str, kind: str | None) -> Array:
    """Return examples with their channels first: (n, features), (n, c, length) or (n, c, h, w)."""
    at = f"/arrays/{name}"
    if x.dtype.kind not in "biuf":
        raise refuse(at, "type", f"array {name!r} is of type {x.dtype}, expected numbers")
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        detail = (
            f"array {name!r} has shape {list(x.shape)}, expected (n, features), (n, channels, length), "
            f"(n, height, width), (n, channels, height, width) or (n, height, width, channels)"
        )
        raise refuse(at, "shape", detail)
    if kind == "table":
        return x.reshape(len(x), -1)
    if x.ndim == 3 and (kind or _guess(x)) == "images":
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in _CHANNELS and x.shape[3] in _CHANNELS:
        return np.moveaxis(x, 3, 1)
    return x


def _guess(x: Array) -> str:
    """Tell whether (n, a, b) is grey images or signals of a channels."""
    short, long = sorted(x.shape[1:])
    return "images" if x.dtype == np.uint8 or long <= _SIGNAL_RATIO * short else "signals"
