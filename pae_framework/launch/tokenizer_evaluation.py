"""A recipe in memory that only evaluates a tokenizer, for ``pae evaluate --tokenizer``. No torch.

It has the stages ``tokenizer``, ``evaluate`` and ``report``, so an interrupted evaluation resumes
as any run does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pae_framework.config import DataSourceConfig
from pae_framework.errors import UsageError
from pae_framework.recipe.emit import inline, to_yaml
from pae_framework.recipe.library import exists
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe, build
from pae_framework.recipe.models import MAX_NAME
from pae_framework.recipe.nodes import tree
from pae_framework.recipe.plugin_files import with_plugin_files
from pae_framework.recipe.yaml_source import yaml_reason
from pae_framework.registry import Registry
from pae_framework.runs.directory import RESOLVED
from pae_framework.runs.opened import open_run
from pae_framework.tokenizer.tokenizer_settings import LpipsNetwork

_SPLITS = ("train", "test")
_FOLDER = "image_folder"
_DEFAULT_SIDE = 256
_MOST_CHANGED = 200
"""Images for SSC and LPC."""
_WITHOUT_GENERATOR = (
    *("generator=null", "sample=null", "extractor=null", "launch=null", "sweep=null"),
    *("latents.statistics=null", "latents.folder=null", "runtime.device=auto"),
)


@dataclass(frozen=True)
class TokenizerEvaluation:
    """A recipe that evaluates a tokenizer; ``store``: a folder of stages to take it from."""

    loaded: LoadedRecipe
    store: Path | None = None


@dataclass(frozen=True)
class _Data:
    """A data source as recipes write it, its config, and the size of its images, if known."""

    written: Mapping[str, Any]
    config: DataSourceConfig
    side: int | None

    @property
    def count(self) -> int | None:
        """Number of images; None if unknown."""
        counts = self.config.image_counts()
        return self.config.image_count() if counts is None else sum(counts.values())

    @property
    def classes(self) -> int:
        """Number of classes; 1 if unknown."""
        names = self.config.known_class_names()
        return self.config.class_count() or len(names or [0])


def tokenizer_evaluation(
    tokenizer: str,
    data: str,
    images: int,
    side: int | None,
    registry: Registry,
    plugins: Sequence[Path] = (),
) -> TokenizerEvaluation:
    """The recipe that evaluates a tokenizer on images.

    Args:
        tokenizer: a map as in a recipe, the name of a component, a run, or a recipe.
        data: a folder of images, or ``RECIPE:train`` or ``RECIPE:test``.
        images: the most images, chosen at random.
        side: side of the images in px; None: that of the recipe or run, else 256.
        registry: the installed plugins.
        plugins: more plugin files.

    Raises:
        UsageError: there is no such tokenizer or data, or the recipe trains its tokenizer.
        RecipeError: tokenizer and images do not fit; lists every problem.
    """
    found = _data(data, registry)
    changes = [
        f"evaluate={inline(_evaluators(found))}",
        f"data.test_images={inline(_test_images(found, images))}",
    ]
    path = Path(tokenizer).expanduser()
    if not tokenizer.lstrip().startswith("{") and (path / "run.json").is_file():
        run = open_run(path, registry)
        run.finished("tokenizer")
        name = run.loaded.recipe.name
        overrides = [*_of_recipe(name, found, side), *changes]
        loaded = load_recipe(path / RESOLVED, overrides, registry, plugins)
        return TokenizerEvaluation(loaded, run.directory.store)
    section = _written(tokenizer, registry)
    if section is not None:
        return TokenizerEvaluation(_of_section(section, found, images, side, registry, plugins))
    overrides = [*_of_recipe(Path(tokenizer).stem, found, side), *changes]
    loaded = load_recipe(tokenizer, overrides, registry, plugins)
    composed = loaded.recipe.composed
    if composed is not None and composed.weights is None:
        raise UsageError(
            f"--tokenizer {tokenizer}: the recipe trains its tokenizer; run it, and name the run"
        )
    return TokenizerEvaluation(loaded)


def _written(text: str, registry: Registry) -> dict[str, Any] | None:
    """The section of a recipe that a text stands for; None if it names a recipe."""
    if any(text in (spec.name, registry.use_name(spec)) for spec in registry.specs("tokenizer")):
        return {"use": text}
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(
            f"--tokenizer: {text} is no map in YAML or JSON: {yaml_reason(error)}"
        ) from error
    if not isinstance(found, dict):
        raise UsageError(f"--tokenizer: {text} is no map in YAML or JSON")
    return found


def _of_section(
    section: Mapping[str, Any],
    data: _Data,
    images: int,
    side: int | None,
    registry: Registry,
    plugins: Sequence[Path],
) -> LoadedRecipe:
    section = dict(section)
    if "use" in section and "lpips" not in section and LpipsNetwork().missing() is None:
        section["lpips"] = {"weights": "default"}
    name = str(section.get("use", "tokenizer")).rpartition("/")[2]
    recipe = {
        "pae": 1,
        "plugins": [str(plugin.absolute()) for plugin in plugins],
        "name": _name(name),
        "description": f"The tokenizer {name} on images, without a generator.",
        "data": {
            "image_size": side or data.side or _DEFAULT_SIDE,
            "train": dict(data.written),
            "test": dict(data.written),
            "test_images": _test_images(data, images),
        },
        "tokenizer": section,
        "evaluate": _evaluators(data),
    }
    root = tree(recipe, "--tokenizer")
    registry = with_plugin_files(root, registry)
    return build(root, Path("--tokenizer"), to_yaml(recipe), (), registry)


def _name(of: str) -> str:
    kept = "".join(c if c.isalnum() and c.isascii() else "_" for c in of)
    return f"evaluate-{kept}"[:MAX_NAME]


def _of_recipe(name: str, data: _Data, side: int | None) -> list[str]:
    size = [f"data.image_size={side}"] if side is not None else []
    test = f"data.test={inline(dict(data.written))}"
    return [*_WITHOUT_GENERATOR, f"name={_name(name)}", test, *size]


def _test_images(data: _Data, images: int) -> int | None:
    return None if data.count is not None and data.count <= images else images


def _evaluators(data: _Data) -> dict[str, Any]:
    changed = min(_MOST_CHANGED, data.count or _MOST_CHANGED)
    manifold = {
        "images": changed,
        "ssc": data.config.has_masks(),
        "gsq": data.classes > 1,
    }
    return {"reconstruction": {"frechet": False}, "manifold": manifold}


def _data(text: str, registry: Registry) -> _Data:
    """The data that a text names.

    Raises:
        UsageError: there is no such folder or recipe.
    """
    recipe, _, split = text.rpartition(":")
    path = Path(text).expanduser()
    if recipe and split in _SPLITS and not exists(path):
        data = load_recipe(recipe, (), registry).recipe.data
        component = data.train if split == "train" else data.test
        anchored = component.config.anchored()
        return _Data({"use": component.use, **anchored.model_dump()}, anchored, data.image_size)
    if not path.is_dir() or (path / "run.json").is_file():
        raise UsageError(
            f"--data {text}: expected a folder of images, or RECIPE:train or RECIPE:test"
        )
    written = {"folder": str(path.absolute())}
    model: type[Any] = registry.find("dataset", _FOLDER).config_class()
    return _Data({"use": _FOLDER, **written}, model.model_validate(written), None)
