"""import: a ticket from files that another tool wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nirvana.cli.output import Json, Output, Quiet, percent


def import_(
    path: Annotated[Path, typer.Argument(help="A file; for open-lth a replicate's or a level's folder.")],
    source: Annotated[
        str, typer.Option("--from", help="open-lth, torch-prune, hidden-networks or state-dict.")
    ],
    task: Annotated[str, typer.Option(help="What the network was trained on: digits, mnist ...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .ticket file to write, or a folder.")],
    architecture: Annotated[
        str | None,
        typer.Option(help="A network of the zoo, or a .json file of a graph; left out: the one that fits."),
    ] = None,
    level: Annotated[int | None, typer.Option(min=0, help="open-lth: of a replicate.")] = None,
    iterations_per_epoch: Annotated[
        int | None, typer.Option(min=1, help="open-lth: for a data set that it does not have itself.")
    ] = None,
    initial: Annotated[
        Path | None, typer.Option(help="torch-prune: a state dict of the initial values.")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="torch-prune: the file was saved before training.")
    ] = False,
    prune_rate: Annotated[
        float | None, typer.Option(help="hidden-networks: the share of weights kept, their prune_rate.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="state-dict: a file of 0/1 arrays by name.")] = None,
    infer_masks: Annotated[
        Path | None, typer.Option(help="state-dict: a pruned state dict whose zeros are the masks.")
    ] = None,
    rewind_step: Annotated[
        int | None, typer.Option(min=0, help="torch-prune, state-dict: updates before the values were taken.")
    ] = None,
    structure_only: Annotated[
        bool, typer.Option("--structure-only", help="The values are not initial ones: take masks alone.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the new values of a structure.")] = 0,
    law: Annotated[str | None, typer.Option(help="Of the weights' values: kaiming_normal ...")] = None,
    reset_biases: Annotated[
        bool, typer.Option("--reset-biases", help="Biases start at 0 and normalisation at 1: recorded.")
    ] = False,
    recipe: Annotated[Path | None, typer.Option(help="JSON file; overrides the recipe.")] = None,
    license: Annotated[str | None, typer.Option(help="Of the files.")] = None,
    source_url: Annotated[str | None, typer.Option(help="Where the files are from.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="Who made them; again for each.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a ticket of files of open_lth, torch.nn.utils.prune, hidden-networks, or a state dict and masks.

    Nothing in them is run. Files without initial values give a structure, with new values, and it says so.
    """
    importing = _importing()
    options = importing.Options(
        law=law,
        seed=seed,
        structure_only=structure_only,
        reset_biases=reset_biases,
        license=license,
        source_url=source_url,
        authors=tuple(author or ()),
        recipe=_fields(recipe),
        level=level,
        iterations_per_epoch=iterations_per_epoch,
        initial=initial,
        untrained=untrained,
        prune_rate=prune_rate,
        masks=masks,
        infer_masks=infer_masks,
        rewind_step=rewind_step,
    )
    imported = importing.import_ticket(source, path, task, _architecture(architecture), options)
    target = out / f"{path.resolve().stem}.ticket" if out.is_dir() else out
    imported.ticket.write(target)
    _tell(Output(json, quiet), imported, target)


def _tell(output: Output, imported: Any, target: Path) -> None:
    ticket = imported.ticket
    written = {
        "ticket": str(target),
        "digest": ticket.digest,
        "task": ticket.task,
        "architecture": ticket.architecture.name,
        "density": ticket.density,
        "kept": ticket.kept,
        "total": ticket.total,
        "rewind_step": ticket.start.rewind_step,
        "law": imported.law,
        "structure_only": imported.structure_only,
        "warnings": list(imported.warnings),
    }
    output.data(written, lambda: print(target))
    for warning in imported.warnings:
        output.say(f"warning: {warning}")
    kind = "structure" if imported.structure_only else "ticket"
    output.say(f"{kind} of {ticket.architecture.name}: {percent(ticket.density)} of {ticket.total} weights")


def _architecture(name: str | None) -> Any:
    """The zoo's name as it is; a .json file as the graph in it."""
    from nirvana.architecture import Architecture

    if name is None or not name.endswith(".json"):
        return name
    return Architecture.from_manifest(_read_json(Path(name)))


def _fields(path: Path | None) -> dict[str, Any]:
    from nirvana.errors import InvalidRecipe

    fields = _read_json(path) if path else {}
    if not isinstance(fields, dict):
        raise InvalidRecipe(f"{path}: found {type(fields).__name__}, expected an object of recipe fields")
    return fields


def _read_json(path: Path) -> Any:
    import json

    from nirvana.errors import Invalid, NotFound

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {path}") from error
    except ValueError as error:
        raise Invalid(f"{path}: found no JSON: {error}") from error


def _importing() -> Any:
    """nirvana.lab.importing, or a clear word where torch is not installed."""
    from nirvana.errors import missing_lab

    try:
        from nirvana.lab import importing
    except ModuleNotFoundError as error:
        raise missing_lab(error) from None
    return importing
