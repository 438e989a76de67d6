"""One file of many sources: what stays, what goes, what is renamed and what is refused."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import math
from pathlib import Path

import pytest

from nirvana.exports import amalgamation
from nirvana.exports.amalgamation import Unfit, amalgamate
from nirvana.exports.sources import Module, free_names, parse

A = '''
from __future__ import annotations

import math
import zstandard
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nirvana.b import SIZE, scale as stretch

if TYPE_CHECKING:
    from nirvana.lab import Network

TABLE = {"a": 1}
TABLE |= {"b": 2}  # both belong together
unused = 3


# about the class
@dataclass
class Box:
    """A box."""

    side: float = SIZE
    kind: ClassVar[str] = "box"

    def area(self) -> float:
        """Its area."""
        return stretch(self.side) * math.pi

    def packed(self, network: Network) -> bytes:
        return zstandard.compress(b"")

    def unasked(self) -> float:
        return unused


def _check(box: Box) -> bool:
    from nirvana.c import _check as check_c

    return check_c(box.area()) and bool(TABLE)


def run(math_of: int) -> bool:
    return _check(Box())
'''
B = """
import functools

SIZE = 2.0


def scale(x: float) -> float:
    return x + SIZE


@functools.singledispatch
def act(x: object) -> None:
    pass


REGISTRY: list[object] = []


def keep(what: object) -> object:
    REGISTRY.append(what)
    return lambda function: function


@keep(SIZE)
def kept_for_size() -> None:
    pass


@keep(act)
def not_kept() -> None:
    pass
"""
C = """
CALLS: list[float] = []
CALLS.append(0.0)


def _check(x: float, _check: int = 0) -> bool:
    CALLS.append(x)
    return x > 3 + _check
"""


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Three modules in place of the package's."""
    texts = {"nirvana.a": A, "nirvana.b": B, "nirvana.c": C}

    def read(name: str) -> Module:
        if name not in texts:
            raise Unfit(f"there is no module {name}")
        return parse(name, texts[name])

    found = {name: read(name) for name in texts}
    monkeypatch.setattr(amalgamation, "read_module", lambda name: found.get(name) or read(name))
    return texts


def joined() -> str:
    return amalgamate([("nirvana.a", "run")], [])


def test_what_is_needed_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole_of_three.py").write_text("from __future__ import annotations\n" + joined())
    monkeypatch.syspath_prepend(tmp_path)
    whole = importlib.import_module("whole_of_three")
    assert whole.run(1) is True
    assert whole.TABLE == {"a": 1, "b": 2}
    assert [0.0, pytest.approx(4 * math.pi)] == whole.CALLS
    assert [field.name for field in dataclasses.fields(whole.Box)] == ["side"]


def test_what_nobody_needs_and_what_is_forbidden_is_left_out() -> None:
    source = joined()
    for gone in ("unused", "unasked", "packed", "zstandard", "nirvana.lab", "singledispatch", "not_kept"):
        assert gone not in source
    assert "# about the class\n@dataclass\nclass Box:" in source
    assert "TABLE |= {" in source


def test_two_definitions_of_one_name_get_two() -> None:
    source = joined()
    names = [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)]
    assert len(names) == len(set(names))
    assert {"_check", "_check_of_c"} <= set(names) or {"_check", "_check_of_a"} <= set(names)
    assert "nirvana" not in "\n".join(line for line in source.splitlines() if not line.startswith("#"))


def test_the_rest_of_the_files_names_are_left_alone() -> None:
    source = amalgamate([("nirvana.a", "run")], [], ["Box"])
    assert "class Box_of_a:" in source
    assert "_check(Box_of_a())" in source


def test_a_decorator_that_registers_something_needed_is_needed() -> None:
    assert "def kept_for_size" in joined()


def test_a_definition_can_be_given_another_text() -> None:
    source = amalgamate([("nirvana.a", "run")], [], (), {("nirvana.b", "SIZE"): "7"})
    assert "SIZE = '7'" in source


def test_what_cannot_be_one_file_is_refused(modules: dict[str, str]) -> None:
    with pytest.raises(Unfit, match=r"nirvana\.a does not define walk"):
        amalgamate([("nirvana.a", "walk")], [])
    with pytest.raises(Unfit, match=r"there is no module nirvana\.d"):
        amalgamate([("nirvana.d", "run")], [])
    with pytest.raises(Unfit, match="the name run is taken by another definition"):
        amalgamate([("nirvana.a", "run")], [], ["run"])


def test_a_function_that_needs_a_forbidden_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = parse("nirvana.e", "import torch\n\n\ndef run():\n    return torch.ones(1)\n")
    monkeypatch.setattr(amalgamation, "read_module", lambda name: found)
    with pytest.raises(Unfit, match=r"nirvana\.e needs torch \(import torch\), which is not allowed"):
        amalgamate([("nirvana.e", "run")], ["numpy"])


def test_free_names_are_those_that_a_scope_does_not_bind() -> None:
    node = ast.parse("def f(a: Kind, b=other):\n    c = a + d\n    return [e for e in g(c)]\n").body[0]
    assert free_names(node)[0] == {"other", "d", "g"}
