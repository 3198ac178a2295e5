"""An image's random numbers and loss are the same whichever process has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizer_fakes import FakeEncoder, encoder, registry, section  # noqa: F401  # fixtures
from torch import Tensor, nn

from pae_bottlenecks.bottlenecks import Gaussian
from pae_bottlenecks.config import GaussianConfig
from pae_discriminators.augment import augmented
from pae_encoders.config import SmallCNNConfig, TinyViTConfig
from pae_encoders.random_crop import random_crop
from pae_encoders.small_cnn import SmallCNN
from pae_encoders.tiny_vit import TinyViT, random_orders
from pae_framework.build import build_objective, build_tokenizer
from pae_framework.config import DiscriminatorConfig, GeneratorConfig, LatentShape
from pae_framework.contracts import Batch, Discriminator, Generator, LossTerms
from pae_framework.flow.flow_settings import FlowSettings, TimeSettings
from pae_framework.flow.matching import FlowObjective, drop_labels
from pae_framework.flow.path import sample_times
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.seeding import Rows, generator
from pae_framework.tokenizer.losses.adversarial import (
    AdversarialTerm,
    DiscriminatorLoss,
    Schedule,
)
from pae_framework.tokenizer.model import noisy
from pae_framework.tokenizer.rotation import random_tangent

TOTAL = 7
SIZES = [2, 4]
"""Numbers of processes; with both, 7 images are shared unequally."""
IMAGES = torch.rand(TOTAL, 3, 16, 16, generator=torch.Generator().manual_seed(5))
LATENTS = torch.randn(TOTAL, 4, 3, 3, generator=torch.Generator().manual_seed(6))
LABELS = torch.arange(TOTAL) % 3


def parts(size: int) -> list[Rows]:
    return [Rows.of(rank, size, TOTAL) for rank in range(size)]


def take(batch: Tensor, rows: Rows) -> Tensor:
    return batch[rows.start : rows.stop]


DRAWS: dict[str, Callable[[Rows, torch.Generator], Tensor]] = {
    "logit-normal times": lambda rows, g: sample_times(TimeSettings(), len(rows), g),
    "cut logit-normal times": lambda rows, g: sample_times(TimeSettings(lowest=0.1), len(rows), g),
    "uniform times": lambda rows, g: sample_times(
        TimeSettings(distribution="uniform"), len(rows), g
    ),
    "dropped labels": lambda rows, g: drop_labels(take(LABELS, rows), 3, 0.5, g),
    "noise of the decoder": lambda rows, g: noisy(take(LATENTS, rows), 0.8, g),
    "crops": lambda rows, g: random_crop(take(IMAGES, rows), 0.5, g),
    "orders of tokens": lambda rows, g: random_orders(len(rows), 5, g),
    "augmentation": lambda rows, g: augmented(take(IMAGES, rows), g),
    "gaussian latents": lambda rows, g: (
        Gaussian(GaussianConfig(channels=2), 8, 3)(take(LATENTS, rows), g).latents
    ),
    "directions": lambda rows, g: random_tangent(take(LATENTS, rows), g),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("size", SIZES)
def test_processes_draw_together_what_one_draws_alone(name: str, size: int) -> None:
    draw = DRAWS[name]
    alone = draw(Rows(0, TOTAL, TOTAL), generator(1, "step"))
    together = torch.cat([draw(rows, generator(1, "step", rows=rows)) for rows in parts(size)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)
    other = draw(Rows(0, TOTAL, TOTAL), generator(2, "step"))
    assert not torch.equal(alone, other)  # it is random at all


class Linear(Generator):
    """A velocity that is linear in the point, its time and its label."""

    def __init__(self) -> None:
        super().__init__(GeneratorConfig(), LatentShape(4, 3), num_classes=3)
        self.weights = nn.Parameter(torch.tensor([0.5, -0.3, 0.2]))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        by_image = self.weights[1] * t + self.weights[2] * y
        return self.weights[0] * x + by_image.view(-1, 1, 1, 1)


class Reddish(Discriminator):
    """A logit per augmented image, the more the redder."""

    def __init__(self) -> None:
        super().__init__(DiscriminatorConfig(), 16)
        self.slope = nn.Parameter(torch.tensor(3.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.slope * images[:, 0].square().mean((1, 2))[:, None]

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return augmented(images, generator)


def pretraining(network: TinyViT | SmallCNN) -> nn.Module:
    """The objective without batch norm, for which the images of a batch are not independent."""
    objective = network.pretraining(num_classes=3)
    for module in objective.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    return objective


@pytest.fixture
def objective(
    request: pytest.FixtureRequest,
    section: Callable[..., TokenizerSection],  # noqa: F811
    registry: Registry,  # noqa: F811
    encoder: FakeEncoder,  # noqa: F811
) -> nn.Module:
    """The module that a stage trains."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "generator":
            return FlowObjective(Linear(), FlowSettings(cosine_weight=1.0, label_drop=0.5))
        if request.param == "masked":
            return pretraining(TinyViT(TinyViTConfig(width=24, depth=1, heads=2, crop=0.5), 16))
        if request.param == "classifier":
            return pretraining(SmallCNN(SmallCNNConfig(width=8, depth=2, crop=0.5), 16))
        described = section(
            bottleneck={"use": "gaussian", "channels": 6},
            regularizers={"mcr": {"weight": 0.5}, "kl": {"weight": 0.1}},
            noise=0.8,
        )
        tokenizer = build_tokenizer(described, 16, registry, encoder)
        if request.param == "discriminator":
            return DiscriminatorLoss(Reddish(), tokenizer)
        term = AdversarialTerm(Reddish(), Schedule(0, 0, 0), 0.5, adaptive=False)
        return build_objective(tokenizer, described, registry, None, term).train()


def gradient(module: nn.Module, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(module.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None])


@pytest.mark.parametrize(
    "objective",
    ["generator", "masked", "classifier", "discriminator", "tokenizer"],
    indirect=True,
)
@pytest.mark.parametrize("size", SIZES)
def test_losses_and_gradients_add_up_to_those_of_the_batch(objective: nn.Module, size: int) -> None:
    inputs = LATENTS if isinstance(objective, FlowObjective) else IMAGES

    def compute(rows: Rows) -> tuple[LossTerms, Tensor]:
        batch: Batch = (take(inputs, rows), take(LABELS, rows))
        terms = objective(batch, generator(1, "step", rows=rows))
        return terms, gradient(objective, terms["loss"])

    terms, slope = compute(Rows(0, TOTAL, TOTAL))
    shared = [(rows.share, *compute(rows)) for rows in parts(size)]
    for name, term in terms.items():
        total = sum(share * found[name].detach() for share, found, _ in shared)
        torch.testing.assert_close(total, term.detach(), rtol=1e-5, atol=1e-6)
    total = sum(share * found for share, _, found in shared)
    assert (total - slope).norm() < 1e-4 * slope.norm()
