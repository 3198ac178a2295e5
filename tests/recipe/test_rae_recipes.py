"""The recipes of RAE state what its sheet states: sizes, schedules, times of sampling."""

from __future__ import annotations

import math

import pytest

from pae_framework.config import LatentShape, Length
from pae_framework.recipe.derived import latent_shape
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe
from pae_framework.recipe.smoke import smoke_recipe

IMAGES, CLASSES = 1_281_167, 1000


@pytest.fixture(scope="module")
def rae() -> Recipe:
    return load_recipe("rae_dinov2").recipe


def millions(parameters: int | None) -> float:
    assert parameters is not None
    return round(parameters / 1e6, 2)


def test_networks_have_the_published_numbers_of_parameters(rae: Recipe) -> None:
    latent = LatentShape(768, 16)
    assert latent_shape(rae) == latent
    assert rae.generator is not None
    assert rae.guide is not None
    assert millions(rae.generator.config.parameters(latent, CLASSES)) == 838.68
    assert millions(rae.guide.config.parameters(latent, CLASSES)) == 196.46
    positions = 257 * 1152  # fixed, and counted by RAE
    decoder = rae.tokenizer.decoder.config.parameters(768, 16)
    assert decoder is not None
    assert millions(decoder + positions) == 415.35


def test_the_guide_is_the_network_of_its_own_recipe(rae: Recipe) -> None:
    guide = load_recipe("dit_dh_s").recipe
    assert rae.guide is not None
    assert guide.generator is not None
    assert guide.generator.config == rae.guide.config
    assert guide.generator.train.epochs == 14
    assert guide.tokenizer == rae.tokenizer
    assert guide.data == rae.data


def test_the_discriminators_schedule_starts_at_epoch_6_and_is_as_long_as_the_training(
    rae: Recipe,
) -> None:
    section = rae.tokenizer.active_adversarial
    assert section is not None
    assert section.update_from == Length(epochs=6)
    assert section.start == Length(epochs=8)
    assert section.optimizer.decay_to == Length(epochs=rae.tokenizer.train.epochs)
    epoch = IMAGES / rae.tokenizer.train.batch_size
    for optimizer in (section.optimizer, rae.tokenizer.train):
        assert optimizer.warmup_steps == round(epoch)
        assert math.isclose(optimizer.lr * optimizer.final_lr, 2e-5)


def test_the_decoder_sees_crops_and_the_generator_mirrored_whole_images(rae: Recipe) -> None:
    decoder, generator = rae.tokenizer.train, rae.generator
    assert generator is not None
    assert (decoder.crop_from, decoder.flip) == (384, False)
    assert (generator.train.crop_from, generator.train.flip, rae.data.flip) == (None, None, True)
    assert not rae.latents.stored


def test_times_are_raes_reversed(rae: Recipe) -> None:
    """50 points from 1 to 0.001 of RAE's time, shifted: the last one evaluated is 0.1315 there."""
    sample, generator = rae.sample, rae.generator
    assert sample is not None
    assert generator is not None
    settings = sample.for_latent(latent_shape(rae))
    assert math.isclose(1 / settings.shift, 6.9282, rel_tol=1e-4)
    ours = [settings.end * step / settings.steps for step in range(settings.steps + 1)]
    shifted = [settings.shift * t / (1 + (settings.shift - 1) * t) for t in ours]
    assert math.isclose(1 - shifted[-2], 0.1315, abs_tol=1e-4)
    assert math.isclose(1 - shifted[-1], 0.00689, abs_tol=1e-5)
    assert generator.objective.time.shift_base == sample.shift_base == 4096
    assert generator.objective.cosine_weight == 0


@pytest.mark.parametrize("name", ["rae_dinov2", "dit_dh_s"])
def test_the_smoke_version_keeps_the_kinds_of_everything(name: str) -> None:
    small = smoke_recipe(load_recipe(name)).recipe
    train, size = small.tokenizer.train, small.data.image_size
    assert train.crop_from is not None
    assert train.crop_from > size
    assert not small.latents.stored
    assert small.generator is not None
    assert small.generator.use == "dit_dh"
    assert small.generator.train.decay_from is None
