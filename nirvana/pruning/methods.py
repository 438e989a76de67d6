"""The methods that find masks: one table. A method owns everything of its own: options, how it changes a
recipe, whether it iterates, and where its code is. docs/methods.md says more of each.

An iterative method trains and prunes level by level (`nirvana.pruning.find`). Every other one is a function
from a `MaskSearch`, a dense start, to a `MaskResult`, one set of masks; most have a module of their own.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nirvana.errors import InvalidJob, Problem, raise_problems
from nirvana.training.recipe import Recipe, learning_rate

Options = Mapping[str, int | float]


def option(default: float, help: str, *, least: float = 0, most: float | None = None) -> Any:
    """Return a field of a method's options.

    Args:
        help: one line, for people. least, most: ends of its range, included.
    """
    return field(default=default, metadata={"help": help, "least": least, "most": most})


@dataclass(frozen=True)
class NoOptions:
    """The options of a method that has none."""


@dataclass(frozen=True)
class DistilledOptions:
    """Options of `distilled`, where the recipe does not say."""

    temperature: float = option(4.0, "temperature of teacher's and student's outputs", least=0.01)
    weight: float = option(0.5, "share of the loss that the teacher's outputs have", least=1e-6, most=1)


@dataclass(frozen=True)
class GradualOptions:
    """Options of `gradual-magnitude`: shares of the training's steps."""

    begin: float = option(0.10, "share of the steps before the first pruning", most=1)
    end: float = option(0.75, "share of the steps at which the density is reached", most=1)
    every: float = option(0.01, "share of the steps between two prunings", least=1e-6, most=1)


@dataclass(frozen=True)
class RegularisedOptions:
    """Options of `regularised`."""

    penalty: float = option(3e-4, "L1 penalty of the search's training, where the recipe has none")


@dataclass(frozen=True)
class SnipOptions:
    """Options of `snip`."""

    least_examples: int = option(100, "examples that are scored with at least", least=1, most=1_000_000)


@dataclass(frozen=True)
class GraspOptions:
    """Options of `grasp`."""

    temperature: float = option(200.0, "what the logits are divided by", least=0.01)
    examples_per_class: int = option(10, "training examples of each class", least=1, most=1_000_000)


@dataclass(frozen=True)
class SynflowOptions:
    """Options of `synflow`."""

    rounds: int = option(100, "prunings from everything to the density", least=1, most=10_000)


@dataclass(frozen=True)
class EarlyBirdOptions:
    """Options of `early-bird`."""

    penalty: float = option(1e-4, "L1 penalty on the scales of batch norms")
    looks: int = option(20, "choices of units in a whole training, at least", least=1, most=100_000)
    remembered: int = option(5, "choices that must agree", least=2, most=1000)
    distance: float = option(0.1, "share of the units in which they may differ", most=1)


@dataclass(frozen=True)
class SupermaskOptions:
    """Options of `supermask`."""

    learning_rate: float = option(100.0, "of the scores", least=1e-6)
    samples: int = option(10, "masks drawn to measure the learned probabilities", least=1, most=1000)


@dataclass(frozen=True)
class EdgePopupOptions:
    """Options of `edge-popup`."""

    learning_rate: float = option(0.1, "of the scores", least=1e-6)
    weight_decay: float = option(5e-4, "of the scores")


@dataclass(frozen=True)
class AmcOptions:
    """Options of `amc`."""

    warm_up: int = option(100, "episodes of random actions", least=1, most=100_000)
    episodes: int = option(200, "episodes that follow the agent", least=1, most=100_000)


def _unchanged(recipe: Recipe, options: Options) -> Recipe:
    return recipe


def _no_looks(options: object) -> int:
    return 0


def _prune_globally(recipe: Recipe, options: Options) -> Recipe:
    """Reference: Renda, Frankle & Carbin 2020 (arXiv 2003.02389): all layers are ranked together."""
    return dataclasses.replace(recipe, pruning=dataclasses.replace(recipe.pruning, scope="global"))


def _with_teacher(recipe: Recipe, options: Options) -> Recipe:
    """Let the recipe distil: as it says, or with the options' temperature and weight."""
    if recipe.distillation:
        return recipe
    chosen = read_options("distilled", options)
    return dataclasses.replace(recipe, distillation=dataclasses.asdict(chosen))


def _rewound(recipe: Recipe) -> Recipe:
    """Go back in the schedule to `pruning.rewind_step`: the paper's T - t, by default its beginning."""
    return dataclasses.replace(recipe, start_step=recipe.pruning.rewind_step)


def _fine_tuned(recipe: Recipe) -> Recipe:
    """Take the last learning rate throughout, for as many steps as a full training has from
    `pruning.rewind_step` on."""
    return dataclasses.replace(
        recipe,
        learning_rate=learning_rate(recipe, recipe.steps - 1),
        schedule={"kind": "constant"},
        warmup_steps=0,
        start_step=recipe.pruning.rewind_step,
    )


@dataclass(frozen=True)
class Method:
    """A method as people choose it.

    Attributes:
        summary: one line.
        reference: papers and arXiv ids.
        is_iterative: it trains and prunes level by level, each level a ticket; else one ticket comes out.
        code: `module:function` of its search for a mask, of one that is not iterative.
        options: a dataclass of what it alone can be told, made of `option`s.
        adapt: (recipe, options) -> the recipe as the method has it.
        retrain: the recipe of every level after the first, of a method that keeps trained values; None: it
            rewinds.
        is_supermask: its ticket is claimed to score untrained.
        looks: options, filled in -> looks at the validation data beside those of its trainings.
    """

    summary: str
    reference: str
    is_iterative: bool = False
    code: str = ""
    options: Callable[..., Any] = NoOptions
    adapt: Callable[[Recipe, Options], Recipe] = _unchanged
    retrain: Callable[[Recipe], Recipe] | None = None
    is_supermask: bool = False
    looks: Callable[[Any], int] = _no_looks


METHODS: dict[str, Method] = {
    "imp": Method(
        "iterative magnitude pruning: train, prune the smallest, rewind, again",
        "Frankle & Carbin 2019 (arXiv 1803.03635); Frankle et al. 2020 (arXiv 1912.05671)",
        is_iterative=True,
    ),
    "one-shot": Method(
        "train once, prune the smallest at once, rewind",
        "Frankle & Carbin 2019 (arXiv 1803.03635)",
        code="nirvana.pruning.one_shot:find",
    ),
    "lr-rewinding": Method(
        "train, prune globally, go on from the trained weights with the schedule rewound, again",
        "Renda, Frankle & Carbin 2020 (arXiv 2003.02389)",
        is_iterative=True,
        adapt=_prune_globally,
        retrain=_rewound,
    ),
    "fine-tuning": Method(
        "train, prune globally, go on from the trained weights at the last learning rate, again",
        "Renda, Frankle & Carbin 2020 (arXiv 2003.02389); Han et al. 2015 (arXiv 1506.02626)",
        is_iterative=True,
        adapt=_prune_globally,
        retrain=_fine_tuned,
    ),
    "gradual-magnitude": Method(
        "prune a little every few steps of one training",
        "Zhu & Gupta 2017 (arXiv 1710.01878)",
        code="nirvana.torch.methods.gradual_magnitude:find",
        options=GradualOptions,
    ),
    "regularised": Method(
        "train with an L1 penalty, then prune the smallest at once",
        "Han et al. 2015 (arXiv 1506.02626)",
        code="nirvana.pruning.one_shot:find_regularised",
        options=RegularisedOptions,
    ),
    "random": Method(
        "a random mask with the same density in every layer",
        "Frankle & Carbin 2019 (arXiv 1803.03635), appendix",
        code="nirvana.pruning.one_shot:find_random",
    ),
    "erk": Method(
        "a random mask with Erdos-Renyi-kernel layer densities",
        "Mocanu et al. 2018 (arXiv 1707.04780); Evci et al. 2020 (arXiv 1911.11134)",
        code="nirvana.pruning.one_shot:find_erk",
    ),
    "magnitude-at-init": Method(
        "keep the largest initial values, without training",
        "Frankle et al. 2021 (arXiv 2009.08576)",
        code="nirvana.pruning.one_shot:find_largest",
    ),
    "snip": Method(
        "keep the weights whose removal would change the loss most, by one batch at initialisation",
        "Lee, Ajanthan & Torr 2019 (arXiv 1810.02340)",
        code="nirvana.torch.methods.snip:find",
        options=SnipOptions,
    ),
    "grasp": Method(
        "keep the weights that the flow of gradients needs, at initialisation",
        "Wang, Zhang & Grosse 2020 (arXiv 2002.07376)",
        code="nirvana.torch.methods.grasp:find",
        options=GraspOptions,
    ),
    "synflow": Method(
        "keep the weights on strong paths, in 100 rounds, without data",
        "Tanaka et al. 2020 (arXiv 2006.05467)",
        code="nirvana.torch.methods.synflow:find",
        options=SynflowOptions,
    ),
    "early-bird": Method(
        "cut whole channels as soon as the mask settles early in training",
        "You et al. 2020 (arXiv 1909.11957)",
        code="nirvana.torch.methods.early_bird:find",
        options=EarlyBirdOptions,
    ),
    "supermask": Method(
        "a mask that scores on the untrained weights: each weight is kept with a learned probability",
        "Zhou et al. 2019 (arXiv 1905.01067)",
        code="nirvana.torch.methods.supermask:find",
        options=SupermaskOptions,
        is_supermask=True,
        looks=lambda options: int(options.samples),
    ),
    "edge-popup": Method(
        "a mask that scores on the untrained weights: learned scores, the highest of each layer kept",
        "Ramanujan et al. 2020 (arXiv 1911.13299)",
        code="nirvana.torch.methods.edge_popup:find",
        options=EdgePopupOptions,
        is_supermask=True,
    ),
    "distilled": Method(
        "imp with a dense teacher: the student also learns the teacher's outputs",
        "Hinton, Vinyals & Dean 2015 (arXiv 1503.02531)",
        is_iterative=True,
        options=DistilledOptions,
        adapt=_with_teacher,
    ),
    "amc": Method(
        "train once; an agent chooses each layer's density, the smallest weights of each layer go",
        "He et al. 2018 (arXiv 1802.03494)",
        code="nirvana.torch.methods.amc:find",
        options=AmcOptions,
        looks=lambda options: int(options.warm_up + options.episodes),
    ),
}


def read_options(method: str, options: Options) -> Any:
    """Return a method's options as its dataclass, defaults filled in.

    Raises:
        InvalidJob: an option that the method does not have, of another type or out of range; each is named.
    """
    defaults = METHODS[method].options()
    fields = {one.name: one for one in dataclasses.fields(defaults)}
    problems = [
        problem
        for name, value in options.items()
        for problem in _option_problems(method, name, value, fields)
    ]
    raise_problems(InvalidJob, "options", problems)
    kinds = {name: type(getattr(defaults, name)) for name in fields}
    return METHODS[method].options(**{name: kinds[name](value) for name, value in options.items()})


def changed_options(method: str, options: Options) -> dict[str, int | float]:
    """Return the options that are not the method's defaults: what a ticket's provenance keeps.

    Raises:
        InvalidJob: as `read_options`.
    """
    chosen = dataclasses.asdict(read_options(method, options))
    defaults = dataclasses.asdict(METHODS[method].options())
    return {name: value for name, value in chosen.items() if value != defaults[name]}


def describe_options(method: str) -> list[tuple[str, float, str]]:
    """Return (name, default, help) of each option that a method has."""
    options = METHODS[method].options()
    fields = dataclasses.fields(options)
    return [(one.name, getattr(options, one.name), one.metadata["help"]) for one in fields]


def _option_problems(
    method: str, name: str, value: object, fields: Mapping[str, dataclasses.Field[Any]]
) -> Iterator[Problem]:
    at = f"/options/{name}"
    if name not in fields:
        expected = f"one of {', '.join(fields)}" if fields else "none: the method has no options"
        yield Problem(at, "unknown-option", f"{method} has no option {name!r}, expected {expected}")
        return
    whole, (least, most) = isinstance(fields[name].default, int), _range(fields[name])
    is_number = isinstance(value, int) or (isinstance(value, float) and not (whole and value % 1))
    if isinstance(value, bool) or not is_number or not least <= float(str(value)) <= most:
        what = "a whole number" if whole else "a number"
        bounds = f"of at least {least:g}" if most == sys.float_info.max else f"from {least:g} to {most:g}"
        yield Problem(at, "range", f"{name} is {value!r}, expected {what} {bounds}")


def _range(field_: dataclasses.Field[Any]) -> tuple[float, float]:
    most = field_.metadata["most"]
    return field_.metadata["least"], sys.float_info.max if most is None else most
