"""From what a reader found to a ticket: the architecture, its names, its laws, its recipe, its provenance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nirvana import __version__, zoo
from nirvana.architecture import Architecture
from nirvana.errors import Invalid, InvalidArchitecture, NotFound, Problem
from nirvana.initial import default_laws
from nirvana.lab.importing.checkpoints import file_sha256
from nirvana.lab.importing.found import Found, Options
from nirvana.lab.importing.laws import choose_law, make_laws, reset, warn_of_gate
from nirvana.lab.importing.mapping import Values, map_masks, map_values
from nirvana.lab.importing.names import fit_architecture, match_names, plain_shape
from nirvana.recipe import Recipe
from nirvana.tasks import Task
from nirvana.ticket import Ticket
from nirvana.training import check_start

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
    source: str, path: Path, found: Found, task: Task, architecture: Architecture | None, options: Options
) -> Imported:
    """The ticket.

    Args:
        architecture: None: the one that the files name, or the only one of the zoo that fits their shapes.

    Raises:
        Invalid, InvalidTicket, InvalidArchitecture, InvalidRecipe: what does not fit, with both sides.
    """
    structure_only = options.structure_only or found.values is None
    if structure_only and options.rewind_step:
        raise Invalid(f"rewind_step is {options.rewind_step}, but no initial values are taken to rewind to")
    graph, names = _choose_architecture(found, task, architecture)
    graph = fit_architecture(graph, names.values()) if found.complete else graph
    masks = map_masks(found, names, graph)
    start = _make_start(found, names, graph, structure_only, options)
    recipe = _make_recipe(found, task, graph, options, start)
    ticket = Ticket.create(
        graph,
        masks,
        task=task.name,
        recipe=recipe.to_dict(),
        laws=start.laws,
        seed=options.seed if structure_only else None,
        stored=None if structure_only else start.values,
        rewind_step=start.step,
        provenance=_provenance(source, path, found, names, options) | dict(start.provenance),
        license=options.license or "unknown",
        authors=tuple(options.authors),
    )
    warnings = (*start.warnings, *warn_of_gate(ticket), *_remarks(found, options))
    return Imported(ticket, structure_only, start.law, warnings)


@dataclass(frozen=True)
class _Start:
    """Where training starts from: `values` are empty for a structure."""

    values: Values
    law: str
    laws: dict[str, str]
    step: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def _make_start(
    found: Found, names: Mapping[str, str], graph: Architecture, structure_only: bool, options: Options
) -> _Start:
    if structure_only:
        law = options.law or found.law
        said = STRUCTURE.format(law=law, seed=options.seed)
        return _Start({}, law, default_laws(graph, law), 0, {"structure_only": True}, (said,))
    values = map_values(found, names, graph)
    if found.rewind_step and options.reset_biases:
        raise Invalid(f"reset_biases is for step 0, but the values are of step {found.rewind_step}")
    if found.rewind_step:  # trained values follow no law, and nobody asks them to
        law = options.law or found.law
        return _Start(values, law, default_laws(graph, law), found.rewind_step)
    changed: list[str] = []
    if options.reset_biases:
        values, changed = reset(values)
    law = options.law or choose_law(values, found.law)
    laws = make_laws(values, law)
    return _Start(values, law, laws, 0, {"reset": changed} if changed else {})


def _choose_architecture(
    found: Found, task: Task, architecture: Architecture | None
) -> tuple[Architecture, dict[str, str]]:
    shapes = {name: tuple(array.shape) for name, array in found.shaped.items()}
    if architecture is None and found.architecture is not None:
        architecture = zoo.build(found.architecture, task.input_shape, task.classes)
    if architecture is not None:
        _check_task(architecture, task)
        return architecture, match_names(shapes, architecture, ordered=found.ordered, complete=found.complete)
    fits = {graph.digest: (graph, names) for graph, names in _fitting(found, task, shapes)}
    if len(fits) == 1:
        return next(iter(fits.values()))
    tried = ", ".join(sorted(graph.name for graph, _ in fits.values())) or "none"
    detail = f"architecture is missing; the zoo's networks for {task.name} that fit the files: {tried}"
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    problems = [Problem("/architecture", "missing", detail), Problem("/found", "names", listed)]
    raise Invalid(detail, errors=problems)


def _fitting(
    found: Found, task: Task, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[Architecture, dict[str, str]]]:
    """The zoo's networks whose parameters these can be; its own names win over a plain list of widths."""
    widths = [
        plain_shape(s)[0] for n, s in shapes.items() if n.endswith("weight") and len(plain_shape(s)) == 2
    ]
    perceptron = "mlp" + "".join(f"-{width}" for width in widths[:-1])
    for name in (perceptron, *(name for name in zoo.names() if re.fullmatch(r"[a-z0-9-]+", name))):
        try:
            graph = zoo.build(name, task.input_shape, task.classes)
            yield graph, match_names(shapes, graph, ordered=found.ordered, complete=found.complete)
        except (Invalid, NotFound):
            continue


def _check_task(architecture: Architecture, task: Task) -> None:
    wanted = tuple(task.input_shape), (task.classes,)
    if (architecture.input, architecture.output_shape) != wanted:
        detail = (
            f"{architecture.name} takes {list(architecture.input)} and gives "
            f"{list(architecture.output_shape)}, but {task.name} takes {list(wanted[0])} and gives "
            f"{list(wanted[1])}"
        )
        raise InvalidArchitecture(detail, errors=[Problem("/architecture", "task-shape", detail)])


def _make_recipe(found: Found, task: Task, graph: Architecture, options: Options, start: _Start) -> Recipe:
    """The task's default for the architecture, then what the files say, then what the caller says."""
    recipe = task.default_recipe(graph.name).override({"initial_law": start.law})
    recipe = recipe.override(found.recipe or {"pruning": {"rewind_step": start.step}}).override(
        options.recipe
    )
    check_start(recipe, start.step)
    return recipe


def _provenance(
    source: str, path: Path, found: Found, names: Mapping[str, str], options: Options
) -> dict[str, Any]:
    renamed = {ours: theirs for theirs, ours in names.items() if theirs != ours}
    told_by = "given" if options.recipe else "files" if found.recipe else "assumed"
    files = [{"name": file.name, "sha256": file_sha256(file)} for file in found.files]
    imported_from = {"format": source, "path": path.resolve().name, "files": files}
    optional = {"license": options.license, "source_url": options.source_url, "names": renamed}
    return {
        "method": "imported",
        **found.provenance,
        "recipe": told_by,
        "tool": f"nirvana {__version__}",
        "imported_from": imported_from | {name: value for name, value in optional.items() if value},
        **({"mask_inferred": True} if found.inferred else {}),
    }


def _remarks(found: Found, options: Options) -> Iterator[str]:
    if found.inferred:
        yield "the masks are inferred from zeros: a weight that is zero by itself counts as pruned"
    if not options.recipe and not found.recipe:
        yield "the files tell no recipe: the task's default for this architecture is assumed"
    if not options.license:
        yield "no license was given: it is recorded as unknown"
