"""The default recipe of an architecture on a task.

Fully connected networks follow Frankle and Carbin: Adam 1.2e-3, batches of 60, Glorot normal, layerwise
pruning at 0.2 with 0.1 for the output layer; their 50,000 steps are cut to 10,000. On a small task (digits)
they get 250 steps from Glorot uniform, validated every 25: over seeds 0 to 19 with ten replicates each,
re-initialised masks at 10 % density then stay 1.7 to 2.7 pp behind the ticket, where 1,000 steps bring them
within the task's margin, and dense networks and tickets alike go on improving to the last steps.
Conv-2/4/6 take their own rates.

ResNets and VGG take open_lth's CIFAR-10 recipe, rewound to an early step: SGD 0.1 with momentum, dropped
twice, global pruning. On a small task all but ResNet-20 get 100 steps of batches of 64, which end at 95 to
99 % on digits (seed 0, one run each) and cost about 22 seconds of one core for VGG-11 or ResNet-18, 40 for
VGG-16. Networks for signals take Adam 1e-3, as in their paper; transformers AdamW with warm-up, then a
cosine: 98 % each on the rows of digits.

Reference: Frankle and Carbin 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1912.05671; Wang et al.
2017, arXiv:1611.06455; Xiong et al. 2020, arXiv:2002.04745.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nirvana.recipe import Pruning, Recipe

if TYPE_CHECKING:
    from nirvana.tasks.task import Task

_BRIEF: dict[str, Any] = {"steps": 250, "evaluate_every": 25, "initial_law": "glorot_uniform"}
_BRIEF_NORMED: dict[str, Any] = {"learning_rate": 0.05, "batch_size": 64, "evaluate_every": 20}
_CONV_LEARNING_RATES = {"conv-2": 2e-4, "conv-4": 3e-4, "conv-6": 3e-4}


def default_recipe(task: Task, architecture: str) -> Recipe:
    """The recipe of the zoo's `architecture` on `task`; an unknown name gets that of a plain network."""
    is_small = task.sizes["train"] < 10_000
    steps, evaluate_every = (1_000 if is_small else 10_000), 100
    if architecture.startswith(("resnet-", "vgg-")):
        if is_small and architecture != "resnet-20":
            return replace(_resnet(100, evaluate_every), **_BRIEF_NORMED)
        return _resnet(3 * steps, evaluate_every)
    if architecture.startswith("conv1d-"):
        return _signals(steps, evaluate_every)
    if architecture.startswith("transformer-"):
        return _transformer(steps, evaluate_every)
    return _plain(task, architecture, steps, evaluate_every, is_small)


def _plain(task: Task, architecture: str, steps: int, evaluate_every: int, is_small: bool) -> Recipe:
    rates = _convolution_rates(task, architecture)
    recipe = Recipe(
        optimizer="adam",
        learning_rate=_CONV_LEARNING_RATES.get(architecture, 1.2e-3),
        batch_size=60,
        steps=2 * steps if architecture in _CONV_LEARNING_RATES else steps,
        evaluate_every=evaluate_every,
        pruning=Pruning(rate=0.2, output_rate=0.1, layer_rates=rates),
    )
    return replace(recipe, **_BRIEF) if is_small and not rates else recipe


def _convolution_rates(task: Task, architecture: str) -> dict[str, float]:
    from nirvana import zoo
    from nirvana.errors import InvalidArchitecture, NotFound

    try:
        nodes = zoo.build(architecture, task.input_shape, task.classes).nodes
    except (NotFound, InvalidArchitecture):
        return {}
    rate = 0.15 if architecture == "conv-6" else 0.1
    return {f"{node['name']}.weight": rate for node in nodes if node["op"] == "conv2d"}


def _resnet(steps: int, evaluate_every: int) -> Recipe:
    return Recipe(
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        batch_size=128,
        steps=steps,
        schedule={"kind": "step", "at": [steps // 2, steps * 3 // 4], "factor": 0.1},
        evaluate_every=evaluate_every,
        initial_law="kaiming_normal",
        pruning=Pruning(scope="global", rate=0.2, rewind_step=max(5, steps // 60)),
    )


def _signals(steps: int, evaluate_every: int) -> Recipe:
    return Recipe(
        optimizer="adam",
        learning_rate=1e-3,
        batch_size=64,
        steps=steps // 2,
        evaluate_every=evaluate_every // 4,
        initial_law="kaiming_normal",
        pruning=Pruning(scope="global", rate=0.2),
    )


def _transformer(steps: int, evaluate_every: int) -> Recipe:
    return Recipe(
        optimizer="adamw",
        learning_rate=1e-3,
        weight_decay=0.01,
        batch_size=64,
        steps=steps,
        schedule={"kind": "cosine"},
        warmup_steps=steps // 20,
        evaluate_every=evaluate_every // 2,
        initial_law="glorot_uniform",
        pruning=Pruning(scope="global", rate=0.2, rewind_step=steps // 50),
    )
