"""A plain state dict of initial values, and masks beside it, in it, or inferred from zeros."""

from __future__ import annotations

from pathlib import Path

from nirvana.errors import Invalid
from nirvana.lab.importing.checkpoints import Arrays, read_checkpoint, refuse
from nirvana.lab.importing.found import Found, Options
from nirvana.lab.importing.names import is_buffer, masked_parameter, strip_prefixes


def read_state_dict(path: Path, options: Options) -> Found:
    """Values and masks. A file of masks alone has no values, and what it gives is a structure.

    Raises:
        Invalid, NotFound: naming the file and what it lacks.
    """
    if options.masks and options.infer_masks:
        raise Invalid("masks and infer_masks both say where the masks are: give one")
    checkpoint = read_checkpoint(path)
    arrays = strip_prefixes(checkpoint.arrays)
    values = {name: array for name, array in arrays.items() if masked_parameter(name) is None}
    if any(name.endswith("_orig") for name in values):
        detail = "found *_orig, as torch.nn.utils.prune writes: the format torch-prune reads those"
        raise refuse(path, "pruned", detail)
    files = [path]
    if options.masks:
        masks, files = read_masks(options.masks), [path, options.masks]
    elif options.infer_masks:
        masks, files = infer_masks(options.infer_masks), [path, options.infer_masks]
    else:
        masks = _own_masks(path, arrays)
    shaped = {name: array for name, array in (values or masks).items() if not is_buffer(name)}
    return Found(
        masks,
        values or None,
        shaped,
        tuple(dict.fromkeys(files)),
        checkpoint.ordered,
        complete=bool(values),
        inferred=options.infer_masks is not None,
        rewind_step=options.rewind_step or 0,
    )


def read_masks(path: Path) -> Arrays:
    """A file of masks: under the parameters' names, or under names that say that they are masks."""
    arrays = strip_prefixes(read_checkpoint(path).arrays)
    named = {name: masked_parameter(name) for name in arrays}
    if any(named.values()):  # a whole state dict with mask buffers in it
        return {parameter: arrays[name] for name, parameter in named.items() if parameter}
    return arrays


def infer_masks(path: Path) -> Arrays:
    """Kept where a pruned state dict's weights are not zero.

    A weight that is zero without having been pruned cannot be told from a pruned one.
    """
    arrays = strip_prefixes(read_checkpoint(path).arrays)
    masks = {name: array != 0 for name, array in arrays.items() if array.ndim > 1}
    if all(mask.all() for mask in masks.values()):
        detail = "none of its weights is zero, expected a pruned state dict to infer masks from"
        raise refuse(path, "not-pruned", detail)
    return masks


def _own_masks(path: Path, arrays: Arrays) -> Arrays:
    masks = {parameter: array for name, array in arrays.items() if (parameter := masked_parameter(name))}
    if not masks:
        detail = "found no masks in it, expected masks (a file of them) or infer_masks (a pruned state dict)"
        raise refuse(path, "no-masks", detail)
    return masks
