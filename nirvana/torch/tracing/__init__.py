"""A user's nn.Module -> Architecture: torch.fx records its forward once, each call becomes a node.

What a graph cannot express is refused by name, every such layer at once. The graph is then run beside the
module on random inputs, so that a graph that computes anything else is refused too.

Reference: torch.fx, Reed et al. 2021 (arXiv 2112.08429).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nirvana.errors import InvalidArchitecture
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import OPS, Shape
from nirvana.torch.modules import build_module, load_values
from nirvana.torch.tracing.fx_trace import ResultRecorder, make_example, record_calls
from nirvana.torch.tracing.graph_builder import GraphBuilder
from nirvana.training.spec import Values

TOLERANCE = 1e-4


def trace(module: nn.Module, input_shape: Shape, name: str | None = None) -> Architecture:
    """Return the graph of a module's forward.

    Nodes are called as the module's layers, in lower case; layers that forward never calls are left out.
    Functions such as `F.relu`, `x + y` or `x.view(x.size(0), -1)` become nodes too. The module is not
    changed.

    Args:
        input_shape: shape of one example, without the batch; (length,) where an embedding reads it.
        name: the architecture's; None: the module's class, in lower case.

    Raises:
        InvalidArchitecture: naming each layer or function that no graph can hold, and why; control flow that
            depends on the input; weights used twice; a module that does not take inputs of this shape.
    """
    return _trace(module, input_shape, name)[0]


def trace_values(module: nn.Module, input_shape: Shape) -> Values:
    """Return copies of a module's parameters and running statistics, float32, under the traced graph's names.

    A ticket that is not rewound (`rewind_step` 0) takes the parameters alone:
    `{name: values[name] for name in architecture.parameters}`.

    Raises:
        InvalidArchitecture: as in `trace`.
    """
    return _trace(module, input_shape, None)[1]


def _trace(module: nn.Module, input_shape: Shape, name: str | None) -> tuple[Architecture, Values]:
    name, shape = name or type(module).__name__.lower(), tuple(input_shape)
    _check_types(module, name)
    with _undisturbed(module):
        module.train()  # a dropout that follows `self.training` is seen in training only
        calls = record_calls(module)
        module.eval()
        example = make_example(calls, shape)
        ResultRecorder(calls).run(example)
        nodes, layers = GraphBuilder(calls, name).build()
        architecture = Architecture.make(name, shape, nodes)
        values = _values(architecture, layers)
        _check_same(module, architecture, values, example)
    return architecture, values


def _check_types(module: nn.Module, name: str) -> None:
    for path, parameter in module.named_parameters():
        if parameter.dtype != torch.float32:
            raise InvalidArchitecture(f"{name}: {path} is {parameter.dtype}, expected torch.float32")


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Put training flags, torch's random state and its attention short cut back afterwards."""
    flags = [(part, part.training) for part in module.modules()]
    is_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # it asks for values of the input
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fast)
        for part, flag in flags:
            part.training = flag


def _values(architecture: Architecture, layers: Mapping[str, nn.Module]) -> Values:
    """Return values by the architecture's names: parameters in its order, then running statistics."""
    parameters: Values = {}
    buffers: Values = {}
    for node in architecture.nodes:
        op = OPS[node["op"]]
        for suffixes, values in ((op.parameters(node), parameters), (op.buffers(node), buffers)):
            for suffix in suffixes:
                tensor = _tensor(layers[node["name"]], suffix)
                values[f"{node['name']}.{suffix}"] = tensor.detach().cpu().numpy().copy()
    return parameters | buffers


def _tensor(layer: nn.Module, suffix: str) -> Tensor:
    """Return a layer's parameter or running statistic; torch writes attention's `in_proj.weight` with `_`."""
    tensor = operator.attrgetter(suffix.replace("in_proj.", "in_proj_"))(layer)
    assert isinstance(tensor, Tensor)
    return tensor


def _check_same(module: nn.Module, architecture: Architecture, values: Values, example: Tensor) -> None:
    """Run both in evaluation.

    Raises:
        InvalidArchitecture: their outputs differ by more than rounding.
    """
    network = build_module(architecture).to(example.device).eval()
    load_values(network, values)
    expected, actual = module(example), network(example)
    if expected.shape == actual.shape:
        difference = float((expected - actual).abs().max())
        if difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            return
    raise InvalidArchitecture(
        f"{architecture.name}: the graph computes other outputs than the module (shapes {list(actual.shape)} "
        f"and {list(expected.shape)}): it draws random numbers, changes a tensor in place, or does more in "
        "training than dropout and batch norm do"
    )
