"""The frozen encoder sees each image once per step, whoever asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor

from pae_discriminators.config import PatchGANConfig
from pae_discriminators.patchgan import PatchGAN
from pae_framework.build import build_objective, build_tokenizer
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.adversarial import (
    AdversarialTerm,
    DiscriminatorLoss,
    Schedule,
)
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.tokenizer.step_tokens import StepTokens


class Networks:
    """A tokenizer's objective and its discriminator's, which share tokens."""

    def __init__(self, objective: TokenizerObjective, loss: DiscriminatorLoss, tokens: StepTokens):
        self.objective, self.loss, self.tokens = objective, loss, tokens


@pytest.fixture
def networks(
    section: Callable[..., TokenizerSection], registry: Registry, encoder: FakeEncoder
) -> Callable[[Schedule], Networks]:
    def networks(schedule: Schedule) -> Networks:
        described, tokens = section(), StepTokens()
        tokenizer = build_tokenizer(described, 16, registry, encoder)
        discriminator = PatchGAN(PatchGANConfig(layers=1, width=4), 16)
        term = AdversarialTerm(discriminator, schedule, 0.5, True, tokens)
        objective = build_objective(tokenizer, described, registry, None, term)
        return Networks(objective, DiscriminatorLoss(discriminator, tokenizer, tokens), tokens)

    return networks


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_the_discriminators_step_takes_the_tokens_of_each_micro_batch(
    networks: Callable[..., Networks], images: Tensor, encoder: FakeEncoder
) -> None:
    found = networks(Schedule(0, 0, 0))
    batches = torch.cat([images, 1 - images]).chunk(2)
    found.objective.begin_step(0)
    for batch in batches:
        found.objective((batch,), generator())
    assert encoder.calls == 2
    shared = [found.loss((batch,), generator())["loss"] for batch in batches]
    assert encoder.calls == 2
    again = [found.loss((batch,), generator())["loss"] for batch in batches]
    assert encoder.calls == 4  # they were taken
    assert all(map(torch.equal, shared, again))


def test_tokens_of_other_images_are_computed(
    networks: Callable[..., Networks], images: Tensor, encoder: FakeEncoder
) -> None:
    found = networks(Schedule(0, 0, 0))
    found.objective((images,), generator())
    found.loss((images.clone(),), generator())
    assert encoder.calls == 2


def test_tokens_are_kept_only_for_a_step_that_trains_the_discriminator(
    networks: Callable[..., Networks], images: Tensor
) -> None:
    found = networks(Schedule(update_from=2, start=2, warmup=0))
    for step, kept in ((1, False), (2, True)):
        found.objective.begin_step(step)
        found.objective((images,), generator())
        assert (found.tokens.take(images) is not None) is kept


def test_a_new_step_forgets_them(networks: Callable[..., Networks], images: Tensor) -> None:
    found = networks(Schedule(0, 0, 0))
    found.objective((images,), generator())
    found.objective.begin_step(1)
    assert found.tokens.take(images) is None


def test_given_tokens_replace_the_encoders(images: Tensor, build: Callable[..., object]) -> None:
    tokenizer = build()
    tokens = tokenizer.features(images).tokens  # type: ignore[attr-defined]
    encode = tokenizer.encode  # type: ignore[attr-defined]
    assert torch.equal(encode(images, tokens=tokens).latents, encode(images).latents)
    assert not torch.equal(encode(images, tokens=-tokens).latents, encode(images).latents)
