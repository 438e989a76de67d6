"""Architecture: a network as data, a list of nodes from which shapes, parameter names and FLOPs follow."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nirvana.errors import InvalidArchitecture, Problem, raise_problems
from nirvana.networks.ops import OPS, REQUIRED, SAME_AS_KERNEL, DoesNotFit, Field, Node, Shape

MAX_NODES = 10_000
MAX_PARAMETERS = 100_000_000
NODE_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")
_LARGEST_INTEGER = 2**53 - 1  # what canonical JSON can hold


@dataclass(frozen=True)
class Architecture:
    """A checked graph. Make one with `from_manifest`, `nirvana.networks.zoo.build` or by hand; all check it.

    Attributes:
        name: what people call it; no part of its identity.
        input: shape of one example, e.g. (1, 28, 28).
        nodes: each {"name", "op", ...}; a node reads the one before it unless it has "inputs".
            Fields equal to their default are left out (`make` drops them).

    Raises:
        InvalidArchitecture: with one Problem for each thing that is wrong.
    """

    name: str
    input: Shape
    nodes: tuple[Node, ...]
    max_parameters: int = MAX_PARAMETERS

    def __post_init__(self) -> None:
        problems = list(_find_problems(self.to_manifest(), self.max_parameters))
        raise_problems(InvalidArchitecture, "architecture", problems)

    @classmethod
    def make(cls, name: str, input: Shape, nodes: Iterable[Node]) -> Architecture:
        """Return an architecture from nodes whose fields may equal their defaults: those are dropped."""
        return cls(name, tuple(input), tuple(_without_defaults(nodes)))

    @classmethod
    def from_manifest(cls, fields: object, *, max_parameters: int = MAX_PARAMETERS) -> Architecture:
        """Return an architecture from the manifest's object.

        Raises:
            InvalidArchitecture: with JSON pointers into `fields`.
        """
        raise_problems(InvalidArchitecture, "architecture", list(_find_problems(fields, max_parameters)))
        assert isinstance(fields, dict)
        return cls(fields["name"], tuple(fields["input"]), tuple(fields["nodes"]), max_parameters)

    def to_manifest(self) -> dict[str, Any]:
        """Return the manifest's object (docs/format.md, section 2)."""
        return {"name": self.name, "input": list(self.input), "nodes": [dict(node) for node in self.nodes]}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Output shape of each node, of one example."""
        return {name: shape for name, (_, shape) in self._walk.items()}

    @cached_property
    def parameters(self) -> dict[str, Shape]:
        """Shape of each parameter, in order, under PyTorch's names (`fc1.weight`)."""
        return {
            f"{node['name']}.{suffix}": shape
            for node in self.nodes
            for suffix, shape in OPS[node["op"]].parameters(node).items()
        }

    @cached_property
    def positions(self) -> dict[str, int]:
        """Place of each parameter in their list: the number of its stream of draws."""
        return {name: position for position, name in enumerate(self.parameters)}

    @cached_property
    def buffers(self) -> dict[str, Shape]:
        """Shape of each batch norm's running statistics (`bn1.running_mean`)."""
        return {
            f"{node['name']}.{suffix}": shape
            for node in self.nodes
            for suffix, shape in OPS[node["op"]].buffers(node).items()
        }

    @cached_property
    def prunable(self) -> tuple[str, ...]:
        """The weights of linear and convolution layers, which a mask covers by default."""
        return tuple(f"{node['name']}.{suffix}" for node in self.nodes for suffix in OPS[node["op"]].prunable)

    @property
    def output_shape(self) -> Shape:
        return self.shapes[self.nodes[-1]["name"]]

    @property
    def prunable_total(self) -> int:
        """Weights in all that a mask covers by default."""
        return sum(math.prod(self.parameters[name]) for name in self.prunable)

    @cached_property
    def weights(self) -> dict[str, Shape]:
        """Shape of each weight that density counts: of linear, convolution, attention and embedding layers.

        Everything of two dimensions or more but a normalisation's: a new op's weights count unless its row
        says that they normalise.
        """
        return {
            f"{node['name']}.{suffix}": shape
            for node in self.nodes
            if not OPS[node["op"]].normalises
            for suffix, shape in OPS[node["op"]].parameters(node).items()
            if len(shape) > 1
        }

    @property
    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.parameters.values())

    @cached_property
    def uses(self) -> dict[str, int]:
        """Multiplications of one example's forward pass with each element of a parameter."""
        counts = {}
        for node in self.nodes:
            sources, shape = self._walk[node["name"]]
            for suffix, times in OPS[node["op"]].uses(node, sources[0], shape).items():
                counts[f"{node['name']}.{suffix}"] = times
        return counts

    def flops(self, kept: Mapping[str, int] | None = None) -> int:
        """Count forward FLOPs of one example: 2 a multiplication with a weight; biases, normalisation and
        activations are not counted, nor are the products of queries with keys and values.

        Args:
            kept: parameter -> weights kept, for the theoretical sparse cost; None: all.

        Reference: LeNet-300-100 has 532,400 (SCIENCE 4.8).
        """
        kept = kept or {}
        return 2 * sum(
            times * kept.get(name, math.prod(self.parameters[name])) for name, times in self.uses.items()
        )

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON without the name."""
        import rfc8785  # the exported script asks for no digest and has no such package

        manifest = self.to_manifest()
        del manifest["name"]
        return "sha256:" + hashlib.sha256(rfc8785.dumps(manifest)).hexdigest()

    @property
    def family(self) -> str:
        """`lenet` of `lenet-300-100`: the name up to its first number."""
        match = re.match(r"[a-z_]+(?:-[a-z_]+)*", self.name)
        return match.group() if match else self.name

    @cached_property
    def _walk(self) -> dict[str, tuple[list[Shape], Shape]]:
        walk: dict[str, tuple[list[Shape], Shape]] = {}
        last: list[str] = []
        for node in self.nodes:
            sources = [walk[name][1] for name in inputs_of(node, last)] or [self.input]
            walk[node["name"]] = sources, OPS[node["op"]].output(node, sources)
            last = [node["name"]]
        return walk


def inputs_of(node: Node, before: list[str]) -> list[str]:
    """Return the names of the nodes that `node` reads; empty where it reads the network's input.

    Args:
        before: the name of the node before it in a list, or an empty list for the first node.
    """
    return list(node["inputs"]) if "inputs" in node else before


def _without_defaults(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        fields = OPS[node["op"]].fields
        yield {
            name: value
            for name, value in node.items()
            if name not in fields or value != _default(node, fields[name])
        }


def _default(node: Node, field: Field) -> object:
    return node["kernel"] if field.default is SAME_AS_KERNEL else field.default


def _find_problems(fields: object, max_parameters: int) -> Iterator[Problem]:
    """Find everything that is wrong, with pointers; what depends on a broken part is not looked at."""
    outline = list(_outline_problems(fields))
    if outline:
        yield from outline
        return
    assert isinstance(fields, dict)
    broken = False
    for problem in _node_problems(fields["nodes"]):
        broken = True
        yield problem
    if not broken:
        yield from _graph_problems(tuple(fields["input"]), fields["nodes"], max_parameters)


def _outline_problems(fields: object) -> Iterator[Problem]:
    if not isinstance(fields, dict):
        yield Problem("", "type", f"found {type(fields).__name__}, expected an object")
        return
    for name in sorted(set(fields) ^ {"name", "input", "nodes"}):
        wrong = "unknown-field" if name in fields else "missing"
        yield Problem(f"/{name}", wrong, f"{name}: expected exactly the fields name, input and nodes")
    if not isinstance(fields.get("name", ""), str) or not 1 <= len(fields.get("name", "-")) <= 200:
        yield Problem("/name", "value", f"found {fields.get('name')!r}, expected 1 to 200 characters")
    if not _is_shape(fields.get("input", [1])):
        yield Problem("/input", "shape", f"found {fields['input']!r}, expected 1 to 4 integers of at least 1")
    nodes = fields.get("nodes", [{}])
    if not isinstance(nodes, list) or not 1 <= len(nodes) <= MAX_NODES:
        size = f"{len(nodes)} nodes" if isinstance(nodes, list) else type(nodes).__name__
        yield Problem("/nodes", "value", f"found {size}, expected a list of 1 to {MAX_NODES} nodes")


def _is_integer(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST_INTEGER


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 4 and all(_is_integer(n) for n in value)


def _node_problems(nodes: list[object]) -> Iterator[Problem]:
    """Find what is wrong with each node by itself."""
    all_names = {
        node["name"] for node in nodes if isinstance(node, dict) and isinstance(node.get("name"), str)
    }
    seen: list[str] = []
    known: set[str] = set()
    for position, node in enumerate(nodes):
        at = f"/nodes/{position}"
        if not isinstance(node, dict):
            yield Problem(at, "type", f"found {type(node).__name__}, expected an object")
            continue
        yield from _name_problems(node.get("name"), known, at)
        op = node.get("op")
        if not isinstance(op, str) or op not in OPS:
            yield Problem(f"{at}/op", "unknown-op", f"unknown op {op!r}, expected one of {', '.join(OPS)}")
        else:
            yield from _field_problems(node, at)
            yield from _input_problems(node, at, seen, known, all_names)
        if isinstance(node.get("name"), str):
            seen.append(node["name"])
            known.add(node["name"])


def _name_problems(name: object, known: set[str], at: str) -> Iterator[Problem]:
    if not isinstance(name, str) or not NODE_NAME.fullmatch(name) or len(name) > 200:
        detail = f"found {str(name)[:80]!r}, expected lower-case letters, digits, _ and dots"
        yield Problem(f"{at}/name", "node-name", detail)
    elif name in known:
        yield Problem(f"{at}/name", "node-name-twice", f"{name!r} is used twice")


def _input_problems(
    node: Node, at: str, seen: list[str], known: set[str], all_names: set[str]
) -> Iterator[Problem]:
    op = OPS[node["op"]]
    inputs = node.get("inputs")
    if inputs is None:
        if op.least_inputs > 1:
            yield Problem(f"{at}/inputs", "missing", f"{node['op']} needs {op.least_inputs} or more inputs")
        return
    if not isinstance(inputs, list) or not all(isinstance(name, str) for name in inputs):
        yield Problem(f"{at}/inputs", "type", f"found {inputs!r}, expected a list of node names")
        return
    if not op.least_inputs <= len(inputs) <= op.most_inputs:
        expected = f"{op.least_inputs}" if op.most_inputs == 1 else f"{op.least_inputs} or more"
        yield Problem(f"{at}/inputs", "count", f"{node['op']} reads {len(inputs)} nodes, expected {expected}")
    if inputs == seen[-1:]:
        yield Problem(f"{at}/inputs", "spelled-out-default", "reads the node before it: leave inputs out")
    for name in inputs:
        if name not in known:
            cause = "a cycle, or out of order" if name in all_names else "no such node"
            detail = f"reads {name!r} before it exists ({cause})"
            yield Problem(f"{at}/inputs", "read-before-defined", detail)


_KINDS = {
    "int": "an integer",
    "size": "an integer or a list of unequal ones",
    "shape": "a list of integers",
    "bool": "true or false",
    "rate": "a number in [0, 1)",
}


def _field_problems(node: Node, at: str) -> Iterator[Problem]:
    fields = OPS[node["op"]].fields
    for name in node:
        if name not in fields and name not in ("name", "op", "inputs"):
            yield Problem(f"{at}/{name}", "unknown-field", f"{node['op']} has no field {name!r}")
    for name, field in fields.items():
        if name not in node:
            if field.default is REQUIRED:
                yield Problem(f"{at}/{name}", "missing", f"{node['op']} needs {name}: {_KINDS[field.kind]}")
        elif not _is_kind(node[name], field):
            least = f" of at least {field.least}" if field.kind in ("int", "size", "shape") else ""
            detail = f"found {str(node[name])[:80]}, expected {_KINDS[field.kind]}{least}"
            yield Problem(f"{at}/{name}", "value", detail)
        elif node[name] == node.get("kernel" if field.default is SAME_AS_KERNEL else "", field.default):
            yield Problem(f"{at}/{name}", "spelled-out-default", f"{node[name]} is the default: leave it out")


def _is_kind(value: object, field: Field) -> bool:
    if field.kind == "bool":
        return isinstance(value, bool)
    if field.kind == "rate":
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
    if isinstance(value, list) and field.kind in ("size", "shape"):
        whole = all(_is_integer(n, field.least) for n in value) and 1 <= len(value) <= 4
        return whole and (field.kind == "shape" or len(set(value)) > 1)
    return field.kind != "shape" and _is_integer(value, field.least)


def _graph_problems(input: Shape, nodes: list[Node], max_parameters: int) -> Iterator[Problem]:
    """Find shapes that do not fit, and too many parameters: exact integers, nothing is allocated."""
    shapes: dict[str, Shape] = {}
    parameters: dict[str, Shape] = {}
    last: list[str] = []
    total = 0
    for position, node in enumerate(nodes):
        op = OPS[node["op"]]
        sources = [shapes[name] for name in inputs_of(node, last)] or [input]
        try:
            shapes[node["name"]] = op.output(node, sources)
            added = {f"{node['name']}.{suffix}": shape for suffix, shape in op.parameters(node).items()}
        except DoesNotFit as error:
            yield Problem(f"/nodes/{position}", "shape", f"{node['name']} ({node['op']}): {error}")
            return
        if taken := sorted(parameters.keys() & added.keys()):
            detail = f"the parameter {taken[0]} belongs to another node already"
            yield Problem(f"/nodes/{position}/name", "parameter-twice", detail)
        parameters |= added
        total += sum(math.prod(shape) for shape in added.values())
        if total > max_parameters:
            detail = f"{total} parameters up to {node['name']}, expected at most {max_parameters}"
            yield Problem("/nodes", "too-many-parameters", detail)
            return
        last = [node["name"]]
