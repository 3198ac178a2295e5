"""An encoder that the tokenizer's training trains: gradients, names of weights, what is frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizer_fakes import FakeEncoder, fake_encoder
from torch import Tensor, nn

from pae_framework.build import build_objective, build_tokenizer
from pae_framework.config import DiscriminatorConfig, RegularizerConfig
from pae_framework.contracts import Discriminator, Features, Regularizer, RegularizerInputs
from pae_framework.errors import UsageError
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.adversarial import AdversarialTerm, DiscriminatorLoss, Schedule
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.tokenizer.losses.reconstruction import ReconstructionTerms
from pae_framework.tokenizer.losses.terms import Ramp, RegularizerTerm
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_framework.tokenizer.step_tokens import StepTokens
from pae_framework.tokenizer.tokenizer_settings import ReconstructionSettings

Build = Callable[..., ComposedTokenizer]
ONLY_L1 = ReconstructionSettings.model_validate({"perceptual": {"weight": 0}})
MODULATORS = [{"use": "dam", "depth": 1}, {"use": "none"}]


class WithHead(FakeEncoder):
    """With a head that its tokens do not go through."""

    def __init__(self, encoder: FakeEncoder):
        super().__init__(encoder.config, encoder.image_size)  # type: ignore[arg-type]
        self.head = nn.Linear(self.width, 2)


class WithoutGradients(FakeEncoder):
    def __init__(self, encoder: FakeEncoder):
        super().__init__(encoder.config, encoder.image_size)  # type: ignore[arg-type]

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Features:
        return super().forward(pixels)


class KeepsFeatures(Regularizer):
    """Keeps the features it is given."""

    def __init__(self) -> None:
        super().__init__(RegularizerConfig())
        self.features = torch.empty(0)

    def forward(self, inputs: RegularizerInputs) -> Tensor:
        self.features = inputs.features
        return inputs.posterior.latents.mean()


class Bright(Discriminator):
    def __init__(self) -> None:
        super().__init__(DiscriminatorConfig(), 16)

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None]


def of_encoder(tokenizer: ComposedTokenizer) -> dict[str, Tensor]:
    return {name: x for name, x in tokenizer.state_dict().items() if name.startswith("encoder.")}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("modulator", MODULATORS)
def test_its_weights_are_the_tokenizers(build: Build, modulator: dict[str, Any]) -> None:
    trained, frozen = build(modulator=modulator, train_encoder=True), build(modulator=modulator)
    own = {f"encoder.{name}" for name in trained.encoder.state_dict()}
    assert trained.state_dict().keys() == frozen.state_dict().keys() | own
    assert {name for name, _ in trained.named_parameters()} >= own


@pytest.mark.parametrize("modulator", MODULATORS)
def test_the_loss_trains_every_weight_of_it(
    section: Callable[..., TokenizerSection],
    registry: Registry,
    encoder: FakeEncoder,
    images: Tensor,
    modulator: dict[str, Any],
) -> None:
    settings = section(
        train_encoder=True, modulator=modulator, reconstruction={"perceptual": {"weight": 0}}
    )
    tokenizer = build_tokenizer(settings, 16, registry, encoder.requires_grad_(False))
    objective = build_objective(tokenizer, settings, registry).train()
    before = {name: x.clone() for name, x in of_encoder(tokenizer).items()}
    optimizer = torch.optim.SGD(objective.parameters(), lr=1.0)
    objective.loss(images, generator())["loss"].backward()
    optimizer.step()
    changed = of_encoder(tokenizer)
    assert all(not torch.equal(changed[name], before[name]) for name in before)


def test_dropout_stays_off(build: Build, images: Tensor) -> None:
    tokenizer = build(train_encoder=True).train()
    assert not any(part.training for part in tokenizer.encoder.modules())
    assert torch.equal(tokenizer.features(images).tokens, tokenizer.features(images).tokens)


def test_weights_that_tokens_do_not_depend_on_are_frozen(
    section: Callable[..., TokenizerSection], registry: Registry, encoder: FakeEncoder
) -> None:
    settings = section(train_encoder=True)
    tokenizer = build_tokenizer(settings, 16, registry, WithHead(encoder)).train()
    frozen = {n for n, weight in tokenizer.named_parameters() if not weight.requires_grad}
    assert frozen == {"encoder.head.weight", "encoder.head.bias"}


def test_an_encoder_without_gradients_is_refused(
    section: Callable[..., TokenizerSection], registry: Registry, encoder: FakeEncoder
) -> None:
    settings = section(train_encoder=True)
    tokenizer = build_tokenizer(settings, 16, registry, WithoutGradients(encoder))
    with pytest.raises(UsageError, match=r"WithoutGradients.*tokenizer\.train_encoder=false"):
        tokenizer.train()


@pytest.mark.parametrize("train_encoder", [True, False])
def test_features_of_regularizers_are_without_gradient(
    build: Build, images: Tensor, train_encoder: bool
) -> None:
    tokenizer, keeps = build(train_encoder=train_encoder).train(), KeepsFeatures()
    reconstruction = ReconstructionTerms(ONLY_L1, tokenizer.encoder)
    objective = TokenizerObjective(
        tokenizer, reconstruction, [RegularizerTerm("keeps", keeps, Ramp())]
    )
    objective.loss(images, generator())
    assert not keeps.features.requires_grad
    torch.testing.assert_close(keeps.features, tokenizer.features(images).tokens.detach())


@pytest.mark.parametrize(("train_encoder", "calls"), [(True, 1), (False, 0)])
def test_the_discriminator_sees_reconstructions_by_the_new_encoder(
    build: Build, encoder: FakeEncoder, images: Tensor, train_encoder: bool, calls: int
) -> None:
    tokenizer, tokens = build(train_encoder=train_encoder).train(), StepTokens()
    term = AdversarialTerm(Bright(), Schedule(0, 0, 0), 1.0, False, tokens)
    reconstruction = ReconstructionTerms(ONLY_L1, tokenizer.encoder)
    objective = TokenizerObjective(tokenizer, reconstruction, adversarial=term)
    objective.loss(images, generator())
    before = encoder.calls
    DiscriminatorLoss(Bright(), tokenizer, tokens)((images, torch.zeros(3)), generator())
    assert encoder.calls - before == calls


def test_a_tokenizer_of_a_file_is_the_one_that_was_trained(build: Build, images: Tensor) -> None:
    trained, loaded = build(train_encoder=True), build(train_encoder=True)
    loaded.encoder = fake_encoder().eval()
    with torch.no_grad():
        trained.encoder.mix.weight.mul_(2)  # type: ignore[union-attr]
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded.encode(images).latents, trained.encode(images).latents)
