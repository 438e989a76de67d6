"""Files that torch.save wrote, read without running anything in them.

torch's own reader is always told `weights_only`: it builds tensors, numbers, text and containers, and refuses
anything else, a pickled nn.Module above all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def load(path: Path) -> object:
    """Return what was saved, its tensors on the CPU.

    Raises:
        OSError: the file cannot be read.
        Exception: of any kind, where it holds other objects than these or is no such file.
    """
    return torch.load(path, map_location="cpu", weights_only=True)


def find_refused_class(error: Exception) -> str | None:
    """Return the dotted name of the class that `load` would not build; None where it failed otherwise."""
    match = re.search(r"GLOBAL ([\w.]+)", str(error))
    return match.group(1) if match else None


def find_arrays(content: Mapping[object, object], prefix: str = "") -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every tensor, with the keys that lead to it joined by dots."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{key}", _to_array(value)
        elif isinstance(value, Mapping):
            yield from find_arrays(value, f"{prefix}{key}.")


def _to_array(tensor: Tensor) -> NDArray[Any]:
    """Return the tensor's own memory, but for types that NumPy does not know."""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
    return dense.float().numpy() if dense.dtype == torch.bfloat16 else dense.resolve_neg().numpy()
