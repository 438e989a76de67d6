"""What a reader of one format finds, and what its caller may say besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nirvana.lab.importing.checkpoints import Arrays


@dataclass(frozen=True)
class Options:
    """What the files do not say. Those of one format are refused with another.

    Attributes:
        law: of the weights' initial values; None: the format's, or the first other one that they follow.
        seed: of the values of a structure.
        structure_only: take the masks and leave the values, which are not initial ones.
        reset_biases: start biases and normalisation from zeros and ones, the only laws that a ticket has for
            them.
        recipe: fields that override the task's or the files' recipe.
        level: of an open_lth replicate.
        iterations_per_epoch: of an open_lth run on a data set that open_lth does not have.
        initial: (torch-prune) a state dict of the initial values.
        untrained: (torch-prune) PATH was saved before training, so its values are initial ones.
        prune_rate: (hidden-networks) their word for the share of each layer's weights that is kept.
        masks: (state-dict) the file of masks; None: PATH has them.
        infer_masks: (state-dict) a pruned state dict whose zeros are the mask.
        rewind_step: (torch-prune, state-dict) optimiser updates before the values were taken.
    """

    law: str | None = None
    seed: int = 0
    structure_only: bool = False
    reset_biases: bool = False
    license: str | None = None
    source_url: str | None = None
    authors: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    level: int | None = None
    iterations_per_epoch: int | None = None
    initial: Path | None = None
    untrained: bool = False
    prune_rate: float | None = None
    masks: Path | None = None
    infer_masks: Path | None = None
    rewind_step: int | None = None


@dataclass(frozen=True)
class Found:
    """What the files say, under their own names.

    Attributes:
        masks: parameter -> array of 0 and 1, of its shape; kept whole where absent.
        values: parameters and running statistics that training starts from; None where there are none.
        shaped: parameters whose shapes tell which is which: the values, or whatever else has the shapes.
        files: the files read.
        ordered: whether `shaped` is in the network's order.
        complete: whether `shaped` are all parameters of the network.
        inferred: whether the masks are the places that are not zero.
        law: of the weights, unless they or the caller say otherwise.
        architecture: the zoo's name, where the files tell it.
        recipe: fields of a recipe that the files tell; None where they tell nothing.
    """

    masks: Arrays
    values: Arrays | None
    shaped: Arrays
    files: tuple[Path, ...]
    ordered: bool = True
    complete: bool = True
    inferred: bool = False
    rewind_step: int = 0
    law: str = "torch_default"
    architecture: str | None = None
    recipe: Mapping[str, Any] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
