"""The exported script: it trains without Nirvana, and its modules are never half there or somebody else's."""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nirvana
from nirvana import tasks
from nirvana.errors import Invalid
from nirvana.exports import export_ticket
from nirvana.exports.script import find_modules
from nirvana.format.ticket import Ticket
from nirvana.networks.architecture import Architecture
from tests.cli.test_exports import make_ticket, ticket_of

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
PACKAGES = Path(np.__file__).parents[1]
NOT_INSTALLED = ("scipy", "rfc8785", "zstandard", "typer", "rich", "httpx")
RUN = f"""
import importlib.util, runpy, sys
assert importlib.util.find_spec("nirvana") is None
sys.path.append({str(PACKAGES)!r})
sys.modules.update(dict.fromkeys({NOT_INSTALLED!r} + (sys.argv.pop(1),)))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def with_gelu() -> Architecture:
    """A network with an op that the sparse engine does not know."""
    layers: list[dict[str, Any]] = [
        {"name": "flatten", "op": "flatten"},
        {"name": "fc1", "op": "linear", "in": 64, "out": 32},
        {"name": "gelu", "op": "gelu"},
        {"name": "fc2", "op": "linear", "in": 32, "out": 10},
    ]
    return Architecture.make("mlp-32", (1, 8, 8), layers)


def write_script(folder: Path, ticket: Ticket) -> None:
    (folder / "train.py").write_bytes(export_ticket(ticket, "script").content)


def start(folder: Path, *arguments: str, missing: str = "torch", **environment: str) -> subprocess.Popen[str]:
    """Start the script of a folder: away from this repository, with numpy and numba, or torch, and a home of
    its own. Neither the environment's .pth files nor PYTHONPATH are read, for they lead to Nirvana."""
    inherited = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", RUN, missing, str(folder / "train.py")]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=inherited | {"HOME": str(folder / "home")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Return what a script prints; it must exit with 0."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def run(folder: Path, *arguments: str, missing: str = "torch", **environment: str) -> dict[str, Any]:
    """Return the result of a training."""
    return dict(json.loads(finish(start(folder, "--json", *arguments, missing=missing, **environment))))


def show_help(folder: Path, **environment: str) -> None:
    """Run the script as far as its own modules' command line."""
    assert "optimiser updates" in finish(start(folder, "--help", **environment))


def embedded_modules(script: Path) -> dict[str, bytes]:
    """Return the modules in a script: path -> content."""
    text = re.search(r'^MODULES = "(.*)"', script.read_text(), re.MULTILINE)
    assert text is not None
    with zipfile.ZipFile(io.BytesIO(base64.b85decode(text[1]))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written_modules(folder: Path) -> dict[str, bytes]:
    """Return all files where a script wrote its modules, but for what Python and numba compiled."""
    (root,) = folder.glob("nirvana-*")
    files = (path for path in root.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def compiled(folder: Path) -> dict[str, int]:
    """Return the files that numba compiled, with their dates."""
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.nb?")}


@pytest.fixture(scope="module")
def numba_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("numba"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a script in it."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    write_script(tmp_path, make_ticket())
    return tmp_path


def test_a_script_for_a_task_of_somebody_else_is_refused() -> None:
    with pytest.raises(Invalid, match="task is 'my-own', expected one of digits, mnist"):
        export_ticket(make_ticket(task="my-own"), "script")


def test_what_a_ticket_says_never_becomes_code() -> None:
    hostile = '"""\nimport os; os.system("true")\n"""'
    source = make_ticket()
    ticket = Ticket.create(
        source.architecture,
        source.masks,
        task="digits",
        recipe=source.recipe,
        laws=source.start.laws,
        seed=1,
        description=hostile,
        authors=(hostile,),
    )
    script = export_ticket(ticket, "script").content.decode()
    assert "os.system" not in script
    compile(script, "train.py", "exec")


def test_two_at_once_train_the_ticket_without_nirvana_and_compile_once(folder: Path) -> None:
    one, other = [json.loads(finish(process)) for process in [start(folder, "--json") for _ in range(2)]]
    assert one["test_accuracy"] > 0.85
    assert one["nonzero"] <= one["kept"]
    here = nirvana.train_ticket(make_ticket(), 0, engine="sparse")
    assert one["final_test_accuracy"] == other["final_test_accuracy"] == here.final_test_accuracy
    assert written_modules(folder / "__pycache__") == embedded_modules(folder / "train.py")
    kept = compiled(folder / "__pycache__")
    assert any(name.endswith(".nbc") for name in kept)
    np.savez(folder / "own.npz", **tasks.load("digits")._asdict())
    own = run(folder, "--data", "own.npz", "--steps", str(make_ticket().recipe["steps"]))
    assert own["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.005)
    assert kept == compiled(folder / "__pycache__")


@pytest.mark.parametrize("architecture", ["conv-2", "resnet-20"])
def test_the_script_trains_to_the_very_numbers_of_nirvana_train(
    tmp_path: Path, architecture: str, numba_cache: str
) -> None:
    ticket = make_ticket(architecture, steps=6, evaluate_every=3, pruning={"rewind_step": 0})
    write_script(tmp_path, ticket)
    result = run(tmp_path, "--seed", "5", "--out", "weights.npz", NUMBA_CACHE_DIR=numba_cache)
    here = nirvana.train_ticket(ticket, 5, engine="sparse", keep_weights=True)
    assert here.weights is not None
    assert result["engine"] == "sparse"
    assert result["untrained_test_accuracy"] == here.untrained_test_accuracy
    assert result["test_accuracy"] == here.early_stop_test_accuracy
    assert result["final_test_accuracy"] == here.final_test_accuracy
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == set(here.weights)
        assert all(np.array_equal(arrays[name], value) for name, value in here.weights.items())
    assert not (tmp_path / "__pycache__").exists()


def test_a_ticket_that_takes_torch_has_a_script_that_says_so(tmp_path: Path) -> None:
    ticket = ticket_of(with_gelu(), steps=4, evaluate_every=2)
    write_script(tmp_path, ticket)
    result = run(tmp_path, missing="numba")
    here = nirvana.train_ticket(ticket, 0, engine="dense")
    assert result["untrained_test_accuracy"] == pytest.approx(here.untrained_test_accuracy, abs=0.003)
    assert result["nonzero"] <= ticket.kept
    script = export_ticket(ticket, "script").content.decode()
    assert "needs Python 3.10, numpy and torch" in script
    assert "cannot train this ticket (gelu" in script.replace("\n", " ")
    assert read_metadata(script) == {"requires-python": ">=3.10", "dependencies": ["numpy", "torch"]}


def read_metadata(script: str) -> dict[str, Any]:
    """Return a script's inline metadata (PEP 723)."""
    block = re.search(r"^# /// script\n((?:# .*\n)+)# ///$", script, re.MULTILINE)
    assert block is not None
    return tomllib.loads("".join(line[2:] for line in block[1].splitlines(keepends=True)))


def test_the_scripts_metadata_ask_for_what_the_package_asks_for() -> None:
    metadata = read_metadata(export_ticket(make_ticket(), "script").content.decode())
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    numpy = [package for package in project["dependencies"] if package.startswith("numpy")]
    assert metadata["requires-python"] == project["requires-python"]
    assert metadata["dependencies"] == [*project["optional-dependencies"]["sparse"], *numpy]


def imported_packages(source: str, *, inside_functions: bool) -> Iterator[str]:
    """Yield the packages that a source imports, other than the standard library's."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from {name.partition(".")[0] for name in names} - sys.stdlib_module_names
        if inside_functions or not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def test_the_script_and_its_modules_import_numpy_and_numba_alone() -> None:
    script = export_ticket(make_ticket(), "script").content.decode()
    assert set(imported_packages(script, inside_functions=True)) == {"numba", "nirvana"}
    for path, source in find_modules("nirvana.standalone").items():
        at_import = set(imported_packages(source, inside_functions=False))
        assert at_import <= {"nirvana", "numpy", "numba", "llvmlite"}, path
        later = set(imported_packages(source, inside_functions=True)) - at_import
        assert later <= {"nirvana", "numba", "rfc8785", "zstandard"}, path


def test_modules_are_whole_files_with_all_that_they_import() -> None:
    modules = find_modules("nirvana.standalone")
    assert modules["nirvana/errors.py"] == Path(nirvana.errors.__file__).read_text()
    assert {"nirvana/__init__.py", "nirvana/sparse/__init__.py"} <= modules.keys()
    assert "nirvana/sparse/kernels.py" in modules  # imported inside a function
    assert not {"nirvana/engines.py", "nirvana/tasks/__init__.py"} & modules.keys()  # under TYPE_CHECKING


def test_a_script_without_numba_says_what_to_install(folder: Path) -> None:
    process = start(folder, missing="numba")
    assert process.communicate()[1] == "train.py: numba is not installed here: pip install numba\n"
    assert process.returncode == 1


def test_an_error_is_one_line(folder: Path) -> None:
    process = start(folder, "--steps", "-1")
    assert process.communicate()[1].startswith("train.py: training starts at step 0, expected less than")
    assert process.returncode == 1


def test_a_damaged_module_is_written_again(folder: Path) -> None:
    show_help(folder)
    (package,) = (folder / "__pycache__").glob("nirvana-*/nirvana")
    dates = {path: path.stat().st_mtime for path in package.rglob("*.py")}
    (package / "errors.py").write_text("raise SystemExit('half a package')\n")
    (package / "training" / "recipe.py").unlink()
    shutil.rmtree(package / "sparse")
    show_help(folder)
    assert written_modules(folder / "__pycache__") == embedded_modules(folder / "train.py")
    assert dates == {path: path.stat().st_mtime for path in package.rglob("*.py")}


def test_where_a_module_cannot_be_written_another_folder_is_taken(folder: Path) -> None:
    show_help(folder)
    (module,) = (folder / "__pycache__").glob("nirvana-*/nirvana/errors.py")
    module.unlink()
    module.mkdir()
    show_help(folder)
    written = written_modules(folder / "home" / ".cache" / "nirvana")
    assert written == embedded_modules(folder / "train.py")


def test_where_nothing_can_be_written_a_temporary_folder_is_taken(folder: Path) -> None:
    (folder / "__pycache__").write_text("a file")  # where a folder cannot be made, whoever asks
    (folder / "temporary").mkdir()
    show_help(folder, HOME="/dev/null", TMPDIR=str(folder / "temporary"))
    assert sorted(path.name for path in folder.iterdir()) == ["__pycache__", "temporary", "train.py"]
    assert not list((folder / "temporary").iterdir())


def test_a_script_that_was_copied_writes_beside_the_copy(folder: Path) -> None:
    show_help(folder)
    copy = folder / "other"
    copy.mkdir()
    (folder / "train.py").rename(copy / "train.py")
    shutil.rmtree(folder / "__pycache__")
    show_help(copy)
    assert written_modules(copy / "__pycache__") == embedded_modules(copy / "train.py")


@pytest.mark.parametrize("of", ["everybody", "another user"])
def test_a_folder_that_others_can_write_to_is_not_used(folder: Path, of: str) -> None:
    show_help(folder)
    (root,) = (folder / "__pycache__").glob("nirvana-*")
    (root / "numpy").mkdir()
    (root / "numpy" / "__init__.py").write_text("raise SystemExit('not numpy')\n")
    if of == "everybody":
        root.chmod(0o777)
    elif os.geteuid() == 0:
        os.chown(root, 65534, -1)
    else:
        pytest.skip("only root can give a folder to another user")
    show_help(folder)
    written = written_modules(folder / "home" / ".cache" / "nirvana")
    assert written == embedded_modules(folder / "train.py")
