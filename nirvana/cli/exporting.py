"""export: a ticket in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nirvana.cli.output import Json, Output, Quiet
from nirvana.cli.tickets import Name


def export(
    name: Name,
    form: Annotated[str, typer.Option("--format", "-f", help="safetensors, numpy, csr, onnx or script.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File or folder to write to.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="What `nirvana train --out` wrote: export these values.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a ticket for other tools: safetensors, NumPy, SciPy (csr), ONNX, or a train.py that stands alone.

    The values are the ticket's initial ones, or trained ones with --weights.
    """
    from nirvana.api import load
    from nirvana.exports import export_ticket
    from nirvana.files import write_atomically
    from nirvana.trained import Weights

    ticket = load(name)
    exported = export_ticket(ticket, form, None if weights is None else Weights.read(weights))
    stem = Path(name).stem if Path(name).is_file() else name.rsplit("/", 1)[-1].replace("sha256:", "")
    file_name = f"{stem}{exported.suffix}"
    target = out / file_name if out is not None and out.is_dir() else out or Path(file_name)
    write_atomically(target, exported.content)
    written = {"file": str(target), "format": form, "bytes": len(exported.content), "digest": ticket.digest}
    Output(json, quiet).data(written, lambda: print(target))
