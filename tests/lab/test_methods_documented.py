"""Every method is documented, and every one that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

from nirvana import lazy
from nirvana.pruning.methods import METHODS, describe_options

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
SECTIONS = dict(re.findall(r"(?ms)^## ([\w-]+)\n\n(.*?)(?=^## |\Z)", PAGE.read_text()))


def test_every_method_has_a_paragraph_that_names_its_papers() -> None:
    assert [name for name in SECTIONS if name in METHODS] == list(METHODS)
    for name, method in METHODS.items():
        for paper in re.findall(r"\d{4}\.\d{5}", method.reference):
            assert paper in SECTIONS[name], (name, paper)


def test_every_option_stands_in_its_methods_paragraph_with_its_default_and_is_explained() -> None:
    for name in METHODS:
        (line,) = re.findall(r"(?m)^Options: (.*)$", SECTIONS[name]) or [""]
        documented = {option: float(default) for option, default in re.findall(r"`(\w+)` \(([\d.]+)\)", line)}
        options = describe_options(name)
        assert documented == {option: default for option, default, _ in options}, name
        assert all(explanation for *_, explanation in options), name


def test_every_method_that_is_not_iterative_has_its_function() -> None:
    for name, method in METHODS.items():
        assert bool(method.code) != method.is_iterative, name
        if method.code:
            assert callable(lazy.load_function(method.code)), name
