"""Recorded calls of a forward -> nodes of an architecture."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping

from torch import Tensor, fx, nn
from torch.fx.node import Argument, map_arg

from nirvana.errors import InvalidArchitecture, Problem
from nirvana.networks.ops import OPS, Shape
from nirvana.torch.tracing.fx_trace import BATCH, caller, describe, layer_of
from nirvana.torch.tracing.op_conversion import (
    FUNCTIONS,
    LAYERS,
    RESHAPES,
    CannotExpress,
    Expression,
    Operand,
    layer_kind,
    reshape,
)

NETWORK_INPUT = ""
Fields = dict[str, object]  # of a node


class GraphBuilder:
    """Collector of nodes, the layers that they stand for, and problems, from calls whose results are known.

    Attributes:
        values: of each call: an operand, or a plain value where it is no tensor.
        users: the layer that has a parameter, by the parameter's id.
    """

    def __init__(self, calls: fx.GraphModule, name: str) -> None:
        self.calls, self.name = calls, name
        self.nodes: list[Fields] = []
        self.layers: dict[str, nn.Module] = {}
        self.problems: list[Problem] = []
        self.values: dict[fx.Node, Argument] = {}
        self.users: dict[int, str] = {}
        self.input_copy = ""

    def build(self) -> tuple[list[Fields], dict[str, nn.Module]]:
        """Return nodes, and by their names the layers whose parameters they have.

        Raises:
            InvalidArchitecture: with one problem for each call that cannot be expressed.
        """
        for call in self.calls.graph.nodes:
            try:
                self.values[call] = self._evaluate(call)
            except CannotExpress as error:
                self.problems.append(self._problem(call, error))
                self.values[call] = Operand(NETWORK_INPUT, _one_shape(call.meta["result"]))
        if self.problems:
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise InvalidArchitecture(f"{self.name}: {self.problems[0].detail}{more}", errors=self.problems)
        return self.nodes, self.layers

    def _problem(self, call: fx.Node, error: CannotExpress) -> Problem:
        layer = layer_of(call, self.calls)
        path = str(call.target) if layer is not None else caller(call)
        detail = f"{describe(call, layer)} cannot be expressed: {error}"
        return Problem(re.sub(r"^module\.?", "/", path), "cannot-express", detail)

    def _evaluate(self, call: fx.Node) -> Argument:
        result: Argument = call.meta["result"]
        if call.op == "output":
            self._check_output(result)
        if call.op in ("get_attr", "output") or not _has_tensor(result):
            return result
        if call.op == "placeholder":
            return Operand(NETWORK_INPUT, _shape(call))
        if call.target is operator.getitem:
            return self._take_attention(call)
        return self._convert_call(call)

    def _check_output(self, result: object) -> None:
        if self.problems:
            return
        if not isinstance(result, Tensor):
            kind = type(result).__name__
            raise InvalidArchitecture(f"{self.name}: forward returns a {kind}, expected one tensor")
        if not self.nodes:
            raise InvalidArchitecture(f"{self.name}: forward has no layer, expected one or more")

    def _take_attention(self, call: fx.Node) -> Argument:
        """Return the outputs of attention, which torch returns in a pair with the weights."""
        source, index = call.args
        layer = layer_of(source, self.calls) if isinstance(source, fx.Node) else None
        if not isinstance(source, fx.Node) or not isinstance(layer, nn.MultiheadAttention) or index != 0:
            raise CannotExpress(f"no op takes the part {index!r} of a tensor")
        return self.values[source]

    def _convert_call(self, call: fx.Node) -> Operand:
        layer, shape = layer_of(call, self.calls), _shape(call)
        args, kwargs = map_arg((call.args, call.kwargs), self.values.__getitem__)
        operands = [value for value in (*args, *kwargs.values()) if isinstance(value, Operand)]
        if layer is not None:
            self._check_layer(call, layer)
        if not isinstance(layer, nn.MultiheadAttention):
            _check_operands(call)
        fields = _convert(call, layer, args, kwargs)
        if fields is None:
            return Operand(operands[0].node, shape)
        op = OPS[str(fields["op"])]
        if op.flattens and self._flattens_means(call, operands[0]):
            self.nodes[-1] = _only(self.nodes[-1], ("name", "inputs")) | {"op": "global_avg_pool"}
            return Operand(operands[0].node, shape)
        return Operand(self._add_node(call, layer, fields, operands[: op.most_inputs]), shape)

    def _check_layer(self, call: fx.Node, layer: nn.Module) -> None:
        if layer._forward_hooks or layer._forward_pre_hooks or hasattr(layer, "parametrizations"):
            raise CannotExpress("it has hooks or parametrisations, as torch.nn.utils.prune makes them")
        for name, parameter in layer.named_parameters():
            if id(parameter) in self.users:
                user = self.users[id(parameter)]
                raise CannotExpress(f"its {name} is used by {user} already, expected weights used once")
        user = describe(call, layer)
        self.users |= {id(parameter): user for parameter in layer.parameters()}

    def _flattens_means(self, call: fx.Node, source: Operand) -> bool:
        """Tell a global average pool: the call flattens means of whole maps that nobody else reads."""
        last = self.nodes[-1] if self.nodes else {}
        is_mean = (last.get("name"), last.get("op")) == (source.node, "avg_pool")
        return is_mean and set(source.shape[1:]) == {1} and len(call.all_input_nodes[0].users) == 1

    def _add_node(
        self, call: fx.Node, layer: nn.Module | None, fields: Fields, sources: list[Operand]
    ) -> str:
        """Add a node that reads `sources`, and return its name."""
        read = [source.node for source in sources]
        if NETWORK_INPUT in read and (self.nodes or len(read) > 1):
            copy = self._copy_input()
            read = [node or copy for node in read]
        name = self._name(call, str(fields["op"]), layer)
        before = [self.nodes[-1]["name"] if self.nodes else NETWORK_INPUT]
        self.nodes.append({"name": name, **fields} | ({} if read == before else {"inputs": read}))
        if layer is not None:
            self.layers[name] = layer
        return name

    def _copy_input(self) -> str:
        """Return a node that others can read for the network's input, which the first node alone may: a
        dropout of nothing."""
        if not self.input_copy:
            self.input_copy = self._free_name("input")
            self.nodes.insert(0, {"name": self.input_copy, "op": "dropout", "rate": 0})
        return self.input_copy

    def _name(self, call: fx.Node, op: str, layer: nn.Module | None) -> str:
        """Return the layer's path, or its caller's and the op; lower case, numbered where it is taken."""
        path = str(call.target) if layer is not None else f"{caller(call)}.{op}"
        path = re.sub(r"^module\.?", "", path) or op
        return self._free_name(re.sub(r"[^a-z0-9_.]", "_", path.lower()))

    def _free_name(self, name: str) -> str:
        taken, number = {node["name"] for node in self.nodes}, 1
        while (numbered := name if number == 1 else f"{name}_{number}") in taken:
            number += 1
        return numbered


def _only(node: Fields, fields: tuple[str, ...]) -> Fields:
    return {name: value for name, value in node.items() if name in fields}


def _check_operands(call: fx.Node) -> None:
    for node in call.all_input_nodes:
        if node.op == "get_attr" and isinstance(result := node.meta["result"], Tensor):
            named = f"{describe(node, None)} of shape {list(result.shape)}"
            raise CannotExpress(f"it reads {named}, which belongs to no layer of a graph")


def _has_tensor(result: object) -> bool:
    return isinstance(result, Tensor) or (isinstance(result, tuple) and any(map(_has_tensor, result)))


def _one_shape(result: object) -> Shape:
    """Return the shape of one example in a result; of the first tensor, where there are several."""
    if isinstance(result, tuple):
        return _one_shape(next(part for part in result if _has_tensor(part)))
    assert isinstance(result, Tensor)
    return tuple(result.shape[1:])


def _shape(call: fx.Node) -> Shape:
    result = call.meta["result"]
    if isinstance(result, Tensor) and result.shape[:1] != (BATCH,):
        raise CannotExpress(f"a batch of {BATCH} becomes {list(result.shape)}, expected to stay a batch")
    return _one_shape(result)


def _convert(
    call: fx.Node, layer: nn.Module | None, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Expression:
    """Return the fields of the call's node; None where it passes its input on unchanged."""
    if type(layer) is nn.Flatten or call.target in RESHAPES:
        assert isinstance(args[0], Operand)
        return reshape(args[0].shape, _shape(call))
    kind = layer_kind(layer) if layer is not None else None
    convert = FUNCTIONS.get(call.target) if layer is None else LAYERS.get(kind) if kind else None
    if convert is None:
        raise CannotExpress(f"no op computes it, expected one of {', '.join(OPS)}")
    try:
        return convert(*args, **kwargs) if layer is None else convert(layer, *args, **kwargs)
    except TypeError as error:  # an argument that torch's function takes and ours does not
        raise CannotExpress(f"its arguments: {error}") from error
