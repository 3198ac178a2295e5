"""The table of stages: everything the rest of the code needs to know about each. No torch.

To add a stage, write its file in ``pae_framework/stages/`` with ``run(context)`` and add one row to
``STAGES``. Plan, checks, dry run and smoke run iterate over the table; the status of a run is read
from its recorded plan. A stage may also have rules, by its name, in:

- :mod:`pae_framework.preflight.memory` and :mod:`pae_framework.dry_run.flops`: estimates; without a
  rule they are shown as not counted.
- :mod:`pae_framework.dry_run.summary`: the module it trains, to check ``lr_factors`` (without it, a
  note says that they are not checked), and the images it processes if it does not train.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pae_framework.config import HASHED_KERNELS, Settings
from pae_framework.data.data_settings import LATENT_FILES, STATISTICS
from pae_framework.recipe.components import EncoderComponent, TeacherComponent, TokenizerComponent
from pae_framework.recipe.models import Recipe, TokenizerSection
from pae_framework.recipe.nodes import KeyPath
from pae_framework.system.files import file_identity
from pae_framework.training.train_settings import TrainSettings
from pae_framework.weight_parts import contents_identity

Values = dict[str, Any]

EXPORTED_AVERAGES = ("generator", "tokenizer")
"""Stages of whose averages ``pae export ema`` writes others: recipes can load their weights."""
_SHARD_EDGE = 1 << 18
"""Bytes hashed at each end of a shard; small because there can be hundreds."""


_WRITTEN_AT: dict[str, KeyPath] = {
    "image_size": ("data", "image_size"),
    "train_images": ("data", "train"),
    "flip": ("data", "flip"),
    "test": ("data", "test"),
    "test_images": ("data", "test_images"),
    **{
        key: ("tokenizer", key)
        for key in (
            *("encoder", "modulator", "bottleneck", "decoder", "refinement", "reconstruction"),
            *("regularizers", "adversarial", "teacher", "target", "noise"),
            *("train_encoder", "initial_weights", "train"),
        )
    },
    "statistics": ("latents", "statistics"),
    "folder": ("latents", "folder"),
    "stored": ("latents", "stored"),
    "precision": ("latents", "precision"),
    "autoguidance": ("sample", "guidance", "autoguidance"),
    "pool": ("extractor", "pool"),
    "text": ("description",),
}
"""Key of hashed values -> key path in a recipe, if they differ; see :meth:`Stage.written_at`."""


def _always(recipe: Recipe) -> bool:
    return True


def _nothing(recipe: Recipe) -> tuple[str, ...]:
    return ()


def _section(recipe: Recipe, path: tuple[str, ...]) -> Any:
    """The value at a key path; None if a section of the path is absent."""
    found: Any = recipe
    for key in path:
        found = getattr(found, key, None)
    return found


@dataclass(frozen=True)
class Stage:
    """One stage: a row of the table."""

    name: str
    run: str
    """Import string of its function, ``module:function``, which takes a ``StageContext``."""
    hashed_values: Callable[[Recipe], Values]
    """Values of the recipe that determine its result; their hash is part of its fingerprint."""
    inputs: Callable[[Recipe], tuple[str, ...]]
    """Stages whose results it reads; stages absent from the recipe are ignored."""
    reads: Callable[[Recipe], tuple[KeyPath, ...]]
    """Sections whose data and weights must be on this machine when it runs."""
    writes: Callable[[Recipe], tuple[str, ...]] = _nothing
    """Files that it must have written when it is done, besides those of a training."""
    exists: Callable[[Recipe], bool] = _always
    """Whether a recipe has this stage."""
    train_path: tuple[str, ...] | None = None
    """Key path of its ``TrainSettings``; None: it never trains."""
    version: int = 1
    """Increase it if new code computes a different result from the same inputs."""

    def written_at(self, key: str, recipe: Recipe) -> KeyPath:
        """Key path at which a recipe writes the value ``key`` of :attr:`hashed_values`."""
        if key == "component" and self.train_path:
            return self.train_path[:-1]
        if key == "weights":
            return (self.name, key)
        if key == "seed" and self.train_path and (train := self.train(recipe)):
            return ("seed",) if train.seed is None else (*self.train_path, "seed")
        return _WRITTEN_AT.get(key, (key,))

    def function(self) -> Callable[[Any], None]:
        """Import the function that runs the stage."""
        module, _, name = self.run.partition(":")
        function: Callable[[Any], None] = getattr(importlib.import_module(module), name)
        return function

    def train(self, recipe: Recipe) -> TrainSettings | None:
        """Settings of its training; None if it does not train, e.g. because weights are loaded."""
        if self.train_path is None or not self.exists(recipe):
            return None
        section = _section(recipe, self.train_path[:-1])
        loaded = getattr(section, "weights", None) is not None
        return None if loaded else self.stated_train(recipe)

    def stated_train(self, recipe: Recipe) -> TrainSettings | None:
        """The settings at ``train_path``, whether or not it trains; None if there are none."""
        return _section(recipe, self.train_path) if self.train_path else None

    def leaves(self, recipe: Recipe) -> tuple[str, ...]:
        """Files that must be in its folder when it is done, as far as the recipe tells."""
        train = self.train(recipe)
        steps = () if train is None else train.keep_steps
        kept = tuple(f"weights-step{step:06d}.safetensors" for step in steps)
        trained = () if train is None else ("weights.safetensors", *kept)
        return tuple(dict.fromkeys((*trained, *self.writes(recipe))))

    def needs(self, path: KeyPath, recipe: Recipe) -> bool:
        """Whether the stage reads the section or component of the recipe at ``path``."""
        return any(path[: len(section)] == section for section in self.reads(recipe))


def trainings(recipe: Recipe) -> dict[str, TrainSettings]:
    """Settings of every stage that trains in a recipe, by stage, in the order they run."""
    found = {stage.name: stage.train(recipe) for stage in STAGES.values()}
    return {name: train for name, train in found.items() if train is not None}


def guide_weights(autoguidance: str) -> Path:
    """The weights that ``sample.guidance.autoguidance`` names: a file, or those of a run."""
    path = Path(autoguidance).expanduser()
    return path if path.is_file() else generator_weights(path)


def generator_weights(run: str | Path) -> Path:
    """File of the finished generator of the run in a directory."""
    return Path(run).expanduser() / "generator" / "weights.safetensors"


# --- values that are hashed -----------------------------------------------------------------------


def _images(recipe: Recipe) -> Values:
    data = recipe.data
    return {"image_size": data.image_size, "train_images": data.train, "flip": data.flip}


def _seed(recipe: Recipe, train: TrainSettings | None) -> Values:
    return {"seed": recipe.seed if train is None or train.seed is None else train.seed}


def _contents(file: str) -> str:
    """Identity of the contents of weights or statistics; their name if there is no such file."""
    path = Path(file).expanduser()
    return contents_identity(path) or file


def _folder_contents(folder: str) -> dict[str, str] | str:
    """Identities of the latents and statistics in a folder; its name if there are none."""
    paths = sorted(Path(folder).expanduser().glob(LATENT_FILES))
    files = [path for path in paths if path.is_file()]
    return {path.name: file_identity(path, _SHARD_EDGE) for path in files} or folder


def _changed(section: Settings, *keys: str) -> Values:
    """The values of ``keys`` that differ from their defaults."""
    fields = type(section).model_fields
    values = {key: getattr(section, key) for key in keys}
    return {key: value for key, value in values.items() if value != fields[key].default}


def _with_batch_of_1(section: Settings) -> Values:
    """Version 0.1.0 hashed a batch size of 1 in place of the one in use; its runs stay valid."""
    keys = type(section).model_fields.keys() - section.without_effect
    return {**_changed(section, *keys), "batch_size": 1}


def _attention(tokenizer: TokenizerSection) -> Values:
    """The kernel of the layers around the bottleneck, if there are any and it counts."""
    counts = tokenizer.attention in HASHED_KERNELS["attention"]
    return (
        _changed(tokenizer, "attention") if tokenizer.bottleneck.config.projects and counts else {}
    )


def _extractor(recipe: Recipe) -> Values:
    """Without what only the evaluation uses."""
    assert recipe.extractor is not None
    unused = dict.fromkeys(recipe.extractor.hashed_if_set)
    return _pretraining(recipe, recipe.extractor.model_copy(update=unused))


def _pretraining(recipe: Recipe, encoder: EncoderComponent | None) -> Values:
    assert encoder is not None
    return {**_images(recipe), "component": encoder, **_seed(recipe, encoder.train)}


def _refine(recipe: Recipe) -> Values:
    tokenizer = recipe.composed
    assert tokenizer is not None
    assert tokenizer.refinement is not None
    return {
        **_images(recipe),
        "encoder": tokenizer.encoder,
        "bottleneck": tokenizer.bottleneck,
        "refinement": tokenizer.refinement,
        **_attention(tokenizer),
        **_seed(recipe, tokenizer.refinement.train),
    }


def _tokenizer(recipe: Recipe) -> Values:
    tokenizer = recipe.tokenizer
    if isinstance(tokenizer, TokenizerComponent):
        return {
            "image_size": recipe.data.image_size,
            "component": tokenizer.model_copy(update={"lpips": None}),
        }
    networks = {
        "encoder": tokenizer.encoder,
        "modulator": tokenizer.modulator,
        "bottleneck": tokenizer.bottleneck,
        "decoder": tokenizer.decoder,
        **_changed(tokenizer, "train_encoder"),
        **_attention(tokenizer),
    }
    if tokenizer.weights is not None:
        weights = _contents(tokenizer.weights)
        return {"image_size": recipe.data.image_size, **networks, "weights": weights}
    values = {
        **networks,
        "reconstruction": tokenizer.reconstruction,
        "regularizers": tokenizer.regularizers,
        "train": tokenizer.train,
        **_changed(tokenizer, "teacher", "target", "noise"),
    }
    if tokenizer.active_adversarial is not None:
        values["adversarial"] = tokenizer.active_adversarial
    if tokenizer.initial_weights is not None:
        values["initial_weights"] = _contents(tokenizer.initial_weights)
    return {**_images(recipe), **values, **_seed(recipe, tokenizer.train)}


def _tokenizer_inputs(recipe: Recipe) -> tuple[str, ...]:
    """The refinement reaches the tokenizer only through a regularizer that uses its target."""
    refined = recipe.composed is not None and recipe.composed.active_target == "refined"
    return ("encoder", "teacher", "refine") if refined else ("encoder", "teacher")


def _latents(recipe: Recipe) -> Values:
    settings = recipe.latents
    if settings.statistics is not None:
        return {"statistics": _contents(settings.statistics)}
    if settings.folder is not None:
        return {"folder": _folder_contents(settings.folder), "flip": recipe.data.flip}
    return {**_images(recipe), "latents": _with_batch_of_1(settings)}


def _generator(recipe: Recipe) -> Values:
    component = recipe.generator
    assert component is not None
    if component.weights is not None:
        untrained = {"weights": None, "train": None, "objective": None}
        network = component.model_copy(update=untrained)
        return {"generator": network, "weights": _contents(component.weights)}
    values = {"generator": component, **_seed(recipe, component.train)}
    if encodes_in_training(recipe):
        values |= {**_images(recipe), **_changed(recipe.latents, "stored", "precision")}
    return values


def encodes_in_training(recipe: Recipe) -> bool:
    """Whether the generator encodes images as it trains."""
    generator = recipe.generator
    return generator is not None and generator.weights is None and not recipe.latents.stored


def _generator_inputs(recipe: Recipe) -> tuple[str, ...]:
    return ("encoder", "tokenizer", "latents") if encodes_in_training(recipe) else ("latents",)


def _generator_reads(recipe: Recipe) -> tuple[KeyPath, ...]:
    if encodes_in_training(recipe):
        return (_TRAIN, *_networks(recipe), ("generator",))
    return (*_train_images_to_count(recipe), ("generator",))


def _sample(recipe: Recipe) -> Values:
    settings = recipe.sample
    assert settings is not None
    if (run := settings.guidance.autoguidance) is None:
        return {"sample": _with_batch_of_1(settings)}
    weights = guide_weights(run)
    guidance = settings.guidance.model_copy(update={"autoguidance": None})
    values = {
        "sample": _with_batch_of_1(settings.model_copy(update={"guidance": guidance})),
        "autoguidance": contents_identity(weights) or run,
    }
    return values | ({"guide": recipe.guide} if _has_imported_guide(recipe) else {})


def _has_imported_guide(recipe: Recipe) -> bool:
    """Whether ``sample.guidance.autoguidance`` names a file."""
    named = None if recipe.sample is None else recipe.sample.guidance.autoguidance
    return named is not None and Path(named).expanduser().is_file()


def _evaluate(recipe: Recipe) -> Values:
    values = {
        "evaluate": recipe.evaluate,
        "image_size": recipe.data.image_size,
        **_test_images(recipe),
    }
    tokenizer = recipe.tokenizer
    if isinstance(tokenizer, TokenizerComponent):
        values |= {"lpips": tokenizer.lpips} if tokenizer.lpips is not None else {}
    elif tokenizer.weights is not None:  # else the tokenizer's fingerprint covers it
        values["reconstruction"] = tokenizer.reconstruction
    extractor = recipe.extractor
    if extractor is not None and extractor.train is None:  # it has no stage
        values["extractor"] = extractor
    elif extractor is not None and extractor.pool is not None:
        values["pool"] = extractor.pool
    if _evaluates_training_images(recipe):
        values["train_images"] = recipe.data.train
    return values


def _evaluates_training_images(recipe: Recipe) -> bool:
    return any("training_images" in one.config.needs for one in recipe.evaluate.values())


def _report(recipe: Recipe) -> Values:
    return {"name": recipe.name, "text": recipe.description, **_test_images(recipe)}


def _test_images(recipe: Recipe) -> Values:
    data = recipe.data
    return {"test": data.test, "test_images": data.test_images, "seed": recipe.seed}


# --- the table ------------------------------------------------------------------------------------

_TRAIN, _TEST = ("data", "train"), ("data", "test")
_NETWORKS = ("encoder", "modulator", "bottleneck", "decoder")
_TERMS: tuple[KeyPath, ...] = tuple(
    ("tokenizer", name) for name in ("reconstruction", "regularizers", "teacher", "adversarial")
)
_EVALUATORS: tuple[KeyPath, ...] = (("extractor",), ("tokenizer", "reconstruction"), ("evaluate",))


def _networks(recipe: Recipe) -> tuple[KeyPath, ...]:
    """The tokenizer: the networks of a composed one, or the component."""
    if recipe.composed is None:
        return (("tokenizer",),)
    return tuple(("tokenizer", name) for name in _NETWORKS)


def _tokenizer_reads(recipe: Recipe) -> tuple[KeyPath, ...]:
    trained = recipe.composed is not None and recipe.composed.weights is None
    return (_TRAIN, *_networks(recipe), *_TERMS) if trained else _networks(recipe)


def _refines(recipe: Recipe) -> bool:
    tokenizer = recipe.composed
    return (
        tokenizer is not None
        and tokenizer.refinement is not None
        and tokenizer.weights is None
        and tokenizer.target == "refined"
    )


def _encoder(recipe: Recipe) -> EncoderComponent | None:
    """The encoder of a composed tokenizer."""
    return None if recipe.composed is None else recipe.composed.encoder


def _trains_encoder(recipe: Recipe) -> bool:
    encoder = _encoder(recipe)
    return encoder is not None and encoder.train is not None


def _teacher(recipe: Recipe) -> TeacherComponent | None:
    """The teacher of a composed tokenizer."""
    return None if recipe.composed is None else recipe.composed.teacher


def _trains_teacher(recipe: Recipe) -> bool:
    section, teacher = recipe.composed, _teacher(recipe)
    trained = teacher is not None and teacher.train is not None
    return trained and section is not None and section.weights is None


def _sample_reads(recipe: Recipe) -> tuple[KeyPath, ...]:
    """With the training images if their number gives the last step of the generator."""
    trained = recipe.generator is not None and recipe.generator.weights is None
    images = (_TRAIN,) if trained else _train_images_to_count(recipe)
    guide: tuple[KeyPath, ...] = (("guide",),) if _has_imported_guide(recipe) else ()
    return (*images, *_networks(recipe), ("generator",), *guide, ("sample",))


def _compares_train_latents(recipe: Recipe) -> bool:
    """Whether an evaluator reads the latents of the training images."""
    return any("train_latents" in entry.config.needs for entry in recipe.evaluate.values())


def _evaluate_inputs(recipe: Recipe) -> tuple[str, ...]:
    latents = ("latents",) if _compares_train_latents(recipe) else ()
    return ("extractor", "encoder", "tokenizer", *latents, "sample")


def _train_images_to_encode(recipe: Recipe) -> tuple[KeyPath, ...]:
    """The training images, if the run encodes them or must count their classes."""
    return (_TRAIN,) if recipe.latents.encoded else _train_images_to_count(recipe)


def _train_images_to_count(recipe: Recipe) -> tuple[KeyPath, ...]:
    """The training images, if their classes must be counted."""
    return (_TRAIN,) if recipe.data.train.config.expected() is None else ()


def _evaluate_reads(recipe: Recipe) -> tuple[KeyPath, ...]:
    train = (_TRAIN,) if _evaluates_training_images(recipe) else ()
    return (_TEST, *train, *_networks(recipe), *_EVALUATORS)


_ROWS = (
    Stage(
        name="extractor",
        run="pae_framework.stages.pretrain:run",
        exists=lambda recipe: recipe.extractor is not None and recipe.extractor.train is not None,
        hashed_values=_extractor,
        inputs=lambda recipe: (),
        writes=lambda recipe: ("encoder.safetensors",),
        reads=lambda recipe: (_TRAIN, ("extractor",)),
        train_path=("extractor", "train"),
    ),
    Stage(
        name="encoder",
        run="pae_framework.stages.pretrain:run",
        exists=_trains_encoder,
        hashed_values=lambda recipe: _pretraining(recipe, _encoder(recipe)),
        inputs=lambda recipe: (),
        writes=lambda recipe: ("encoder.safetensors",),
        reads=lambda recipe: (_TRAIN, ("tokenizer", "encoder")),
        train_path=("tokenizer", "encoder", "train"),
    ),
    Stage(
        name="teacher",
        run="pae_framework.stages.pretrain:run",
        exists=_trains_teacher,
        hashed_values=lambda recipe: _pretraining(recipe, _teacher(recipe)),
        inputs=lambda recipe: (),
        writes=lambda recipe: ("encoder.safetensors",),
        reads=lambda recipe: (_TRAIN, ("tokenizer", "teacher")),
        train_path=("tokenizer", "teacher", "train"),
    ),
    Stage(
        name="refine",
        run="pae_framework.stages.refine:run",
        exists=_refines,
        hashed_values=_refine,
        inputs=lambda recipe: ("encoder",),
        reads=lambda recipe: (_TRAIN, *_networks(recipe), ("tokenizer", "refinement")),
        train_path=("tokenizer", "refinement", "train"),
    ),
    Stage(
        name="tokenizer",
        run="pae_framework.stages.tokenizer:run",
        hashed_values=_tokenizer,
        inputs=_tokenizer_inputs,
        writes=lambda recipe: ("tokenizer.safetensors",),
        reads=_tokenizer_reads,
        train_path=("tokenizer", "train"),
    ),
    Stage(
        name="latents",
        run="pae_framework.stages.latents:run",
        exists=lambda recipe: recipe.generator is not None or _compares_train_latents(recipe),
        hashed_values=_latents,
        inputs=lambda recipe: ("encoder", "tokenizer"),
        writes=lambda recipe: STATISTICS,
        reads=lambda recipe: (*_train_images_to_encode(recipe), *_networks(recipe), ("latents",)),
    ),
    Stage(
        name="generator",
        run="pae_framework.stages.generator:run",
        exists=lambda recipe: recipe.generator is not None,
        hashed_values=_generator,
        inputs=_generator_inputs,
        writes=lambda recipe: ("weights.safetensors",),
        reads=_generator_reads,
        train_path=("generator", "train"),
    ),
    Stage(
        name="sample",
        run="pae_framework.stages.sample:run",
        exists=lambda recipe: recipe.sample is not None and recipe.generator is not None,
        hashed_values=_sample,
        inputs=lambda recipe: ("encoder", "tokenizer", "latents", "generator"),
        writes=lambda recipe: ("sets.json",),
        reads=_sample_reads,
    ),
    Stage(
        name="evaluate",
        run="pae_framework.stages.evaluate:run",
        exists=lambda recipe: bool(recipe.evaluate),
        hashed_values=_evaluate,
        inputs=_evaluate_inputs,
        writes=lambda recipe: ("results.json",),
        reads=_evaluate_reads,
    ),
    Stage(
        name="report",
        run="pae_framework.stages.report:run",
        hashed_values=_report,
        inputs=lambda recipe: tuple(name for name in STAGES if name != "report"),
        writes=lambda recipe: ("report.html",),
        reads=lambda recipe: (_TEST, *_networks(recipe), *_train_images_to_count(recipe)),
    ),
)
STAGES: dict[str, Stage] = {stage.name: stage for stage in _ROWS}
"""Every stage by its name, in the order they run."""
