"""Lets a training go on from a checkpoint of a shorter one, in another stage's folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from pae_framework.errors import RunError, WriteError
from pae_framework.execution.context import StageContext
from pae_framework.metrics_file import METRICS, read_log
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.continuation import (
    CONTINUED,
    Origin,
    Refusal,
    continue_from_problem,
    find_origin,
)
from pae_framework.runs.record import StageRecord
from pae_framework.runs.results import StageResults
from pae_framework.system.files import make_folder, replacing, write_text
from pae_framework.training.checkpoint import Checkpoints, steps_in_log
from pae_framework.training.train_settings import TrainSettings

logger = logging.getLogger(__name__)


def go_on_from_earlier(context: StageContext, may_go_on: bool) -> None:
    """Copy the newest sound checkpoint of a shorter training, with what it has logged and kept.

    Nothing is copied if the stage has a checkpoint of its own, or if it runs anew on request and
    its recipe names no training to go on from. The shorter training is left as it is.

    Args:
        context: of the stage, which is about to run.
        may_go_on: whether the stage never ran, or was killed before its first checkpoint.

    Raises:
        RunError: the training named in ``continue_from`` cannot be used.
    """
    train = STAGES[context.planned.name].train(context.recipe)
    if train is None or Checkpoints(context.directory / "checkpoints").newest() is not None:
        return
    named = train.continue_from is not None
    if not (may_go_on or named):
        return
    found = find_origin(context.planned, context.recipe, context.run.store)
    if isinstance(found, Refusal) and named:
        raise RunError(str(continue_from_problem(context.planned.name, found)))
    if isinstance(found, Refusal):
        _print(context, f"starts anew: {found}")
    elif isinstance(found, Origin):
        _copy(context, found, train)


def copy_training(record: StageRecord, folder: Path, step: int, train: TrainSettings) -> None:
    """Copy a training up to the checkpoint of a step: that, the log and the weights it kept.

    Args:
        record: of the training.
        folder: of the training that goes on.
        step: of the checkpoint, which is copied last: with it, the folder is complete.
        train: settings of the training that goes on: which weights and snapshots it has.

    Raises:
        RunError: something to copy is missing or damaged.
        WriteError: something cannot be written.
    """
    checkpoint = record.path / "checkpoints" / f"step-{step:08d}"
    logged = steps_in_log(checkpoint)
    kept = [f"weights-step{kept:06d}.safetensors" for kept in train.keep_steps if kept <= step]
    snapshots = train.ema_snapshots.planned_files(step) if train.ema_snapshots else ()
    _copy_kept(record, folder, [*kept, *snapshots])
    _copy_log(record.path, folder, logged)
    Checkpoints(folder / "checkpoints").copy(checkpoint)


def _copy(context: StageContext, origin: Origin, train: TrainSettings) -> None:
    source = origin.record.path
    for step in origin.steps:
        context.update_record(**{CONTINUED: {"folder": str(source), "step": step}})
        try:
            copy_training(origin.record, context.directory, step, train)
        except WriteError:
            raise
        except RunError as error:
            logger.warning("%s; it is not used", error)
            continue
        _print(context, f"goes on from step {step} of {source}")
        return
    context.update_record(**{CONTINUED: {}})
    _print(context, f"starts anew: no checkpoint of {source.name} can be used")


def _copy_kept(record: StageRecord, folder: Path, names: Iterable[str]) -> None:
    """Copy files of weights that a training kept, and the list of its damaged images.

    Raises:
        RunError: weights are missing or have changed.
    """
    results = StageResults(record.path, record.info.get("results"), "run its stage again")
    for name in names:
        make_folder((folder / name).parent)
        _copy_file(results.file(name), folder / name)
    if (damaged := record.path / "damaged.txt").is_file():
        _copy_file(damaged, folder / damaged.name)


def _copy_log(source: Path, folder: Path, last: int) -> None:
    """Copy the log up to a step."""
    lines = [entry for entry in read_log(source / METRICS) if entry["step"] <= last]
    write_text(folder / METRICS, "".join(f"{json.dumps(line)}\n" for line in lines))


def _copy_file(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _print(context: StageContext, text: str) -> None:
    context.console.print(f"{'':<10} {text}", highlight=False, markup=False, soft_wrap=True)
