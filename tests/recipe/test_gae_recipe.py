"""The recipe of GAE: published settings, sizes and times of sampling."""

from __future__ import annotations

import pytest
import torch

from pae_framework.build import build_networks
from pae_framework.config import Length
from pae_framework.flow.path import solver_times
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.models import Recipe
from pae_framework.registry import Registry


@pytest.fixture
def recipe(registry: Registry) -> Recipe:
    return load_recipe("gae", (), registry).recipe


def test_the_loss_is_the_published_one(recipe: Recipe) -> None:
    section = recipe.tokenizer_section
    # |x - x^| of images in [-1, 1] is twice that of images in [0, 1].
    assert (section.reconstruction.l1, section.reconstruction.lpips.weight) == (2, 1)
    assert section.active_regularizers["feature_mse"].config.model_dump()["weight"] == 1
    adversarial = section.adversarial
    assert adversarial is not None
    assert (adversarial.weight, adversarial.adaptive) == (0.5, False)
    assert adversarial.start == Length(steps=5001)
    train = section.train
    assert (train.epochs, train.lr, train.weight_decay) == (200, 2e-4, 0.05)


def test_the_networks_have_the_published_sizes(registry: Registry) -> None:
    recipe = load_recipe("gae", ("generator=null", "sample=null", "evaluate=null"), registry).recipe
    networks = build_networks(recipe, registry, 1000)
    tokenizer = networks.composed
    assert tokenizer is not None
    encoder, adapter, decoder = (
        sum(weight.numel() for weight in part.parameters())
        for part in (tokenizer.encoder, tokenizer.encoder.adapter, tokenizer.decoder)
    )
    assert round((encoder - adapter) / 1e6, 2) == 310.38
    assert round(decoder / 1e6, 2) == 309.36
    assert all(weight.requires_grad for weight in tokenizer.parameters())


def test_sampling_has_the_published_times(recipe: Recipe) -> None:
    """250 points, from which 249 noisy steps start or end; the last step begins at 0.996."""
    assert recipe.sample is not None
    u = torch.linspace(1e-5, 1 - 0.004, 250, dtype=torch.float64)
    torch.testing.assert_close(
        solver_times(recipe.sample).double(), 0.4 * u / (1 - 0.6 * u), rtol=1e-5, atol=0
    )
    sde = recipe.sample.sde
    assert (sde.diffusion, sde.last_step, sde.end) == ("sbdm", "mean", 0.996)
    assert recipe.sample.guidance.scale == 1
