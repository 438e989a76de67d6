"""Calls that torch.fx followed -> nodes of an architecture."""

from __future__ import annotations

import operator
import re
from typing import Any

from torch import Tensor, fx, nn

from nirvana.errors import InvalidArchitecture, Problem
from nirvana.lab.tracing.expressing import (
    FUNCTIONS,
    LAYERS,
    RESHAPES,
    CannotExpress,
    Expression,
    Operand,
    layer_kind,
    reshape,
)
from nirvana.lab.tracing.following import BATCH, call_of, caller, layer_of
from nirvana.ops import OPS, Shape

NETWORK_INPUT = ""


class Translation:
    """Walks calls whose results are known; collects nodes, the layers that they stand for, and problems."""

    def __init__(self, followed: fx.GraphModule, name: str) -> None:
        self.followed, self.name = followed, name
        self.nodes: list[dict[str, Any]] = []
        self.layers: dict[str, nn.Module] = {}
        self.problems: list[Problem] = []
        self.held: dict[fx.Node, Any] = {}  # what a call results in: an operand or a plain value
        self.users: dict[int, str] = {}  # which layer has a parameter, by its id
        self.input_copy = ""

    def translate(self) -> tuple[list[dict[str, Any]], dict[str, nn.Module]]:
        """Nodes, and by their names the layers whose parameters they have.

        Raises:
            InvalidArchitecture: with one problem for each call that cannot be expressed.
        """
        for call in self.followed.graph.nodes:
            try:
                self.held[call] = self._hold(call)
            except CannotExpress as error:
                layer = layer_of(call, self.followed)
                path = str(call.target) if layer is not None else caller(call)
                pointer = re.sub(r"^module\.?", "/", path)
                detail = f"{call_of(call, layer)} cannot be expressed: {error}"
                self.problems.append(Problem(pointer, "cannot-express", detail))
                self.held[call] = Operand(NETWORK_INPUT, _one_shape(call.meta["result"]))
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise InvalidArchitecture(f"{self.name}: {self.problems[0].detail}{more}", errors=self.problems)
        return self.nodes, self.layers

    def _hold(self, call: fx.Node) -> Any:
        result = call.meta["result"]
        if call.op == "output":
            return self._check_output(result)
        if call.op == "get_attr" or not _has_tensor(result):
            return result
        if call.op == "placeholder":
            return Operand(NETWORK_INPUT, _shape(call))
        if call.target is operator.getitem:
            return self._take_part(call)
        return self._take_call(call)

    def _check_output(self, result: Any) -> None:
        if self.problems:
            return
        if not isinstance(result, Tensor):
            found = type(result).__name__
            raise InvalidArchitecture(f"{self.name}: forward returns a {found}, expected one tensor")
        if not self.nodes:
            raise InvalidArchitecture(f"{self.name}: forward has no layer, expected one or more")

    def _take_part(self, call: fx.Node) -> Any:
        """The outputs of attention, which torch returns in a pair with the weights."""
        source, index = call.args
        layer = layer_of(source, self.followed) if isinstance(source, fx.Node) else None
        if not isinstance(layer, nn.MultiheadAttention) or index != 0:
            raise CannotExpress(f"no op takes the part {index!r} of a tensor")
        return self.held[source]  # type: ignore[index]

    def _take_call(self, call: fx.Node) -> Operand:
        layer, shape = layer_of(call, self.followed), _shape(call)
        args, kwargs = fx.node.map_arg((call.args, call.kwargs), self.held.__getitem__)
        operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Operand)]
        if layer is not None:
            self._check_layer(call, layer)
        if not isinstance(layer, nn.MultiheadAttention):
            _check_operands(call)
        fields = _express(call, layer, args, kwargs)
        if fields is None:
            return Operand(operands[0].node, shape)
        if fields["op"] == "flatten" and self._flattens_means(call, operands[0]):
            self.nodes[-1] = _only(self.nodes[-1], ("name", "inputs")) | {"op": "global_avg_pool"}
            return Operand(operands[0].node, shape)
        sources = operands if fields["op"] == "add" else operands[:1]
        return Operand(self._place(call, layer, fields, sources), shape)

    def _check_layer(self, call: fx.Node, layer: nn.Module) -> None:
        if layer._forward_hooks or layer._forward_pre_hooks or hasattr(layer, "parametrizations"):
            raise CannotExpress("it has hooks or parametrisations, as torch.nn.utils.prune makes them")
        for name, parameter in layer.named_parameters():
            if id(parameter) in self.users:
                user = self.users[id(parameter)]
                raise CannotExpress(f"its {name} is used by {user} already, expected weights used once")
        called = call_of(call, layer)
        self.users |= {id(parameter): called for parameter in layer.parameters()}

    def _flattens_means(self, call: fx.Node, source: Operand) -> bool:
        """Whether this flattens the means of whole maps that nobody else reads: a global average pool."""
        last = self.nodes[-1] if self.nodes else {}
        is_mean = (last.get("name"), last.get("op")) == (source.node, "avg_pool")
        return is_mean and set(source.shape[1:]) == {1} and len(call.all_input_nodes[0].users) == 1

    def _place(
        self, call: fx.Node, layer: nn.Module | None, fields: dict[str, Any], sources: list[Operand]
    ) -> str:
        read = [source.node for source in sources]
        if NETWORK_INPUT in read and (self.nodes or len(read) > 1):
            copy = self._copy_input()
            read = [node or copy for node in read]
        name = self._name(call, fields["op"], layer)
        before = [self.nodes[-1]["name"] if self.nodes else NETWORK_INPUT]
        self.nodes.append({"name": name, **fields} | ({} if read == before else {"inputs": read}))
        if layer is not None:
            self.layers[name] = layer
        return name

    def _copy_input(self) -> str:
        """A node that others can read for the network's input, which the first node alone may: a dropout of
        nothing."""
        if not self.input_copy:
            self.input_copy = self._free_name("input")
            self.nodes.insert(0, {"name": self.input_copy, "op": "dropout", "rate": 0})
        return self.input_copy

    def _name(self, call: fx.Node, op: str, layer: nn.Module | None) -> str:
        """The layer's path, or its caller's and the op; lower case, numbered where it is taken."""
        path = str(call.target) if layer is not None else f"{caller(call)}.{op}"
        path = re.sub(r"^module\.?", "", path) or op
        return self._free_name(re.sub(r"[^a-z0-9_.]", "_", path.lower()))

    def _free_name(self, name: str) -> str:
        taken, number = {node["name"] for node in self.nodes}, 1
        while (numbered := name if number == 1 else f"{name}_{number}") in taken:
            number += 1
        return numbered


def _only(node: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name in fields}


def _check_operands(call: fx.Node) -> None:
    for node in call.all_input_nodes:
        if node.op == "get_attr" and isinstance(result := node.meta["result"], Tensor):
            named = f"{call_of(node, None)} of shape {list(result.shape)}"
            raise CannotExpress(f"it reads {named}, which belongs to no layer of a graph")


def _has_tensor(result: Any) -> bool:
    return isinstance(result, Tensor) or (isinstance(result, tuple) and any(map(_has_tensor, result)))


def _one_shape(result: Any) -> Shape:
    """Shape of one example in a result; of the first tensor, where there are several."""
    while not isinstance(result, Tensor):
        result = next(part for part in result if _has_tensor(part))
    return tuple(result.shape[1:])


def _shape(call: fx.Node) -> Shape:
    result = call.meta["result"]
    if isinstance(result, Tensor) and result.shape[:1] != (BATCH,):
        raise CannotExpress(f"a batch of {BATCH} becomes {list(result.shape)}, expected to stay a batch")
    return _one_shape(result)


def _express(call: fx.Node, layer: nn.Module | None, args: Any, kwargs: Any) -> Expression:
    if type(layer) is nn.Flatten or call.target in RESHAPES:
        return reshape(args[0].shape, _shape(call))
    kind = layer_kind(layer) if layer is not None else None
    express = FUNCTIONS.get(call.target) if layer is None else LAYERS.get(kind) if kind else None
    if express is None:
        raise CannotExpress(f"no op computes it, expected one of {', '.join(OPS)}")
    try:
        return express(*args, **kwargs) if layer is None else express(layer, *args, **kwargs)
    except TypeError as error:  # an argument that torch's function takes and ours does not
        raise CannotExpress(f"its arguments: {error}") from error
