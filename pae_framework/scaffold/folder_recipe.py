"""A recipe that fits a folder of images. No torch."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.config import DataSourceConfig
from pae_framework.data.classes import (
    TEST_NAMES,
    TRAIN_NAMES,
    are_parts,
    class_difference,
    some_names,
)
from pae_framework.data.copies import copies
from pae_framework.data.image_survey import Survey, survey
from pae_framework.errors import UsageError
from pae_framework.preflight.image_checks import real_paths
from pae_framework.recipe.emit import inline, lines
from pae_framework.recipe.models import MAX_NAME
from pae_framework.registry import Registry
from pae_framework.scaffold.plugin_package import filled

SOURCE = "image_folder"
_SHARES = (0.15, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
"""Shares of test images that are tried until there are enough of them."""
_FEWEST = 16
"""Training images, and test images, that a recipe is written for."""
_FEATURES = 64
"""Width of the extractor's features; the Frechet distance needs more images."""
_MOST_READ = 20_000
_MOST_EXCLUDED = 100
"""Unreadable images that a recipe excludes by name."""
_SHOWN = 5
_SIDES = (64, 48, 32, 16)
_LARGE = 128
"""Sides from here on have 16 x 16 tokens, smaller ones 8 x 8."""

Values = dict[str, Any]


@dataclass(frozen=True)
class FolderImages:
    """The training and test images of a folder."""

    train: DataSourceConfig
    test: DataSourceConfig
    written: Mapping[str, Values]
    """Settings of both, as a recipe writes them."""
    survey: Survey
    links: Mapping[str, str]
    """Training images that are another image of the folder: names, and paths of the other."""
    copies: Mapping[str, str]
    """The same for those with the contents of another image."""
    left_out: str | None

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes."""
        return self.train.known_class_names() or ()

    @property
    def counts(self) -> tuple[int, int]:
        """Number of training and of test images."""
        return _count(self.train), _count(self.test)

    @property
    def default_side(self) -> int:
        """64 px, or less if most images are smaller."""
        sides = self.survey.short_sides
        median = sides[len(sides) // 2]
        return next((side for side in _SIDES if side <= median), _SIDES[-1])

    def lines(self) -> Iterator[str]:
        """What was found, in words."""
        (train, test), look = self.counts, self.survey
        yield f"{train:,} training images, {test:,} test images"
        if share := self.written["test"].get("holdout"):
            why = f", since {_SHARES[0]:.0%} would be fewer than {_FEWEST} images"
            yield f"test share: {share:.0%}{why if share > _SHARES[0] else ''}"
        names = some_names(self.classes)
        yield (
            f"{len(self.classes)} classes: {names}"
            if len(self.classes) > 1
            else "1 class, so the recipe uses no class labels"
        )
        sides = look.short_sides
        median = sides[len(sides) // 2]
        yield f"shorter sides from {sides[0]:,} to {sides[-1]:,} px, median {median:,} px"
        modes = ", ".join(f"{count:,} {mode}" for mode, count in look.modes.most_common())
        yield f"modes: {modes}; {look.transparent:,} may have transparent pixels"
        if look.problems:
            yield f"{len(look.problems):,} unreadable images, which the recipe excludes:"
            yield from (f"  {problem}" for problem in list(look.problems.values())[:_SHOWN])
            if (more := len(look.problems) - _SHOWN) > 0:
                yield f"  and {more:,} more"
        if self.links:
            name, other = next(iter(self.links.items()))
            shown = f"{len(self.links):,}, such as {name} to {other}"
            yield f"links to other images, which the recipe excludes: {shown}"
        if self.copies:
            name, other = next(iter(self.copies.items()))
            what = "excludes" if len(self.copies) <= _MOST_EXCLUDED else "does not exclude"
            shown = f"{len(self.copies):,}, such as {name} of {other}"
            yield f"copies of other images, which the recipe {what}: {shown}"
            if len(self.copies) > _MOST_EXCLUDED:
                yield "  remove them, or metrics of test images include some that are trained on"
        if self.left_out:
            yield f"left out: {self.left_out}"


def find_images(folder: Path, registry: Registry) -> FolderImages:
    """The training and test images of a folder, flat or by class, with or without splits.

    Raises:
        UsageError: there are no images, too few, or too many that cannot be read; says what is
            expected.
    """
    model: type[Any] = registry.find("dataset", SOURCE).config_class()
    train, held_out = _splits(folder)
    values: Values = {"folder": str(folder.expanduser().absolute())}
    if train is not None:
        values["split"] = train
    look, left_out = _look(model, values)
    test_values = None if held_out is None else {**values, "split": held_out}
    links = _links(model, values, test_values)
    copied = _copies(model, _excluding(values, [*look.problems, *links]), test_values)
    excluded = [*look.problems, *links, *(copied if len(copied) <= _MOST_EXCLUDED else ())]
    less = f"; {len(copied):,} copies of other images do not count" if copied else ""
    if test_values is None:
        written = _parts(model, _excluding(values, excluded), less)
    else:
        other, _ = _look(model, test_values)
        written = {
            "train": _excluding(values, excluded),
            "test": _excluding(test_values, other.problems),
        }
        look = Survey([*look.facts, *other.facts], {**look.problems, **other.problems})
    if len(look.problems) > _MOST_EXCLUDED:
        first = next(iter(look.problems.values()))
        raise UsageError(
            f"{len(look.problems):,} images cannot be read: {first}; repair or remove them"
        )
    if len(links) > _MOST_EXCLUDED:
        name, file = next(iter(links.items()))
        raise UsageError(
            f"{folder}: {len(links):,} images are links to others, such as {name} to {file}; "
            "remove them"
        )
    train_source, test_source = (_checked(model, written[part]) for part in ("train", "test"))
    found = FolderImages(train_source, test_source, written, look, links, copied, left_out)
    if problem := class_difference(found.classes, found.test.known_class_names() or ()):
        raise UsageError(f"{folder / str(held_out)}: {problem}")
    if min(found.counts) < _FEWEST:
        raise UsageError(
            f"{folder}: training images: {found.counts[0]}, test images: {found.counts[1]}, but "
            f"training and evaluation need at least {_FEWEST} of each; add images{less}"
        )
    return found


def _splits(folder: Path) -> tuple[str | None, str | None]:
    """Names of the folders of training and of test images; None: they are not separate.

    They are only if there are no other folders, which are classes.
    """
    try:
        folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    except OSError as error:
        raise UsageError(f"{folder} cannot be listed: {error.strerror}") from error
    present = {path.name.lower(): path.name for path in folders if path.name[0] != "."}
    if not are_parts(present):
        return None, None
    train = next((present[name] for name in TRAIN_NAMES if name in present), None)
    test = next((present[name] for name in TEST_NAMES if name in present), None)
    return (train, test) if train is not None else (None, None)


def _look(model: type[Any], values: Values) -> tuple[Survey, str | None]:
    """What the images of a source are like, and what is left out."""
    source = _checked(model, values)
    look = survey(source.image_files() or {}, _MOST_READ)
    if not look.facts:
        raise UsageError(f"no image can be read: {next(iter(look.problems.values()))}")
    return look, source.left_out()


def _checked(model: type[Any], values: Values) -> DataSourceConfig:
    source: DataSourceConfig = model(**values)
    if (problem := source.missing()) is not None:
        raise UsageError(problem)
    return source


def _links(model: type[Any], values: Values, test: Values | None = None) -> dict[str, str]:
    """Images that are among the test images or earlier ones by their real paths, with these."""
    files = _checked(model, values).image_files() or {}
    names = {path: name for name, path in files.items()}
    known: dict[str, Path] = {}
    if test is not None:
        images = (_checked(model, test).image_files() or {}).values()
        known = {real: file for file, real in real_paths(images)}
    links: dict[str, str] = {}
    for file, real in sorted(real_paths(names), key=lambda found: str(found[0]) != found[1]):
        if real in known:
            links[names[file]] = str(known[real])
        else:
            known[real] = file
    return links


def _copies(model: type[Any], values: Values, test: Values | None) -> dict[str, str]:
    """Images with the contents of test images, or of earlier ones if those are not apart."""
    files = _checked(model, values).image_files() or {}
    names = {path: name for name, path in files.items()}
    others = names if test is None else (_checked(model, test).image_files() or {}).values()
    return {names[file]: str(other) for file, other in copies(names, others).items()}


def _excluding(values: Values, names: Iterable[str]) -> Values:
    exclude = [glob.escape(name) for name in dict.fromkeys(names)]
    return {**values, "exclude": exclude} if exclude else values


def _parts(model: type[Any], values: Values, less: str) -> dict[str, Values]:
    """Both parts of one folder, with the smallest share that gives enough test images.

    Args:
        model: config of the source.
        values: its settings.
        less: what an error adds about images that are left out.

    Raises:
        UsageError: no share leaves enough images in both parts, and of every class for training.
    """
    for share in _SHARES:
        train = {**values, "holdout": share}
        parts = {"train": train, "test": {**train, "part": "test"}}
        sources = [model(**part) for part in parts.values()]
        if all(source.missing() is None and _count(source) >= _FEWEST for source in sources):
            return parts
    raise UsageError(_no_share(_checked(model, values)) + less)


def _no_share(source: DataSourceConfig) -> str:
    counts = source.image_counts() or {}
    folder, total = source.model_dump()["folder"], sum(counts.values())
    if total < 2 * _FEWEST:
        return (
            f"{folder}: images: {total}, but training and evaluation need at least {_FEWEST} each; "
            "add images"
        )
    smallest = min(counts, key=counts.__getitem__)
    return (
        f"{folder}: no share of the {total} images leaves {_FEWEST} test images, {_FEWEST} "
        f"training images and a training image of each class (smallest class: {smallest}, "
        f"{counts[smallest]}), because a hash of the names chooses them; add images, or sort them "
        f"into {folder}/train and {folder}/val"
    )


def _count(source: DataSourceConfig) -> int:
    return sum((source.image_counts() or {}).values())


# --- the recipe -----------------------------------------------------------------------------------


def recipe_name(folder: Path) -> str:
    """A name for a run of the images of a folder."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.expanduser().absolute().name)
    return name.lstrip("._-")[:MAX_NAME] or "images"


def recipe_text(found: FolderImages, name: str, side: int, file: str) -> str:
    """A commented recipe for the images.

    Args:
        found: the images.
        name: of the recipe.
        side: of the center crops, in px.
        file: what commands call the recipe.

    Raises:
        UsageError: the side does not fit the networks.
    """
    if side % 16:
        raise UsageError(f"--size {side}: expected a multiple of 16")
    train, test = found.counts
    has_classes = len(found.classes) > 1
    patch = side // (16 if side >= _LARGE else 8)
    samples = max(min(test, 200), len(found.classes), 2)
    sources = {
        split: "".join(f"\n    {line}" for line, _ in lines({"use": SOURCE, **values}))
        for split, values in found.written.items()
    }
    frechet = test > _FEATURES and samples > _FEATURES
    values = {
        "name": inline(name),
        "file": file,
        "summary": f"{train:,} training images, {test:,} test images"
        + (f", {len(found.classes)} classes" if has_classes else ", no classes"),
        "side": str(side),
        **sources,
        "extractor": _CLASSIFIER if has_classes else _MASKED.replace("<<patch>>", str(patch)),
        "class_weight": "0.3" if has_classes else "0  # no classes: masked autoencoding alone",
        "patch": str(patch),
        "samples": str(samples),
        "guidance": "1.5" if has_classes else "1.0",
        "distances": _DISTANCES if frechet else _FEW.format(count=min(test, samples)),
        "images": str(min(test, 200)),
        "gsq": "true" if has_classes else "false",
    }
    return filled("folder_recipe.yaml", values)


_CLASSIFIER = """\
# A small classifier used only for evaluation: Frechet distances are measured in its features.
extractor:
  use: small_cnn
  width: 16
  train: {steps: 150, batch_size: 32, lr: 2e-3}"""
_MASKED = """\
# A network used only for evaluation: Frechet distances are measured in its features. Without
# classes, it learns to predict hidden patches.
extractor:
  use: tiny_vit
  patch: <<patch>>
  width: 64
  depth: 2
  heads: 2
  class_weight: 0
  train: {steps: 150, batch_size: 64, lr: 2e-3}"""
_DISTANCES = """\
  generation:                     # Frechet distance of samples and test images
  few_steps:"""
_FEW = (
    "  # No `generation` and `few_steps`: {count} test images or samples are too few for the 64\n"
    "  # feature dimensions of a Frechet distance."
)
