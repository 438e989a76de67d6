"""open_lth's `hparams.log`: sections of `    * name => value`, and the recipe in it.

Steps are written as `160ep`, `500it` or `2ep100it`; an epoch has ceil(examples / batch size) iterations, and
open_lth trains on whole training sets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nirvana.errors import Invalid, Problem
from nirvana.importers.checkpoints import refuse
from nirvana.training.recipe import WEIGHT_LAWS

_TRAIN_EXAMPLES = {"mnist": 60_000, "cifar10": 50_000, "imagenet": 1_281_167}
_SECTIONS = {
    "Dataset Hyperparameters": "dataset",
    "Model Hyperparameters": "model",
    "Training Hyperparameters": "training",
    "Pretraining Training Hyperparameters": "pretraining",
}
_STEP = re.compile(r"(?:(\d+)ep)?(?:(\d+)it)?")


@dataclass(frozen=True)
class Hparams:
    """A run's hyperparameters.

    Attributes:
        sections: `dataset`, `model`, `training`, `pretraining` (where it rewinds) and `pruning`, each name ->
            value as written.
        iterations_per_epoch: None where neither the data set nor the caller tells it.
    """

    path: Path
    sections: Mapping[str, Mapping[str, str]]
    iterations_per_epoch: int | None

    @property
    def rewind_step(self) -> int:
        """Optimiser updates of the training before the first level."""
        steps = self.sections.get("pretraining", {}).get("training_steps")
        return self.steps(steps) if steps else 0

    @property
    def model_file(self) -> str:
        """Name of the file of the values at the rewind step."""
        step = self.rewind_step
        epoch, iteration = divmod(step, self.epoch_length()) if step else (0, 0)
        return f"model_ep{epoch}_it{iteration}.pth"

    @property
    def law(self) -> str:
        """Law of the weights; PyTorch's default where open_lth's has no name here."""
        law = self.get("model", "model_init")
        return law if law in WEIGHT_LAWS else "torch_default"

    @property
    def architecture(self) -> str | None:
        """Name of the model in the zoo; None where it has none."""
        name = self.get("model", "model_name")
        if lenet := re.fullmatch(r"mnist_lenet((?:_\d+)+)", name):
            widths = lenet.group(1).replace("_", "-")
            return "lenet-300-100" if widths == "-300-100" else f"mlp{widths}"
        known = re.fullmatch(r"cifar_(resnet|vgg)_(\d+)(?:_16)?", name)
        return f"{known.group(1)}-{known.group(2)}" if known else None

    def recipe(self) -> dict[str, object]:
        """Return fields of a recipe (`nirvana.training.recipe.Recipe`)."""
        training, nesterov = self.sections.get("training", {}), self.number("nesterov_momentum")
        fields: dict[str, object] = {
            "optimizer": self.get("training", "optimizer_name"),
            "learning_rate": self.number("lr"),
            "momentum": self.number("momentum") or nesterov,
            "nesterov": nesterov > 0,
            "weight_decay": self.number("weight_decay"),
            "batch_size": int(self.number("batch_size", "dataset")),
            "steps": self.steps(self.get("training", "training_steps")),
            "schedule": self._schedule(),
            "pruning": self._pruning(),
        }
        if "warmup_steps" in training:
            fields["warmup_steps"] = self.steps(training["warmup_steps"])
        if self.get("dataset", "dataset_name") == "cifar10" and not self._is_set("do_not_augment"):
            fields["augmentation"] = ["crop", "flip"]
        return fields

    def get(self, section: str, name: str) -> str:
        """Return a value as written.

        Raises:
            Invalid: the log has none.
        """
        text = self.sections.get(section, {}).get(name)
        if text is None:
            raise refuse(self.path, "no-hparams", f"found no {name} among the {section} hyperparameters")
        return text

    def number(self, name: str, section: str = "training") -> float:
        """Return a value as a number; 0 where the log leaves it out, as it does with zeros.

        Raises:
            Invalid: it is no number.
        """
        text = self.sections.get(section, {}).get(name, "0")
        try:
            return float(text)
        except ValueError:
            raise refuse(self.path, "value", f"{name} is {text!r}, expected a number") from None

    def steps(self, text: str) -> int:
        """Return the optimiser updates of `160ep`, `500it` or `2ep100it`.

        Raises:
            Invalid: it is written otherwise, or the length of an epoch is not known.
        """
        match = _STEP.fullmatch(text)
        if not text or not match:
            raise refuse(self.path, "step", f"found the step {text!r}, expected one like 160ep or 500it")
        epochs, iterations = (int(part or 0) for part in match.groups())
        return iterations + (epochs * self.epoch_length() if epochs else 0)

    def epoch_length(self) -> int:
        """Return the optimiser updates of an epoch.

        Raises:
            Invalid: neither the data set nor the caller tells it.
        """
        if self.iterations_per_epoch is None:
            name = self.get("dataset", "dataset_name")
            detail = f"iterations_per_epoch is missing: how many examples {name!r} has is not known"
            raise Invalid(detail, errors=[Problem("/iterations_per_epoch", "missing", detail)])
        return self.iterations_per_epoch

    def _schedule(self) -> dict[str, object]:
        training = self.sections.get("training", {})
        if not training.get("milestone_steps"):
            return {"kind": "constant"}
        at = [self.steps(step) for step in training["milestone_steps"].split(",")]
        return {"kind": "step", "at": at, "factor": self.number("gamma")}

    def _pruning(self) -> dict[str, object]:
        pruning = self.sections.get("pruning", {})
        scope = "layerwise" if pruning.get("pruning_strategy") == "sparse_layerwise" else "global"
        rate = self.number("pruning_fraction", "pruning") or 0.2
        fields = {"scope": scope, "rate": rate, "output_rate": None, "layer_rates": {}}
        return fields | {"rewind_step": self.rewind_step}

    def _is_set(self, name: str) -> bool:
        return self.sections.get("dataset", {}).get(name) == "True"


def read_hparams(path: Path, iterations_per_epoch: int | None = None) -> Hparams:
    """Return a run's hyperparameters from its log.

    Args:
        iterations_per_epoch: in place of what the data set's size says.

    Raises:
        Invalid: it is no such log.
    """
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, arrow, value = line.strip().removeprefix("* ").partition(" => ")
        if arrow:
            section[name] = value
        elif name:
            section = sections.setdefault(_SECTIONS.get(name) or _other_section(name), {})
    hparams = Hparams(path, sections, iterations_per_epoch)
    hparams.get("training", "training_steps")
    if iterations_per_epoch is None:
        return Hparams(path, sections, _epoch_length(hparams))
    return hparams


def _other_section(name: str) -> str:
    """Return `pruning` for a pruning strategy's title, which each has its own; a pretraining's data set is
    of no interest."""
    return name if name.startswith("Pretraining") else "pruning"


def _epoch_length(hparams: Hparams) -> int | None:
    examples = _TRAIN_EXAMPLES.get(hparams.get("dataset", "dataset_name"))
    batch_size = hparams.number("batch_size", "dataset")
    share = hparams.number("subsample_fraction", "dataset") or 1.0
    return math.ceil(examples * share / batch_size) if examples and batch_size >= 1 else None
