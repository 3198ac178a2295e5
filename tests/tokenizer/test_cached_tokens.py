"""Objectives with cached tokens in the batch: the same losses, and the encoder is not run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor

from pae_framework.build import build_objective, build_refiner
from pae_framework.config import DiscriminatorConfig
from pae_framework.contracts import Batch, Discriminator, LossTerms
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.adversarial import DiscriminatorLoss
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.refinement import RefinementObjective


class Bright(Discriminator):
    """A logit per image: its mean pixel."""

    def __init__(self) -> None:
        super().__init__(DiscriminatorConfig(), 16)

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3)).unsqueeze(1)


REFINEMENT = {"depth": 1, "heads": 2, "train": {"steps": 1}}
ALIGNED = {"ssr": {"weight": 0.2}, "mcr": {"weight": 0.5}, "scr": {}}


def test_cached_tokens_are_used_by_every_objective(
    registry: Registry,
    encoder: FakeEncoder,
    build: Callable[..., ComposedTokenizer],
    section: Callable[..., TokenizerSection],
    images: Tensor,
    reproducible: None,
) -> None:
    changes = {"regularizers": ALIGNED, "refinement": REFINEMENT}
    tokenizer, chosen = build(**changes), section(**changes)
    refiner = build_refiner(chosen, encoder)
    objectives: dict[str, Callable[[Batch, torch.Generator], LossTerms]] = {
        "tokenizer": build_objective(tokenizer, chosen, registry, refiner),
        "discriminator": DiscriminatorLoss(Bright(), tokenizer),
        "refine": RefinementObjective(refiner, encoder),
    }
    tokens, labels = tokenizer.features(images).tokens, torch.zeros(len(images))
    for name, objective in objectives.items():
        encoder.calls = 0
        computed = objective((images, labels), torch.Generator().manual_seed(3))
        assert encoder.calls == 1, name
        cached = objective((images, labels, tokens), torch.Generator().manual_seed(3))
        assert encoder.calls == 1, name
        assert computed.keys() == cached.keys()
        assert all(torch.equal(computed[term], cached[term]) for term in computed), name
