"""Gate 0's spectrum test: how high honest draws score, and which trained weights it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.verdict_rates.planting import disguise
from benchmarks.working import read_json, write_json
from nirvana import tasks
from nirvana.engines import advance
from nirvana.errors import DataDamaged, DataMissing
from nirvana.format.initial import default_laws, draw_all
from nirvana.networks import zoo
from nirvana.training.spec import InitialState, TrainSpec, Values
from nirvana.verification.gate import LAW_ALPHA, SPECTRUM_LIMIT, law_p_value, spectrum_scores

HONEST = {(4, 4): 200_000, (10, 100): 100_000, (64, 27): 40_000, (100, 300): 2_000, (300, 784): 200}
TRAINED = {"digits": ((25, 50, 100, 250), 10), "mnist": ((50, 100, 1_000), 3)}  # updates, seeds
_AT_ONCE = 4_000_000  # values drawn at a time
Array = NDArray[np.float64]


class GateTables:
    """Both tables, kept in a file once measured."""

    def path(self, out: Path) -> Path:
        return out / "gate.json"

    def is_done(self, out: Path) -> bool:
        return self.path(out).exists()

    def run(self, out: Path) -> None:
        found = {"honest": list(_honest_rows()), "trained": list(_trained_rows())}
        write_json(self.path(out), found)


def write_up(out: Path) -> str:
    """The section of the page."""
    found = read_json(GateTables().path(out))
    lines = [
        "## Gate 0: the spectrum test",
        "",
        f"Scores of honest matrices (values drawn one by one); the test refuses above {SPECTRUM_LIMIT:g}.",
        "The last column is the score that one in a million would pass, by an exponential tail fitted beyond",
        "the 99th percentile.",
        "",
        "| shape | law | matrices | mean | largest | one in a million |",
        "|---|---|---|---|---|---|",
        *found["honest"],
        "",
        "Weights trained for some updates and passed off as initial, as they are and *disguised* (each "
        "tensor holds the law's own values in the order of the trained ones): how many networks are refused.",
        "",
        "| task | updates | networks | by law | disguised, by law | by spectrum | disguised, by spectrum |",
        "|---|---|---|---|---|---|---|",
        *found["trained"],
    ]
    return "\n".join(lines)


def _honest_rows() -> Iterator[str]:
    draws = np.random.default_rng(0)
    laws: dict[str, Callable[[tuple[int, ...]], Array]] = {
        "normal": lambda shape: draws.normal(size=shape),
        "uniform": lambda shape: draws.uniform(-1, 1, shape),
        "signs": lambda shape: np.where(draws.random(shape) < 0.5, 1.0, -1.0),
    }
    for shape, count in HONEST.items():
        at_once = max(1, min(2_000, _AT_ONCE // (shape[0] * shape[1])))
        for name, law in laws.items():
            parts = [spectrum_scores(law((at_once, *shape))) for _ in range(count // at_once)]
            yield _honest_row(shape, name, np.concatenate(parts))


def _honest_row(shape: tuple[int, int], law: str, scores: Array) -> str:
    high = np.quantile(scores, 0.99)
    tail = high + (scores[scores > high] - high).mean() * np.log(1e4)
    cells = (f"{shape[0]} x {shape[1]}", law, f"{len(scores):,}", f"{scores.mean():.2f}")
    return f"| {' | '.join(cells)} | {scores.max():.2f} | {tail:.2f} |"


def _trained_rows() -> Iterator[str]:
    for name, (updates, seeds) in TRAINED.items():
        task = tasks.get(name)
        try:
            tasks.load(task)
        except (DataMissing, DataDamaged) as error:
            yield f"| {name} | not here: {type(error).__name__} | | | | | |"
            continue
        for steps in updates:
            counts = np.sum([_refused(name, steps, seed) for seed in range(seeds)], axis=0)
            yield f"| {name} | {steps} | {seeds} | {' | '.join(map(str, counts))} |"


def _refused(name: str, steps: int, seed: int) -> list[int]:
    """By law and by spectrum, of trained weights as they are and disguised."""
    task = tasks.get(name)
    graph = zoo.build("lenet-300-100", task.input_shape, task.classes)
    recipe = task.default_recipe(graph.name)
    laws = default_laws(graph, recipe.initial_law)
    start = draw_all(graph, laws, seed)
    spec = TrainSpec(graph, InitialState(start, {}, seed), tasks.load(task), recipe)
    weights, _ = advance(spec, steps)
    shown = ({n: v[n] for n in graph.prunable} for v in (weights, disguise(weights, start)))
    (law, spectrum), (disguised_law, disguised_spectrum) = (_tests(values, laws) for values in shown)
    return [law, disguised_law, spectrum, disguised_spectrum]


def _tests(values: Values, laws: dict[str, str]) -> tuple[int, int]:
    by_law = any(law_p_value(array, laws[name]) < LAW_ALPHA for name, array in values.items())
    by_spectrum = any(
        float(spectrum_scores(array[None].astype(np.float64))[0]) > SPECTRUM_LIMIT
        for array in values.values()
    )
    return int(by_law), int(by_spectrum)
