"""The images of a stage: recorded when it starts, and the same ones until it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pae_framework.contracts import DataSource
from pae_framework.data.classes import class_difference, empty_classes, some_names
from pae_framework.data.contents import read_contents
from pae_framework.data.damaged import SkippingSource
from pae_framework.errors import DataError
from pae_framework.execution.context import StageContext
from pae_framework.recipe.derived import compares_classes
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.data_record import (
    SPLITS,
    ImagesRecord,
    contents_by_plan,
    keep_contents,
    source_of,
    write_record,
)
from pae_framework.runs.plan import Split


@contextmanager
def recorded_images(context: StageContext) -> Iterator[None]:
    """Record the images that the stage reads in its ``data.json``; every process enters it.

    The main process does the work, and the others begin when it has checked the images.

    Raises:
        DataError: they are not those of the run's earlier stages, they change before the stage
            ends, a class has no image, or test images have other classes.
    """
    context.world.on_main(lambda: _begin(context))
    yield
    if context.world.is_main:
        _end(context)


def _begin(context: StageContext) -> None:
    splits = _splits(context)
    for split in splits:
        _require_planned_files(context, split)
    if "train" in splits and isinstance(context.train_source, SkippingSource):
        context.train_source.merge_records()
        context.train_source.drop_repaired()
    records = {split: _checked_record(context, split) for split in splits}
    if records:
        write_record(context.run.stage(context.planned), records)


def _end(context: StageContext) -> None:
    splits = _splits(context)
    for split in splits:
        _require_planned_files(context, split)
    if "train" in splits and isinstance(context.train_source, SkippingSource):
        context.train_source.merge_records()


def _splits(context: StageContext) -> list[Split]:
    stage = STAGES[context.planned.name]
    return [split for split in SPLITS if stage.needs(("data", split), context.recipe)]


def _require_planned_files(context: StageContext, split: Split) -> None:
    """Compare the files with those by which the run was planned."""
    planned = context.planned.data.get(split)
    if planned is None:
        return
    config = source_of(context.recipe, split).config
    files = config.data_files()
    if files is None:
        raise DataError(f"data.{split}: {config.missing() or 'its files are gone'}")
    before = contents_by_plan(context.recipe, split, context.run.store, planned)
    now = read_contents(files, before)
    if now.identity != planned:
        changes = "" if before is None else f" ({now.changes_since(before)})"
        raise DataError(
            f"data.{split}: the files have changed since the run started{changes}; restore them "
            "and run the same command again to go on, or run it as it is: then the stages that "
            "read these images start anew"
        )
    keep_contents(context.recipe, split, now)


def _checked_record(context: StageContext, split: Split) -> ImagesRecord:
    source = context.train_source if split == "train" else context.test_source
    names = tuple(source.class_names)
    record = ImagesRecord(len(source), names, context.planned.data.get(split))
    earlier = context.recorded_images(split)
    if earlier is None:
        _require_classes(context, split, source)
        if left_out := source.config.left_out():
            context.console.print(
                f"{'':<10} data.{split}: {len(source)} images of {len(names)} classes; left out: "
                f"{left_out}",
                highlight=False,
                markup=False,
            )
    elif earlier.images not in (None, record.images) or earlier.class_names != names:
        raise DataError(
            f"data.{split}: {len(source)} images of {len(names)} classes ({some_names(names)}), "
            f"but earlier stages of this run read {earlier.images} of {len(earlier.class_names)} "
            f"({some_names(earlier.class_names)}); restore the images, or start a new run with "
            "another --run-dir"
        )
    return record


def _require_classes(context: StageContext, split: Split, source: DataSource) -> None:
    """Check the classes of a split that no earlier stage has read."""
    labels, names = source.labels(), source.class_names
    if split == "train" and labels is not None and (problem := empty_classes(labels, names)):
        raise DataError(f"data.train: {problem}; add images, or remove these classes")
    if not compares_classes(context.recipe):
        return
    if not _has_names(context, "train" if split == "test" else "test"):
        return
    train, test = context.class_names, context.test_source.class_names
    if problem := class_difference(train, test):
        raise DataError(f"data.test: {problem}")


def _has_names(context: StageContext, split: Split) -> bool:
    """Whether the names of a split's classes are known: an import needs no images."""
    here = source_of(context.recipe, split).config.missing() is None
    return here or context.recorded_images(split) is not None
