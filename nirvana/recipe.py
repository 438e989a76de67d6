"""Recipe: all that is needed to train a ticket again, apart from the data."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import rfc8785

from nirvana.errors import InvalidRecipe, Problem, raise_problems

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES: dict[str, tuple[str, ...]] = {"constant": (), "cosine": (), "step": ("at", "factor")}
SCOPES = ("layerwise", "global")
AUGMENTATIONS = ("crop", "flip")
CRITERIA = (
    "large_final",
    "magnitude_increase",
    "movement",
    "small_final",
    "large_init",
    "large_final_same_sign",
    "random",
)
MASK_1_ACTIONS = ("rewind", "reinit", "reshuffle", "constant")
MASK_0_ACTIONS = ("zero", "freeze")
WEIGHT_LAWS = (
    "glorot_normal",
    "glorot_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "kaiming_signed_constant",
    "torch_default",
)


@dataclass(frozen=True)
class Pruning:
    """How levels are cut.

    Attributes:
        scope: `layerwise` (each layer loses its rate) or `global` (one ranking over all layers).
        rate: share of the remaining weights removed at each level, in [0, 1).
        output_rate: the same for the last prunable layer (layerwise only); None: `rate`.
        layer_rates: parameter name -> rate, before `output_rate` and `rate` (layerwise only).
        rewind_step: optimiser updates after which the values are taken that tickets restart from.
        criterion: what decides which weights stay, of trained ones w and initial ones w0: `large_final` |w|,
            `magnitude_increase` |w| - |w0|, `movement` |w - w0|, `small_final` -|w|, `large_init` |w0|,
            `large_final_same_sign` |w| where the sign is w0's, `random`.
        mask_1_action: what kept weights restart from: `rewind` (their values at rewind_step), `reinit` (a
            new draw), `reshuffle` (the layer's kept values permuted) or `constant` (their sign x
            sqrt(2 / fan_in)).
        mask_0_action: what pruned weights are: `zero`, or `freeze` (held at their initial values: an
            ablation, no ticket).

    Reference: criteria and actions, Zhou et al. 2019 (arXiv 1905.01067).
    """

    scope: str = "layerwise"
    rate: float = 0.2
    output_rate: float | None = None
    layer_rates: Mapping[str, float] = field(default_factory=dict)
    rewind_step: int = 0
    criterion: str = "large_final"
    mask_1_action: str = "rewind"
    mask_0_action: str = "zero"

    def layer_rate(self, parameter: str, *, is_output: bool) -> float:
        """The share of `parameter`'s remaining weights that a layerwise level removes."""
        if parameter in self.layer_rates:
            return self.layer_rates[parameter]
        return self.output_rate if is_output and self.output_rate is not None else self.rate


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule, budget and pruning.

    Attributes:
        optimizer: `adam`, `adamw` or `sgd`.
        learning_rate: peak rate, > 0.
        batch_size: examples an update.
        steps: optimiser updates of one full training.
        schedule: {"kind": "constant"}, {"kind": "cosine"} (to zero at `steps`) or {"kind": "step",
            "at": [steps], "factor": x} (the rate is multiplied by x at each step named).
        warmup_steps: updates over which the rate grows linearly from 0.
        evaluate_every: updates between two looks at the validation data.
        initial_law: the law of the weights' initial values (TICKET_FORMAT section 4.1).
        l1: penalty on the sum of |w| over weights of two dimensions or more, added to the loss.
        distillation: {"temperature": T, "weight": a}: the loss is (1 - a) x cross-entropy + a x T^2 x
            cross-entropy with the outputs of a teacher at temperature T; the teacher is the same network,
            dense, trained by this recipe without distillation. None: no teacher.
        augmentation: of training images: `crop` (padded by 4 pixels, cut at random), `flip`.
        start_step: the update at which training starts, for order, schedule and warm-up; None: where the
            ticket's values were taken. Learning-rate rewinding starts trained values at an early step.

    A manifest leaves out the last four, and the last three of pruning, where they have their defaults.
    """

    optimizer: str
    learning_rate: float
    batch_size: int
    steps: int
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"kind": "constant"})
    warmup_steps: int = 0
    evaluate_every: int = 100
    initial_law: str = "glorot_normal"
    pruning: Pruning = field(default_factory=Pruning)
    l1: float = 0.0
    distillation: Mapping[str, float] | None = None
    augmentation: tuple[str, ...] = ()
    start_step: int | None = None

    @classmethod
    def from_dict(cls, fields: Any) -> Recipe:
        """A recipe from JSON-able fields.

        Raises:
            InvalidRecipe: an unknown, missing or impossible field, each with its JSON pointer.
        """
        raise_problems(InvalidRecipe, "recipe", list(_find_problems(fields)))
        pruning = Pruning(**fields.get("pruning", {}))
        augmentation = tuple(fields.get("augmentation", ()))
        return cls(**{**fields, "pruning": pruning, "augmentation": augmentation})

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-able: what a ticket's manifest holds."""
        fields = _shown(self) | {"schedule": dict(self.schedule)}
        if self.augmentation:
            fields["augmentation"] = list(self.augmentation)
        if self.distillation:
            fields["distillation"] = dict(self.distillation)
        return fields | {"pruning": _shown(self.pruning) | {"layer_rates": dict(self.pruning.layer_rates)}}

    def override(self, fields: Mapping[str, Any]) -> Recipe:
        """This recipe with some fields replaced; `pruning` is merged field by field.

        Raises:
            InvalidRecipe: as in `from_dict`.
        """
        if not isinstance(fields, Mapping):
            raise InvalidRecipe(f"recipe: found {_kind(fields)}, expected an object")
        merged = self.to_dict() | dict(fields)
        if isinstance(fields.get("pruning"), Mapping):
            merged["pruning"] = self.to_dict()["pruning"] | dict(fields["pruning"])
        return Recipe.from_dict(merged)

    def first_step(self, rewind_step: int) -> int:
        """The update at which values that were taken at `rewind_step` go on."""
        return rewind_step if self.start_step is None else self.start_step

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of every field."""
        return "sha256:" + hashlib.sha256(rfc8785.dumps(self.to_dict())).hexdigest()


_LATER_FIELDS = {"l1", "distillation", "augmentation", "start_step"}
_LATER_FIELDS |= {"criterion", "mask_1_action", "mask_0_action"}


def _shown(part: Recipe | Pruning) -> dict[str, Any]:
    """The members, but for those of a later version that have their defaults: so older digests stay."""
    members = {f.name: (getattr(part, f.name), f.default) for f in dataclasses.fields(part)}
    return {
        name: value
        for name, (value, default) in members.items()
        if name not in _LATER_FIELDS or value != default
    }


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_RULES: dict[str, tuple[Any, str]] = {
    "optimizer": (lambda v: v in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
    "learning_rate": (lambda v: _is_number(v) and v > 0, "a number above 0"),
    "batch_size": (lambda v: _is_integer(v) and v >= 1, "an integer of at least 1"),
    "steps": (lambda v: _is_integer(v) and v >= 1, "an integer of at least 1"),
    "momentum": (lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
    "nesterov": (lambda v: isinstance(v, bool), "true or false"),
    "weight_decay": (lambda v: _is_number(v) and v >= 0, "a number of at least 0"),
    "beta1": (lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
    "beta2": (lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
    "epsilon": (lambda v: _is_number(v) and v > 0, "a number above 0"),
    "schedule": (lambda v: not list(_schedule_problems(v)), "a schedule"),
    "warmup_steps": (lambda v: _is_integer(v) and v >= 0, "an integer of at least 0"),
    "evaluate_every": (lambda v: _is_integer(v) and v >= 1, "an integer of at least 1"),
    "initial_law": (lambda v: v in WEIGHT_LAWS, f"one of {', '.join(WEIGHT_LAWS)}"),
    "pruning": (lambda v: isinstance(v, dict), "an object"),
    "l1": (lambda v: _is_number(v) and v >= 0, "a number of at least 0"),
    "distillation": (
        lambda v: v is None or _is_distillation(v),
        "null, or temperature (a number above 0) and weight (a number in (0, 1])",
    ),
    "augmentation": (
        lambda v: isinstance(v, list | tuple) and len(set(v)) == len(v) and set(v) <= set(AUGMENTATIONS),
        f"a list of {', '.join(AUGMENTATIONS)}",
    ),
    "start_step": (lambda v: v is None or (_is_integer(v) and v >= 0), "null or an integer of at least 0"),
}
_PRUNING_RULES: dict[str, tuple[Any, str]] = {
    "scope": (lambda v: v in SCOPES, f"one of {', '.join(SCOPES)}"),
    "rate": (lambda v: _is_number(v) and 0 <= v < 1, "a number in [0, 1)"),
    "output_rate": (lambda v: v is None or (_is_number(v) and 0 <= v < 1), "null or a number in [0, 1)"),
    "layer_rates": (
        lambda v: isinstance(v, dict) and all(_is_number(r) and 0 <= r < 1 for r in v.values()),
        "parameter names with numbers in [0, 1)",
    ),
    "rewind_step": (lambda v: _is_integer(v) and v >= 0, "an integer of at least 0"),
    "criterion": (lambda v: v in CRITERIA, f"one of {', '.join(CRITERIA)}"),
    "mask_1_action": (lambda v: v in MASK_1_ACTIONS, f"one of {', '.join(MASK_1_ACTIONS)}"),
    "mask_0_action": (lambda v: v in MASK_0_ACTIONS, f"one of {', '.join(MASK_0_ACTIONS)}"),
}


def _is_distillation(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"temperature", "weight"}:
        return False
    temperature, weight = value["temperature"], value["weight"]
    return _is_number(temperature) and temperature > 0 and _is_number(weight) and 0 < weight <= 1


def _find_problems(fields: Any) -> Any:
    if not isinstance(fields, dict):
        yield Problem("", "type", f"found {_kind(fields)}, expected an object")
        return
    for name in ("optimizer", "learning_rate", "batch_size", "steps"):
        if name not in fields:
            yield Problem(f"/{name}", "missing", f"{name} is missing, expected {_RULES[name][1]}")
    yield from _broken(fields, _RULES, "")
    if isinstance(fields.get("schedule"), dict):
        yield from _schedule_problems(fields["schedule"])
    if isinstance(fields.get("pruning"), dict):
        yield from _broken(fields["pruning"], _PRUNING_RULES, "/pruning")
    yield from _start_problems(fields)
    yield from _ablation_problems(fields.get("pruning"))
    if fields.get("distillation") and fields.get("augmentation"):
        detail = "the teacher's outputs are of the plain training images, expected no augmentation with it"
        yield Problem("/distillation", "with-augmentation", detail)


def _broken(fields: dict[str, Any], rules: dict[str, tuple[Any, str]], at: str) -> Any:
    for name, value in fields.items():
        if name not in rules:
            if "test" in str(value).lower() or "test" in name.lower():
                detail = f"{name} is {value!r}: a recipe that reads the test set is refused"
                yield Problem(f"{at}/{name}", "reads-test-set", detail)
                continue
            known = ", ".join(rules)
            yield Problem(f"{at}/{name}", "unknown-field", f"unknown field {name!r}, expected one of {known}")
        elif not rules[name][0](value) and not (name == "schedule" and isinstance(value, dict)):
            yield Problem(f"{at}/{name}", "value", f"{name} is {value!r}, expected {rules[name][1]}")


def _schedule_problems(schedule: Any) -> Any:
    if not isinstance(schedule, dict) or schedule.get("kind") not in SCHEDULES:
        yield Problem(
            "/schedule/kind", "value", f"schedule is {schedule!r}, expected a kind of {list(SCHEDULES)}"
        )
        return
    expected = {"kind", *SCHEDULES[schedule["kind"]]}
    if set(schedule) != expected:
        yield Problem("/schedule", "fields", f"found {sorted(schedule)}, expected {sorted(expected)}")
    elif schedule["kind"] == "step" and not (
        isinstance(schedule["at"], list)
        and all(_is_integer(step) and step >= 1 for step in schedule["at"])
        and _is_number(schedule["factor"])
        and schedule["factor"] > 0
    ):
        yield Problem(
            "/schedule", "value", f"found {schedule!r}, expected integer steps and a factor above 0"
        )


def _ablation_problems(pruning: Any) -> Any:
    """Ablations of what weights restart from look at values at step 0."""
    if not isinstance(pruning, dict) or pruning.get("rewind_step") in (0, None):
        return
    for name, default in (("mask_1_action", "rewind"), ("mask_0_action", "zero")):
        if pruning.get(name, default) != default:
            detail = (
                f"{name} {pruning[name]!r} with rewind_step {pruning['rewind_step']}, expected rewind_step 0"
            )
            yield Problem(f"/pruning/{name}", "with-rewinding", detail)


def _start_problems(fields: dict[str, Any]) -> Any:
    pruning, steps = fields.get("pruning"), fields.get("steps", 0)
    at = {"/start_step": fields.get("start_step")}
    if isinstance(pruning, dict):
        at["/pruning/rewind_step"] = pruning.get("rewind_step")
    for pointer, step in at.items():
        if _is_integer(step) and _is_integer(steps) and 1 <= steps <= step:
            detail = f"{pointer.split('/')[-1]} is {step}, expected less than the recipe's {steps} steps"
            yield Problem(pointer, "past-the-end", detail)
