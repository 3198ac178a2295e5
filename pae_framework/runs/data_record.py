"""What a run has recorded of its images: their files, number and classes. No torch.

::

    stages/
      data/known.json          data source -> identity of its contents at the last visit
      data/<identity>.txt      the files of these contents
      encoder-1f2e3d4c5b6a/
        data.json              the images that the stage read
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, NonNegativeInt

from pae_framework.data.contents import (
    Contents,
    cached_contents,
    is_recorded,
    mostly_cached_contents,
    recorded_contents,
    unchanged_contents,
)
from pae_framework.errors import RunError
from pae_framework.recipe.components import DataSourceComponent
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.directory import RECORD, RunDirectory
from pae_framework.runs.looking import found_once, keep, once, only_looks
from pae_framework.runs.plan import PlannedStage, Split
from pae_framework.runs.reading import read_record as read_run_record
from pae_framework.runs.record import StageRecord
from pae_framework.system.files import json_digest, read_json, write_json

FILE = "data.json"
_DIGEST = "data_digest"
"""Key of the digest of ``data.json`` in the record of the stage."""
_REMEDY = "remove it; what it said is read from the other stages or from the images"
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class ImagesRecord:
    """The images of one split, as a stage recorded them."""

    images: int | None
    """Their number; None if an earlier version ran the stage."""
    class_names: tuple[str, ...]
    """By label."""
    identity: str | None
    """Of their files' contents; None if the settings alone determine them."""

    def agrees_with(self, other: ImagesRecord) -> bool:
        """Whether both may be of the same images."""
        same_number = None in (self.images, other.images) or self.images == other.images
        return same_number and self.class_names == other.class_names


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a name is there twice")
    return names


class _Entry(BaseModel):
    images: NonNegativeInt | None
    class_names: Annotated[list[str], AfterValidator(_unique)]
    identity: str | None


class _Shape(BaseModel):
    """The shape of ``data.json``."""

    train: _Entry | None = None
    test: _Entry | None = None


def source_of(recipe: Recipe, split: Split) -> DataSourceComponent:
    """The data source of a split."""
    return recipe.data.train if split == "train" else recipe.data.test


def found_contents(recipe: Recipe) -> dict[Split, Contents]:
    """The contents of the splits whose files are on this machine, with the user's cache.

    Inside :func:`~pae_framework.runs.looking.looking_once`, each data source is looked up once;
    inside :func:`~pae_framework.runs.looking.only_looking`, only the cache is.

    Raises:
        DataError: a file cannot be read.
    """
    if only_looks():
        return contents_in_cache(recipe)
    return _contents(recipe, "found", cached_contents)


def contents_in_cache(recipe: Recipe) -> dict[Split, Contents]:
    """The contents of the splits whose files are as in the user's cache.

    Reads no image and writes nothing.
    """
    return _contents(recipe, "in cache", unchanged_contents)


def quickly_found_contents(recipe: Recipe) -> dict[Split, Contents]:
    """The contents of the splits of which all but a few files are as in the user's cache.

    Writes nothing.

    Raises:
        DataError: a file cannot be read.
    """
    return _contents(recipe, "found quickly", mostly_cached_contents)


def _contents(
    recipe: Recipe, how: str, look: Callable[[Mapping[str, Path]], Contents | None]
) -> dict[Split, Contents]:
    def contents_of(source: DataSourceComponent) -> Contents | None:
        files = source.config.data_files()
        return None if files is None else look(files)

    found: dict[Split, Contents] = {}
    for split in SPLITS:
        source = source_of(recipe, split)
        contents = once((how, _key(source)), partial(contents_of, source))
        if contents is not None:
            found[split] = contents
    return found


def contents_by_plan(recipe: Recipe, split: Split, store: Path, identity: str) -> Contents | None:
    """The contents with the identity by which a stage was planned; None if they are not recorded.

    Those of this command come first, because the times of the files are of its start.
    """
    found = found_once(("found", _key(source_of(recipe, split))))
    if isinstance(found, Contents) and found.identity == identity:
        return found
    return remembered(store, identity)


def keep_contents(recipe: Recipe, split: Split, contents: Contents) -> None:
    """Compare the files with these from now on, in this command."""
    keep(("found", _key(source_of(recipe, split))), contents)


# --- in the store ---------------------------------------------------------------------------------


def identities(recipe: Recipe, store: Path, found: Mapping[Split, Contents]) -> dict[Split, str]:
    """The identity of each split: of the files found, else of those found at the last visit."""
    known = _known(store)
    result: dict[Split, str] = {}
    for split in SPLITS:
        identity = _identity_in(known, source_of(recipe, split))
        if split in found:
            result[split] = found[split].identity
        elif identity is not None:
            result[split] = identity
    return result


def remember(recipe: Recipe, store: Path, found: Mapping[Split, Contents]) -> None:
    """Record the contents in the store, for later stages and visits."""
    known = _known(store)
    for split, contents in found.items():
        known[_key(source_of(recipe, split))] = contents.identity
        if not is_recorded(file := _contents_file(store, contents.identity)):
            contents.write(file)
    if known != _known(store):
        write_json(_known_file(store), known)


def remembered(store: Path, identity: str) -> Contents | None:
    """Contents in the store; None if they are missing or damaged."""
    return recorded_contents(_contents_file(store, identity))


def _contents_file(store: Path, identity: str) -> Path:
    return store / "data" / f"{identity}.txt"


def _known_file(store: Path) -> Path:
    return store / "data" / "known.json"


def _known(store: Path) -> dict[str, str]:
    try:
        known = read_json(_known_file(store))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _key(source: DataSourceComponent) -> str:
    settings = source.config.anchored().model_dump(mode="json", exclude_defaults=True)
    return json.dumps([source.use, settings], sort_keys=True)


def _identity_in(known: Mapping[str, str], source: DataSourceComponent) -> str | None:
    """The identity of a source in the store, which an earlier version may have recorded."""
    if (identity := known.get(_key(source))) is not None:
        return identity
    wanted, model = source.config.anchored(), type(source.config)
    for key, identity in known.items():
        with suppress(ValueError, TypeError):  # settings that this version does not have
            use, settings = json.loads(key)
            if use == source.use and model(**settings).anchored() == wanted:
                return identity
    return None


# --- in the folder of a stage ---------------------------------------------------------------------


def write_record(stage: StageRecord, records: Mapping[Split, ImagesRecord]) -> None:
    """Write ``data.json`` of a stage; its digest is in the stage's record."""
    content = {split: asdict(record) for split, record in records.items()}
    digest = json_digest(content)
    if stage.info.get(_DIGEST, digest) != digest:
        stage.update(**{_DIGEST: ""})  # a kill must not leave the digest of another file
    write_json(stage.path / FILE, content)
    stage.update(**{_DIGEST: digest})


def read_record(folders: Iterable[Path], split: Split) -> ImagesRecord | None:
    """What the stages of a run have recorded of a split; None if none has.

    Raises:
        RunError: a record is damaged, or the records of two stages differ.
    """
    first: tuple[Path, ImagesRecord] | None = None
    for folder in folders:
        if (record := _read(folder).get(split)) is None:
            continue
        if first is None:
            first = folder / FILE, record
        elif not record.agrees_with(first[1]):
            raise RunError(
                f"{folder / FILE} is damaged: data.{split} is not that of {first[0]}; remove the "
                "wrong one of the two"
            )
    return None if first is None else first[1]


def _read(folder: Path) -> dict[Split, ImagesRecord]:
    """The record in the folder of a stage; empty if there is none or the stage is not begun."""
    path = folder / FILE
    try:
        info = StageRecord(folder).info
    except RunError:  # whoever needs the stage says so
        return {}
    if info.get("state") == "pending" or not os.path.lexists(path):
        return {}
    content: dict[Split, dict[str, Any]] = read_run_record(path, _Shape, _REMEDY)
    if info.get(_DIGEST) not in (None, "", json_digest(content)):
        raise RunError(f"{path} is damaged: it is not the file that the stage wrote; {_REMEDY}")
    return {
        split: ImagesRecord(entry["images"], tuple(entry["class_names"]), entry["identity"])
        for split, entry in content.items()
        if split in SPLITS
    }


def record_known_images(stage: StageRecord, planned: PlannedStage, recipe: Recipe) -> None:
    """Write ``data.json`` of a finished stage, as far as the names of classes are known."""
    records: dict[Split, ImagesRecord] = {}
    for split, identity in planned.data.items():
        config = source_of(recipe, split).config
        names = config.known_class_names()
        if STAGES[planned.name].needs(("data", split), recipe) and names is not None:
            records[split] = ImagesRecord(None, tuple(names), identity)
    if records:
        write_record(stage, records)


def changed_images(
    directory: RunDirectory, found: Mapping[Split, Contents], restarted: Collection[Split]
) -> Iterator[str]:
    """Lines that say which files have changed since the stages that the run used before.

    Args:
        directory: of the run.
        found: the contents on this machine.
        restarted: splits that a stage reads which is not finished.
    """
    if not (directory.path / RECORD).is_file():
        return
    earlier = [directory.store / entry["folder"] for entry in directory.info["plan"]]
    for split, contents in found.items():
        try:
            record = read_record(earlier, split)
        except RunError:  # perhaps of a stage that the run no longer uses; others read it again
            continue
        if record is None or record.identity in (None, contents.identity):
            continue
        before = remembered(directory.store, str(record.identity))
        changes = "" if before is None else f" ({contents.changes_since(before)})"
        outcome = (
            "the stages that read them start anew"
            if split in restarted
            else "finished stages of these files are used"
        )
        yield f"data.{split}: the files are not those of the earlier stages{changes}; {outcome}"
