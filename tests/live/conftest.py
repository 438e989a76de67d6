"""A registry that runs: the real service and the real worker, on loopback, in a home of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nirvana import lab
from nirvana.cli import main
from nirvana.cli.output import Output
from nirvana.cli.up import Registry, start_registry
from nirvana.client.rest import Client
from nirvana.format.ticket import Ticket

Nirvana = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A service and a worker, started once for all tests here as `nirvana up` starts them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIRVANA_HOME", str(tmp_path_factory.mktemp("home")))
        for name in ("NIRVANA_TOKEN", "NIRVANA_OFFLINE", "NIRVANA_CACHE", "NIRVANA_ENDPOINT"):
            patch.delenv(name, raising=False)
        with start_registry(Output(quiet=True), port=0) as registry:
            patch.setenv("NIRVANA_ENDPOINT", registry.client.endpoint)
            yield registry


@pytest.fixture
def client(registry: Registry) -> Client:
    return registry.client


@pytest.fixture(scope="session")
def owner(registry: Registry) -> str:
    return str(registry.client.whoami()["account"])


@pytest.fixture(scope="session")
def levels() -> list[Ticket]:
    """Tickets of a small network, levels 0 to 2, hardly trained."""
    recipe: dict[str, Any] = {"steps": 40, "evaluate_every": 20}
    return lab.find("digits", "mlp-16", levels=2, recipe=recipe).tickets


@pytest.fixture
def nirvana(registry: Registry, capsys: pytest.CaptureFixture[str]) -> Nirvana:
    """Runs the command line in this process: exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return run
