"""What the images of a recipe are, and what is wrong with them. No torch."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pae_framework.config import ComponentConfig, DataSourceConfig
from pae_framework.data.classes import are_parts, class_difference, some_names
from pae_framework.data.copies import copies
from pae_framework.data.data_settings import SHARDS
from pae_framework.data.image_survey import survey
from pae_framework.errors import Problem
from pae_framework.preflight.requirements import components_with_requirements
from pae_framework.recipe.derived import compares_classes
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath, dotted
from pae_framework.runs.adoption import rows_of_shard

_SPLITS = ("train", "test")
_READ = 500
"""Images of each source that a check reads; of more, evenly spaced ones."""
_COMPARED_ALL = 20_000
"""Images of both sources up to which each test image is compared with the training images."""
_INCEPTION = 2048


@dataclass(frozen=True)
class FoundImages:
    """The images of one data source."""

    split: str
    images: int | None
    classes: Sequence[str] | None

    def __str__(self) -> str:
        count = "images" if self.images is None else f"{self.images:,} images"
        if self.classes is None:
            return f"{self.split}: {count}"
        if len(self.classes) == 1:
            return f"{self.split}: {count}, 1 class"
        return f"{self.split}: {count}, {len(self.classes)} classes: {some_names(self.classes)}"


def found_images(recipes: Sequence[LoadedRecipe]) -> list[FoundImages]:
    """The training and test images of the recipes that are on this machine, each once."""
    found: list[FoundImages] = []
    for loaded in recipes:
        for split in _SPLITS:
            config = _config(loaded.recipe, split)
            if config.missing() is None:
                one = FoundImages(split, _count(config), config.known_class_names())
                found += [] if one in found else [one]
    return found


def unusable_images(recipes: Sequence[LoadedRecipe]) -> list[Problem]:
    """What keeps the images of the recipes from being trained on or evaluated.

    Class folders named like splits, test classes that are not the training classes, test images
    that cannot be read, and fewer training images or latents of a folder than an evaluator needs.
    """
    of_images = (_forgotten_split, _other_classes, _unreadable)
    return _problems_of(recipes, of_images, (_too_few,))


def doubtful_images(recipes: Sequence[LoadedRecipe]) -> list[Problem]:
    """What makes metrics of the recipes say less than they seem to; worth a warning."""
    of_images = (_tested_on_training_images, _more_damaged)
    of_models = (_one_class, _fewer_than_features, _unknown_number)
    return _problems_of(recipes, of_images, of_models)


def _problems_of(
    recipes: Sequence[LoadedRecipe], of_images: Sequence[_Check], of_models: Sequence[_Check]
) -> list[Problem]:
    """What checks find, each once; those of images alone run once for each pair of sources."""
    found = (
        Problem(message, dotted(path), loaded.root.position(path), hint)
        for checks, some in ((of_images, _with_other_images(recipes)), (of_models, recipes))
        for loaded in some
        for check in checks
        for path, message, hint in check(loaded.recipe)
    )
    return list(dict.fromkeys(found))


def _with_other_images(recipes: Sequence[LoadedRecipe]) -> list[LoadedRecipe]:
    """The first recipe with each pair of data sources; members of a sweep often have the same."""
    known: list[object] = []
    found: list[LoadedRecipe] = []
    for loaded in recipes:
        data = loaded.recipe.data
        key = (data.train.config, data.test.config, data.max_damaged)
        if key not in known:
            known.append(key)
            found.append(loaded)
    return found


_Finding = tuple[KeyPath, str, str]
"""Key path, message and hint."""
_Check = Callable[[Recipe], Iterator[_Finding]]


def _config(recipe: Recipe, split: str) -> DataSourceConfig:
    config: DataSourceConfig = getattr(recipe.data, split).config
    return config


def _count(config: DataSourceConfig) -> int | None:
    counts = config.image_counts()
    return config.image_count() if counts is None else sum(counts.values())


def _test_count(recipe: Recipe) -> int | None:
    count = _count(recipe.data.test.config)
    return count if count is None else min(count, recipe.data.test_images or count)


def _forgotten_split(recipe: Recipe) -> Iterator[_Finding]:
    for split in _SPLITS:
        names = _config(recipe, split).known_class_names() or ()
        if len(names) > 1 and are_parts(names):
            message = f"its classes are called {some_names(names)}, as parts of a data set are"
            yield ("data", split), message, f"set data.{split}.split={names[0]}, or rename them"


def _other_classes(recipe: Recipe) -> Iterator[_Finding]:
    if not compares_classes(recipe):
        return
    train, test = (_config(recipe, split).known_class_names() for split in _SPLITS)
    if train is not None and test is not None and (message := class_difference(train, test)):
        yield ("data", "test"), message, ""


def _unreadable(recipe: Recipe) -> Iterator[_Finding]:
    problems = _problems(recipe.data.test.config)
    if problems:
        message = f"{_number(problems)} cannot be read: {problems[0]}"
        yield ("data", "test"), message, "repair, remove or exclude them"


def _too_few(recipe: Recipe) -> Iterator[_Finding]:
    if (count := _training_latents(recipe)) is None:
        return
    for label, evaluator in recipe.evaluate.items():
        try:
            evaluator.config.check_training_images(count)
        except ValueError as error:
            yield ("evaluate", label), str(error), ""


def _unknown_number(recipe: Recipe) -> Iterator[_Finding]:
    """Evaluators that need training images, whose number is found only when a stage reads them."""
    source = _config(recipe, "train")
    if _training_latents(recipe) is not None or "images" not in type(source).model_fields:
        return
    for label, evaluator in recipe.evaluate.items():
        try:
            evaluator.config.check_training_images(0)
        except ValueError:
            message = (
                "it needs a number of training images, which data.train does not state; too few "
                "would be found only after the training"
            )
            yield ("evaluate", label), message, "set data.train.images"


def _training_latents(recipe: Recipe) -> int | None:
    """One for each training image, or those of a folder; None if their number is unknown."""
    if recipe.latents.folder is None:
        return _count(recipe.data.train.config)
    shards = sorted(Path(recipe.latents.folder).expanduser().glob(SHARDS))
    try:
        rows = [rows_of_shard(path) for path in shards]
    except OSError:  # the stage that reads them says why
        return None
    return sum(filter(None, rows)) if rows and all(rows) else None


def _more_damaged(recipe: Recipe) -> Iterator[_Finding]:
    problems, allowed = _problems(recipe.data.train.config), recipe.data.max_damaged
    if len(problems) > allowed:
        message = f"{_number(problems)} cannot be read: {problems[0]}"
        hint = f"repair or exclude them, or set data.max_damaged={len(problems)} or more"
        yield ("data", "train"), message, hint


def _problems(config: DataSourceConfig) -> list[str]:
    files = config.image_files() if config.missing() is None else None
    return list(survey(files or {}, _READ).problems.values())


def _number(problems: Sequence[str]) -> str:
    return "an image" if len(problems) == 1 else f"{len(problems)} images"


def _tested_on_training_images(recipe: Recipe) -> Iterator[_Finding]:
    data = recipe.data
    train, test = data.train.config.image_files(), data.test.config.image_files()
    if data.train == data.test:
        message = "the test images are the training images"
    elif train and test:
        compared = _compared(list(train.values()), list(test.values()))
        if not (both := _shared(list(train.values()), compared)):
            return
        chosen = "" if len(compared) == len(test) else f", a sample of {len(test):,},"
        message = f"{len(both):,} of {len(compared):,} test images{chosen} are training images"
        message += f": {both[0]}"
    else:
        return
    hint = "name other images"
    if all(getattr(_config(recipe, split), "holdout", None) for split in _SPLITS):
        hint += ", remove or exclude them, or set `holdout` of both to one value"
    elif "holdout" in type(data.test.config).model_fields:
        hint += ", or set data.train.holdout=0.15 data.test.holdout=0.15 data.test.part=test"
    yield ("data", "test"), f"{message}, so metrics say nothing of new images", hint


def _compared(train: Sequence[Path], test: Sequence[Path]) -> Sequence[Path]:
    """Test images that are compared with the training images; of very many, some at random."""
    if len(train) + len(test) <= _COMPARED_ALL or len(test) <= _READ:
        return test
    return random.Random(0).sample(test, _READ)


def _shared(train: Sequence[Path], test: Sequence[Path]) -> list[str]:
    """Test images that are among the training images, by their real paths or their contents."""
    known = {real: file for file, real in real_paths(train)}
    linked = {file: known[real] for file, real in real_paths(test) if real in known}
    copied = copies([file for file in test if file not in linked], train)
    links = [str(x) if x == y else f"{x} and {y} are one file" for x, y in linked.items()]
    return [*links, *(f"{one} is a copy of {other}" for one, other in copied.items())]


def real_paths(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Files with their real paths, by folder; a folder is resolved and listed for links once."""
    by_folder: dict[str, list[str]] = {}
    for file in files:
        folder, name = os.path.split(file)
        by_folder.setdefault(folder, []).append(name)
    for folder, names in by_folder.items():
        real, links = os.path.realpath(folder), _links(folder)
        for name in names:
            path = f"{real}/{name}"
            yield Path(folder, name), os.path.realpath(path) if name in links else path


def _links(folder: str) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_symlink()}


def _one_class(recipe: Recipe) -> Iterator[_Finding]:
    names = recipe.data.train.config.known_class_names()
    if names is None or len(names) > 1:
        return
    for path, section in components_with_requirements(recipe):
        if isinstance(section, ComponentConfig):
            try:
                section.check_classes(len(names))
            except ValueError as error:
                yield path, str(error), ""


def _fewer_than_features(recipe: Recipe) -> Iterator[_Finding]:
    """Frechet distances whose covariances have fewer images than dimensions."""
    test = _test_count(recipe)
    widths = {"inception": _INCEPTION}
    if recipe.extractor is not None:
        widths["extractor"] = recipe.extractor.config.token_width()
    for label, component in recipe.evaluate.items():
        needs = component.config.needs
        counts = {"test images": test}
        if "samples" in needs and recipe.sample is not None:
            counts["samples"] = recipe.sample.count
        for network in sorted(needs & widths.keys()):
            few = [f"{n:,} {what}" for what, n in counts.items() if n and n <= widths[network]]
            if few:
                message = (
                    f"compares {' and '.join(few)} by {widths[network]:,} features; a Frechet "
                    "distance needs more images than features"
                )
                yield ("evaluate", label), message, f"add images, or set evaluate.{label}=null"
