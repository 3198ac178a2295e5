"""The smoke version of a recipe: the same components, small enough to run in seconds. No torch.

Each component defines its own small version (:meth:`~pae_framework.config.ComponentConfig.smoke`).
Images come from the synthetic source ``shapes``; nothing is downloaded and no GPU is used. The
result is an ordinary recipe: it is validated, written as ``resolved.yaml`` and fingerprinted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from pae_framework.config import Settings
from pae_framework.errors import RecipeError
from pae_framework.recipe.derived import latent_shape
from pae_framework.recipe.loaded import LoadedRecipe, build
from pae_framework.recipe.models import MAX_NAME, Recipe
from pae_framework.recipe.nodes import tree
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.sweep import Member, chosen_members

SMOKE = "--smoke"
_SUFFIX = "-smoke"
SOURCE = "shapes"
"""The data source of smoke runs: it needs no files and has classes and masks."""

Data = dict[str, Any]
_Section = TypeVar("_Section")

_IMAGES = 32
_BATCH = 4
_STEPS = 2
_SMALLEST_SIDE = 16
"""In px; larger than SSIM's window of 11 px."""
_VARIANTS = 2


def is_smoke(name: str) -> bool:
    """Whether a recipe of this name is a smoke version."""
    return name.endswith(_SUFFIX)


def smoke_recipe(loaded: LoadedRecipe, only: str | None = None) -> LoadedRecipe:
    """The smoke version of a recipe; a sweep keeps two variants and one seed.

    Args:
        loaded: the recipe.
        only: the first variants with members of matching names are kept; None: the first of all.

    Raises:
        RecipeError: the small components do not fit together.
        UsageError: no member matches ``only``.
    """
    sweep = loaded.recipe.sweep
    members = _first_of_each_variant(chosen_members(loaded, only))[:_VARIANTS] if sweep else []
    data = _smoke(loaded)
    if sweep and members:
        small = {member.variant: _smoke(member.loaded) for member in members}
        data["sweep"] = {
            "seeds": [members[0].seed],
            "variants": {name: _changes(data, variant) for name, variant in small.items()},
        }
        if paper := sweep.paper:
            values = {name: x for name, x in paper.values.items() if name in small}
            data["sweep"]["paper"] = {"source": paper.source, "values": values} if values else None
    return _build(data, loaded)


def _first_of_each_variant(members: list[Member]) -> list[Member]:
    return list({member.variant: member for member in reversed(members)}.values())[::-1]


def _changes(base: Data, variant: Data) -> Data:
    """A variant as overrides: every section that differs from the base."""
    return {
        key: value
        for key, value in variant.items()
        if key not in ("name", "sweep") and value != base[key]
    }


def _build(data: Data, loaded: LoadedRecipe) -> LoadedRecipe:
    try:
        return build(
            tree(data, SMOKE), loaded.source, loaded.text, loaded.overrides, loaded.registry
        )
    except RecipeError as error:
        hint = "define `smoke()` in the config of this component"
        raise RecipeError(
            [
                replace(problem, message=f"in the smoke version: {problem.message}", hint=hint)
                for problem in error.problems
            ]
        ) from error


def _smoke(loaded: LoadedRecipe) -> Data:
    """The smoke version of one recipe as plain data, without its sweep."""
    small = _shrunk(loaded.recipe)
    data: Data = small.model_dump(mode="json")
    data["name"] = f"{small.name[: MAX_NAME - len(_SUFFIX)]}{_SUFFIX}"
    data["runtime"].update(device="cpu", threads=1)
    data["latents"].update(shard_size=_IMAGES // 2, batch_size=_IMAGES // 2)
    data["latents"].update(workers=0, folder=None, statistics=None)
    if data["generator"] is not None:
        data["generator"]["weights"] = None
    data["launch"] = data["sweep"] = None
    data["data"].update(
        image_size=_image_size(loaded.recipe, small),
        train={"use": SOURCE, "split": "train", "count": _IMAGES},
        test={"use": SOURCE, "split": "test", "count": _IMAGES},
        test_images=None,
    )
    for training in _trainings(data):
        _shrink_training(training)
        if training["crop_from"] is not None:
            side, whole = data["data"]["image_size"], loaded.recipe.data.image_size
            training["crop_from"] = max(side + 1, side * training["crop_from"] // whole)
    if small.composed is not None:
        _shrink_tokenizer(data["tokenizer"], small.composed.encoder.config.feature_maps())
    if data["sample"] is not None:
        _shrink_sampling(data)
    return data


def _shrunk(section: _Section) -> _Section:
    """A section with the smoke version of every component, and random weights."""
    if isinstance(section, dict):
        return {key: _shrunk(entry) for key, entry in section.items()}  # type: ignore[return-value]
    if not isinstance(section, Settings):
        return section
    small = section.smoke() if hasattr(section, "smoke") else section
    fields: dict[str, Any] = {key: _shrunk(value) for key, value in small}
    if isinstance(fields.get("weights"), str):
        fields["weights"] = "none"
    return small.model_copy(update=fields)


def _image_size(recipe: Recipe, small: Recipe) -> int:
    """Side of the smallest images that fit every component, at least 4 x 4 tokens."""
    size = recipe.data.image_size
    grid = latent_shape(recipe).side
    for shrunk in (4 << power for power in range(grid.bit_length())):
        side = size * shrunk // grid
        if side >= size:
            return size
        if size * shrunk % grid == 0 and side >= _SMALLEST_SIDE and _fits(small, side, shrunk):
            return side
    return size


def _fits(small: Recipe, side: int, grid: int) -> bool:
    """Whether tokenizer, teacher and extractor accept images of this side."""
    try:
        if small.extractor is not None:
            small.extractor.config.token_grid(side)
        composed = small.composed
        if composed is not None and composed.decoder.config.image_size(grid) != side:
            return False
        teacher = None if composed is None else composed.teacher
        if teacher is not None and teacher.config.token_grid(side) != grid:
            return False
        return small.tokenizer.latent_shape(side).side == grid
    except ValueError:
        return False


def _trainings(data: Data) -> Iterator[Data]:
    """Every ``train`` map of a recipe that has one."""
    for path in (stage.train_path for stage in STAGES.values() if stage.train_path):
        section: Data | None = data
        for key in path:
            section = section and section.get(key)
        if section:
            yield section


def _shrink_training(train: Data) -> None:
    """Train for two steps; keep accumulation and averaging."""
    train.update(
        steps=_STEPS,
        epochs=None,
        batch_size=_BATCH,
        accumulate=2 if train["accumulate"] > 1 else 1,
        warmup_steps=0,
        decay_from=None,
        decay_to=None,
        precision="float32",  # most CPUs emulate bf16: convolutions take minutes
        compile=False,
        workers=0,
        jump=None,  # the loss of an untrained network changes abruptly
        continue_from=None,
        log_every=1,
        checkpoint_every=_STEPS,
        keep_steps=[],
    )
    if train["ema_snapshots"] is not None:
        train["ema_snapshots"]["every"] = 1


def _shrink_tokenizer(tokenizer: Data, feature_maps: int | None) -> None:
    """Train from scratch; in the second step schedules end, and late terms have their full weight.

    Compared layers stay, or are the last one if the small encoder has fewer.
    """
    tokenizer["weights"] = tokenizer["initial_weights"] = None
    tokenizer["attention"] = "sdpa"
    tokenizer["log_shares_every"] = tokenizer["log_shares_every"] and 1
    perceptual = tokenizer["reconstruction"]["perceptual"]
    if perceptual["layers"] is not None and feature_maps is not None:
        perceptual["layers"] = sorted({min(n, feature_maps - 1) for n in perceptual["layers"]})
    for term in tokenizer["regularizers"].values():
        late = term["start"] is not None
        term["start"] = {"steps": 1} if late else None
        if isinstance(weight := term["weight"], dict):
            short = {**weight, "steps": 1, "epochs": None}
            term["weight"] = max(weight["from"], weight["to"]) if late else short
    adversarial = tokenizer["adversarial"]
    if adversarial is not None:
        adversarial["update_from"] = {"steps": 0}
        adversarial["start"], adversarial["warmup"] = {"steps": 1}, {"steps": 0}
        adversarial["optimizer"].update(warmup_steps=0, decay_from=None, decay_to=None)


def _shrink_sampling(data: Data) -> None:
    """Sample few images in few steps, and the generator of step 1 if ``at_steps`` is set."""
    sample = data["sample"]
    earlier = [1] if sample["at_steps"] else []
    if data["generator"] is not None:
        data["generator"]["train"]["keep_steps"] = earlier
    sample.update(
        count=_IMAGES // 2,
        batch_size=_IMAGES // 2,
        processes=1,
        compile=False,
        steps=3,
        at_steps=earlier,
        few_steps=[2] if sample["few_steps"] else [],
    )
    if sample["convergence"] is not None:
        sample["convergence"].update(count=_IMAGES // 2, steps=3)
    for steps, variant in enumerate(sample["variants"].values(), start=4):
        if variant["steps"] is not None:
            variant["steps"] = steps
    sample["guidance"]["autoguidance"] = None  # needs another generator
