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

from nirvana.errors import InvalidArchitecture, InvalidRecipe, NotFound, Problem
from nirvana.networks import zoo
from nirvana.networks.architecture import Architecture
from nirvana.networks.ops import Shape, ops_with
from nirvana.training.recipe import Pruning, Recipe

_SMALL = 10_000  # training examples
_LEAST_BATCHES = 10  # of the training data: where a batch is all of it, every replicate is the same run
_CONV_LEARNING_RATES = {"conv-2": 2e-4, "conv-4": 3e-4, "conv-6": 3e-4}


def default_recipe(architecture: str, input_shape: Shape, classes: int, train_examples: int) -> Recipe:
    """Return the recipe of the zoo's `architecture`; an unknown name gets that of a plain network.

    Args:
        input_shape, classes, train_examples: of the task that it is trained on.
    """
    is_small = train_examples < _SMALL
    steps, evaluate_every = (1_000 if is_small else 10_000), 100
    if architecture.startswith(("resnet-", "vgg-")):
        if is_small and architecture != "resnet-20":
            brief = _resnet(100, evaluate_every)
            return replace(brief, learning_rate=0.05, batch_size=64, evaluate_every=20)
        return _resnet(3 * steps, evaluate_every)
    if architecture.startswith("conv1d-"):
        return _signals(steps, evaluate_every)
    if architecture.startswith("transformer-"):
        return _transformer(steps, evaluate_every)
    rates = _convolution_rates(architecture, input_shape, classes)
    recipe = _plain(architecture, rates, steps, evaluate_every)
    if is_small and not rates:
        return replace(recipe, steps=250, evaluate_every=25, initial_law="glorot_uniform")
    return recipe


def check_batch_size(recipe: Recipe, architecture: Architecture, train_examples: int) -> None:
    """Refuse batches of more than a tenth of the training data, so that runs differ by their order; the
    default recipe's batches are taken on any task.

    Raises:
        InvalidRecipe: with the size, the most that is taken and the number of training examples.
    """
    most = train_examples // _LEAST_BATCHES
    if recipe.batch_size <= most:
        return
    network = (architecture.name, architecture.input, architecture.output_shape[-1])
    most = max(most, default_recipe(*network, train_examples).batch_size)
    if recipe.batch_size > most:
        detail = (
            f"batch_size is {recipe.batch_size}, expected at most {most}: a tenth of the {train_examples} "
            "training examples, or the default recipe's where that is more"
        )
        raise InvalidRecipe(detail, errors=[Problem("/batch_size", "too-large", detail)])


def _plain(architecture: str, rates: dict[str, float], steps: int, evaluate_every: int) -> Recipe:
    return Recipe(
        optimizer="adam",
        learning_rate=_CONV_LEARNING_RATES.get(architecture, 1.2e-3),
        batch_size=60,
        steps=2 * steps if architecture in _CONV_LEARNING_RATES else steps,
        evaluate_every=evaluate_every,
        pruning=Pruning(rate=0.2, output_rate=0.1, layer_rates=rates),
    )


def _convolution_rates(architecture: str, input_shape: Shape, classes: int) -> dict[str, float]:
    """Return the pruning rate of each convolution's weight; nothing for a name that the zoo cannot build."""
    try:
        nodes = zoo.build(architecture, input_shape, classes).nodes
    except (NotFound, InvalidArchitecture):
        return {}
    rate = 0.15 if architecture == "conv-6" else 0.1
    convolutions = ops_with(lambda op: op.unit_axis == 0)
    return {f"{node['name']}.weight": rate for node in nodes if node["op"] in convolutions}


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
