"""Checks that the parts of a recipe agree, before any of them is built. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pae_framework.config import DecoderConfig, GeneratorConfig, LatentShape, RegularizerConfig
from pae_framework.flow.flow_settings import Guidance
from pae_framework.recipe.components import GeneratorComponent
from pae_framework.recipe.labels import RESERVED, label_fault
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.nodes import KeyPath
from pae_framework.training.train_settings import Length, TrainSettings


@dataclass(frozen=True)
class Inconsistency:
    """Two parts of a recipe that cannot both be right."""

    path: KeyPath
    message: str
    hint: str = ""


def inconsistencies(recipe: Recipe) -> list[Inconsistency]:
    """Everything in a valid recipe that does not fit together."""
    return [
        *_labels(recipe),
        *_shapes(recipe),
        *_encoder_training(recipe),
        *_regularizers(recipe),
        *_reconstruction(recipe),
        *_adversarial(recipe),
        *_something_to_learn(recipe),
        *_training_steps(recipe),
        *_statistics(recipe),
        *_classes(recipe),
        *_sampling(recipe),
        *_evaluators(recipe),
    ]


def _labels(recipe: Recipe) -> Iterator[Inconsistency]:
    """Labels can name what they stand for: a term in the log, a folder of results."""
    for section, labelled, reserved in (
        (("tokenizer", "regularizers"), recipe.tokenizer.regularizers, RESERVED),
        (("evaluate",), recipe.evaluate, frozenset[str]()),
    ):
        for label, component in labelled.items():
            if (fault := label_fault(label, reserved)) is not None:
                hint = f"give it another label and say `use: {component.use}`"
                yield Inconsistency((*section, label), fault, hint)


def _shapes(recipe: Recipe) -> Iterator[Inconsistency]:
    """Image size, patches, token grid, latent channels: from the pixels to the generator."""
    tokenizer, size = recipe.tokenizer, recipe.data.image_size
    if recipe.extractor is not None:
        try:
            recipe.extractor.config.token_grid(size)
        except ValueError as error:
            yield Inconsistency(("extractor",), str(error))
    try:
        grid = tokenizer.encoder.config.token_grid(size)
        width = tokenizer.encoder.config.token_width()
    except ValueError as error:
        yield Inconsistency(("tokenizer", "encoder"), str(error))
        return
    try:
        decoded = tokenizer.decoder.config.image_size(grid)
        if decoded != size:
            yield Inconsistency(
                ("tokenizer", "decoder"),
                f"decodes {grid} x {grid} tokens to {decoded} px, but images have {size} px",
                "encoder, decoder and data.image_size must agree",
            )
    except ValueError as error:
        yield Inconsistency(("tokenizer", "decoder"), str(error))
    yield from _heads(recipe, width)
    yield from _widths(recipe, width)
    yield from _latents(
        recipe, LatentShape(tokenizer.bottleneck.config.latent_channels(width), grid)
    )


def _latents(recipe: Recipe, latent: LatentShape) -> Iterator[Inconsistency]:
    """Decoder, regularizers and generator can work on the latents."""
    takers: list[tuple[KeyPath, DecoderConfig | RegularizerConfig | GeneratorConfig]] = [
        (("tokenizer", "decoder"), recipe.tokenizer.decoder.config)
    ]
    takers += [
        (("tokenizer", "regularizers", label), regularizer.config)
        for label, regularizer in recipe.tokenizer.active_regularizers.items()
    ]
    if recipe.generator is not None:
        takers.append((("generator",), recipe.generator.config))
    for path, config in takers:
        try:
            config.check_latent(latent)
        except ValueError as error:
            yield Inconsistency(path, str(error))


def _heads(recipe: Recipe, width: int) -> Iterator[Inconsistency]:
    """Attention heads, stated or the encoder's, divide the width they work on."""
    modulator, refinement = recipe.tokenizer.modulator.config, recipe.tokenizer.refinement
    own = recipe.tokenizer.encoder.config.token_heads()
    if own is not None and width % own:
        message = f"its {own} heads do not divide its width {width}"
        yield Inconsistency(("tokenizer", "encoder"), message)
        return
    stated: list[tuple[KeyPath, int | None, int]] = []
    if modulator.attends:
        stated.append((("tokenizer", "modulator", "heads"), modulator.stated_heads(), width))
    if refinement is not None:
        across = refinement.width or width
        stated.append((("tokenizer", "refinement", "heads"), refinement.heads, across))
    for path, heads, across in stated:
        if heads is not None and across % heads:
            yield Inconsistency(path, f"{heads} heads do not divide the width {across}")
        elif heads is None and own is not None and across % own:
            message = f"the encoder's {own} heads do not divide the width {across}"
            yield Inconsistency(path, message, f"give `heads` that divide {across}")


def _widths(recipe: Recipe, width: int) -> Iterator[Inconsistency]:
    """Sine-cosine positions need a width divisible by 4."""
    if width % 4 == 0:
        return
    message = f"its positions need a width divisible by 4, the encoder's is {width}"
    if recipe.tokenizer.modulator.config.attends:
        yield Inconsistency(("tokenizer", "modulator"), message, "use the modulator `none`")
    refinement = recipe.tokenizer.refinement
    if refinement is not None and refinement.width is None:
        hint = "give `width`, a multiple of 4"
        yield Inconsistency(("tokenizer", "refinement"), message, hint)


def _encoder_training(recipe: Recipe) -> Iterator[Inconsistency]:
    """Encoders that train themselves say how; ready-made ones do not."""
    encoder, extractor = recipe.tokenizer.encoder, recipe.extractor
    path = ("tokenizer", "encoder")
    if encoder.config.trainable and encoder.train is None:
        yield Inconsistency(
            path, f"{encoder.use!r} is trained in the run", "it needs a `train` map"
        )
    if not encoder.config.trainable and encoder.train is not None:
        yield Inconsistency(
            (*path, "train"), f"{encoder.use!r} comes trained and is frozen", "remove `train`"
        )
    if extractor is None:
        return
    if not extractor.config.trainable:
        hint = "an extractor must be an encoder that is trained in the run"
        yield Inconsistency(("extractor",), f"{extractor.use!r} does not train itself", hint)
    elif extractor.train is None:
        message = f"{extractor.use!r} is trained in the run"
        yield Inconsistency(("extractor",), message, "it needs a `train` map")


def _regularizers(recipe: Recipe) -> Iterator[Inconsistency]:
    """Active terms find what they work on."""
    tokenizer = recipe.tokenizer
    bottleneck = tokenizer.bottleneck
    for label, regularizer in tokenizer.active_regularizers.items():
        path = ("tokenizer", "regularizers", label)
        refined = tokenizer.target == "refined"
        if regularizer.config.needs_target and refined and tokenizer.refinement is None:
            message = "pulls towards the refined prior, but the recipe refines none"
            hint = "add `tokenizer.refinement`, or say `tokenizer.target: raw`"
            yield Inconsistency(path, message, hint)
        if regularizer.config.needs_moments and not bottleneck.config.has_moments:
            message = f"needs latents with a mean and a variance, {bottleneck.use!r} has none"
            yield Inconsistency(path, message, "use the bottleneck `gaussian`")
    if tokenizer.refinement is not None and not bottleneck.config.projects:
        message = f"the bottleneck {bottleneck.use!r} does not project, so nothing can be refined"
        yield Inconsistency(("tokenizer", "refinement"), message, "remove one of the two")


def _reconstruction(recipe: Recipe) -> Iterator[Inconsistency]:
    """Reconstruction terms can compare images of this size."""
    size = recipe.data.image_size
    for name, term in recipe.tokenizer.reconstruction.active_terms.items():
        if size < term.smallest_image:
            path = ("tokenizer", "reconstruction", name)
            least = term.smallest_image
            message = f"compares images of {least} px or more, but data.image_size is {size}"
            yield Inconsistency(path, message, f"set {'.'.join(path)}.weight=0")


def _adversarial(recipe: Recipe) -> Iterator[Inconsistency]:
    """The discriminator can take the images, learns before it counts, and can be balanced."""
    section = recipe.tokenizer.active_adversarial
    if section is None:
        return
    path = ("tokenizer", "adversarial")
    try:
        section.discriminator.config.check_image_size(recipe.data.image_size)
    except ValueError as error:
        yield Inconsistency((*path, "discriminator"), str(error))
    if section.start.before(section.update_from):
        message = "the term counts before its discriminator begins to learn (`update_from`)"
        yield Inconsistency((*path, "start"), message, "start at `update_from` or later")
    train, trained = recipe.tokenizer.train, recipe.tokenizer.weights is None
    end = Length(steps=train.steps, epochs=train.epochs)
    for key, what in (("start", "the term counts"), ("update_from", "its discriminator learns")):
        if trained and getattr(section, key).reaches(end):
            hint = "give an earlier point, or train longer"
            yield Inconsistency((*path, key), f"the training ends before {what}", hint)
    if section.adaptive and not recipe.tokenizer.reconstruction.active_terms:
        message = "is measured by the reconstruction terms, which all have weight 0"
        yield Inconsistency((*path, "adaptive"), message, "say `adaptive: false`")


def _something_to_learn(recipe: Recipe) -> Iterator[Inconsistency]:
    """The tokenizer's loss has a term with a gradient; no term is 0 for want of a distance."""
    tokenizer, active = recipe.tokenizer, recipe.tokenizer.active_regularizers
    reconstructs = bool(tokenizer.reconstruction.active_terms)
    blind = [label for label, r in active.items() if r.config.needs_distance and not reconstructs]
    for label in blind:
        message = "compares images by the reconstruction terms, which all have weight 0"
        hint = "give `tokenizer.reconstruction.l1` a weight, or this term none"
        yield Inconsistency(("tokenizer", "regularizers", label), message, hint)
    if not (reconstructs or tokenizer.active_adversarial or active):
        message = "every term of the tokenizer's loss has weight 0"
        hint = "set tokenizer.reconstruction.l1=1, or give another term or a regularizer a weight"
        yield Inconsistency(("tokenizer", "reconstruction"), message, hint)


def _training_steps(recipe: Recipe) -> Iterator[Inconsistency]:
    """Weights can only be kept at steps that are reached."""
    tokenizer = recipe.tokenizer
    trains: list[tuple[KeyPath, TrainSettings | None]] = [
        (("tokenizer", "encoder", "train"), tokenizer.encoder.train),
        (("tokenizer", "train"), tokenizer.train),
    ]
    if recipe.extractor is not None:
        trains.append((("extractor", "train"), recipe.extractor.train))
    if tokenizer.refinement is not None:
        trains.append((("tokenizer", "refinement", "train"), tokenizer.refinement.train))
    if recipe.generator is not None:
        trains.append((("generator", "train"), recipe.generator.train))
    for path, train in trains:
        if train is None:
            continue
        beyond = [step for step in train.keep_steps if train.steps and step > train.steps]
        if beyond:
            message = f"keeps weights at {list(train.keep_steps)}"
            hint = f"steps go from 1 to {train.steps}"
            yield Inconsistency((*path, "keep_steps"), message, hint)


def _statistics(recipe: Recipe) -> Iterator[Inconsistency]:
    """Without latents, nothing can be trained on them."""
    generator = recipe.generator
    if recipe.latents.statistics is not None and (generator is None or generator.weights is None):
        message = (
            "stands for the latents of a generator trained elsewhere, and the recipe names none"
        )
        hint = "name its file in `generator.weights`, or remove this"
        yield Inconsistency(("latents", "statistics"), message, hint)


def _classes(recipe: Recipe) -> Iterator[Inconsistency]:
    """The generator is for as many classes as the images have, where both are known already."""
    if recipe.generator is None:
        return
    stated = recipe.generator.config.stated_classes()
    counted = recipe.data.train.config.class_count()
    if None not in (stated, counted) and stated != counted:
        message = f"is for {stated} classes, but data.train has {counted}"
        yield Inconsistency(("generator",), message, f"let it be {counted}, or do not say it")


def _sampling(recipe: Recipe) -> Iterator[Inconsistency]:
    """Samples are drawn from a generator, at steps whose weights are kept."""
    sample, generator = recipe.sample, recipe.generator
    if sample is None:
        return
    if generator is None:
        yield Inconsistency(("sample",), "there is no generator to sample from", "add `generator`")
        return
    yield from _earlier_weights(sample.at_steps, generator)
    yield from _guidance(sample.guidance, generator)


def _earlier_weights(
    at_steps: tuple[int, ...], generator: GeneratorComponent
) -> Iterator[Inconsistency]:
    """Weights of a step are kept by the training; a file has those of its last step only."""
    path: KeyPath = ("sample", "at_steps")
    if generator.weights is not None:
        if at_steps:
            message = "the generator is loaded, so there are no weights of other steps"
            yield Inconsistency(path, message, "say []")
        return
    kept = {*generator.train.keep_steps, generator.train.steps}
    lost = [step for step in at_steps if step not in kept]
    if lost:
        message = f"no weights are kept at generator step {', '.join(map(str, lost))}"
        yield Inconsistency(path, message, "add them to generator.train.keep_steps")


def _guidance(guidance: Guidance, generator: GeneratorComponent) -> Iterator[Inconsistency]:
    """There is a velocity to be driven away from: one without a label, or another network's."""
    path = ("sample", "guidance", "scale")
    if guidance.autoguidance is not None:
        if guidance.scale == 1:
            hint = "give a scale above 1, or remove `autoguidance`"
            yield Inconsistency(path, "autoguidance with scale 1 guides nothing", hint)
    elif guidance.scale > 1:
        hint = "say 1, or name a run in `autoguidance`"
        if not generator.config.conditional:
            message = f"{generator.use!r} knows no labels, so there is nothing to guide"
            yield Inconsistency(path, message, hint)
        elif generator.objective.label_drop == 0:
            message = "generator.objective.label_drop is 0: no velocity without label is learned"
            yield Inconsistency(path, message, hint)


def _evaluators(recipe: Recipe) -> Iterator[Inconsistency]:
    """Evaluators are given what they ask for."""
    test = recipe.data.test
    for label, evaluator in recipe.evaluate.items():
        needs, path = evaluator.config.needs, ("evaluate", label)
        if "samples" in needs and (recipe.generator is None or recipe.sample is None):
            absent = "generator" if recipe.generator is None else "sample"
            message = f"{evaluator.use!r} judges generated images"
            yield Inconsistency(path, message, f"add `{absent}`")
        if "extractor" in needs and recipe.extractor is None:
            message = f"{evaluator.use!r} compares features of an extractor"
            yield Inconsistency(path, message, "add `extractor`")
        if "masks" in needs and not test.config.provides_masks:
            message = f"{evaluator.use!r} needs images with masks, {test.use!r} has none"
            yield Inconsistency(path, message, "use a data.test that has them, such as `shapes`")
