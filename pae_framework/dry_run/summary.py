"""Describes what a run would do. Networks are built on the meta device; no image is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from pae_framework.build import (
    META,
    Networks,
    build_networks,
    build_regularizers,
    build_source,
    import_components,
)
from pae_framework.dry_run.flops import count_forward, per_image
from pae_framework.dry_run.rates import CardRates, card_at_hand, hours_of, read_rates
from pae_framework.errors import UsageError
from pae_framework.flow.matching import FlowObjective
from pae_framework.frozen import UsesFrozen
from pae_framework.preflight.memory import CLASSES, StageMemory, training_memory
from pae_framework.recipe.components import TokenizerComponent
from pae_framework.recipe.derived import known_classes, latent_shape
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import dotted
from pae_framework.recipe.stage_table import STAGES, trainings
from pae_framework.runs.data_record import SPLITS, contents_in_cache, source_of
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.plan import downstream_stages
from pae_framework.runs.planned import planned_stages
from pae_framework.tokenizer.losses.terms import NamedModules
from pae_framework.tokenizer.refinement import RefinementObjective
from pae_framework.training.optimizer import parameter_factors
from pae_framework.training.train_settings import TrainSettings

_STATES = {"done": "done", "pending": "runs"}
"""What a stage will do, by its recorded state; in any other state it goes on."""


_Part = tuple[str, str, nn.Module | None, str | None]
"""Name, component, network, and the stage that trains it."""


@dataclass(frozen=True)
class ComponentSize:
    """Numbers of trained and frozen parameters of one component."""

    part: str
    component: str
    trained: int
    frozen: int
    trained_in: str | None
    """The stage; None if it is pretrained."""


@dataclass(frozen=True)
class StageDryRun:
    """One stage; fields are None if unknown or not applicable."""

    stage: str
    state: str
    """``done``: cached from an earlier run; ``runs``; ``goes on``: it resumes."""
    folder: str
    batch_size: int | None = None
    at_once: int | None = None
    """Images per micro-batch."""
    steps: int | None = None
    epochs: float | None = None
    images: int | None = None
    """Images processed, over all epochs."""
    memory_bytes: int | None = None
    memory_without: tuple[str, ...] = ()
    """Components of unknown size; ``memory_bytes`` is then a lower bound."""
    flops_per_image: float | None = None
    flops: float | None = None
    hours: float | None = None
    """On the GPUs at hand, if their rate was measured."""


@dataclass(frozen=True)
class DryRun:
    """What a recipe would do."""

    name: str
    image_size: int
    train_images: int | None
    classes: int | None
    grid: int
    """Side of the latents."""
    token_width: int | None
    """Of the composed tokenizer's encoder."""
    latent: tuple[int, int, int]
    parts: tuple[ComponentSize, ...]
    stages: tuple[StageDryRun, ...]
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The dry run in JSON types."""
        return asdict(self)


def dry_run(
    loaded: LoadedRecipe,
    directory: RunDirectory,
    again: Collection[str] = (),
    processes: Callable[[str], int] | None = None,
) -> DryRun:
    """Describe what a recipe would do in a run directory, which need not exist. Writes nothing.

    Images are not read: their contents are those in the user's cache, else of the last visit.
    Stages in ``again`` and all that depend on them run anew. ``processes`` tells how many share a
    stage; memory is that of each. Hours are for a GPU like that of this machine in each process.

    Raises:
        UsageError: a prefix in ``lr_factors`` covers no weight of the model.
        PluginError: a component cannot be imported.
    """
    recipe, notes = loaded.recipe, list[str]()
    import_components(recipe, loaded.registry)
    images, classes = _data_size(loaded, notes)
    built_for = classes or CLASSES
    networks, work = _built(loaded, built_for, images, notes)
    if networks is not None:
        notes += check_lr_factors(loaded, networks, built_for)
    memory = {stage.stage: stage for stage in training_memory(recipe, built_for)}
    if networks is not None and networks.discriminator is not None:
        notes.append("the tokenizer's FLOPs do not include the discriminator")
    notes += _unread_images(recipe)
    count = processes or (lambda stage: 1)
    if any(count(stage) > 1 for stage in memory):
        notes.append("memory is that of each process")
    card = card_at_hand(recipe.runtime)
    rates = read_rates().get(card) if card else None
    stages = tuple(_stages(loaded, directory, again, images, memory, work, rates, count))
    if rates is not None and any(stage.hours for stage in stages):
        notes.append(
            f"hours are those of one {card} in each process, at the rates measured on "
            f"{rates.measured} with torch {rates.torch}"
        )
    latent = latent_shape(recipe)
    return DryRun(
        name=recipe.name,
        image_size=recipe.data.image_size,
        train_images=images,
        classes=classes,
        grid=latent.side,
        token_width=None
        if recipe.composed is None
        else recipe.composed.encoder.config.token_width(),
        latent=(latent.channels, latent.side, latent.side),
        parts=() if networks is None else tuple(_component_sizes(networks, recipe)),
        stages=stages,
        notes=tuple(notes),
    )


def _unread_images(recipe: Recipe) -> Iterator[str]:
    found = contents_in_cache(recipe)
    for split in SPLITS:
        if split not in found and source_of(recipe, split).config.data_files() is not None:
            yield f"data.{split}: `pae run` will read its files first, and may plan other stages"


def _data_size(loaded: LoadedRecipe, notes: list[str]) -> tuple[int | None, int | None]:
    """Numbers of training images and classes; None if the data are missing and not stated."""
    data = loaded.recipe.data
    if (missing := data.train.config.missing()) is not None:
        if (expected := data.train.config.expected()) is not None:
            notes.append(
                f"data.train: {missing}; assuming {expected[0]} images, as the recipe states"
            )
            return expected
        notes.append(f"data.train: {missing}; steps and epochs cannot be converted")
        classes = known_classes(loaded.recipe)
        if loaded.recipe.generator is not None and classes is None:
            notes.append(f"the generator's size assumes {CLASSES} classes")
        return None, classes
    config = data.train.config
    images, classes = config.image_count(), config.class_count()
    if config.expected() is None and images is not None and classes is not None:
        return images, classes  # not stated by the user, so there is nothing to compare
    try:
        source = build_source(data.train, data.image_size, loaded.registry)
    except (MemoryError, RuntimeError) as error:
        notes.append(f"data.train cannot be opened: {error}")
        return images, classes
    return len(source), len(source.class_names)


def _built(
    loaded: LoadedRecipe, classes: int, images: int | None, notes: list[str]
) -> tuple[Networks | None, Mapping[str, float]]:
    """The networks and the FLOPs per image by stage; adds a note if one cannot be computed."""
    networks = None
    try:
        networks = build_networks(loaded.recipe, loaded.registry, classes)
        forward = count_forward(networks, loaded.recipe)
        return networks, per_image(forward, loaded.recipe, _last_step(loaded.recipe, images))
    except (NotImplementedError, RuntimeError) as error:
        failed = "built" if networks is None else "run"
        notes.append(
            f"a network cannot be {failed} on the meta device, so sizes are incomplete: {error}"
        )
        return networks, {}


def _component_sizes(networks: Networks, recipe: Recipe) -> list[ComponentSize]:
    extractor = "" if recipe.extractor is None else recipe.extractor.use
    extractor_stage = "extractor" if STAGES["extractor"].exists(recipe) else None
    generator = "" if recipe.generator is None else recipe.generator.use
    loaded = recipe.generator is not None and recipe.generator.weights is not None
    generator_stage = None if loaded else "generator"
    rows: list[_Part] = [
        ("extractor", extractor, networks.extractor, extractor_stage),
        *_tokenizer_parts(networks, recipe),
        ("generator", generator, networks.generator, generator_stage),
    ]
    return [
        _component_size(*row)
        for row in rows
        if row[2] is not None and next(row[2].parameters(), None) is not None
    ]


def _tokenizer_parts(networks: Networks, recipe: Recipe) -> list[_Part]:
    section, tokenizer = recipe.tokenizer, networks.composed
    if isinstance(section, TokenizerComponent):
        return [("tokenizer", section.use, networks.tokenizer, None)]
    assert tokenizer is not None
    encoder_stage = "encoder" if section.encoder.train is not None else None
    if section.train_encoder:
        encoder_stage = "tokenizer"
    adversarial = section.active_adversarial
    discriminator = "" if adversarial is None else adversarial.discriminator.use
    return [
        ("encoder", section.encoder.use, networks.encoder, encoder_stage),
        ("teacher", section.teacher.use if section.teacher else "", networks.teacher, None),
        ("modulator", section.modulator.use, tokenizer.delta_encoder, "tokenizer"),
        ("projector", section.bottleneck.use, tokenizer.latent_compressor, "tokenizer"),
        ("deprojector", section.bottleneck.use, tokenizer.latent_decompressor, "tokenizer"),
        ("decoder", section.decoder.use, tokenizer.decoder, "tokenizer"),
        ("discriminator", discriminator, networks.discriminator, "tokenizer"),
        ("refinement", "", networks.refiner, "refine"),
    ]


def _component_size(
    name: str, use: str, module: nn.Module | None, stage: str | None
) -> ComponentSize:
    assert module is not None
    owners = (owner for owner in module.modules() if isinstance(owner, UsesFrozen))
    frozen = [network for owner in owners for network in owner.frozen_modules().values()]
    total = sum(p.numel() for m in (module, *frozen) for p in m.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if stage is None:
        trained = 0
    elif stage in ("encoder", "extractor"):  # frozen only after its own stage
        trained = total
    return ComponentSize(name, use, trained, total - trained, stage)


def _stages(
    loaded: LoadedRecipe,
    directory: RunDirectory,
    again: Collection[str],
    images: int | None,
    memory: Mapping[str, StageMemory],
    work: Mapping[str, float],
    rates: CardRates | None,
    processes: Callable[[str], int],
) -> Iterator[StageDryRun]:
    train_settings = trainings(loaded.recipe)
    stages = planned_stages(loaded, directory.store, contents_in_cache(loaded.recipe))
    anew = downstream_stages(stages, again)
    for planned in stages.values():
        name, own_work = planned.name, work.get(planned.name)
        estimate, train = memory.get(name), train_settings.get(name)
        processed = _images_processed(loaded.recipe, name, train, images)
        flops = None if own_work is None or processed is None else own_work * processed
        state = "pending" if name in anew else directory.stage(planned).info.get("state", "pending")
        yield StageDryRun(
            stage=name,
            state=_STATES.get(state, "goes on"),
            folder=planned.folder,
            images=processed,
            memory_bytes=None if estimate is None else estimate.needed(processes(name)),
            memory_without=() if estimate is None else estimate.unknown,
            flops_per_image=own_work,
            flops=flops,
            hours=hours_of(loaded.recipe, name, flops, rates, processes(name)),
            **({} if train is None else _length(train, images)),
        )


def _length(train: TrainSettings, images: int | None) -> dict[str, Any]:
    steps, epochs = _steps(train, images), train.epochs
    if images is not None and steps is not None:
        epochs = steps * train.batch_size / images
    at_once = train.batch_size // train.accumulate
    return {"batch_size": train.batch_size, "at_once": at_once, "steps": steps, "epochs": epochs}


def _steps(train: TrainSettings, images: int | None) -> int | None:
    return train.steps if images is None else train.total_steps(images)


def _last_step(recipe: Recipe, images: int | None) -> int | None:
    """The generator's last step; 0 if its weights are loaded, None if unknown."""
    if recipe.generator is None or recipe.generator.weights is not None:
        return 0
    return _steps(recipe.generator.train, images)


def _images_processed(
    recipe: Recipe, stage: str, train: TrainSettings | None, images: int | None
) -> int | None:
    if train is not None:
        steps = _steps(train, images)
        return None if steps is None else steps * train.batch_size
    if stage == "sample" and recipe.sample is not None:
        sets = recipe.sample.sets(_last_step(recipe, images))
        return sum(wanted.settings.count for wanted in sets)
    return images if stage == "latents" and recipe.latents.written else None


# --- lr_factors -----------------------------------------------------------------------------------


def check_lr_factors(loaded: LoadedRecipe, networks: Networks, classes: int) -> Iterator[str]:
    """Check that ``lr_factors`` of every stage name prefixes of the weights it trains.

    Yields a note for each stage whose module :func:`trained_module` does not know.

    Raises:
        UsageError: no weight has such a prefix; names the key and lists the prefixes.
        PluginError: a component cannot be imported.
    """
    for name, train in trainings(loaded.recipe).items():
        if not train.lr_factors:
            continue
        with META:
            module = trained_module(name, loaded, networks, classes)
        path = dotted(STAGES[name].train_path or ())
        if module is None:
            yield f"{path}.lr_factors of stage {name} are not checked"
            continue
        try:
            parameter_factors(module, train.lr_factors)
        except UsageError as error:
            raise UsageError(f"{path}.{error}") from error


def trained_module(
    stage: str, loaded: LoadedRecipe, networks: Networks, classes: int
) -> nn.Module | None:
    """A module whose weights are named as in the stage; None if the stage is unknown here."""
    recipe, tokenizer = loaded.recipe, networks.composed
    if stage in ("extractor", "encoder"):
        encoder = networks.extractor if stage == "extractor" else networks.encoder
        assert encoder is not None
        return encoder.pretraining(classes)
    if stage == "refine":
        assert networks.refiner is not None
        assert networks.encoder is not None
        return RefinementObjective(networks.refiner, networks.encoder)
    if stage == "tokenizer":
        assert tokenizer is not None
        terms = build_regularizers(recipe.tokenizer_section, loaded.registry, tokenizer)
        regularizers = NamedModules({term.name: term.regularizer for term in terms})
        return NamedModules({"tokenizer": tokenizer, "regularizers": regularizers})
    if stage == "generator":
        assert recipe.generator is not None
        assert networks.generator is not None
        return FlowObjective(networks.generator, recipe.generator.objective)
    return None
