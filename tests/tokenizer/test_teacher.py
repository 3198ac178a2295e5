"""A teacher: what it is given, and that regularizers get its features."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizer_fakes import FakeEncoder, FakeEncoderConfig
from torch import Tensor, nn

from pae_framework.build import build_objective, build_tokenizer
from pae_framework.contracts import Features
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.teacher import Teacher


class Seeing(FakeEncoder):
    """Its own preprocessing gives ones of half the side; keeps what it was given."""

    def normalize(self, images: Tensor) -> Tensor:
        side = images.shape[-1] // 2
        return torch.ones(len(images), 3, side, side)

    def forward(self, pixels: Tensor) -> Features:
        self.seen = pixels
        tokens = torch.full((len(pixels), 4, 8), 2.0)
        return Features(tokens, tokens.mean(1))


@pytest.fixture
def seeing() -> Seeing:
    return Seeing(FakeEncoderConfig(width=8), 8)


def test_own_preprocessing_is_the_encoders(seeing: Seeing) -> None:
    Teacher(seeing, signed=False)(torch.rand(2, 3, 4, 4))
    assert torch.equal(seeing.seen, torch.ones(2, 3, 2, 2))


def test_signed_images_are_resized_bilinearly_and_not_standardized(seeing: Seeing) -> None:
    """At half the side, bilinear values are means of 2 x 2 pixels."""
    images = torch.zeros(1, 3, 4, 4)
    images[:, 0, :2, :2] = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    Teacher(seeing, signed=True)(images)
    expected = torch.full((1, 3, 2, 2), -1.0)
    expected[:, 0, 0, 0] = 2 * 0.75 - 1
    torch.testing.assert_close(seeing.seen, expected)


def test_signed_images_of_the_right_side_are_only_scaled(seeing: Seeing) -> None:
    encoder = FakeEncoder(FakeEncoderConfig(), 16).eval()
    images = torch.rand(2, 3, 16, 16)
    expected = encoder(2 * images - 1).tokens
    torch.testing.assert_close(Teacher(encoder, signed=True)(images), expected)


@pytest.mark.parametrize("train_encoder", [True, False])
def test_regularizers_get_its_features_and_train_nothing_of_it(
    section: Callable[..., TokenizerSection],
    registry: Registry,
    encoder: FakeEncoder,
    images: Tensor,
    train_encoder: bool,
) -> None:
    """With margins 0 the cosine term is 1 - cos(z', f), of features that only the teacher has."""
    settings = section(
        train_encoder=train_encoder,
        teacher={"use": "fake", "width": 12},
        regularizers={"vf": {"cosine_margin": 0, "distance_weight": 0, "adaptive": False}},
        reconstruction={"perceptual": {"weight": 0}},
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        teacher = Teacher(FakeEncoder(FakeEncoderConfig(width=12), 16), signed=False)
    tokenizer = build_tokenizer(settings, 16, registry, encoder)
    objective = build_objective(tokenizer, settings, registry, teacher=teacher).train()
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(name.startswith("teacher") for name in objective.state_dict())
    terms = objective.loss(images, torch.Generator().manual_seed(0))

    term = objective.regularizers.vf
    assert isinstance(term, nn.Module)
    project = term.project
    assert isinstance(project, nn.Conv2d)
    assert project.weight.shape == (12, 6, 1, 1)
    projected = project(tokenizer.encode(images).latents).flatten(2).transpose(1, 2)
    cosines = torch.cosine_similarity(projected, teacher(images), dim=-1)
    torch.testing.assert_close(terms["vf"], (1 - cosines).mean())
