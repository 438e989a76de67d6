"""State dicts of modules pruned by torch.nn.utils.prune: `NAME_orig` and `NAME_mask` for each pruned NAME.

A module computes NAME = NAME_orig * NAME_mask at each forward pass. Training moves NAME_orig, at pruned
places too (weight decay, momentum), so it is an initial value only where nothing was trained.
"""

from __future__ import annotations

from pathlib import Path

from nirvana.errors import Invalid
from nirvana.lab.importing.checkpoints import Arrays, read_checkpoint, refuse
from nirvana.lab.importing.found import Found, Options
from nirvana.lab.importing.names import is_buffer, strip_prefixes

_ORIG, _MASK = "_orig", "_mask"


def read_torch_prune(path: Path, options: Options) -> Found:
    """Masks of a pruned state dict; values where the caller says that they are initial ones.

    Raises:
        Invalid, NotFound: naming the file and what it lacks.
    """
    if options.untrained and options.initial:
        raise Invalid("untrained says that PATH has the initial values, initial names another file: give one")
    checkpoint = read_checkpoint(path)
    arrays = strip_prefixes(checkpoint.arrays)
    masks = _masks(path, arrays)
    plain = plain_values(arrays)
    values: Arrays | None = plain if options.untrained else None
    files, ordered = [path], checkpoint.ordered
    if options.initial:
        initial = read_checkpoint(options.initial)
        values = plain_values(strip_prefixes(initial.arrays))
        files, ordered = [path, options.initial], initial.ordered
    shaped = {name: array for name, array in (values or plain).items() if not is_buffer(name)}
    return Found(masks, values, shaped, tuple(files), ordered, rewind_step=options.rewind_step or 0)


def plain_values(arrays: Arrays) -> Arrays:
    """The values of a state dict under their parameters' names, without the masks."""
    return {name.removesuffix(_ORIG): a for name, a in arrays.items() if not name.endswith(_MASK)}


def _masks(path: Path, arrays: Arrays) -> Arrays:
    masked = [name.removesuffix(_MASK) for name in arrays if name.endswith(_MASK)]
    originals = [name.removesuffix(_ORIG) for name in arrays if name.endswith(_ORIG)]
    if not masked and not originals:
        raise refuse(
            path,
            "not-pruned",
            "found no *_orig and *_mask, expected a state dict of torch.nn.utils.prune; where pruning was "
            "made permanent, only zeros are left of the masks: state-dict with infer_masks reads those",
        )
    if odd := sorted(set(masked) ^ set(originals)):
        has, lacks = (_MASK, _ORIG) if odd[0] in masked else (_ORIG, _MASK)
        raise refuse(path, "half-pruned", f"found {odd[0]}{has} without {odd[0]}{lacks}, expected both")
    return {name: arrays[name + _MASK] for name in masked}
