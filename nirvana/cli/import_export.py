"""import, export: tickets from the files of other tools, and for them."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nirvana.cli.experiments import read_recipe
from nirvana.cli.output import Json, Output, Quiet, percent
from nirvana.cli.tickets import Name
from nirvana.errors import Invalid, NotFound

if TYPE_CHECKING:
    from nirvana.importers import Imported
    from nirvana.networks.architecture import Architecture


def import_(
    path: Annotated[Path, typer.Argument(help="File; for open-lth the folder of a replicate or a level.")],
    source: Annotated[
        str, typer.Option("--from", help="Source: open-lth, torch-prune, hidden-networks or state-dict.")
    ],
    task: Annotated[str, typer.Option(help="Task that the network was trained on: digits, mnist ...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .ticket file to write, or a folder.")],
    architecture: Annotated[
        str | None,
        typer.Option(help="Network of the zoo, or a .json file of a graph; default: the one that fits."),
    ] = None,
    level: Annotated[int | None, typer.Option(min=0, help="open-lth: level of a replicate.")] = None,
    iterations_per_epoch: Annotated[
        int | None, typer.Option(min=1, help="open-lth: for a data set that it does not have.")
    ] = None,
    initial: Annotated[
        Path | None, typer.Option(help="torch-prune: state dict of the initial values.")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="torch-prune: the file was saved before training.")
    ] = False,
    prune_rate: Annotated[
        float | None, typer.Option(help="hidden-networks: share of weights kept, their prune_rate.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="state-dict: file of 0/1 arrays by name.")] = None,
    infer_masks: Annotated[
        Path | None, typer.Option(help="state-dict: pruned state dict whose zeros are the masks.")
    ] = None,
    rewind_step: Annotated[
        int | None, typer.Option(min=0, help="torch-prune, state-dict: updates before the values were taken.")
    ] = None,
    torch_seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="torch-prune, state-dict: values of torch.manual_seed and the layers' constructors."
        ),
    ] = None,
    torch_order: Annotated[
        str | None,
        typer.Option(help="Layers in the order of construction, with commas; default: the file's."),
    ] = None,
    structure_only: Annotated[
        bool, typer.Option("--structure-only", help="The values are not initial ones: take masks alone.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the new values of a structure.")] = 0,
    law: Annotated[str | None, typer.Option(help="Law of the initial weights: kaiming_normal ...")] = None,
    reset_biases: Annotated[
        bool, typer.Option("--reset-biases", help="Biases start at 0 and normalisation at 1: recorded.")
    ] = False,
    recipe: Annotated[Path | None, typer.Option(help="JSON file of fields that override the recipe.")] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the files.")] = None,
    source_url: Annotated[str | None, typer.Option(help="URL of the files.")] = None,
    author: Annotated[list[str] | None, typer.Option(help="Author of the files; may be repeated.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a ticket of files of open_lth, torch.nn.utils.prune, hidden-networks, or a state dict and masks.

    Nothing in them is run. Files without initial values give a structure, with new values, and it says so.
    """
    from nirvana.importers import Options, import_ticket

    options = Options(
        law=law,
        seed=seed,
        structure_only=structure_only,
        reset_biases=reset_biases,
        license=license,
        source_url=source_url,
        authors=tuple(author or ()),
        recipe=read_recipe(recipe),
        level=level,
        iterations_per_epoch=iterations_per_epoch,
        initial=initial,
        untrained=untrained,
        prune_rate=prune_rate,
        masks=masks,
        infer_masks=infer_masks,
        rewind_step=rewind_step,
        torch_seed=torch_seed,
        torch_order=tuple(torch_order.split(",")) if torch_order else (),
    )
    imported = import_ticket(source, path, task, _read_architecture(architecture), options)
    target = out / f"{path.resolve().stem}.ticket" if out.is_dir() else out
    imported.ticket.write(target)
    _report(Output(json, quiet), imported, target)


def _report(output: Output, imported: Imported, target: Path) -> None:
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
        "initial": ticket.start.kind,
        "structure_only": imported.structure_only,
        "warnings": list(imported.warnings),
    }
    output.data(written, lambda: print(target))
    for warning in imported.warnings:
        output.say(f"warning: {warning}")
    kind = "structure" if imported.structure_only else "ticket"
    output.say(f"{kind} of {ticket.architecture.name}: {percent(ticket.density)} of {ticket.total} weights")


def _read_architecture(name: str | None) -> str | Architecture | None:
    """Return the zoo's name as it is, and for a .json file the graph in it."""
    from nirvana.networks.architecture import Architecture

    if name is None or not name.endswith(".json"):
        return name
    try:
        graph = json_.loads(Path(name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"no such file: {name}") from error
    except ValueError as error:
        raise Invalid(f"{name}: found no JSON: {error}") from error
    return Architecture.from_manifest(graph)


def export(
    name: Name,
    form: Annotated[
        str, typer.Option("--format", "-f", help="Form: safetensors, numpy, csr, onnx or script.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File or folder to write to.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File of `nirvana train --out`: export these values.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a ticket for other tools: safetensors, NumPy, SciPy (csr), ONNX, or a train.py that stands alone.

    The values are the ticket's initial ones, or trained ones with --weights.
    """
    from nirvana.client.api import load
    from nirvana.exports import export_ticket
    from nirvana.files import write_atomically
    from nirvana.weights import Weights

    ticket = load(name)
    exported = export_ticket(ticket, form, None if weights is None else Weights.read(weights))
    stem = Path(name).stem if Path(name).is_file() else name.rsplit("/", 1)[-1].replace("sha256:", "")
    file_name = f"{stem}{exported.suffix}"
    target = out / file_name if out is not None and out.is_dir() else out or Path(file_name)
    write_atomically(target, exported.content)
    written = {"file": str(target), "format": form, "bytes": len(exported.content), "digest": ticket.digest}
    Output(json, quiet).data(written, lambda: print(target))
