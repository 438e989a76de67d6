"""Run the command line against a registry of its own and write down what it prints, as docs/cli.md.

`make transcripts` (2 minutes). The commands stand in SESSION; a verb that has none there stops the script.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nirvana.cli.app import app
from nirvana.cli.output import Output
from nirvana.cli.up import start_registry
from nirvana.environment import VERSION

MOST_LINES = 32  # of one answer
SESSION: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Who am I",
        (
            "nirvana whoami",
            "nirvana tokens new laptop --scopes read,publish --names 'lenet-*' --days 90 >laptop.txt",
            "nirvana tokens ls",
            "nirvana env",
            "nirvana signup --help",
            "nirvana password --help",
            "nirvana organisations create lab",
            "nirvana organisations ls",
        ),
    ),
    (
        "What there is",
        ("nirvana methods", "nirvana tasks ls", "nirvana tasks show digits", "nirvana search --task digits"),
    ),
    (
        "Find a ticket here",
        (
            "nirvana find --task digits --architecture lenet-300-100 --density 0.1 --seed 1 --out found",
            "nirvana lint found/level-11.ticket",
            "nirvana show found/level-11.ticket",
            "nirvana diff found/level-10.ticket found/level-11.ticket",
            "nirvana verify found/level-11.ticket --local --seed 0 --quiet",
            "nirvana train found/level-11.ticket --out trained.npz",
            "nirvana predict --help",
            "nirvana export found/level-11.ticket --format csr --out csr.npz",
            "nirvana import --help",
            "nirvana transfer --help",
        ),
    ),
    (
        "Publish it, have it verified and attested",
        (
            "nirvana push found/level-11.ticket --name lenet-10",
            "nirvana verify ada/lenet-10",
            "nirvana attest ada/lenet-10",
            "nirvana search --task digits --max-density 0.2 --verdict winning",
            "nirvana show ada/lenet-10",
            "nirvana verify-signature ada/lenet-10 --out verdict.json",
            "nirvana cite ada/lenet-10",
            "nirvana tags ada/lenet-10 +small +teaching",
            "nirvana card ada/lenet-10 --edit - <<<'# Found on a laptop'",
            "nirvana search --facets task,verdict --origin any",
            "nirvana similar ada/lenet-10",
            "nirvana pull ada/lenet-10 --out pulled.ticket",
            "nirvana cache ls",
            "nirvana jobs ls",
            "nirvana yank ada/lenet-10 --reason withdrawn --detail 'an example'",
            "nirvana unyank ada/lenet-10",
            "nirvana webhooks --help",
            "nirvana webhooks ls",
        ),
    ),
    (
        "Run a registry",
        (
            "nirvana up --help",
            "nirvana serve --help",
            "nirvana worker --help",
            "nirvana migrate --help",
            "nirvana admin reverify --dry-run",
            "nirvana dump --out dump",
            "nirvana mirror $NIRVANA_ENDPOINT mirror --check --quiet",
            "nirvana mirror $NIRVANA_ENDPOINT mirror --quiet",
            "nirvana login --help",
            "nirvana logout --help",
        ),
    ),
    (
        "When something is wrong",
        ("nirvana show nobody/nothing", "nirvana search --task", "nirvana lint verdict.json"),
    ),
)


def main() -> int:
    """Write the page to docs/cli.md."""
    missing = sorted(_verbs() - _shown())
    if missing:
        print(f"no example of: {', '.join(missing)}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"NIRVANA_HOME": f"{folder}/home", "LOGNAME": "ada", "COLUMNS": "110", "NO_COLOR": "1"}
        os.environ["NIRVANA_DISABLE_PROGRESS_BARS"] = "1"
        with start_registry(Output(quiet=True), port=0) as registry:
            os.environ["NIRVANA_ENDPOINT"] = endpoint = registry.client.endpoint
            text = "\n".join(_write(Path(folder)))
    page = text.replace(endpoint, "http://127.0.0.1:8000").replace(folder, "/home/ada")
    Path("docs/cli.md").write_text(page + "\n")
    return 0


def _verbs() -> set[str]:
    verbs = {command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands}
    return {str(name).replace("_", "-") for name in verbs | {group.name for group in app.registered_groups}}


def _shown() -> set[str]:
    return {command.split()[1] for _, commands in SESSION for command in commands}


def _write(folder: Path) -> Iterator[str]:
    yield "# The command line\n"
    yield f"Written by `make transcripts` with nirvana {VERSION}; nothing here was typed in."
    yield (
        "`$?` is shown where it is not 0: 2 usage, 3 not found, 4 refused, 5 network, 6 verdict not reached. "
        "Every verb takes `--json` and `-q` (`tags`, where `-q` takes a tag away, `--quiet`); data go to "
        "stdout, talk and progress to stderr."
    )
    for title, commands in SESSION:
        yield f"\n## {title}\n\n```console"
        for command in commands:
            print(command, file=sys.stderr)
            yield from _run(command, folder)
        yield "```"


def _run(command: str, folder: Path) -> Iterator[str]:
    yield f"$ {command}"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [line.rstrip() for line in ran.stdout.splitlines()]
    yield from lines[:MOST_LINES]
    if len(lines) > MOST_LINES:
        yield f"... ({len(lines) - MOST_LINES} more lines)"
    if ran.returncode:
        yield f"$? = {ran.returncode}"
    yield ""


if __name__ == "__main__":
    sys.exit(main())
