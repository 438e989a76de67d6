"""A user's module becomes a graph that computes the same, or is refused by the name of the layer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from nirvana.errors import InvalidArchitecture
from nirvana.lab import build_module, load_values
from nirvana.networks.architecture import Architecture
from nirvana.torch.tracing import trace, trace_values

Forward = Callable[[Any, Tensor], Any]


class Written(nn.Module):
    """A module of some layers whose forward is the function given."""

    def __init__(self, forward: Forward, **layers: nn.Module) -> None:
        super().__init__()
        self.written = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.written(self, x)


def traced(module: nn.Module, shape: tuple[int, ...]) -> tuple[Architecture, nn.Module]:
    """The graph, and its network with the module's values."""
    architecture = trace(module, shape)
    network = build_module(architecture)
    load_values(network, trace_values(module, shape))
    return architecture, network


def assert_same_outputs(module: nn.Module, shape: tuple[int, ...], x: Tensor | None = None) -> Architecture:
    """In evaluation, and in training too, on a batch of another size than the tracer's."""
    architecture, network = traced(module, shape)
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1)) if x is None else x
    for part in (module, network):
        part.eval()
    torch.testing.assert_close(network(x), module(x), rtol=1e-5, atol=1e-5)
    if not any(node["op"] == "dropout" and node["rate"] for node in architecture.nodes):
        torch.testing.assert_close(network.train()(x), module.train()(x), rtol=1e-4, atol=1e-5)
    return architecture


def ops(architecture: Architecture) -> list[str]:
    return [node["op"] for node in architecture.nodes]


def test_a_perceptron_of_layers_keeps_its_layers_names() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))
    architecture = assert_same_outputs(module, (3, 4))
    assert [node["name"] for node in architecture.nodes] == ["0", "1", "2", "3", "4"]
    assert ops(architecture) == ["flatten", "linear", "tanh", "dropout", "linear"]
    assert architecture.nodes[3]["rate"] == 0.5
    assert architecture.name == "sequential"


class LeNet(nn.Module):
    """As the tutorials write it: layers for what has weights, functions for the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv1 = nn.Conv2d(1, 6, 5, padding="same")
        self.conv2 = nn.Conv2d(6, 16, 5, padding="valid")
        self.fc1 = nn.Linear(64, 20)
        self.fc2 = nn.Linear(20, 10, bias=False)

    def forward(self, x: Tensor, scale: float | None = None) -> Tensor:
        x = F.max_pool2d(F.relu(self.Conv1(x)), 2)
        x = F.avg_pool2d(torch.relu(self.conv2(x)), (2, 2))
        x = x.view(x.size(0), -1)
        x = F.dropout(F.gelu(self.fc1(x)), 0.25, self.training)
        return self.fc2(x) if scale is None else scale * x


def test_functions_and_views_become_nodes_and_names_become_lower_case() -> None:
    architecture = assert_same_outputs(LeNet(), (1, 16, 16))
    names = [node["name"] for node in architecture.nodes]
    assert names[:6] == ["conv1", "relu", "max_pool", "conv2", "relu_2", "avg_pool"]
    assert names[6:] == ["flatten", "fc1", "gelu", "dropout", "fc2"]
    assert trace(LeNet(), (1, 16, 16), "mine").name == "mine"


class Block(nn.Module):
    def __init__(self, fan_in: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(fan_in, width, 3, 2, 1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential(nn.Conv2d(fan_in, width, 1, 2), nn.BatchNorm2d(width))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.norm(self.conv(x)))
        y += self.shortcut(x)
        return F.relu(y)


def test_residual_blocks_read_the_nodes_that_their_module_reads() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), Block(4, 6), Block(6, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    architecture = assert_same_outputs(module, (3, 11, 11))
    assert ops(architecture)[-2:] == ["global_avg_pool", "linear"]
    assert {"1.conv", "1.shortcut.0", "1.relu", "1.relu_2"} <= {node["name"] for node in architecture.nodes}
    values = trace_values(module, (3, 11, 11))
    assert list(values) == [*architecture.parameters, *architecture.buffers]


def test_a_residual_around_the_first_layer_reads_a_copy_of_the_input() -> None:
    module = Written(lambda m, x: m.input(torch.add(m.fc(x), x)), fc=nn.Linear(4, 4), input=nn.Linear(4, 2))
    architecture = assert_same_outputs(module, (4,))
    assert dict(architecture.nodes[0]) == {"name": "input", "op": "dropout", "rate": 0}
    assert [node["name"] for node in architecture.nodes] == ["input", "fc", "add", "input_2"]
    assert ops(assert_same_outputs(Written(lambda m, x: x + x), (4,))) == ["dropout", "add"]


def test_a_network_for_signals_is_traced() -> None:
    convolutions = [nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2)]
    more = [nn.Conv1d(8, 8, 3, stride=2), nn.AvgPool1d(2), nn.Identity()]
    module = nn.Sequential(*convolutions, *more, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))
    architecture = assert_same_outputs(module, (2, 30))
    assert architecture.output_shape == (3,)
    assert ops(architecture)[-2:] == ["global_avg_pool", "linear"]


def encoder(**fields: Any) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **fields)
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=False)


@pytest.mark.parametrize("norm_first", [True, False])
def test_torchs_own_transformer_encoder_is_taken_apart(norm_first: bool) -> None:
    module = nn.Sequential(encoder(norm_first=norm_first, activation="gelu"), nn.Flatten(), nn.Linear(40, 3))
    architecture = assert_same_outputs(module, (5, 8))
    assert ops(architecture).count("self_attention") == 2
    assert "0.layers.1.self_attn.in_proj.weight" in architecture.parameters


def attend(m: Any, x: Tensor, **fields: Any) -> Tensor:
    y, _ = m.attention(x, x, x, **fields)
    return y  # type: ignore[no-any-return]


def test_a_block_of_ones_own_with_embeddings_and_causal_attention_is_traced() -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(6)
    for attn_mask in (mask, mask == -torch.inf):

        def forward(m: Any, x: Tensor, attn_mask: Tensor = attn_mask) -> Tensor:
            x = m.embed(x.long())
            return m.fc((x + attend(m, x, attn_mask=attn_mask)).flatten(1))  # type: ignore[no-any-return]

        attention = nn.MultiheadAttention(8, 2, batch_first=True)
        module = Written(forward, embed=nn.Embedding(11, 8), attention=attention, fc=nn.Linear(48, 4))
        architecture = assert_same_outputs(module, (6,), torch.randint(11, (5, 6)))
        assert ops(architecture) == ["embedding", "self_attention", "add", "flatten", "linear"]
        assert architecture.nodes[1]["causal"] is True


def test_means_over_all_positions_are_global_pooling_and_kept_dimensions_stay() -> None:
    module = Written(lambda m, x: m.fc(m.conv(x).mean([2, 3])), conv=nn.Conv2d(1, 3, 2), fc=nn.Linear(3, 2))
    assert ops(assert_same_outputs(module, (1, 4, 4))) == ["conv2d", "global_avg_pool", "linear"]
    head = nn.Sequential(nn.AdaptiveAvgPool2d((2, None)), nn.Conv2d(1, 2, 1), nn.Flatten())
    assert assert_same_outputs(head, (1, 4, 6)).nodes[0]["kernel"] == [2, 1]
    squeezed = Written(lambda m, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))
    with pytest.raises(InvalidArchitecture, match=r"squeeze in .* reshapes \[2, 1, 1\] to \[2, 1\]"):
        trace(squeezed, (2, 3, 3))


def test_a_single_layer_and_a_subclass_that_computes_the_same_are_traced() -> None:
    class Named(nn.Linear):
        """Another name for the same thing."""

    assert [node["name"] for node in assert_same_outputs(Named(3, 2), (3,)).nodes] == ["linear"]


def test_a_relu_that_is_called_often_becomes_a_node_each_time() -> None:
    layers = {"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "relu": nn.ReLU()}
    architecture = assert_same_outputs(Written(lambda m, x: m.relu(m.b(m.relu(m.a(x)))), **layers), (3,))
    assert [node["name"] for node in architecture.nodes] == ["a", "relu", "b", "relu_2"]


def test_tracing_changes_nothing_of_the_module_nor_of_torchs_randomness() -> None:
    module = LeNet().train()
    module.fc1.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    values = trace_values(module, (1, 16, 16))
    values["fc1.weight"][:] = 7
    assert torch.equal(torch.get_rng_state(), state)
    assert (module.training, module.fc1.training) == (True, False)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()


FC = nn.Linear(4, 4)
nn.init.eye_(FC.weight)
nn.init.zeros_(FC.bias)
REFUSED: list[tuple[str, nn.Module, tuple[int, ...], str]] = [
    ("layer", nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()), (4,), r"1 \(Sigmoid\) cannot be .*no op"),
    ("recurrent", nn.Sequential(nn.LSTM(4, 4)), (3, 4), r"0 \(LSTM\) cannot be expressed"),
    ("function", Written(lambda m, x: m.fc(torch.exp(x)), fc=FC), (4,), r"exp in the module itself"),
    ("scale", Written(lambda m, x: m.fc(x) * 2, fc=FC), (4,), r"mul in .* no op computes it"),
    ("constant", Written(lambda m, x: m.fc(x) + 1, fc=FC), (4,), r"add in .* adds 1, expected two tensors"),
    ("broadcast", Written(lambda m, x: m.fc(x) + x[:, :1], fc=FC), (4,), r"part \(slice"),
    ("dilation", nn.Conv2d(1, 1, 3, dilation=2), (1, 8, 8), r"\(Conv2d\) .*dilation is 2, expected 1"),
    ("padding mode", nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"), (1, 8), r"padding_mode is circ"),
    ("no affine", nn.Sequential(nn.BatchNorm2d(2, affine=False)), (2, 4, 4), r"0 \(BatchNorm2d\).*affine"),
    ("momentum", nn.BatchNorm1d(4, momentum=0.01), (4,), r"momentum is 0.01, expected 0.1"),
    ("epsilon", nn.LayerNorm(4, eps=1e-6), (4,), r"eps is 1e-06, expected 1e-05"),
    ("norm's bias", nn.LayerNorm(4, bias=False), (4,), r"bias is False, expected True"),
    ("approximate gelu", nn.GELU("tanh"), (4,), r"approximate is tanh"),
    ("ceil", nn.MaxPool2d(2, ceil_mode=True), (1, 5, 5), r"ceil_mode is True, expected False"),
    ("uncounted", nn.AvgPool2d(3, 1, 1, count_include_pad=False), (1, 5, 5), r"count_include_pad is False"),
    ("adaptive", nn.AdaptiveAvgPool2d(3), (1, 8, 8), r"output_size is \[3, 3\], expected .*\[8, 8\]"),
    ("padding index", nn.Embedding(4, 2, padding_idx=0), (3,), r"padding_idx is 0, expected None"),
    ("dropped attention", Written(attend, attention=nn.MultiheadAttention(4, 1, 0.1, batch_first=True)),
     (3, 4), r"attention \(MultiheadAttention\) .*dropout is 0.1, expected 0.0"),
    ("batch second", Written(attend, attention=nn.MultiheadAttention(4, 1)), (3, 4), r"batch_first is False"),
    ("permuted", Written(lambda m, x: m.fc(x.transpose(1, 2)), fc=FC), (4, 4), r"transpose in .* no op"),
    ("reshaped", Written(lambda m, x: m.fc(x.view(-1, 2, 4)), fc=FC), (8,), r"reshapes \[8\] to \[2, 4\]"),
    ("batch merged", Written(lambda m, x: m.fc(x.view(-1, 4)), fc=FC), (8,), r"becomes \[26, 4\]"),
    ("twice", Written(lambda m, x: m.fc(m.fc(x)), fc=FC), (4,), r"fc \(Linear\) .*used by fc \(Linear\)"),
    ("value", Written(lambda m, x: m.fc(x) if x.sum() > 0 else x, fc=FC), (4,), r"depends on its input"),
    ("inner value", nn.Sequential(FC, Written(lambda m, x: x if x.max() > 1 else -x)), (4,),
     r"1 \(Written\) cannot be followed: .*depends on its input"),
    ("its own error", Written(lambda m, x: m.nothing(x)), (4,), r"\(Written\) cannot .*: AttributeErr"),
    ("several outputs", Written(lambda m, x: (m.fc(x), x), fc=FC), (4,), r"tuple, expected one tensor"),
    ("no layer", Written(lambda m, x: x), (4,), r"forward has no layer"),
    ("other input", nn.Sequential(nn.Linear(5, 3)), (4,), r"0 \(Linear\) fails on an input of shape \[4\]"),
    ("double", nn.Linear(4, 2).double(), (4,), r"weight is torch.float64, expected torch.float32"),
    ("random", Written(lambda m, x: F.dropout(m.fc(x), 0.5), fc=FC), (4,), r"computes other outputs"),
    ("more in training", Written(lambda m, x: m.fc(x) if m.training else m.fc(F.relu(x)), fc=FC), (4,),
     r"computes other outputs"),
    ("in place", Written(lambda m, x: (lambda y: y + F.relu(y, inplace=True))(m.fc(x)), fc=FC), (4,),
     r"computes other outputs"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "shape", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_what_a_graph_cannot_say_is_refused_by_name(
    module: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with warnings.catch_warnings(), pytest.raises(InvalidArchitecture, match=message):
        trace(module, shape)


def test_every_layer_that_cannot_be_expressed_is_named() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.ELU())
    with pytest.raises(InvalidArchitecture, match=r"1 \(Sigmoid\).*\(and 1 more\)") as caught:
        trace(module, (4,))
    assert [problem.pointer for problem in caught.value.errors] == ["/1", "/3"]


def test_a_parameter_that_no_layer_owns_is_named() -> None:
    module = Written(lambda m, x: m.fc(x + m.position), fc=nn.Linear(4, 4))
    module.register_parameter("position", nn.Parameter(torch.zeros(4)))
    with pytest.raises(InvalidArchitecture, match=r"add in the module .* reads position of shape \[4\]"):
        trace(module, (4,))


def test_tied_weights_are_refused_with_both_layers_names() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    with pytest.raises(InvalidArchitecture, match=r"1 \(Linear\).* weight is used by 0 \(Linear\) already"):
        trace(module, (4,))


def test_pruned_and_parametrised_layers_are_refused() -> None:
    pruned = nn.Sequential(nn.Linear(4, 4))
    prune.random_unstructured(pruned[0], "weight", 0.5)  # type: ignore[no-untyped-call]
    for module in (pruned, nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4)))):
        with pytest.raises(InvalidArchitecture, match=r"0 \(.*Linear\) .* hooks or parametrisations"):
            trace(module, (4,))


def test_attention_between_two_tensors_and_its_weights_are_refused() -> None:
    attention = nn.MultiheadAttention(4, 1, batch_first=True)
    crossed = Written(lambda m, x: m.attention(x, F.relu(x), x)[0], attention=attention)
    with pytest.raises(InvalidArchitecture, match=r"not the same tensor, expected self-attention"):
        trace(crossed, (3, 4))
    with pytest.raises(InvalidArchitecture, match=r"no op takes the part 1"):
        trace(Written(lambda m, x: m.attention(x, x, x)[1], attention=attention), (3, 4))
    masked = Written(lambda m, x: attend(m, x, attn_mask=torch.zeros(3, 3)), attention=attention)
    with pytest.raises(InvalidArchitecture, match=r"attn_mask is not the causal one"):
        trace(masked, (3, 4))
