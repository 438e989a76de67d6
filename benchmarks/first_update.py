"""From nothing to the first update: a process's start, its imports, and loading or compiling the code.

Each measurement is a new process that trains a ticket of digits (LeNet-300-100 at 10 %) for one update. Numba
keeps compiled code in NUMBA_CACHE_DIR: an empty folder at first, then the same folder again. The last row has
no folder that may be written: numba is told to look at one that cannot be made, and nowhere else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numba

from benchmarks.effort import Effort
from benchmarks.measuring import row, spread, table

_PROCESS = """
import json, sys, time
started = float(sys.argv[1])
from nirvana import tasks
from nirvana.format.initial import default_laws, draw_all, random_mask
from nirvana.networks import zoo
from nirvana.sparse.engine import Sparse
from nirvana.training.events import SILENT
from nirvana.training.loop import Loop
from nirvana.training.spec import InitialState, TrainSpec
imported = time.monotonic()
task = tasks.get("digits")
architecture = zoo.build("lenet-300-100", task.input_shape, task.classes)
masks = {
    name: random_mask(architecture.parameters[name], max(1, round(0.1 * architecture.parameters[name][0]
    * architecture.parameters[name][1])), 0, tensor)
    for tensor, name in enumerate(architecture.prunable)
}
values = draw_all(architecture, default_laws(architecture), 0)
start, recipe = InitialState(values, masks, 0), task.default_recipe("lenet-300-100")
spec = TrainSpec(architecture, start, tasks.load(task), recipe)
loop = Loop(Sparse(spec), [spec], [SILENT])
ready = time.monotonic()
loop.update_until(1)
ended = time.monotonic()
lines = open("/proc/self/status").read().splitlines()  # getrusage counts what the parent had before exec
resident = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
print(json.dumps({"imports": imported - started, "first": ended - ready, "all": ended - started,
    "resident": resident, "torch": "torch" in sys.modules}))
"""


def main(effort: Effort) -> None:
    """Print seconds to the first update, by the state of the cache."""
    colds, warms = (1, 2) if effort.is_quick else (3, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "file").touch()
        nowhere = {
            "NUMBA_CACHE_DIR": str(folder / "file" / "cache"),
            "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
        }
        cold = [_start({"NUMBA_CACHE_DIR": str(folder / str(i))}) for i in range(colds)]
        warm = [_start({"NUMBA_CACHE_DIR": str(folder / "0")}) for _ in range(warms)]
        can_say_nowhere = hasattr(numba.config, "CACHE_LOCATOR_CLASSES")
        without = [_start(nowhere) for _ in range(colds if can_say_nowhere else 0)]
        size = sum(path.stat().st_size for path in (folder / "0").rglob("*") if path.is_file())
    print((__doc__ or "").partition("\n\n")[2])
    heads = ["cache of compiled code", "n", "imports, s", "first update, s", "all, s", "most resident, MB"]
    print(table(heads))
    for what, found in (
        ("empty: compiles", cold),
        (f"filled ({size / 1e6:.1f} MB)", warm),
        ("no folder may be written", without),
    ):
        print(_row(what, found) if found else row([what, "not measured: this numba looks elsewhere too"]))
    print(f"\ntorch imported: {'yes' if any(one['torch'] for one in cold + warm + without) else 'no'}")


def _start(environment: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-c", _PROCESS, str(time.monotonic())]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return dict(json.loads(done.stdout))


def _row(what: str, found: list[dict[str, Any]]) -> str:
    columns = (("imports", ".2f"), ("first", ".2f"), ("all", ".2f"), ("resident", ".0f"))
    return row([what, len(found), *(spread((one[name] for one in found), form) for name, form in columns)])
