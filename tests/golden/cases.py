"""What one seed gives, as digests: tickets, reports and evaluations, byte for byte.

Only the library's public surface is used, so that this file runs on any checkout, an older one too:

    PYTHONPATH=. python tests/golden/cases.py > digests.json

Seconds, memory and the environment are left out; everything else counts. A training's bits depend on the
processor and on the versions of the libraries that compute: `machine()` says which they are. The cases of
`PORTABLE` train nothing and are the same everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

Digests = dict[str, str]
SHORT = {"steps": 60, "evaluate_every": 20, "batch_size": 32}
PLAIN = {"momentum": 0.9, "optimizer": "sgd", "learning_rate": 0.1}
UNSTABLE = ("seconds", "peak_memory_bytes", "environment", "by_seconds")  # differ from run to run

ITERATIVE = ("imp", "lr-rewinding", "fine-tuning", "distilled")
TRAINED = (
    "one-shot",
    "gradual-magnitude",
    "regularised",
    "snip",
    "grasp",
    "synflow",
    "supermask",
    "edge-popup",
)


def machine() -> str:
    """Return a digest of the processor and of the versions that round alike."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    named = ("model name", "cpu family", "model\t", "stepping", "flags")
    processor = sorted({line for line in lines if line.startswith(named)})
    versions = [
        f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "numba", "llvmlite", "scipy")
    ]
    core = os.environ.get("OPENBLAS_CORETYPE", "")
    return hashlib.sha256("\n".join([*processor, *versions, core]).encode()).hexdigest()[:16]


def digest(value: Any) -> str:
    """Return the sha256 of a JSON-able value, or of bytes, without what differs from run to run."""
    text = value if isinstance(value, bytes) else json.dumps(_stable(value), sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()


def _stable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _stable(part) for name, part in value.items() if name not in UNSTABLE}
    return [_stable(part) for part in value] if isinstance(value, list | tuple) else value


def find(
    name: str, *, architecture: str = "mlp-32-16", recipe: Any = None, **options: Any
) -> Iterator[tuple[str, str]]:
    """Yield the digests of a search's files, through its folder as the command line leaves it."""
    from nirvana import lab

    with tempfile.TemporaryDirectory() as folder:
        lab.find("digits", architecture, out=folder, recipe=SHORT | (recipe or {}), **options)
        for path in sorted(Path(folder).glob("*.ticket")):
            yield f"{name} {path.name}", digest(path.read_bytes())
        yield f"{name} report", digest(json.loads((Path(folder) / "report.json").read_text()))


def methods() -> Iterator[tuple[str, str]]:
    """Every method on a small network."""
    for method in ITERATIVE:
        yield from find(method, method=method, levels=2, seed=3)
    for method in TRAINED:
        yield from find(method, method=method, density=0.2, seed=4)
    yield from find("early-bird", method="early-bird", density=0.3, architecture="conv-2", seed=1)
    yield from find("amc", method="amc", density=0.4, seed=5)


def engines() -> Iterator[tuple[str, str]]:
    """Both engines, convolutions, and what recipes can say."""
    for engine in ("dense", "sparse"):
        yield from find(f"imp {engine}", levels=2, seed=6, engine=engine)
        yield from find(f"conv-2 {engine}", architecture="conv-2", levels=1, seed=7, engine=engine)
    yield from find("rewound", levels=2, recipe={"pruning": {"rewind_step": 10, "scope": "global"}})
    yield from find("to a density", density=0.13, recipe=PLAIN)
    frozen = {"criterion": "magnitude_increase", "mask_1_action": "reinit", "mask_0_action": "freeze"}
    yield from find("ablation", levels=2, recipe={"pruning": frozen})
    yield from find(
        "reshuffled", levels=2, recipe={"pruning": {"mask_1_action": "reshuffle", "criterion": "random"}}
    )
    augmented = {
        "augmentation": ["crop", "flip"],
        "schedule": {"kind": "cosine"},
        "warmup_steps": 5,
        "l1": 1e-5,
    }
    yield from find("augmented", levels=1, architecture="conv-2", recipe=augmented)
    normed = {"steps": 12, "evaluate_every": 6, "pruning": {"rewind_step": 3}}
    yield from find("batch norm", levels=1, architecture="resnet-20", recipe=normed)


def verifications() -> Iterator[tuple[str, str]]:
    """Evaluations: seeded, rewound, distilled (stacked), refused; one training, one transfer."""
    import nirvana
    from nirvana import lab

    ticket = lab.find("digits", "mlp-32-16", levels=3, recipe=SHORT).tickets[-1]
    for threads in (1, 2):
        evaluation = lab.verify(
            ticket, replicates=2, max_replicates=4, seed=0, cache=None, threads=threads, stability=True
        )
        yield f"verify, {threads} threads", digest(evaluation.to_dict())
    recipe = SHORT | {"pruning": {"rewind_step": 10}}
    rewound = lab.find("digits", "mlp-32-16", levels=2, recipe=recipe, seed=1).tickets[-1]
    yield "verify rewound", digest(lab.verify(rewound, replicates=2, seed=0, cache=None).to_dict())
    taught = lab.find("digits", "mlp-32-16", "distilled", levels=2, recipe=SHORT, seed=2).tickets[-1]
    yield "verify distilled", digest(lab.verify(taught, replicates=5, seed=0, cache=None).to_dict())
    masked = lab.find("digits", "mlp-32-16", "edge-popup", density=0.3, recipe=SHORT).tickets[-1]
    yield "verify supermask", digest(lab.verify(masked, replicates=2, seed=0, cache=None).to_dict())
    for engine in ("dense", "sparse"):
        result = nirvana.train_ticket(ticket, 5, engine=engine, keep_weights=True)
        assert result.weights is not None
        weights = b"".join(result.weights[name].tobytes() for name in sorted(result.weights))
        yield f"train {engine}", digest(weights)
    moved = lab.transfer(ticket, "digits", replicates=2, cache=None)
    yield "transfer", digest(moved.to_dict())


def untrained() -> Iterator[tuple[str, str]]:
    """Masks that follow from the initial values and the seed alone."""
    from nirvana import lab, tasks, zoo

    task = tasks.get("digits")
    graph = zoo.build("lenet-300-100", task.input_shape, task.classes)
    for method in ("random", "erk", "magnitude-at-init"):
        recipe = lab.make_recipe(task, graph, None, method)
        first = lab.first_ticket(task, graph, recipe, 11, method=method)
        _, following = lab.find_level(first, tasks.load(task), 11, lab.Goal(method, density=0.05))
        assert following is not None
        yield f"{method} first", digest(first.to_bytes())
        yield f"{method} mask", digest(following.to_bytes())


PORTABLE: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {"untrained": untrained}
TRAINING: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "methods": methods,
    "engines": engines,
    "verifications": verifications,
}


def compute(groups: Mapping[str, Callable[[], Iterator[tuple[str, str]]]]) -> Digests:
    """Return name -> digest of all cases of some groups."""
    return {f"{group}: {name}": value for group, cases in groups.items() for name, value in cases()}


if __name__ == "__main__":
    json.dump(
        {"machine": machine(), "portable": compute(PORTABLE), "training": compute(TRAINING)},
        sys.stdout,
        indent=1,
    )
