"""Checks of sampling and evaluation. No torch."""

from __future__ import annotations

from collections.abc import Iterator

from pae_framework.config import EvaluatorConfig
from pae_framework.errors import Inconsistency
from pae_framework.flow.flow_settings import ConvergenceSettings, Guidance, SampleSettings
from pae_framework.recipe.checks.loss_checks import label_problem
from pae_framework.recipe.components import GeneratorComponent
from pae_framework.recipe.derived import known_classes, known_steps
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath

_SMALL_SETS: KeyPath = ("sample", "convergence")
_VARIANTS: KeyPath = ("sample", "variants")


def check_sampling(recipe: Recipe) -> Iterator[Inconsistency]:
    """The recipe has a generator, keeps the weights to sample, and guidance has an effect."""
    sample, generator = recipe.sample, recipe.generator
    if sample is None:
        return
    if generator is None:
        hint = "add `generator` or set sample=null"
        yield Inconsistency(("sample",), "the recipe has no generator to sample from", hint)
        return
    yield from _check_at_steps(sample.at_steps, generator, known_steps(generator.train, recipe))
    yield from _check_guidance(sample.guidance, generator, ("sample",))
    if sample.convergence is not None:
        yield from _check_guidance(sample.convergence.guidance, generator, _SMALL_SETS)
    for label, variant in sample.variants.items():
        section = (*_VARIANTS, label)
        if (problem := label_problem(label)) is not None:
            yield Inconsistency(section, problem, "rename it, e.g. `unguided`")
        if variant.guidance is not None:
            yield from _check_guidance(variant.guidance, generator, section)


def _check_at_steps(
    at_steps: tuple[int, ...], generator: GeneratorComponent, last: int | None
) -> Iterator[Inconsistency]:
    path: KeyPath = ("sample", "at_steps")
    if generator.weights is not None:
        if at_steps:
            message = "generator.weights has the weights of one step only"
            yield Inconsistency(path, message, "set sample.at_steps=[]")
        return
    keep_steps = generator.train.keep_steps
    lost = [
        step
        for step in at_steps
        if step not in (*keep_steps, last) or (last is not None and step > last)
    ]
    if not lost:
        return
    if last is None or max(lost) <= last:
        remedy = f"generator.train.keep_steps={sorted({*keep_steps, *lost})}"
    else:
        remedy = f"sample.at_steps={[step for step in at_steps if step not in lost]}"
    message = f"no weights are kept at generator step {', '.join(map(str, lost))}"
    yield Inconsistency(path, message, f"set {remedy}")


def _check_guidance(
    guidance: Guidance, generator: GeneratorComponent, section: KeyPath
) -> Iterator[Inconsistency]:
    path = (*section, "guidance", "scale")
    name = ".".join(map(str, path))
    if guidance.autoguidance is not None:
        if guidance.scale == 1:
            hint = f"set {name} above 1 or sample.guidance.autoguidance=null"
            yield Inconsistency(path, "autoguidance has no effect at scale 1", hint)
    elif guidance.scale > 1:
        if not generator.config.conditional:
            message = f"{generator.use!r} ignores labels, so classifier-free guidance has no effect"
            hint = f"set {name}=1"
            if section == ("sample",):
                hint += " or name a run or file in sample.guidance.autoguidance"
            yield Inconsistency(path, message, hint)
        elif generator.objective.label_drop == 0:
            message = "guidance needs an unconditional velocity, but label_drop is 0"
            hint = f"set generator.objective.label_drop=0.1 or {name}=1"
            yield Inconsistency(path, message, hint)


def check_images(recipe: Recipe) -> Iterator[Inconsistency]:
    """There are as many test images and samples as the recipe evaluates."""
    test, chosen = recipe.data.test.config.image_count(), recipe.data.test_images
    if test is not None and chosen is not None and chosen > test:
        message = f"data.test has {test} images, fewer than {chosen}"
        yield Inconsistency(("data", "test_images"), message, "set data.test_images=null")
    # A smaller choice of test images limits evaluators without an error. Latents of a folder need
    # not be of the training images.
    train = None if recipe.latents.folder is not None else recipe.data.train.config.image_count()
    for label, evaluator in recipe.evaluate.items():
        try:
            if test is not None:
                evaluator.config.check_images(test)
            if train is not None:
                evaluator.config.check_training_images(train)
        except ValueError as error:
            yield Inconsistency(("evaluate", label), str(error))
    yield from _check_classes_of_samples(recipe)


def _check_classes_of_samples(recipe: Recipe) -> Iterator[Inconsistency]:
    """Balanced samples that are compared with test images are of every class."""
    classes, sample = known_classes(recipe), recipe.sample
    evaluated = any("samples" in evaluator.config.needs for evaluator in recipe.evaluate.values())
    if not evaluated or sample is None or sample.labels != "balanced" or classes is None:
        return
    sections: list[tuple[KeyPath, SampleSettings | ConvergenceSettings]] = [(("sample",), sample)]
    if sample.convergence is not None:
        sections.append((_SMALL_SETS, sample.convergence))
    for section, settings in sections:
        if settings.count < classes:
            message = f"{settings.count} balanced samples are fewer than the {classes} classes"
            hint = f"set {'.'.join(map(str, section))}.count={classes}"
            yield Inconsistency((*section, "count"), message, hint)


def check_evaluators(recipe: Recipe) -> Iterator[Inconsistency]:
    """The recipe has what each evaluator needs."""
    test = recipe.data.test
    for label, evaluator in recipe.evaluate.items():
        needs, path = evaluator.config.needs, ("evaluate", label)
        if "samples" in needs and (recipe.generator is None or recipe.sample is None):
            absent = "generator" if recipe.generator is None else "sample"
            message = f"{evaluator.use!r} evaluates samples, but the recipe has no `{absent}`"
            yield Inconsistency(path, message, f"add `{absent}` or set evaluate.{label}=null")
        if "extractor" in needs and recipe.extractor is None:
            message = f"{evaluator.use!r} compares features, but the recipe has no `extractor`"
            yield Inconsistency(path, message, f"add `extractor` or set evaluate.{label}=null")
        if "train_latents" in needs and not recipe.latents.stored:
            message = f"{evaluator.use!r} compares latents, but latents.stored is false"
            yield Inconsistency(path, message, f"set evaluate.{label}=null or latents.stored=true")
        elif "train_latents" in needs and recipe.latents.statistics is not None:
            message = f"{evaluator.use!r} compares latents, but latents.statistics replaces them"
            yield Inconsistency(path, message, f"set evaluate.{label}=null")
        if "masks" in needs and not test.config.has_masks():
            message = f"{evaluator.use!r} needs images with masks, but {test.use!r} has none"
            hint = _without_masks(label, evaluator.config)
            if "masks" in type(test.config).model_fields:
                hint = f"name their folder in data.test.masks, or {hint}"
            yield Inconsistency(path, message, hint)


def _without_masks(label: str, config: EvaluatorConfig) -> str:
    """How to do without masks: by the one setting that needs them, or without the evaluator."""
    for name in type(config).model_fields:
        if getattr(config, name) is True:
            other = config.model_copy(update={name: False})
            if "masks" not in other.needs:
                return f"set evaluate.{label}.{name}=false"
    return f"set evaluate.{label}=null"
