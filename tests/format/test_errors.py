"""The error tree: every class has its own code, and a problem comes back as the class that it was."""

from __future__ import annotations

import copy

from nirvana import errors


def test_every_class_has_a_code_of_its_own() -> None:
    classes = errors.error_classes()
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    defined = [kind for kind in found if issubclass(kind, errors.NirvanaError)]
    assert {kind.code for kind in defined} == set(classes)
    assert len(defined) == len(classes)


def test_the_tree_on_top_of_the_file_names_every_class() -> None:
    assert errors.__doc__ is not None
    for kind in errors.error_classes().values():
        assert kind.__name__ in errors.__doc__


def test_an_error_says_everything_as_json_and_survives_a_copy() -> None:
    problem = errors.Problem("/masks/a", "layer-collapse", "a keeps no weight")
    error = errors.InvalidTicket("not a ticket", errors=[problem], limit=3)
    assert error.to_dict() == {
        "code": "invalid-ticket",
        "title": "Not a valid ticket",
        "detail": "not a ticket",
        "errors": [{"pointer": "/masks/a", "code": "layer-collapse", "detail": "a keeps no weight"}],
        "limit": 3,
    }
    assert copy.copy(error).to_dict() == error.to_dict()
