"""Every method is documented, and every one that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

from nirvana.lab.methods import FINDERS
from nirvana.methods import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_every_method_has_a_paragraph_that_names_its_papers() -> None:
    sections = dict(re.findall(r"(?ms)^## ([\w-]+)\n\n(.*?)(?=^## |\Z)", PAGE.read_text()))
    assert [name for name in sections if name in METHODS] == list(METHODS)
    for name, method in METHODS.items():
        for paper in re.findall(r"\d{4}\.\d{5}", method.reference):
            assert paper in sections[name], (name, paper)


def test_every_method_that_is_not_iterative_has_its_function() -> None:
    assert set(FINDERS) == {name for name, method in METHODS.items() if not method.is_iterative}
