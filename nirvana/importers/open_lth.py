"""Folders of facebookresearch/open_lth: `lottery_<md5>/replicate_N/level_K/main/`.

level_0/main has the whole values that every level starts from (`model_epE_itI.pth`; E and I are 0 without
rewinding) and `hparams.log`; level_K/main has `mask.pth`, `sparsity_report.json` and mask x values under the
same name as level 0's, so that a copy that was mixed up can be told.

Reference: Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis"
(arXiv 1912.05671), and the repository's `lottery/runner.py` and `foundations/`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from nirvana.errors import Invalid, NotFound, Problem
from nirvana.importers.checkpoints import Arrays, ForeignTicket, Options, read_checkpoint, refuse
from nirvana.importers.names import is_buffer, strip_prefixes, without_buffers
from nirvana.importers.open_lth_hparams import read_hparams

_LEVEL = re.compile(r"level_(\d+)\Z")


def read_open_lth(path: Path, options: Options) -> ForeignTicket:
    """Return the mask of a level, the values that it starts from, and the recipe that its run followed.

    Raises:
        NotFound: a file of the folder is missing; names it.
        Invalid: the files do not belong together.
    """
    replicate, level = _locate(path, options.level)
    main = replicate / f"level_{level}" / "main"
    log = _need(replicate / "level_0" / "main" / "hparams.log")
    hparams = read_hparams(log, options.iterations_per_epoch)
    mask_file, report = _need(main / "mask.pth"), _need(main / "sparsity_report.json")
    masks = _read(mask_file)
    _check_report(report, masks)
    start = _find_start(replicate, hparams.model_file)
    values = _read(start)
    level_start = _need(main / hparams.model_file)
    _check_level(level_start, _read(level_start), values, masks)
    return ForeignTicket(
        masks,
        values,
        without_buffers(values),
        tuple(dict.fromkeys((mask_file, start, level_start, log))),
        rewind_step=hparams.rewind_step,
        law=hparams.law,
        architecture=hparams.architecture,
        recipe=hparams.recipe(),
        provenance={"method": "imp", "level": level},
    )


def _locate(path: Path, level: int | None) -> tuple[Path, int]:
    """Return the replicate's folder and the level."""
    if not path.is_dir():
        raise NotFound(f"no such folder: {path}")
    folder = path.resolve()
    folder = folder.parent if folder.name == "main" else folder
    named = _LEVEL.match(folder.name)
    if named:
        if level not in (None, int(named.group(1))):
            raise Invalid(f"level is {level}, but the folder is {folder.name}: give one of them")
        return folder.parent, int(named.group(1))
    levels = sorted(int(m.group(1)) for child in folder.iterdir() if (m := _LEVEL.match(child.name)))
    if not levels:
        raise NotFound(f"{path} has no level_0, level_1 ..., expected a replicate's or a level's folder")
    if level is None or level not in levels:
        fault = "is missing" if level is None else f"is {level}"
        detail = f"level {fault}, expected one of {', '.join(map(str, levels))}"
        raise Invalid(detail, errors=[Problem("/level", "missing" if level is None else "value", detail)])
    return folder, level


def _need(path: Path) -> Path:
    if not path.is_file():
        place = "/".join(path.parts[-3:])
        raise NotFound(f"{place} is missing from the open_lth folder {path.parents[2]}")
    return path


def _read(path: Path) -> Arrays:
    return strip_prefixes(read_checkpoint(path).arrays)


def _find_start(replicate: Path, model: str) -> Path:
    """Return the file of the whole values: level 0's, or where that was deleted the end of the training
    before it."""
    own, before = (replicate / name / "main" / model for name in ("level_0", "level_pretrain"))
    return before if before.is_file() and not own.is_file() else _need(own)


def _check_report(path: Path, masks: Arrays) -> None:
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        reported_kept, reported_total = int(report["unpruned"]), int(report["total"])
    except (ValueError, KeyError, TypeError):
        raise refuse(path, "no-report", "expected an object with the numbers total and unpruned") from None
    kept = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    total = sum(mask.size for mask in masks.values())
    if (reported_kept, reported_total) != (kept, total):
        reported = f"{reported_kept} of {reported_total}"
        detail = f"mask.pth keeps {kept} of {total} weights, but the report says {reported}"
        raise refuse(path, "density", detail)


def _check_level(path: Path, level: Arrays, values: Arrays, masks: Arrays) -> None:
    """Refuse a level that does not start from mask x the values."""
    for name, array in values.items():
        if is_buffer(name):
            continue
        masked = array * masks[name] if name in masks and masks[name].shape == array.shape else array
        if name not in level or level[name].shape != array.shape or not np.array_equal(level[name], masked):
            detail = f"{name} is not mask x the values of level 0: the files are not of one run"
            raise refuse(path, "other-values", detail)
