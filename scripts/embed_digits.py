"""Write the digits of nirvana/tasks/data from scikit-learn's copy of UCI's optdigits test set.

Run once, by hand (`python scripts/embed_digits.py`); scikit-learn is a dev dependency and nothing else
needs it. A test holds the files equal to scikit-learn's.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from nirvana.format.initial import epoch_order

PUBLIC = 1_497  # train, validation and test; the others are sealed


def embed_digits(folder: Path) -> None:
    """Write digits.npz and digits-sealed.npz: images (n, 8, 8) and labels (n,), uint8, in the order of the
    task's split; the same bytes every time."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = epoch_order(0, 0, len(digits.target))
    for name, rows in (("digits", order[:PUBLIC]), ("digits-sealed", order[PUBLIC:])):
        arrays = {"images": digits.images[rows], "labels": digits.target[rows]}
        with zipfile.ZipFile(folder / f"{name}.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for member, array in arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, array.astype(np.uint8), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{member}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    embed_digits(Path(__file__).parents[1] / "nirvana" / "tasks" / "data")
