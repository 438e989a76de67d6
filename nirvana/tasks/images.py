"""Images in a zip file, in a folder for each class: `cat/1.png`, or `train/cat/1.png` and `test/cat/2.png`.

Nothing is written to a disk: entries are read one by one, each no further than the zip's directory says. A
folder around everything is passed over, and so are hidden files.
"""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import Invalid, Problem
from nirvana.tasks.examples import Examples, check_size, listed, refuse
from nirvana.tasks.files import missing_extra
from nirvana.tasks.inputs import IMAGES
from nirvana.tasks.task import PARTS

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
MOST_FILES = 250_000
MOST_FILE_BYTES = 2**25  # of one image's file
MOST_SIDE = 4096
MOST_IMAGE_SIZE = 512  # that may be asked for
_WORDS = {**{part: place for place, part in enumerate(PARTS)}, "val": 1, "valid": 1, "sealed": 3}
_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

Bytes = NDArray[np.uint8]
Named = tuple[zipfile.ZipInfo, PurePosixPath]


def read_images(path: Path, size: int | None = None) -> Examples:
    """Read the examples of a zip file of images.

    Args:
        size: height and width that they are resampled to; None: they must all be of one size.

    Raises:
        Unavailable: pillow is not installed.
        Invalid: no such file, no images or folders in it, or an image that cannot be read, is too large or
            of another size than the others.
    """
    if size is not None and not 1 <= size <= MOST_IMAGE_SIZE:
        detail = f"image size is {size}, expected 1 to {MOST_IMAGE_SIZE} pixels"
        raise refuse("/image_size", "range", detail)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _find_entries(archive)
            parts, labels = _read_folders([name for _, name in entries])
            x = _read_all(archive, entries, size)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise refuse("", "zip", f"found no zip file that can be read ({error})") from error
    return Examples(x, labels, "the folder", parts)


def _find_entries(archive: zipfile.ZipFile) -> list[Named]:
    """Return the images of a zip file with their names, by name, without a folder around all of them."""
    entries = []
    for entry in archive.infolist():
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
        if not entry.is_dir() and not hidden and name.suffix.lower() in IMAGES:
            entries.append((entry, name))
        if len(entries) > MOST_FILES:
            raise refuse("", "too-large", f"the zip file has more than {MOST_FILES:,} images")
    if not entries:
        detail = f"found no images, expected files ending in {', '.join(IMAGES)} in a folder for each class"
        raise refuse("", "empty", detail)
    while len({name.parts[0] for _, name in entries}) == 1 and min(len(n.parts) for _, n in entries) > 2:
        entries = [(entry, PurePosixPath(*name.parts[1:])) for entry, name in entries]
    return sorted(entries, key=lambda one: one[1].parts)


def _read_folders(names: list[PurePosixPath]) -> tuple[Bytes | None, NDArray[np.str_]]:
    """Return the part of each image, where the folders are the parts, and its class."""
    has_parts = {name.parts[0] for name in names} <= _WORDS.keys()
    for name in names:
        if len(name.parts) < 2 + has_parts:
            where = "in the folder of a part and of a class" if has_parts else "in the folder of a class"
            raise refuse(f"/files/{name}", "no-class", f"the image {str(name)[:200]!r} is not {where}")
    labels = np.array([name.parts[int(has_parts)] for name in names], np.str_)
    if not has_parts:
        return None, labels
    parts = np.array([_WORDS[name.parts[0]] for name in names], np.uint8)
    if missing := [part for part in ("train", "test") if _WORDS[part] not in parts]:
        detail = f"found the folders {listed(sorted({name.parts[0] for name in names}))}, expected "
        raise refuse("", "part-missing", detail + " and ".join(missing))
    return parts, labels


def _read_all(archive: zipfile.ZipFile, entries: list[Named], size: int | None) -> Bytes:
    """Return the images, (n, channels, height, width): one channel where all are grey, else three."""
    shapes = Counter[tuple[int, int]]()
    grey: Bytes | None = None
    colour: Bytes | None = None
    for place, image in enumerate(_read_each(archive, entries, size)):
        shapes[image.shape[1:]] += 1
        if len(shapes) > 1:
            (a, _), (b, _) = shapes.most_common(2)
            detail = f"images of {a[1]} x {a[0]} and of {b[1]} x {b[0]} pixels"
            raise refuse(
                f"/files/{entries[place][1]}", "sizes-differ", f"{detail}, expected one size: set image_size"
            )
        if place == 0:
            check_size(len(entries) * image.size, "the zip file")
            grey = np.empty((len(entries), 1, *image.shape[1:]), np.uint8)
        if colour is None and len(image) == 3:  # the first one in colour
            check_size(len(entries) * image.size, "the zip file")
            assert grey is not None
            colour, grey = np.repeat(grey, 3, axis=1), None
        whole = grey if colour is None else colour
        assert whole is not None
        whole[place] = image
    whole = grey if colour is None else colour
    assert whole is not None
    return whole


def _read_each(archive: zipfile.ZipFile, entries: list[Named], size: int | None) -> Iterator[Bytes]:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise missing_extra(error, "reading images") from None
    for entry, name in entries:
        if entry.file_size > MOST_FILE_BYTES:
            detail = f"the image {str(name)[:200]!r} has {entry.file_size:,} bytes, expected at most "
            raise refuse(f"/files/{name}", "too-large", f"{detail}{MOST_FILE_BYTES:,}")
        content = archive.read(entry)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a decompression bomb is an error here
                with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                    if max(image.size) > MOST_SIDE:
                        raise ValueError(f"{image.size[0]} x {image.size[1]} pixels, at most {MOST_SIDE}")
                    if image.mode not in _GREY + _COLOUR:
                        raise ValueError(f"pixels of the kind {image.mode}, expected 8 bits a channel")
                    fitted = image.convert("L" if image.mode in _GREY else "RGB")
                    if size is not None and fitted.size != (size, size):
                        fitted = fitted.resize((size, size), Image.Resampling.LANCZOS)
                    pixels = np.asarray(fitted, np.uint8)
        except Invalid:
            raise
        except Exception as error:  # of decoders, which raise what they like on broken files
            if isinstance(error, MemoryError):
                raise
            detail = f"the image {str(name)[:200]!r} cannot be read: {str(error)[:200]}"
            raise Invalid(detail, errors=[Problem(f"/files/{name}", "image", detail)]) from error
        yield pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
