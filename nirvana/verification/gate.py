"""Gate 0: the static checks of a ticket, in seconds, without training it.

That names, shapes, counts and digests are right was checked when the file was read, and is looked at again
here for tickets that were put together otherwise. Then: do the initial values of a stored ticket at step 0
follow the laws that it declares, one by one (law) and together (spectrum), or are they trained weights? And
how many of the kept weights lie on a path from input to output?
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nirvana.errors import InvalidArchitecture, InvalidRecipe, Problem
from nirvana.format.initial import fans, value_sha256
from nirvana.format.ticket import Ticket
from nirvana.networks.ops import CONSTANT_LAWS
from nirvana.tasks import TaskData
from nirvana.tasks.recipes import check_batch_size
from nirvana.training.recipe import Recipe, pointers_below
from nirvana.training.schedule import check_start
from nirvana.verification.duplicates import Overlap, find_duplicates
from nirvana.verification.paths import find_on_paths, live_density

SPECTRUM_LIMIT = 7.0  # honest draws pass it with a probability below 1e-6 (docs/verification.md)
MOST_ROWS, MOST_COLUMNS = 1024, 4096  # of a larger matrix its first ones: seconds, not minutes
LEAST_SIDE = 4  # a narrower matrix has no spectrum to speak of
LAW_ALPHA = 1e-6  # for each tensor: an honest ticket of a hundred tensors fails once in ten thousand


@dataclass(frozen=True)
class GateReport:
    """The report of gate 0.

    Attributes:
        invalid: why the ticket is refused; None where it is not.
        untestable: why nobody can tell its initial values from trained ones; None where a seed draws them.
        law: parameter -> p of its initial values under their law, where they can be tested.
        spectrum: parameter -> largest singular value in Tracy-Widom units, where it can be tested.
        density: kept / total weights of the whole network.
        effective_density: share of them kept and on a path from input to output; None where paths say
            little.
        duplicates: known tickets that are this one, share its masks or nearly do.
        live_density: the density of what is left without units that no path goes through.
        cut_off: layers' weights of which none lies on a path from input to output.
        cut_off_share: of all weights, those of such layers.
        uncovered_share: of the kept weights, those in layers that no mask covers.
    """

    invalid: str | None
    untestable: str | None
    law: dict[str, float]
    spectrum: dict[str, float]
    density: float
    effective_density: float | None
    duplicates: tuple[Overlap, ...] = ()
    live_density: float | None = None
    cut_off: tuple[str, ...] = ()
    cut_off_share: float = 0.0
    uncovered_share: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return an evaluation's `gate`, JSON-able; `from_dict` reads it."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return fields | {"duplicates": [overlap.to_dict() for overlap in self.duplicates]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> GateReport:
        """Read what `to_dict` wrote."""
        overlaps = (
            Overlap(**one | {"same_layers": tuple(one["same_layers"])}) for one in fields["duplicates"]
        )
        cut_off = tuple(fields.get("cut_off", ()))
        return cls(**{**fields, "duplicates": tuple(overlaps), "cut_off": cut_off})


def check_gate(ticket: Ticket, known: Iterable[tuple[str, Ticket]] = ()) -> GateReport:
    """Look at a ticket without training it.

    Only stored values at step 0 can fail the tests of law and spectrum: seeded ones are drawn from their laws
    by the reader.

    Args:
        known: (name, ticket) of others, to find duplicates among; a duplicate is no reason to refuse.
    """
    broken = find_broken(ticket)
    if broken is not None:
        return GateReport(broken, None, {}, {}, math.nan if not ticket.prunable else ticket.density, None)
    law, spectrum = _test_values(ticket)
    on_paths = find_on_paths(ticket)
    effective = None if on_paths is None else sum(int(m.sum()) for m in on_paths.values()) / ticket.total
    cut_off = tuple(name for name, mask in (on_paths or {}).items() if not mask.any())
    weights = ticket.architecture.parameters
    share = sum(math.prod(weights[name]) for name in cut_off) / ticket.total
    invalid = _values_reason(ticket, law, spectrum)
    if invalid is None and effective == 0:
        invalid = "no kept weight lies on a path from input to output: the network is cut through"
    duplicates = tuple(find_duplicates(ticket, known))
    return GateReport(
        *(invalid, find_untestable(ticket), law, spectrum, ticket.density, effective, duplicates),
        live_density=live_density(on_paths) if on_paths and effective else None,
        cut_off=cut_off,
        cut_off_share=share,
        uncovered_share=1 - ticket.prunable_kept / ticket.kept,
    )


def find_broken(ticket: Ticket) -> str | None:
    """Return what does not fit together in the ticket; None where all does."""
    shapes = ticket.architecture.parameters
    for name, mask in ticket.masks.items():
        if name not in shapes:
            return f"there is a mask of {name}, which the architecture does not have"
        if mask.shape != shapes[name]:
            return f"the mask of {name} has shape {list(mask.shape)}, expected {list(shapes[name])}"
        if not mask.any():
            return f"{name} keeps no weight, expected at least 1: the layer has collapsed"
    for name, values in ticket.start.stored.items():
        if not np.isfinite(values).all():
            return f"the initial values of {name} are not all finite"
    for name, values in ticket.initial_values().items():
        if value_sha256(values) != ticket.start.sha256.get(name):
            return f"the initial values of {name} are not those of their sha256"
    return None


def _test_values(ticket: Ticket) -> tuple[dict[str, float], dict[str, float]]:
    start = ticket.start
    if start.kind == "seeded" or start.rewind_step or not ticket.stores_whole_tensors:
        return {}, {}
    whole = ticket.dense_initial_values() or {}
    law = {name: _p_value(ticket, name, values) for name, values in whole.items()}
    weights = {name: spectrum_score(values) for name, values in whole.items() if values.ndim > 1}
    return law, {name: score for name, score in weights.items() if score is not None}


def _values_reason(ticket: Ticket, law: dict[str, float], spectrum: dict[str, float]) -> str | None:
    for name, p in law.items():
        if p < LAW_ALPHA:
            declared = ticket.start.laws[name]
            return (
                f"the initial values of {name} do not follow {declared} (p = {p:.1g}): "
                "trained weights, or another law"
            )
    for name, score in spectrum.items():
        if score > SPECTRUM_LIMIT:
            return (
                f"the initial values of {name} were not drawn one by one: their largest singular value lies "
                f"{score:.1f} Tracy-Widom units over that of independent ones (at most {SPECTRUM_LIMIT:g}): "
                "trained weights"
            )
    return None


def find_untestable(ticket: Ticket) -> str | None:
    """Return why nobody can tell that the values were not trained; None where a seed draws them again (or
    where they are of a later step, and trained by definition)."""
    if ticket.is_redrawable or ticket.start.rewind_step:
        return None
    return "its values are stored, not drawn from a seed, so nobody can tell that they were not trained"


def _p_value(ticket: Ticket, name: str, values: NDArray[np.float32]) -> float:
    """Return p under the declared law or, for biases and normalisation weights that are not the constant they
    are declared to be, under the draws that other libraries start them from (docs/decisions/0007)."""
    law, weight = ticket.start.laws[name], name.removesuffix("bias") + "weight"
    p = law_p_value(values, law) if law in CONSTANT_LAWS or values.ndim > 1 else 0.0
    shape = ticket.architecture.parameters.get(weight, ())
    if p or values.ndim > 1 or not len(shape):
        return p
    if name.endswith("bias") and len(shape) > 1:  # PyTorch's default
        return _uniform_p(values, -1 / math.sqrt(fans(shape)[0]), 1 / math.sqrt(fans(shape)[0]))
    return _uniform_p(values, 0, 1) if name == weight else p  # open_lth's batch norm


def _uniform_p(values: NDArray[np.float32], low: float, high: float) -> float:
    from scipy.stats import kstest

    flat = values.ravel().astype(np.float64)
    return float(kstest(flat, "uniform", args=(low, high - low)).pvalue)


def law_p_value(values: NDArray[np.float32], law: str) -> float:
    """Return p of values under their law: Kolmogorov-Smirnov for continuous ones, exact for constants."""
    from scipy.stats import binomtest, kstest

    flat = values.ravel().astype(np.float64)
    if law in CONSTANT_LAWS:
        return float(np.all(flat == CONSTANT_LAWS[law]))
    fan_in, fan_out = fans(values.shape)
    if law == "kaiming_signed_constant":
        size = math.sqrt(2 / fan_in)
        if not np.allclose(np.abs(flat), size, rtol=1e-6):
            return 0.0
        return float(binomtest(int((flat > 0).sum()), flat.size).pvalue)
    fan = {"kaiming": fan_in, "glorot": fan_in + fan_out, "torch": 6 * fan_in}[law.split("_")[0]]
    if law.endswith("_normal"):
        return float(kstest(flat, "norm", args=(0, math.sqrt(2 / fan))).pvalue)
    bound = math.sqrt(6 / fan)
    return _uniform_p(values, -bound, bound)


def check_fit(ticket: Ticket, data: TaskData, recipe: Recipe) -> None:
    """Refuse what cannot be verified, before anything is trained.

    Raises:
        InvalidArchitecture: its input or outputs are not the data's; both are named.
        InvalidRecipe: a mask-0 action that leaves no ticket, no step after the ticket's, or batches so large
            that replicates hardly differ.
    """
    shape, classes = tuple(data.train_x.shape[1:]), int(max(y.max() for y in data[1::2])) + 1
    check_shapes(ticket, shape, classes, exactly=False)
    if recipe.pruning.mask_0_action != "zero":
        detail = (
            f"mask_0_action is {recipe.pruning.mask_0_action!r}, expected 'zero': pruned weights that are "
            "held at other values are an ablation, and no ticket that can be verified"
        )
        raise InvalidRecipe(detail, errors=[Problem("/recipe/pruning/mask_0_action", "no-ticket", detail)])
    with pointers_below("/recipe"):
        check_start(recipe, recipe.first_step(ticket.start.rewind_step))
        check_batch_size(recipe, ticket.architecture, len(data.train_y))


def check_shapes(ticket: Ticket, shape: tuple[int, ...], classes: int, *, exactly: bool = True) -> None:
    """Refuse a task of another input shape or, `exactly` or not, other classes than the ticket's network.

    Raises:
        InvalidArchitecture: both shapes are named.
    """
    graph = ticket.architecture
    name, outputs = graph.name or "the network", graph.output_shape
    problems = []
    if tuple(graph.input) != tuple(shape):
        detail = f"{name} takes inputs of shape {list(graph.input)}, but the task's are {list(shape)}"
        problems.append(Problem("/architecture/input", "does-not-fit", detail))
    if len(outputs) != 1 or (outputs[0] != classes if exactly else outputs[0] < classes):
        detail = f"{name} has outputs of shape {list(outputs)}, but the task has {classes} classes"
        problems.append(Problem("/architecture/nodes", "does-not-fit", detail))
    if problems:
        raise InvalidArchitecture("; ".join(problem.detail for problem in problems), errors=problems)


def spectrum_score(values: NDArray[np.float32]) -> float | None:
    """Return the largest singular value in Tracy-Widom units: about -1.2 with an sd of 1.3 for values drawn
    independently, whatever their law.

    Training adds directions: it exceeds that even where every value was moved, ranks kept, so that their
    distribution is the law's again.

    Args:
        values: a weight (out, in, *receptive field), read as a matrix (out, in x field).

    Returns:
        None where the matrix is too narrow or constant to say.

    Reference: Johnstone 2001, "On the distribution of the largest eigenvalue in principal components
    analysis", Annals of Statistics 29 (centring and scaling); outlying singular values as the mark of
    training, Martin & Mahoney 2021 (arXiv 1810.01075).
    """
    matrix = values.reshape(len(values), -1)[:MOST_ROWS, :MOST_COLUMNS].astype(np.float64)
    if min(matrix.shape) < LEAST_SIDE or np.ptp(matrix) == 0:
        return None
    return float(spectrum_scores(matrix[None])[0])


def spectrum_scores(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores of several matrices of one shape, (n, rows, columns); shape (n,)."""
    rows, columns = matrices.shape[1:]
    turned = matrices.transpose(0, 2, 1)
    gram = matrices @ turned if rows <= columns else turned @ matrices
    largest = np.linalg.eigvalsh(gram)[:, -1] / np.mean(matrices**2, axis=(1, 2))
    long, short = math.sqrt(max(rows, columns) - 1), math.sqrt(min(rows, columns))
    scale = (long + short) * math.cbrt(1 / long + 1 / short)
    scores: NDArray[np.float64] = (largest - (long + short) ** 2) / scale
    return scores
