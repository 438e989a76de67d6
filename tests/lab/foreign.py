"""Files as other tools write them: by torch's own code, or in open_lth's and hidden-networks' layouts."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

State = dict[str, Tensor]
prune: Any = torch_prune  # has no types

HPARAMS = """Dataset Hyperparameters
    * dataset_name => digits
    * batch_size => 50
    * subset_stride => 1
Model Hyperparameters
    * model_name => {model}
    * model_init => kaiming_normal
    * batchnorm_init => uniform
Hyperparameters for Sparse Global Pruning
    * pruning_strategy => sparse_global
    * pruning_fraction => 0.2
Training Hyperparameters
    * optimizer_name => sgd
    * lr => 0.1
    * training_steps => 4ep
    * momentum => 0.9
    * milestone_steps => 2ep,3ep10it
    * gamma => 0.1
    * weight_decay => 0.0001"""
PRETRAINING = """
Pretraining Dataset Hyperparameters
    * dataset_name => digits
    * batch_size => 50
Pretraining Training Hyperparameters
    * optimizer_name => sgd
    * lr => 0.1
    * training_steps => {steps}"""


class Perceptron(nn.Module):
    """64-16-10 with a hidden layer, under names that are the zoo's (mlp-16)."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.fc1, self.fc2 = nn.Linear(64, 16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))  # type: ignore[no-any-return]


class Lenet(nn.Module):
    """open_lth's LeNet for 8x8 images: hidden layers in a list, then `fc`."""

    def __init__(self, widths: tuple[int, ...] = (20, 12), seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        sizes = (64, *widths)
        self.fc_layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.fc = nn.Linear(sizes[-1], 10)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)


def train(module: nn.Module, steps: int = 30, seed: int = 5) -> None:
    """Some real updates with momentum and weight decay on random images."""
    optimizer = torch.optim.SGD(module.parameters(), 0.5, momentum=0.9, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(32, 64, generator=generator)
        nn.functional.cross_entropy(module(x), x[:, :10].argmax(1)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def prune_locally(module: Perceptron, amount: float = 0.5) -> None:
    for layer in (module.fc1, module.fc2):
        prune.l1_unstructured(layer, "weight", amount=amount)


def mask_of(layer: nn.Module) -> NDArray[np.bool_]:
    """The mask that torch's pruning registered for a layer's weight."""
    return np.asarray(dict(layer.named_buffers())["weight_mask"].numpy() == 1)


def prune_globally(module: Perceptron, amount: float = 0.5) -> None:
    layers = [(module.fc1, "weight"), (module.fc2, "weight")]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=amount)


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def copy(module: nn.Module) -> State:
    return OrderedDict((name, tensor.detach().clone()) for name, tensor in module.state_dict().items())


def cut(state: State, names: list[str], keep: float = 0.4) -> State:
    """open_lth's masks: integers, 1 for the largest magnitudes of all layers together."""
    threshold = torch.cat([state[name].abs().ravel() for name in names]).quantile(1 - keep)
    return {name: (state[name].abs() > threshold).int() for name in names}


def write_open_lth(
    root: Path,
    state: State,
    masks: State,
    *,
    model: str = "mnist_lenet_20_12",
    pretraining: str | None = None,
    start: str = "model_ep0_it0.pth",
    change: Callable[[State], None] = lambda state: None,
) -> Path:
    """A replicate's folder with levels 0 and 1; `change` spoils what level 1 starts from."""
    replicate = root / "lottery_0123456789abcdef0123456789abcdef" / "replicate_1"
    first, second = (replicate / f"level_{level}" / "main" for level in (0, 1))
    save(first / start, state)
    save(first / "mask.pth", {name: torch.ones_like(mask) for name, mask in masks.items()})
    (first / "hparams.log").write_text(
        HPARAMS.format(model=model) + (PRETRAINING.format(steps=pretraining) if pretraining else "")
    )
    masked = {name: tensor * masks[name] if name in masks else tensor for name, tensor in state.items()}
    change(masked)
    save(second / start, masked)
    save(second / "model_ep4_it0.pth", {name: tensor + 1 for name, tensor in masked.items()})
    save(second / "mask.pth", masks)
    write_report(second, masks)
    write_report(first, {name: torch.ones_like(mask) for name, mask in masks.items()})
    return replicate


def write_report(main: Path, masks: Mapping[str, Tensor], more: int = 0) -> None:
    unpruned = sum(int(mask.sum()) for mask in masks.values()) + more
    total = sum(mask.numel() for mask in masks.values())
    (main / "sparsity_report.json").write_text(json.dumps({"total": total, "unpruned": float(unpruned)}))


def hidden_network(widths: tuple[int, ...] = (64, 20, 12, 10), seed: int = 0) -> State:
    """The state dict of their FC: 1x1 convolutions without biases, signed constants, and scores."""
    generator = torch.Generator().manual_seed(seed)
    state: State = OrderedDict()
    for place, (fan_in, out) in enumerate(pairwise(widths)):
        sign = torch.randn((out, fan_in, 1, 1), generator=generator).sign()
        state[f"module.linear.{2 * place}.weight"] = sign * math.sqrt(2) / math.sqrt(fan_in)
        state[f"module.linear.{2 * place}.scores"] = torch.randn((out, fan_in, 1, 1), generator=generator)
    return state
