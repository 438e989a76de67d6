"""Recipe: all that is needed to train a ticket again, apart from the data."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NotRequired, TypedDict, TypeGuard, cast

from nirvana.errors import InvalidRecipe, JsonObject, Problem, raise_problems

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
MOST_STEPS = 10_000_000  # 20 times ImageNet's 90 epochs in batches of 256
MOST_BATCH_SIZE = 65_536
MOST_DROPS, MOST_FACTOR = 100, 1000.0  # of a schedule; all of them together stay below float64's largest
_SHOWN_CHARACTERS = 200  # of a value, in an error
WEIGHT_LAWS = (
    "glorot_normal",
    "glorot_uniform",
    "kaiming_normal",
    "kaiming_uniform",
    "kaiming_signed_constant",
    "torch_default",
)


class Schedule(TypedDict):
    """A learning-rate schedule; `at` and `factor` are those of the kind `step`."""

    kind: str
    at: NotRequired[list[int]]
    factor: NotRequired[float]


@dataclass(frozen=True)
class Pruning:
    """The way from one level to the next.

    Attributes:
        scope: `layerwise` (each layer loses its rate) or `global` (one ranking over all layers).
        rate: share of the remaining weights removed at each level, in [0, 1).
        output_rate: the same for the last prunable layer (layerwise only); None: `rate`.
        layer_rates: parameter name -> rate, before `output_rate` and `rate` (layerwise only).
        rewind_step: optimiser updates after which the values are taken that tickets restart from.
        criterion: the score by which weights stay, of trained ones w and initial ones w0: `large_final` |w|,
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
        """Return the share of `parameter`'s remaining weights that a layerwise level removes."""
        if parameter in self.layer_rates:
            return self.layer_rates[parameter]
        return self.output_rate if is_output and self.output_rate is not None else self.rate


@dataclass(frozen=True)
class Recipe:
    """Optimiser, schedule, budget and pruning.

    Attributes:
        optimizer: `adam`, `adamw` or `sgd`.
        learning_rate: peak rate, > 0.
        batch_size: examples an update, 1 to 65,536.
        steps: optimiser updates of one full training, 1 to 10,000,000.
        schedule: {"kind": "constant"}, {"kind": "cosine"} (to zero at `steps`) or {"kind": "step",
            "at": [steps], "factor": x} (the rate is multiplied by x <= 1000 at each of at most 100 steps).
        warmup_steps: updates over which the rate grows linearly from 0, at most 10,000,000.
        evaluate_every: updates between two looks at the validation data, 1 to 10,000,000.
        initial_law: the law of the weights' initial values (docs/format.md, section 4.1).
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
    schedule: Schedule = field(default_factory=lambda: Schedule(kind="constant"))
    warmup_steps: int = 0
    evaluate_every: int = 100
    initial_law: str = "glorot_normal"
    pruning: Pruning = field(default_factory=Pruning)
    l1: float = 0.0
    distillation: Mapping[str, float] | None = None
    augmentation: tuple[str, ...] = ()
    start_step: int | None = None

    @classmethod
    def from_dict(cls, fields: object) -> Recipe:
        """Make a recipe of JSON-able fields.

        Raises:
            InvalidRecipe: an unknown, missing or impossible field, each with its JSON pointer.
        """
        raise_problems(InvalidRecipe, "recipe", list(_find_problems(fields)))
        checked = cast("JsonObject", fields)
        pruning = Pruning(**checked.get("pruning", {}))
        augmentation = tuple(checked.get("augmentation", ()))
        return cls(**{**checked, "pruning": pruning, "augmentation": augmentation})

    def to_dict(self) -> JsonObject:
        """Return the fields, JSON-able, as a ticket's manifest holds them."""
        fields = _shown(self) | {"schedule": dict(self.schedule)}
        if self.augmentation:
            fields["augmentation"] = list(self.augmentation)
        if self.distillation:
            fields["distillation"] = dict(self.distillation)
        return fields | {"pruning": _shown(self.pruning) | {"layer_rates": dict(self.pruning.layer_rates)}}

    def override(self, fields: Mapping[str, object]) -> Recipe:
        """Return this recipe with some fields replaced; `pruning` is merged field by field.

        Raises:
            InvalidRecipe: as in `from_dict`.
        """
        if not isinstance(fields, Mapping):
            raise InvalidRecipe(f"recipe: found {_kind(fields)}, expected an object")
        merged = self.to_dict() | dict(fields)
        pruning = fields.get("pruning")
        if isinstance(pruning, Mapping):
            merged["pruning"] = self.to_dict()["pruning"] | dict(pruning)
        return Recipe.from_dict(merged)

    def first_step(self, rewind_step: int) -> int:
        """Return the update at which values that were taken at `rewind_step` go on."""
        return rewind_step if self.start_step is None else self.start_step

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of every field."""
        import rfc8785  # the exported script asks for no digest and has no such package

        return "sha256:" + hashlib.sha256(rfc8785.dumps(self.to_dict())).hexdigest()


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of update number `step` (the first is 0), warm-up included.

    Reference: cosine annealing without restarts, Loshchilov & Hutter 2017 (arXiv 1608.03983).
    """
    rate = recipe.learning_rate
    schedule = recipe.schedule
    if schedule["kind"] == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    elif schedule["kind"] == "step":
        rate *= schedule["factor"] ** sum(step >= at for at in schedule["at"])
    return rate * min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else rate


_LATER_FIELDS = {"l1", "distillation", "augmentation", "start_step"}
_LATER_FIELDS |= {"criterion", "mask_1_action", "mask_0_action"}


def _shown(part: Recipe | Pruning) -> JsonObject:
    """Return the members, without a later version's that have their defaults: so older digests stay."""
    members = {f.name: (getattr(part, f.name), f.default) for f in dataclasses.fields(part)}
    return {
        name: value
        for name, (value, default) in members.items()
        if name not in _LATER_FIELDS or value != default
    }


@contextmanager
def pointers_below(at: str) -> Iterator[None]:
    """Move the JSON pointers of an invalid recipe below `at`, such as `/recipe` of a manifest."""
    try:
        yield
    except InvalidRecipe as error:
        problems = [dataclasses.replace(one, pointer=at + one.pointer) for one in error.errors]
        raise_problems(InvalidRecipe, "recipe", problems or [Problem(at, "value", error.detail)])


def member_pointer(at: str, name: object) -> str:
    """Return the JSON pointer (RFC 6901) of an object's member, in characters that UTF-8 has."""
    token = str(name)[:_SHOWN_CHARACTERS].encode("utf-8", "replace").decode()
    return f"{at}/{token.replace('~', '~0').replace('/', '~1')}"


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _is_number(value: object) -> TypeGuard[float]:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_integer(value: object) -> TypeGuard[int]:
    """Take the integers that canonical JSON has: larger ones cannot be written into a ticket."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53


def _show(value: object) -> str:
    """Return the value's Python form, cut where it is long; its kind where it has none."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, lists without an end
        return _kind(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


@dataclass(frozen=True)
class Rule:
    """What a field of a recipe may be: as a test, in words, and as a JSON schema, which says no less."""

    holds: Callable[[object], bool]
    expected: str
    schema: JsonObject


def _integer(least: int, most: int) -> Rule:
    expected, schema = f"an integer from {least} to {most}", {"minimum": least, "maximum": most}
    return Rule(lambda v: _is_integer(v) and least <= v <= most, expected, {"type": "integer"} | schema)


def _number(expected: str, holds: Callable[[float], bool], **bounds: float) -> Rule:
    return Rule(lambda v: _is_number(v) and holds(v), expected, {"type": "number"} | bounds)


def _choice(values: tuple[str, ...]) -> Rule:
    return Rule(lambda v: v in values, f"one of {', '.join(values)}", {"enum": list(values)})


def _or_null(rule: Rule) -> Rule:
    schema = {"anyOf": [rule.schema, {"type": "null"}]}
    return Rule(lambda v: v is None or rule.holds(v), f"null or {rule.expected}", schema)


def _object(**fields: JsonObject) -> JsonObject:
    """Return the schema of an object of exactly these fields."""
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}


_POSITIVE: JsonObject = {"type": "number", "exclusiveMinimum": 0}
_DROP: JsonObject = {"type": "integer", "minimum": 1, "maximum": MOST_STEPS}
_SCHEDULE_SCHEMA: JsonObject = {
    "oneOf": [
        _object(kind={"enum": ["constant", "cosine"]}),
        _object(
            kind={"const": "step"},
            at={"type": "array", "maxItems": MOST_DROPS, "items": _DROP},
            factor=_POSITIVE | {"maximum": MOST_FACTOR},
        ),
    ]
}
_SHARE = _number("a number in [0, 1)", lambda v: 0 <= v < 1, minimum=0, exclusiveMaximum=1)
_ABOVE_0 = _number("a number above 0", lambda v: v > 0, exclusiveMinimum=0)
_AT_LEAST_0 = _number("a number of at least 0", lambda v: v >= 0, minimum=0)
_RULES: dict[str, Rule] = {
    "optimizer": _choice(OPTIMIZERS),
    "learning_rate": _ABOVE_0,
    "batch_size": _integer(1, MOST_BATCH_SIZE),
    "steps": _integer(1, MOST_STEPS),
    "momentum": _SHARE,
    "nesterov": Rule(lambda v: isinstance(v, bool), "true or false", {"type": "boolean"}),
    "weight_decay": _AT_LEAST_0,
    "beta1": _SHARE,
    "beta2": _SHARE,
    "epsilon": _ABOVE_0,
    "schedule": Rule(lambda v: not list(_schedule_problems(v)), "a schedule", _SCHEDULE_SCHEMA),
    "warmup_steps": _integer(0, MOST_STEPS),
    "evaluate_every": _integer(1, MOST_STEPS),
    "initial_law": _choice(WEIGHT_LAWS),
    "pruning": Rule(lambda v: isinstance(v, dict), "an object", {"type": "object"}),
    "l1": _AT_LEAST_0,
    "distillation": Rule(
        lambda v: v is None or _is_distillation(v),
        "null, or temperature (a number above 0) and weight (a number in (0, 1])",
        {"anyOf": [_object(temperature=_POSITIVE, weight=_POSITIVE | {"maximum": 1}), {"type": "null"}]},
    ),
    "augmentation": Rule(
        lambda v: _is_augmentation(v),
        f"a list of {', '.join(AUGMENTATIONS)}",
        {"type": "array", "uniqueItems": True, "items": {"enum": list(AUGMENTATIONS)}},
    ),
    "start_step": _or_null(_integer(0, MOST_STEPS - 1)),
}
_PRUNING_RULES: dict[str, Rule] = {
    "scope": _choice(SCOPES),
    "rate": _SHARE,
    "output_rate": _or_null(_SHARE),
    "layer_rates": Rule(
        lambda v: isinstance(v, dict) and all(map(_SHARE.holds, v.values())),
        "parameter names with numbers in [0, 1)",
        {"type": "object", "additionalProperties": _SHARE.schema},
    ),
    "rewind_step": _integer(0, MOST_STEPS - 1),
    "criterion": _choice(CRITERIA),
    "mask_1_action": _choice(MASK_1_ACTIONS),
    "mask_0_action": _choice(MASK_0_ACTIONS),
}


def change_schema() -> JsonObject:
    """Return the JSON schema of changes to a recipe (`Recipe.override`): each field may be left out."""
    pruning = {name: rule.schema for name, rule in _PRUNING_RULES.items()}
    fields = {name: rule.schema for name, rule in _RULES.items()}
    fields["pruning"] = {"type": "object", "properties": pruning, "additionalProperties": False}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _is_distillation(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != {"temperature", "weight"}:
        return False
    temperature, weight = value["temperature"], value["weight"]
    return _is_number(temperature) and temperature > 0 and _is_number(weight) and 0 < weight <= 1


def _is_augmentation(value: object) -> bool:
    names = value if isinstance(value, list | tuple) else [None]
    return all(name in AUGMENTATIONS and names.count(name) == 1 for name in names)


def _find_problems(fields: object) -> Iterator[Problem]:
    if not isinstance(fields, dict):
        yield Problem("", "type", f"found {_kind(fields)}, expected an object")
        return
    for name in ("optimizer", "learning_rate", "batch_size", "steps"):
        if name not in fields:
            yield Problem(f"/{name}", "missing", f"{name} is missing, expected {_RULES[name].expected}")
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


def _broken(fields: JsonObject, rules: Mapping[str, Rule], at: str) -> Iterator[Problem]:
    for name, value in fields.items():
        if name not in rules:
            yield _unknown(name, value, rules, at)
        elif not rules[name].holds(value) and not (name == "schedule" and isinstance(value, dict)):
            yield Problem(
                f"{at}/{name}", "value", f"{name} is {_show(value)}, expected {rules[name].expected}"
            )


def _unknown(name: str, value: object, rules: Mapping[str, Rule], at: str) -> Problem:
    pointer = member_pointer(at, name)
    if "test" in _show(value).lower() or "test" in str(name).lower():
        detail = f"{_show(name)} is {_show(value)}: a recipe that reads the test set is refused"
        return Problem(pointer, "reads-test-set", detail)
    known = ", ".join(rules)
    return Problem(pointer, "unknown-field", f"unknown field {_show(name)}, expected one of {known}")


def _schedule_problems(schedule: object) -> Iterator[Problem]:
    if not isinstance(schedule, dict) or schedule.get("kind") not in tuple(SCHEDULES):
        yield Problem(
            "/schedule/kind", "value", f"schedule is {_show(schedule)}, expected a kind of {list(SCHEDULES)}"
        )
        return
    expected = {"kind", *SCHEDULES[schedule["kind"]]}
    if set(schedule) != expected:
        detail = f"found {_show(sorted(map(str, schedule)))}, expected {sorted(expected)}"
        yield Problem("/schedule", "fields", detail)
    elif schedule["kind"] == "step" and not _are_drops(schedule["at"], schedule["factor"]):
        detail = (
            f"found {_show(schedule)}, expected at most {MOST_DROPS} integer steps from 1 to {MOST_STEPS} "
            f"and a factor above 0 and up to {MOST_FACTOR:g}"
        )
        yield Problem("/schedule", "value", detail)


def _are_drops(at: object, factor: object) -> bool:
    steps = isinstance(at, list) and len(at) <= MOST_DROPS and all(map(_integer(1, MOST_STEPS).holds, at))
    return steps and _is_number(factor) and 0 < factor <= MOST_FACTOR


def _ablation_problems(pruning: object) -> Iterator[Problem]:
    """Refuse ablations with rewinding: they change the values at step 0."""
    if not isinstance(pruning, dict) or pruning.get("rewind_step") in (0, None):
        return
    for name, default in (("mask_1_action", "rewind"), ("mask_0_action", "zero")):
        if pruning.get(name, default) != default:
            detail = (
                f"{name} {_show(pruning[name])} with rewind_step {_show(pruning['rewind_step'])}, "
                "expected rewind_step 0"
            )
            yield Problem(f"/pruning/{name}", "with-rewinding", detail)


def _start_problems(fields: JsonObject) -> Iterator[Problem]:
    pruning, steps = fields.get("pruning"), fields.get("steps", 0)
    at = {"/start_step": fields.get("start_step")}
    if isinstance(pruning, dict):
        at["/pruning/rewind_step"] = pruning.get("rewind_step")
    for pointer, step in at.items():
        if _is_integer(step) and _is_integer(steps) and 1 <= steps <= step:
            name = pointer.split("/")[-1]
            detail = f"{name} is {_show(step)}, expected less than the recipe's {_show(steps)} steps"
            yield Problem(pointer, "past-the-end", detail)
