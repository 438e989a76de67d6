"""Images in a zip file, in a folder for each class."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nirvana import tasks
from nirvana.errors import Invalid
from nirvana.tasks.images import MOST_FILE_BYTES, read_images

SHAPE = (6, 5)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path / "home"))


def picture(value: int = 0, mode: str = "L", shape: tuple[int, int] = SHAPE, kind: str = "PNG") -> bytes:
    """An image file of one colour."""
    stream = io.BytesIO()
    Image.new(mode, (shape[1], shape[0]), value if mode in ("L", "I;16") else (value, 0, 0)).save(
        stream, kind
    )
    return stream.getvalue()


def pack(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def classes(n: int = 30, folder: str = "") -> dict[str, bytes]:
    names = [f"{folder}{label}/{i:03d}.png" for i in range(n) for label in ("cat", "dog")]
    return {name: picture(10 + i) for i, name in enumerate(names)}


def code(path: Path, size: int | None = None) -> str:
    with pytest.raises(Invalid) as raised:
        read_images(path, size)
    return raised.value.errors[0].code


@pytest.mark.parametrize("folder", ["", "pets/", "a/b/"])
def test_folders_are_classes_whatever_lies_around_them(tmp_path: Path, folder: str) -> None:
    others = {"__MACOSX/cat/._000.png": b"x", f"{folder}.DS_Store": b"x", f"{folder}cat/notes.txt": b"x"}
    task = tasks.add(pack(tmp_path / "pets.zip", classes(folder=folder) | others), "pets")
    assert (task.input_shape, task.class_names) == ((1, *SHAPE), ("cat", "dog"))
    assert task.sizes == {"train": 36, "validation": 12, "test": 12}
    assert tasks.load_raw(task, "train")[0].dtype == np.uint8


def test_folders_of_parts_are_the_split(tmp_path: Path) -> None:
    files = classes(20, "train/") | classes(5, "test/") | classes(6, "sealed/")
    task = tasks.add(pack(tmp_path / "pets.zip", files), "pets")
    assert task.sizes == {"train": 32, "validation": 8, "test": 10}
    assert task.seal is not None
    assert task.seal.rows == 12
    assert code(pack(tmp_path / "half.zip", classes(9, "train/") | classes(9, "val/"))) == "part-missing"


def test_one_image_in_colour_makes_all_of_them_so(tmp_path: Path) -> None:
    files = {"a/1.png": picture(7), "a/2.png": picture(9, "RGB"), "b/1.jpg": picture(50, kind="JPEG")}
    examples = read_images(pack(tmp_path / "x.zip", files))
    assert examples.x.shape == (3, 3, *SHAPE)
    assert examples.x[:, :, 0, 0].tolist() == [[7, 7, 7], [9, 0, 0], [50, 50, 50]]
    assert examples.labels.tolist() == ["a", "a", "b"]


def test_images_of_several_sizes_are_refused_unless_a_size_is_asked_for(tmp_path: Path) -> None:
    path = pack(tmp_path / "x.zip", {"a/1.png": picture(), "b/1.png": picture(shape=(9, 9))})
    assert code(path) == "sizes-differ"
    assert read_images(path, 8).x.shape == (2, 1, 8, 8)
    assert code(path, 0) == code(path, 10_000) == "range"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "empty"),
        ({"notes.txt": b"x"}, "empty"),
        ({"1.png": b"x", "2.png": b"x"}, "no-class"),
        ({"a/1.png": b"no image"}, "image"),
        ({"a/1.png": picture(kind="TIFF")}, "image"),
        ({"a/1.png": picture()[:40]}, "image"),
        ({"a/1.png": picture(7, "I;16")}, "image"),
        ({"a/1.png": bytes(MOST_FILE_BYTES + 1)}, "too-large"),
        ({f"train/{i}.png": b"x" for i in range(3)}, "no-class"),
    ],
)
def test_what_is_no_folder_of_images_is_refused_with_its_reason(
    tmp_path: Path, files: dict[str, bytes], expected: str
) -> None:
    assert code(pack(tmp_path / "x.zip", files)) == expected


def test_a_bomb_of_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    assert code(pack(tmp_path / "x.zip", {"a/1.png": b"\x89PNG\r\n\x1a\n" + body})) == "image"


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(100), b"hello" * 100])
def test_what_is_no_zip_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    assert code(path) == "zip"


def test_names_that_climb_out_are_only_names(tmp_path: Path) -> None:
    files = {"../../etc/1.png": picture(1), "../../etc/2.png": picture(2)}
    assert code(pack(tmp_path / "x.zip", files)) == "empty"  # `..` is hidden, and nothing is ever written
