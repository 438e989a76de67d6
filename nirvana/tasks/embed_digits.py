"""Writes nirvana/tasks/data/digits.npz from scikit-learn's copy of UCI's optdigits test set.

Run once, by hand (`python -m nirvana.tasks.embed_digits`); scikit-learn is a dev dependency and nothing else
needs it. A test holds the file equal to scikit-learn's.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np


def embed_digits(target: Path) -> None:
    """Write images (1797, 8, 8) and labels (1797,), uint8; the same bytes every time."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    arrays = {"images": digits.images.astype(np.uint8), "labels": digits.target.astype(np.uint8)}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    embed_digits(Path(__file__).parent / "data" / "digits.npz")
