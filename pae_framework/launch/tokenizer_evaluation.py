"""A recipe in memory that only evaluates a tokenizer, for ``pae evaluate --tokenizer``. No torch.

It has the stages ``tokenizer``, ``evaluate`` and ``report``, so an interrupted evaluation resumes
as any run does.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pae_framework.config import DataSourceConfig
from pae_framework.data.image_survey import common_side
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
_LARGEST_SIDE = 512
"""Larger images are not measured as they are unless ``side`` says so."""
_READ = 4096
"""Bytes that tell whether a file is text."""
_MOST_CHANGED = 200
"""Images for SSC and LPC."""
_WITHOUT_GENERATOR = (
    *("generator=null", "sample=null", "extractor=null", "launch=null", "sweep=null"),
    *("latents.statistics=null", "latents.folder=null", "runtime.device=auto"),
)


Load = Callable[[dict[str, Any]], LoadedRecipe]
"""Loads a recipe with these evaluators."""


@dataclass(frozen=True)
class TokenizerEvaluation:
    """A recipe that evaluates a tokenizer.

    ``side_from``: why its images have their size. ``store``: a folder of stages to take the
    tokenizer from.
    """

    loaded: LoadedRecipe
    side_from: str
    store: Path | None = None

    def __str__(self) -> str:
        return f"images: {self.loaded.recipe.data.image_size} px, {self.side_from}; see --size"


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
        side: side of the images in px; None: that of the recipe or run, else that of the images
            if all have the same and it is at most 512, else 256.
        registry: the installed plugins.
        plugins: more plugin files.

    Raises:
        UsageError: there is no such tokenizer or data, the recipe trains its tokenizer, or the
            tokenizer does not encode.
        RecipeError: tokenizer and images do not fit; lists every problem.
    """
    found = _data(data, registry)
    path = Path(tokenizer).expanduser()
    section = _written(tokenizer, registry)
    if section is not None:
        size, side_from = _side(side, found)

        def of_map(evaluators: dict[str, Any]) -> LoadedRecipe:
            return _of_section(section, found, images, size, evaluators, registry, plugins)

        return TokenizerEvaluation(_with_evaluators(of_map, tokenizer, found), side_from)

    side_from = "as set by --size" if side is not None else "as in the recipe"
    if (path / "run.json").is_file():
        run = open_run(path, registry)
        run.finished("tokenizer")
        overrides = _of_recipe(run.loaded.recipe.name, found, images, side)
        load = _of_file(path / RESOLVED, overrides, registry, plugins)
        loaded = _with_evaluators(load, tokenizer, found)
        return TokenizerEvaluation(loaded, side_from, run.directory.store)
    _require_text(tokenizer, path)
    overrides = _of_recipe(Path(tokenizer).stem, found, images, side)
    loaded = _with_evaluators(_of_file(tokenizer, overrides, registry, plugins), tokenizer, found)
    composed = loaded.recipe.composed
    if composed is not None and composed.weights is None:
        raise UsageError(
            f"--tokenizer {tokenizer}: the recipe trains its tokenizer; run it, and name the run"
        )
    return TokenizerEvaluation(loaded, side_from)


def _with_evaluators(load: Load, tokenizer: str, data: _Data) -> LoadedRecipe:
    """The recipe with the evaluators that fit what the tokenizer can do.

    Raises:
        UsageError: it does not encode.
    """
    section = load({}).recipe.tokenizer
    if not section.encodes:
        raise UsageError(
            f"--tokenizer {tokenizer}: the tokenizer has no encoder, and the evaluation measures "
            "latents of the images; add its encoder"
        )
    return load(_evaluators(data, section.decodes))


def _of_file(
    reference: str | Path, overrides: Sequence[str], registry: Registry, plugins: Sequence[Path]
) -> Load:
    return lambda evaluators: load_recipe(
        reference, [*overrides, f"evaluate={inline(evaluators or None)}"], registry, plugins
    )


def _side(stated: int | None, data: _Data) -> tuple[int, str]:
    """The side of the images in px, and why it is this one."""
    if stated is not None:
        return stated, "as set by --size"
    if data.side is not None:
        return data.side, "as in the recipe of --data"
    shared = common_side(data.config.image_files() or {})
    if shared is not None and shared <= _LARGEST_SIDE:
        return shared, "the shorter side of all"
    why = "theirs differ" if shared is None else f"theirs are {shared} px"
    return _DEFAULT_SIDE, f"since {why}"


def _require_text(tokenizer: str, path: Path) -> None:
    """Say how a file of weights, or a folder of them, is named.

    Raises:
        UsageError: it is such a file or folder.
    """
    if path.is_dir() and not (path / RESOLVED).exists():
        example = inline({"use": "diffusers_vae", "model": tokenizer})
    elif path.is_file() and not _is_text(path):
        files = {"encode": tokenizer, "decode": "FILE"}
        sizes = {"channels": "C", "downsampling": "F"}
        example = inline({"use": "torchscript", **files, **sizes})
    else:
        return
    raise UsageError(
        f"--tokenizer {tokenizer}: neither a recipe nor a run; name it in a map, with the "
        f"component that reads it, such as '{example}'"
    )


def _is_text(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_READ)
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    except OSError:
        return True  # the recipe's reader says why it cannot be read


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
    side: int,
    evaluators: dict[str, Any],
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
            "image_size": side,
            "train": dict(data.written),
            "test": dict(data.written),
            "test_images": _test_images(data, images),
        },
        "tokenizer": section,
        "evaluate": evaluators,
    }
    root = tree(recipe, "--tokenizer")
    registry = with_plugin_files(root, registry)
    return build(root, Path("--tokenizer"), to_yaml(recipe), (), registry)


def _name(of: str) -> str:
    kept = "".join(c if c.isalnum() and c.isascii() else "_" for c in of)
    return f"evaluate-{kept}"[:MAX_NAME]


def _of_recipe(name: str, data: _Data, images: int, side: int | None) -> list[str]:
    size = [f"data.image_size={side}"] if side is not None else []
    test = f"data.test={inline(dict(data.written))}"
    count = f"data.test_images={inline(_test_images(data, images))}"
    return [*_WITHOUT_GENERATOR, f"name={_name(name)}", test, count, *size]


def _test_images(data: _Data, images: int) -> int | None:
    return None if data.count is not None and data.count <= images else images


def _evaluators(data: _Data, decodes: bool) -> dict[str, Any]:
    changed = min(_MOST_CHANGED, data.count or _MOST_CHANGED)
    manifold = {
        "images": changed,
        "ssc": data.config.has_masks(),
        "gsq": data.classes > 1,
    }
    reconstruction = {"reconstruction": {"frechet": False}} if decodes else {}
    return {**reconstruction, "manifold": manifold}


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
