"""State dicts with masks: as torch.nn.utils.prune writes them, and plain ones.

A module pruned by torch.nn.utils.prune has `NAME_orig` and `NAME_mask` for each pruned NAME and computes
NAME = NAME_orig * NAME_mask at each forward pass. Training moves NAME_orig, at pruned places too (weight
decay, momentum), so it is an initial value only where nothing was trained.

A plain state dict has initial values; its masks are beside it, in it, or inferred from zeros.
"""

from __future__ import annotations

from pathlib import Path

from nirvana.errors import Invalid
from nirvana.importers.checkpoints import Arrays, ForeignTicket, Options, read_checkpoint, refuse
from nirvana.importers.names import masked_parameter, strip_prefixes, without_buffers

_ORIG, _MASK = "_orig", "_mask"


# torch.nn.utils.prune


def read_torch_prune(path: Path, options: Options) -> ForeignTicket:
    """Return the masks of a pruned state dict; its values where the caller says that they are initial ones.

    Raises:
        Invalid, NotFound: naming the file and what it lacks.
    """
    if options.untrained and options.initial:
        raise Invalid("untrained says that PATH has the initial values, initial names another file: give one")
    checkpoint = read_checkpoint(path)
    arrays = strip_prefixes(checkpoint.arrays)
    masks = _paired_masks(path, arrays)
    plain = _without_masks(arrays)
    values: Arrays | None = plain if options.untrained else None
    files, ordered = [path], checkpoint.ordered
    if options.initial:
        initial = read_checkpoint(options.initial)
        values = _without_masks(strip_prefixes(initial.arrays))
        files, ordered = [path, options.initial], initial.ordered
    shaped = without_buffers(values or plain)
    return ForeignTicket(masks, values, shaped, tuple(files), ordered, rewind_step=options.rewind_step or 0)


def _without_masks(arrays: Arrays) -> Arrays:
    """Return the values of a state dict under their parameters' names."""
    return {name.removesuffix(_ORIG): a for name, a in arrays.items() if not name.endswith(_MASK)}


def _paired_masks(path: Path, arrays: Arrays) -> Arrays:
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


# plain state dicts


def read_state_dict(path: Path, options: Options) -> ForeignTicket:
    """Return values and masks. A file of masks alone has no values, and its ticket is a structure.

    Raises:
        Invalid, NotFound: naming the file and what it lacks.
    """
    if options.masks and options.infer_masks:
        raise Invalid("masks and infer_masks both say where the masks are: give one")
    checkpoint = read_checkpoint(path)
    arrays = strip_prefixes(checkpoint.arrays)
    values = _plain_values(path, arrays)
    masks = _find_masks(path, arrays, options)
    files = [path, *(file for file in (options.masks, options.infer_masks) if file)]
    return ForeignTicket(
        masks,
        values or None,
        without_buffers(values or masks),
        tuple(dict.fromkeys(files)),
        checkpoint.ordered,
        complete=bool(values),
        inferred=options.infer_masks is not None,
        rewind_step=options.rewind_step or 0,
    )


def _plain_values(path: Path, arrays: Arrays) -> Arrays:
    values = {name: array for name, array in arrays.items() if masked_parameter(name) is None}
    if any(name.endswith(_ORIG) for name in values):
        detail = "found *_orig, as torch.nn.utils.prune writes: the format torch-prune reads those"
        raise refuse(path, "pruned", detail)
    return values


def _find_masks(path: Path, arrays: Arrays, options: Options) -> Arrays:
    if options.masks:
        return _read_masks(options.masks)
    if options.infer_masks:
        return _infer_masks(options.infer_masks)
    masks = _named_masks(arrays)
    if not masks:
        detail = "found no masks in it, expected masks (a file of them) or infer_masks (a pruned state dict)"
        raise refuse(path, "no-masks", detail)
    return masks


def _read_masks(path: Path) -> Arrays:
    """Return a file's masks: under the parameters' names, or under names that mark them as masks."""
    arrays = strip_prefixes(read_checkpoint(path).arrays)
    return _named_masks(arrays) or arrays  # the former: a whole state dict with mask buffers in it


def _infer_masks(path: Path) -> Arrays:
    """Return masks that keep the weights of a pruned state dict that are not zero.

    A weight that is zero without having been pruned cannot be told from a pruned one.
    """
    arrays = strip_prefixes(read_checkpoint(path).arrays)
    masks = {name: array != 0 for name, array in arrays.items() if array.ndim > 1}
    if all(mask.all() for mask in masks.values()):
        detail = "none of its weights is zero, expected a pruned state dict to infer masks from"
        raise refuse(path, "not-pruned", detail)
    return masks


def _named_masks(arrays: Arrays) -> Arrays:
    return {parameter: array for name, array in arrays.items() if (parameter := masked_parameter(name))}
