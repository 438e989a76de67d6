"""Files of arrays by name: what torch.save wrote, .safetensors and .npz. Nothing in a file is run.

torch's own reader is always told `weights_only`: it builds tensors, numbers, text and containers, and refuses
anything else, a pickled nn.Module above all.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nirvana.container import read_container
from nirvana.errors import Invalid, InvalidTicket, NotFound, Problem

Arrays = Mapping[str, NDArray[Any]]

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net")
_SAFETENSORS_TYPES = {"F32": "<f4", "U8": "|u1", "BOOL": "|b1", "I64": "<i8", "I32": "<i4"}
_SUFFIXES = ".pth, .pt, .safetensors or .npz"


@dataclass(frozen=True)
class Checkpoint:
    """A file's arrays.

    Attributes:
        arrays: name -> array, in the file's order; a mapping of mappings has its keys joined by dots.
        extra: what stands beside the arrays: numbers and text by their keys.
        ordered: whether the file keeps the order in which its writer named things.
    """

    path: Path
    arrays: Arrays
    extra: Mapping[str, Any]
    ordered: bool


def read_checkpoint(path: Path) -> Checkpoint:
    """The arrays in a file, which its suffix tells the kind of; torch's where it is none of the others.

    Where a checkpoint holds a state dict beside other things (`state_dict`, `model` ...), its arrays alone.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no checkpoint, or one that holds code.
    """
    if not path.is_file():
        raise NotFound(f"no such file: {path}")
    if path.suffix == ".safetensors":
        return Checkpoint(path, _read_safetensors(path), {}, ordered=False)
    if path.suffix == ".npz":
        return Checkpoint(path, _read_npz(path), {}, ordered=True)
    return _read_torch(path)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse(path: Path, code: str, detail: str) -> Invalid:
    """The error for a file that cannot be taken."""
    sentence = f"{path.name}: {detail}"
    return Invalid(sentence, errors=[Problem("", code, sentence)])


def _read_torch(path: Path) -> Checkpoint:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # given bytes that are no checkpoint, it raises whatever it stumbles over
        raise _torch_refusal(path, error) from None
    if not isinstance(content, Mapping):
        found = type(content).__name__
        raise refuse(path, "no-state-dict", f"found {found}, expected a state dict: names and tensors")
    key = next((key for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), None)
    tensors = dict(_flatten(content if key is None else content[key]))
    if not tensors:
        raise refuse(path, "no-state-dict", "found no tensor, expected a state dict: names and tensors")
    extra = {str(k): v for k, v in content.items() if isinstance(v, int | float | str)}
    return Checkpoint(path, {name: _array(t) for name, t in tensors.items()}, extra, ordered=True)


def _torch_refusal(path: Path, error: Exception) -> Invalid:
    unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
    if unsafe:
        return refuse(
            path,
            "holds-code",
            f"it holds {unsafe.group(1)}, and rebuilding objects runs code, which is never done here: where "
            "the file can be trusted, load it there and torch.save(model.state_dict(), ...) instead",
        )
    return refuse(path, "no-checkpoint", f"it is no checkpoint that can be read, expected {_SUFFIXES}")


def _flatten(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor, with the keys that lead to it joined by dots."""
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    """The tensor's own memory, but for types that NumPy does not know."""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    return dense.float().numpy() if dense.dtype == torch.bfloat16 else dense.resolve_neg().numpy()


def _read_safetensors(path: Path) -> Arrays:
    try:
        _, tensors = read_container(path.read_bytes())
    except InvalidTicket as error:
        detail = f"it is no safetensors file that can be read: {error.detail}"
        raise refuse(path, "no-checkpoint", detail) from None
    return {
        name: np.frombuffer(tensor.body, _SAFETENSORS_TYPES[tensor.dtype]).reshape(tensor.shape)
        for name, tensor in tensors.items()
    }


def _read_npz(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        detail = f"it is no .npz file of plain arrays: {str(error)[:200]}"
        raise refuse(path, "no-checkpoint", detail) from None
