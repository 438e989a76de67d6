"""The calls of a module's forward, recorded by torch.fx, and the shapes of their results."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from nirvana.errors import InvalidArchitecture
from nirvana.networks.ops import Shape
from nirvana.torch.tracing.op_conversion import RESHAPES, layer_kind

BATCH = 13  # examples: no size that a forward would fix, and enough to tell two computations apart


class _Wrapper(nn.Module):
    """The module as a child: so a single layer is traced as any other, and forward's defaults hold."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> object:
        return self.module(x)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, nn.TransformerEncoder | nn.TransformerEncoderLayer):
            return False
        return layer_kind(m) is not None or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        try:
            if type(m) is nn.TransformerEncoder and len(args) == 1 and not kwargs:
                return _encode(m, args[0])
            return super().call_module(m, forward, args, kwargs)
        except InvalidArchitecture:
            raise
        except Exception as error:  # a user's forward can raise anything
            where = place(self.path_of_module(m), m)
            raise InvalidArchitecture(f"{where} cannot be followed: {_reason(error)}") from error


def _encode(encoder: nn.TransformerEncoder, x: object) -> object:
    """Do what an encoder without masks does; its own forward looks at the input first."""
    for layer in encoder.layers:
        x = layer(x)
    return x if encoder.norm is None else encoder.norm(x)


def _reason(error: Exception) -> str:
    if isinstance(error, fx.proxy.TraceError):
        return f"what it does depends on its input, where a graph always does the same ({error})"
    return f"{type(error).__name__}: {error}"


def place(path: str, module: nn.Module | None = None) -> str:
    """Return a path below the traced module, and the module's type."""
    path = path.removeprefix("module").removeprefix(".") or "the module itself"
    return f"{path} ({type(module).__name__})" if module is not None else path


def record_calls(module: nn.Module) -> fx.GraphModule:
    """Return every call of a module's forward, as nodes of torch.fx, but those whose results nobody reads.

    Raises:
        InvalidArchitecture: it cannot be followed; names the innermost module that cannot.
    """
    tracer = _Tracer()
    graph = tracer.trace(_Wrapper(module))
    calls = fx.GraphModule(tracer.root, graph)
    calls.graph.eliminate_dead_code()
    return calls


def make_example(calls: fx.GraphModule, shape: Shape) -> Tensor:
    """Return a batch of standard normal inputs, or of tokens where an embedding reads the input."""
    device = next((parameter.device for parameter in calls.parameters()), torch.device("cpu"))
    random = torch.Generator().manual_seed(0)
    for node in calls.graph.nodes:
        layer = layer_of(node, calls)
        if isinstance(layer, nn.Embedding) and _is_input(node.args[0]):
            return torch.randint(layer.num_embeddings, (BATCH, *shape), generator=random).to(device)
    return torch.randn(BATCH, *shape, generator=random).to(device)


def _is_input(node: object) -> bool:
    while isinstance(node, fx.Node) and node.target in RESHAPES:
        node = node.args[0]
    return isinstance(node, fx.Node) and node.op == "placeholder"


def layer_of(node: fx.Node, calls: fx.GraphModule) -> nn.Module | None:
    """Return the layer that a call calls; None for a function."""
    return calls.get_submodule(str(node.target)) if node.op == "call_module" else None


def caller(node: fx.Node) -> str:
    """Return the path of the module whose forward makes this call."""
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(next(reversed(stack.values()))[0])


def describe(node: fx.Node, layer: nn.Module | None) -> str:
    """Return a layer's path and type, or a function's name and the path of the module that calls it."""
    if layer is not None:
        return place(str(node.target), layer)
    if node.op == "get_attr":
        return place(str(node.target))
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "a function")
    return f"{called} in {place(caller(node))}"


class ResultRecorder(fx.Interpreter):
    """An interpreter of recorded calls that writes each result into its node's `meta["result"]`.

    Raises:
        InvalidArchitecture: a call fails; names it and the shapes that it got.
    """

    def __init__(self, calls: fx.GraphModule) -> None:
        super().__init__(calls)
        self.calls = calls
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> object:
        try:
            n.meta["result"] = super().run_node(n)
        except Exception as error:  # whatever a layer says of an input that it does not take
            results = [node.meta["result"] for node in n.all_input_nodes]
            shapes = [list(result.shape[1:]) for result in results if isinstance(result, Tensor)]
            where = describe(n, layer_of(n, self.calls))
            inputs = " and ".join(map(str, shapes))
            raise InvalidArchitecture(f"{where} fails on an input of shape {inputs}: {error}") from error
        return n.meta["result"]
