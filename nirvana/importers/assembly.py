"""A ticket from a foreign one: the architecture, its names, its laws, its recipe, its provenance."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nirvana.environment import VERSION
from nirvana.errors import Invalid, InvalidArchitecture, NotFound, Problem
from nirvana.format.initial import SCHEME, default_laws
from nirvana.format.lint import find_warnings
from nirvana.format.ticket import Ticket
from nirvana.format.torch_draws import TORCH_SCHEME, check_replay, drawing_layers, torch_laws
from nirvana.importers.checkpoints import ForeignTicket, Options, file_sha256
from nirvana.importers.names import fit_architecture, map_masks, map_values, match_names, plain_shape
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import CONSTANT_LAWS, OPS, Shape
from nirvana.tasks import Task
from nirvana.training.recipe import WEIGHT_LAWS, Recipe
from nirvana.training.schedule import check_start
from nirvana.training.spec import Values
from nirvana.verification.gate import LAW_ALPHA, check_gate, law_p_value

STRUCTURE = (
    "the original initial values are missing: these are the masks alone (a structure) with new values, drawn "
    "from {law} and seed {seed}, and at best STRUCTURE_ONLY can come out of their verification"
)


@dataclass(frozen=True)
class Imported:
    """A ticket from elsewhere.

    Attributes:
        structure_only: the original initial values are missing, and new ones were drawn.
        law: of the weights' values.
        warnings: sentences that the caller should read.
    """

    ticket: Ticket
    structure_only: bool
    law: str
    warnings: tuple[str, ...]


def assemble(
    source: str,
    path: Path,
    foreign: ForeignTicket,
    task: Task,
    architecture: Architecture | None,
    options: Options,
) -> Imported:
    """Return the ticket.

    Args:
        architecture: None: the one that the files name, or the only one of the zoo that fits their shapes.

    Raises:
        Invalid, InvalidTicket, InvalidArchitecture, InvalidRecipe: what does not fit, with both sides.
    """
    graph, names = _choose_architecture(foreign, task, architecture)
    graph = fit_architecture(graph, names.values()) if foreign.complete else graph
    masks = map_masks(foreign, names, graph)
    start = _make_start(foreign, names, graph, options)
    ticket = Ticket.create(
        graph,
        masks,
        task=task.name,
        recipe=_make_recipe(foreign, task, graph, options, start).to_dict(),
        laws=start.laws,
        seed=start.seed,
        scheme=start.scheme,
        order=start.order,
        stored=start.values,
        rewind_step=start.step,
        provenance=_provenance(source, path, foreign, names, options) | dict(start.provenance),
        license=options.license or "unknown",
        authors=tuple(options.authors),
    )
    warnings = (*start.warnings, *warn_of_gate(ticket), *find_warnings(ticket), *_remarks(foreign, options))
    return Imported(ticket, start.is_structure, start.law, warnings)


@dataclass(frozen=True)
class _Start:
    """The start of training.

    Attributes:
        values: None where they are drawn: of a structure, or of the seed of torch's constructors.
        law: of the weights.
        laws: of each parameter.
        seed: of the draw; None where there are values.
    """

    values: Values | None
    law: str
    laws: dict[str, str]
    seed: int | None = None
    step: int = 0
    provenance: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    scheme: str = SCHEME
    order: tuple[str, ...] = ()
    is_structure: bool = False


def _make_start(
    foreign: ForeignTicket, names: Mapping[str, str], graph: Architecture, options: Options
) -> _Start:
    if options.torch_seed is not None or options.torch_order:
        return _start_seeded(foreign, names, graph, options)
    if options.structure_only or foreign.values is None:
        return _start_structure(foreign, graph, options)
    values = map_values(foreign, names, graph)
    if foreign.rewind_step and options.reset_biases:
        raise Invalid(f"reset_biases is for step 0, but the values are of step {foreign.rewind_step}")
    if foreign.rewind_step:  # trained values follow no law, and nobody asks them to
        law = options.law or foreign.law
        return _Start(values, law, default_laws(graph, law), step=foreign.rewind_step)
    changed: list[str] = []
    if options.reset_biases:
        values, changed = reset_constants(values)
    law = options.law or choose_law(values, foreign.law)
    return _Start(values, law, make_laws(values, law), provenance={"reset": changed} if changed else {})


def _start_structure(foreign: ForeignTicket, graph: Architecture, options: Options) -> _Start:
    if options.rewind_step:
        raise Invalid(f"rewind_step is {options.rewind_step}, but no initial values are taken to rewind to")
    law = options.law or foreign.law
    warning = STRUCTURE.format(law=law, seed=options.seed)
    provenance = {"structure_only": True}
    laws = default_laws(graph, law)
    return _Start(None, law, laws, options.seed, 0, provenance, (warning,), is_structure=True)


def _start_seeded(
    foreign: ForeignTicket, names: Mapping[str, str], graph: Architecture, options: Options
) -> _Start:
    """Return the start of a network whose values are those of torch's constructors, compared bit by bit."""
    law, laws = "torch_default", torch_laws(graph)
    if options.torch_seed is None:
        raise Invalid(
            "torch_order is the order of construction after torch_seed, which is missing: give both"
        )
    if options.structure_only or options.reset_biases or options.law not in (None, law):
        raise Invalid(f"torch_seed says what the values are ({law}): no structure_only, reset_biases or law")
    if foreign.values is None:
        raise Invalid("torch_seed is checked against initial values, but the files have none")
    if foreign.rewind_step:
        raise Invalid(f"torch_seed is for values at step 0, but these are of step {foreign.rewind_step}")
    order = _construction_order(foreign, names, graph, options)
    check_replay(graph, map_values(foreign, names, graph), options.torch_seed, order)
    return _Start(None, law, laws, options.torch_seed, scheme=TORCH_SCHEME, order=order)


def _construction_order(
    foreign: ForeignTicket, names: Mapping[str, str], graph: Architecture, options: Options
) -> tuple[str, ...]:
    """Return the layers that draw in the order of their construction, by the architecture's names."""
    owners = {
        f"{node['name']}.{suffix}": (node["name"], f".{suffix}")
        for node in graph.nodes
        for suffix in OPS[node["op"]].parameters(node)
    }
    owned = ((theirs, *owners[ours]) for theirs, ours in names.items())
    layers = {theirs.removesuffix(suffix): layer for theirs, layer, suffix in owned}
    if options.torch_order:
        return tuple(layers.get(layer, layer) for layer in options.torch_order)
    drawing = drawing_layers(graph)
    if not foreign.ordered:
        return drawing
    return tuple(dict.fromkeys(layer for layer in layers.values() if layer in drawing))


def _choose_architecture(
    foreign: ForeignTicket, task: Task, architecture: Architecture | None
) -> tuple[Architecture, dict[str, str]]:
    shapes = {name: tuple(array.shape) for name, array in foreign.shaped.items()}
    if architecture is None and foreign.architecture is not None:
        architecture = zoo.build(foreign.architecture, task.input_shape, task.classes)
    if architecture is not None:
        _check_task(architecture, task)
        return architecture, _match(foreign, shapes, architecture)
    fits = {graph.digest: (graph, names) for graph, names in _fitting(foreign, task, shapes)}
    if len(fits) == 1:
        return next(iter(fits.values()))
    tried = ", ".join(sorted(graph.name for graph, _ in fits.values())) or "none"
    detail = f"architecture is missing; the zoo's networks for {task.name} that fit the files: {tried}"
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    problems = [Problem("/architecture", "missing", detail), Problem("/found", "names", listed)]
    raise Invalid(detail, errors=problems)


def _fitting(
    foreign: ForeignTicket, task: Task, shapes: Mapping[str, Shape]
) -> Iterator[tuple[Architecture, dict[str, str]]]:
    """Yield networks of the zoo whose parameters these can be; its names win over a plain list of widths."""
    widths = [
        plain_shape(s)[0] for n, s in shapes.items() if n.endswith("weight") and len(plain_shape(s)) == 2
    ]
    perceptron = "mlp" + "".join(f"-{width}" for width in widths[:-1])
    for name in (perceptron, *(name for name in zoo.names() if re.fullmatch(r"[a-z0-9-]+", name))):
        try:
            graph = zoo.build(name, task.input_shape, task.classes)
            yield graph, _match(foreign, shapes, graph)
        except (Invalid, NotFound):
            continue


def _match(foreign: ForeignTicket, shapes: Mapping[str, Shape], graph: Architecture) -> dict[str, str]:
    return match_names(shapes, graph, ordered=foreign.ordered, complete=foreign.complete)


def _check_task(architecture: Architecture, task: Task) -> None:
    expected = tuple(task.input_shape), (task.classes,)
    if (architecture.input, architecture.output_shape) != expected:
        detail = (
            f"{architecture.name} takes {list(architecture.input)} and gives "
            f"{list(architecture.output_shape)}, but {task.name} takes {list(expected[0])} and gives "
            f"{list(expected[1])}"
        )
        raise InvalidArchitecture(detail, errors=[Problem("/architecture", "task-shape", detail)])


def _make_recipe(
    foreign: ForeignTicket, task: Task, graph: Architecture, options: Options, start: _Start
) -> Recipe:
    """Return the task's default for the architecture, overridden by the files, then by the caller."""
    recipe = task.default_recipe(graph.name).override({"initial_law": start.law})
    recipe = recipe.override(foreign.recipe or {"pruning": {"rewind_step": start.step}})
    recipe = recipe.override(options.recipe)
    check_start(recipe, start.step)
    return recipe


def _provenance(
    source: str, path: Path, foreign: ForeignTicket, names: Mapping[str, str], options: Options
) -> dict[str, object]:
    renamed = {ours: theirs for theirs, ours in names.items() if theirs != ours}
    recipe_from = "given" if options.recipe else "files" if foreign.recipe else "assumed"
    files = [{"name": file.name, "sha256": file_sha256(file)} for file in foreign.files]
    imported_from = {"format": source, "path": path.resolve().name, "files": files}
    optional = {"license": options.license, "source_url": options.source_url, "names": renamed}
    return {
        "method": "imported",
        **foreign.provenance,
        "recipe": recipe_from,
        "tool": f"nirvana {VERSION}",
        "imported_from": imported_from | {name: value for name, value in optional.items() if value},
        **({"mask_inferred": True} if foreign.inferred else {}),
    }


def _remarks(foreign: ForeignTicket, options: Options) -> Iterator[str]:
    if foreign.inferred:
        yield "the masks are inferred from zeros: a weight that is zero by itself counts as pruned"
    if not options.recipe and not foreign.recipe:
        yield "the files tell no recipe: the task's default for this architecture is assumed"
    if not options.license:
        yield "no license was given: it is recorded as unknown"


def choose_law(values: Values, first: str) -> str:
    """Return the law of the weights of two dimensions or more, by gate 0's test of each: `first` unless they
    do not follow it; then the likeliest of the laws that they do follow; `first` again where there is none.
    """
    weights = sorted((array for array in values.values() if array.ndim > 1), key=lambda array: array.size)
    if _follow(weights, first) is not None:
        return first
    fits = {law: p for law in WEIGHT_LAWS if (p := _follow(weights, law)) is not None}
    return max(fits, key=lambda law: fits[law], default=first)


def _follow(weights: Sequence[NDArray[np.float32]], law: str) -> float | None:
    """Return the sum of log p over the tensors; None at the first that does not follow the law."""
    total = 0.0
    for array in weights:
        p = law_p_value(array, law)
        if p < LAW_ALPHA:
            return None
        total += math.log(p)
    return total


def make_laws(values: Values, weight_law: str) -> dict[str, str]:
    """Return `weight_law` for each weight, and for each bias and normalisation the constant that it has, by
    default zeros for biases and ones for the others."""
    return {
        name: weight_law if array.ndim > 1 else _constant_law(name, array) for name, array in values.items()
    }


def _constant_law(name: str, array: NDArray[np.float32]) -> str:
    default = "zeros" if name.endswith("bias") else "ones"
    return next((law for law, value in CONSTANT_LAWS.items() if np.all(array == value)), default)


def reset_constants(values: Values) -> tuple[Values, list[str]]:
    """Return the values with biases at 0 and normalisation's weights at 1, and the names of the changed."""
    laws = make_laws(values, "")
    changed = [n for n, a in values.items() if a.ndim == 1 and not np.all(a == CONSTANT_LAWS[laws[n]])]
    return {
        name: np.full_like(array, CONSTANT_LAWS[laws[name]]) if name in changed else array
        for name, array in values.items()
    }, changed


def warn_of_gate(ticket: Ticket) -> list[str]:
    """Return gate 0's objections to the ticket: a sentence for the weights that do not follow their laws, one
    for the rest of such values, or gate 0's own."""
    gate = check_gate(ticket)
    wrong = [name for name, p in gate.law.items() if p < LAW_ALPHA]
    weights = [name for name in wrong if len(ticket.architecture.parameters[name]) > 1]
    others = [name for name in wrong if name not in weights]
    warnings = []
    if weights:
        warnings.append(
            f"the values of {', '.join(weights)} do not follow {ticket.start.laws[weights[0]]}: trained "
            "weights, or another law; verification takes them for trained ones"
        )
    if others:
        warnings.append(
            f"the values of {', '.join(others)} are neither the constants (zeros, ones) that a ticket "
            "declares for them nor a library's usual draw, so that verification takes them for trained ones; "
            "reset_biases (--reset-biases) starts them at those constants"
        )
    if gate.invalid:
        warnings.append(f"verification will answer INVALID: {gate.invalid}")
    return warnings
