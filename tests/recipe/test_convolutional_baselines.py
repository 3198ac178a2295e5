"""The recipes of VA-VAE and KL-VAE: published settings, sizes, and the balance of their losses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pae_framework.build import build_networks
from pae_framework.config import Length
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe, TokenizerSection
from pae_framework.recipe.smoke import smoke_recipe
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.adaptive_weight import ADVERSARIAL_BOUNDS, REGULARIZER_BOUNDS

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ("vavae_f16d32", "kl_vae_f16d32")


def section(name: str, registry: Registry, *overrides: str) -> TokenizerSection:
    return load_recipe(name, overrides, registry).recipe.tokenizer_section


@pytest.mark.parametrize("name", NAMES)
def test_the_training_is_the_published_one(name: str, registry: Registry) -> None:
    tokenizer = section(name, registry)
    train, adversarial = tokenizer.train, tokenizer.adversarial
    assert (train.epochs, train.batch_size, train.lr, train.betas) == (100, 256, 1e-4, (0.5, 0.9))
    assert (train.weight_decay, train.schedule, train.clip, train.ema) == (
        0,
        "constant",
        None,
        None,
    )
    assert train.precision == "float32"
    assert adversarial is not None
    optimizer = adversarial.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.clip) == (1e-4, (0.5, 0.9), None)
    # Two steps are counted per batch, first the tokenizer's: 2 n >= 5001, then 2 n + 1 >= 5001.
    assert (adversarial.start, adversarial.update_from) == (Length(steps=2501), Length(steps=2500))


@pytest.mark.parametrize("name", NAMES)
def test_means_keep_the_balance_of_sums(name: str, registry: Registry) -> None:
    """Latent diffusion: the sum of |x - x^| + LPIPS over all values, plus 1e-6 KL, summed.

    |x - x^| of images in [-1, 1] is twice that of images in [0, 1].
    """
    recipe = load_recipe(name, (), registry).recipe
    tokenizer, values = recipe.tokenizer_section, 3 * recipe.data.image_size**2
    kl = tokenizer.regularizers["kl"].config.model_dump()
    assert kl["reduction"] == "sum"
    assert kl["weight"] * values == pytest.approx(1e-6, rel=1e-3)
    image = torch.tensor([0.0, 1.0, 0.25])
    l1 = tokenizer.reconstruction.l1 * image.mean()
    assert l1 == tokenizer.reconstruction.lpips.weight * ((2 * image - 1) - (-1)).abs().mean()
    assert tokenizer.reconstruction.lpips.weight == 1


def test_the_header_states_the_bounds_beside_means(registry: Registry) -> None:
    """The published bounds are beside sums; ours are the same numbers beside means."""
    values = 3 * load_recipe("vavae_f16d32", (), registry).recipe.data.image_size ** 2
    published = {ADVERSARIAL_BOUNDS.most: "0.051", REGULARIZER_BOUNDS.most: "509"}
    header = (RECIPES / "vavae_f16d32.yaml").read_text().partition("\npae:")[0]
    for bound, text in published.items():
        assert float(text) == pytest.approx(bound / values, rel=0.01)
        assert text in header


def test_only_vavae_is_aligned(registry: Registry) -> None:
    vavae, plain = (section(name, registry) for name in NAMES)
    assert plain.regularizers.keys() == {"kl"}
    assert plain.teacher is None
    assert vavae.teacher is not None
    assert vavae.teacher.preprocessing == "signed"
    assert vavae.teacher.config.token_width() == 1024
    vf = vavae.regularizers["vf"].config.model_dump()
    assert (vf["weight"], vf["distance_margin"], vf["cosine_margin"]) == (0.5, 0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_the_tokenizer_has_the_published_size(name: str, registry: Registry) -> None:
    """VA-VAE states 70 M; the latents have 32 channels at 1/16 of the side."""
    recipe: Recipe = load_recipe(
        name, ("generator=null", "sample=null", "evaluate=null"), registry
    ).recipe
    networks = build_networks(recipe, registry, 1000)
    tokenizer = networks.tokenizer
    assert sum(weight.numel() for weight in tokenizer.parameters()) == 69_836_067
    assert all(weight.requires_grad for weight in tokenizer.parameters())
    assert (tokenizer.latent.channels, tokenizer.latent.side) == (32, 16)


@pytest.mark.parametrize("name", NAMES)
def test_the_later_phases_start_from_given_weights(name: str, registry: Registry) -> None:
    tokenizer = section(
        name,
        registry,
        "tokenizer.initial_weights=first.safetensors",
        "tokenizer.train.epochs=15",
        "tokenizer.adversarial.update_from={steps: 0}",
        "tokenizer.adversarial.start={steps: 1}",
    )
    assert tokenizer.adversarial is not None
    assert tokenizer.adversarial.discriminator.use == "patchgan"
    assert tokenizer.adversarial.optimizer.lr == 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_the_smoke_recipe_keeps_the_networks(name: str, registry: Registry) -> None:
    small = smoke_recipe(load_recipe(name, (), registry)).recipe.tokenizer_section
    assert small.train_encoder
    assert (small.encoder.use, small.decoder.use) == ("ldm_cnn", "ldm_cnn")
    assert small.encoder.config.token_grid(64) == 4
