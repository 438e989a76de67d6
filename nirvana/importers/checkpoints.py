"""Files of arrays by name: what torch.save wrote, .safetensors and .npz. Nothing in a file is run."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, InvalidTicket, NotFound, Problem
from nirvana.format.container import read_container

Array = NDArray[Any]  # as a file has it: of any type
Arrays = Mapping[str, Array]

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net")
_SAFETENSORS_TYPES = {"F32": "<f4", "U8": "|u1", "BOOL": "|b1", "I64": "<i8", "I32": "<i4"}
_SUFFIXES = ".pth, .pt, .safetensors or .npz"


@dataclass(frozen=True)
class Checkpoint:
    """A file's arrays.

    Attributes:
        arrays: name -> array, in the file's order; a mapping of mappings has its keys joined by dots.
        extra: numbers and text that stand beside the arrays, by their keys.
        ordered: whether the file keeps the order in which its writer named things.
    """

    path: Path
    arrays: Arrays
    extra: Mapping[str, int | float | str]
    ordered: bool


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the arrays in a file of the kind that its suffix names; of torch's where it names no other.

    Where a checkpoint holds a state dict beside other things (`state_dict`, `model` ...), its arrays alone.

    Raises:
        NotFound: there is no such file.
        Invalid: it is no checkpoint, or one that holds code.
        ModuleNotFoundError: it is torch's, and torch is not installed.
    """
    if not path.is_file():
        raise NotFound(f"no such file: {path}")
    if path.suffix == ".safetensors":
        return Checkpoint(path, _read_safetensors(path), {}, ordered=False)
    if path.suffix == ".npz":
        return Checkpoint(path, _read_npz(path), {}, ordered=True)
    return _read_torch(path)


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse(path: Path, code: str, detail: str) -> Invalid:
    """Return the error for a file that cannot be taken."""
    sentence = f"{path.name}: {detail}"
    return Invalid(sentence, errors=[Problem("", code, sentence)])


def _read_torch(path: Path) -> Checkpoint:
    from nirvana.torch.checkpoints import find_arrays, find_refused_class, load  # no other file needs torch

    try:
        content = load(path)
    except OSError:
        raise
    except Exception as error:  # of bytes that are no checkpoint, torch raises whatever it stumbles over
        raise _unreadable(path, find_refused_class(error)) from None
    if not isinstance(content, Mapping):
        detail = f"found {type(content).__name__}, expected a state dict: names and tensors"
        raise refuse(path, "no-state-dict", detail)
    key = next((key for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), None)
    arrays = dict(find_arrays(content if key is None else content[key]))
    if not arrays:
        raise refuse(path, "no-state-dict", "found no tensor, expected a state dict: names and tensors")
    extra = {str(k): v for k, v in content.items() if isinstance(v, int | float | str)}
    return Checkpoint(path, arrays, extra, ordered=True)


def _unreadable(path: Path, refused_class: str | None) -> Invalid:
    if refused_class:
        return refuse(
            path,
            "holds-code",
            f"it holds {refused_class}, and rebuilding objects runs code, which is never done here: where "
            "the file can be trusted, load it there and torch.save(model.state_dict(), ...) instead",
        )
    return refuse(path, "no-checkpoint", f"it is no checkpoint that can be read, expected {_SUFFIXES}")


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


@dataclass(frozen=True)
class Options:
    """Facts that the files do not state. Those of one format are refused with another.

    Attributes:
        law: of the weights' initial values; None: the format's, or the first other one that they follow.
        seed: of the values of a structure.
        structure_only: take the masks and leave the values, which are not initial ones.
        reset_biases: start biases and normalisation from zeros and ones, the only laws that a ticket has for
            them.
        recipe: fields that override the task's or the files' recipe.
        level: of an open_lth replicate.
        iterations_per_epoch: of an open_lth run on a data set that open_lth does not have.
        initial: (torch-prune) a state dict of the initial values.
        untrained: (torch-prune) PATH was saved before training, so its values are initial ones.
        prune_rate: (hidden-networks) their word for the share of each layer's weights that is kept.
        masks: (state-dict) the file of masks; None: PATH has them.
        infer_masks: (state-dict) a pruned state dict whose zeros are the mask.
        rewind_step: (torch-prune, state-dict) optimiser updates before the values were taken.
        torch_seed: (torch-prune, state-dict) the values are those of torch.manual_seed and the constructors:
            0 to 2^64 - 1. The ticket is then seeded, by the scheme torch-cpu/1.
        torch_order: the layers in the order of their construction, by the files' names; (): their order in
            the file, where it has one, else the architecture's.
    """

    law: str | None = None
    seed: int = 0
    structure_only: bool = False
    reset_biases: bool = False
    license: str | None = None
    source_url: str | None = None
    authors: tuple[str, ...] = ()
    recipe: Mapping[str, object] = field(default_factory=dict)
    level: int | None = None
    iterations_per_epoch: int | None = None
    initial: Path | None = None
    untrained: bool = False
    prune_rate: float | None = None
    masks: Path | None = None
    infer_masks: Path | None = None
    rewind_step: int | None = None
    torch_seed: int | None = None
    torch_order: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForeignTicket:
    """The content of a source's files, under their own names.

    Attributes:
        masks: parameter -> array of 0 and 1, of its shape; kept whole where absent.
        values: parameters and running statistics that training starts from; None where there are none.
        shaped: parameters whose shapes identify them: the values, or whatever else has the shapes.
        files: the files read.
        ordered: whether `shaped` is in the network's order.
        complete: whether `shaped` are all parameters of the network.
        inferred: whether the masks are the places that are not zero.
        law: of the weights, unless they or the caller say otherwise.
        architecture: the zoo's name, where the files have it.
        recipe: fields of a recipe that the files have; None where they have none.
    """

    masks: Arrays
    values: Arrays | None
    shaped: Arrays
    files: tuple[Path, ...]
    ordered: bool = True
    complete: bool = True
    inferred: bool = False
    rewind_step: int = 0
    law: str = "torch_default"
    architecture: str | None = None
    recipe: Mapping[str, object] | None = None
    provenance: Mapping[str, object] = field(default_factory=dict)
