"""The checks find what would differ if several processes shared a batch, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import (
    BottleneckConfig,
    DiscriminatorConfig,
    EncoderConfig,
    RegularizerConfig,
)
from pae_framework.contracts import (
    Bottleneck,
    Discriminator,
    Encoder,
    Features,
    Posterior,
    PretrainingObjective,
    Regularizer,
)
from pae_framework.layers import map_to_tokens
from pae_framework.seeding import draw_seed, generator, rand, randn, rows_of
from pae_framework.testing.bottlenecks import check_bottleneck
from pae_framework.testing.discriminators import check_discriminator
from pae_framework.testing.encoders import check_encoder
from pae_framework.testing.regularizers import check_regularizer

SIZE, WIDTH, GRID = 8, 8, 2

# --- regularizers ---------------------------------------------------------------------------------


class Noisy(Regularizer):
    """Right: a mean over images, with noise of each image."""

    def noise(self, z: Tensor, generator: torch.Generator) -> Tensor:
        return randn(z.shape, generator)

    def forward(self, inputs):
        z = inputs.posterior.latents
        return (z + 0.5 * self.noise(z, inputs.generator)).square().mean()


class NoiseOfTheBatch(Noisy):
    """Right: all images get the same noise, in every process."""

    def noise(self, z, generator_):
        return torch.randn(z.shape[1:], generator=generator(draw_seed(generator_), "noise"))


class DerivedNoise(Noisy):
    """Right: the second generator has the rows of the first."""

    def noise(self, z, generator_):
        own = generator(draw_seed(generator_), "noise", rows=rows_of(generator_))
        return randn(z.shape, own)


class Normed(Noisy):
    """Right, though images depend on each other: batch norm is that of the whole batch."""

    def __init__(self, config):
        super().__init__(config)
        self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def noise(self, z, generator):
        return self.norm(super().noise(z, generator))


class DirectNoise(Noisy):
    def noise(self, z, generator):
        return torch.randn(z.shape, generator=generator)


class WholeNoise(Noisy):
    def noise(self, z, generator_):
        return randn(z.shape, generator(draw_seed(generator_), "noise"))


class Sum(Noisy):
    def forward(self, inputs):
        return super().forward(inputs) * len(inputs.images)


class Spread(Noisy):
    """The spread of the latents of a batch: no mean over images."""

    def forward(self, inputs):
        return inputs.posterior.latents.std(dim=0).mean()


class Ratio(Noisy):
    """A ratio of means: the same for a batch with every image twice."""

    def forward(self, inputs):
        z = inputs.posterior.latents.abs()
        return z[:, 0].mean() / z[:, 1].square().mean()


def regularizer(cls: type[Regularizer]) -> None:
    check_regularizer(cls(RegularizerConfig()), RegularizerConfig())


# --- objectives of encoders -----------------------------------------------------------------------


class PatchesConfig(EncoderConfig):
    trainable = True

    def token_grid(self, image_size: int) -> int:
        return image_size // 4

    def token_width(self) -> int:
        return WIDTH


class Patches(Encoder):
    mean = std = (0.5, 0.5, 0.5)
    objective: type[PretrainingObjective]

    def __init__(self, config: PatchesConfig, image_size: int):
        super().__init__(config, image_size)
        self.grid, self.width, self.heads, self.patch = image_size // 4, WIDTH, 1, 4
        self.embed = nn.Conv2d(3, WIDTH, 4, 4)

    def forward(self, pixels: Tensor) -> Features:
        tokens = F.layer_norm(map_to_tokens(self.embed(pixels)), (WIDTH,), eps=1e-6)
        return Features(tokens, tokens.mean(1))

    def feature_maps(self, pixels: Tensor):
        return [map_to_tokens(self.embed(pixels))]

    def pretraining(self, num_classes: int) -> PretrainingObjective:
        return self.objective(self, num_classes)


class Classifier(PretrainingObjective):
    """Right: batch norm before the head, brightness at random."""

    def __init__(self, encoder: Encoder, num_classes: int):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, num_classes))

    def brightness(self, count: int, generator: torch.Generator) -> Tensor:
        return rand((3, count), generator, dim=1)

    def loss(self, images, labels, generator):
        across = self.brightness(len(images), generator).T[..., None, None]
        logits = self.head(self.encoder(self.encoder.normalize(images * across)).pooled)
        return {"loss": F.cross_entropy(logits, labels), "size": logits.square().mean()}


class DirectBrightness(Classifier):
    def brightness(self, count, generator):
        return torch.rand(3, count, generator=generator)


class SumOfLosses(Classifier):
    def loss(self, images, labels, generator):
        terms = super().loss(images, labels, generator)
        return {name: len(images) * term for name, term in terms.items()}


class SumInTheLog(Classifier):
    """A term that is only logged is reduced like the others."""

    def loss(self, images, labels, generator):
        terms = super().loss(images, labels, generator)
        return terms | {"size": len(images) * terms["size"]}


def objective(cls: type[PretrainingObjective]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = type("Trained", (Patches,), {"objective": cls})
        check_encoder(encoder(PatchesConfig(), SIZE))


# --- bottlenecks and discriminators ---------------------------------------------------------------


class ThreeConfig(BottleneckConfig):
    def latent_channels(self, token_width: int) -> int:
        return 3


class Three(Bottleneck):
    """Right: noise of each image."""

    in_channels = channels = 3

    def noise(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return randn(x.shape, generator)

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Posterior:
        x = x.float()
        return Posterior(x if generator is None else x + self.noise(x, generator))


class DirectThree(Three):
    def noise(self, x, generator):
        return torch.randn(x.shape, generator=generator)


def bottleneck(cls: type[Bottleneck]) -> None:
    config = ThreeConfig()
    check_bottleneck(cls(config, WIDTH, GRID), config, WIDTH, GRID)


class Judge(Discriminator):
    """Right: batch norm, and brightness of each image at random."""

    def __init__(self, config: DiscriminatorConfig, image_size: int):
        super().__init__(config, image_size)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 4), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten(1)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images + rand((len(images), 1, 1, 1), generator)


class DirectJudge(Judge):
    def augment(self, images, generator):
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)


def discriminator(cls: type[Discriminator]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        check_discriminator(cls(DiscriminatorConfig(), SIZE), DiscriminatorConfig(), SIZE)


# --- the checks -----------------------------------------------------------------------------------

Check = Callable[[type], None]
DRAW, MEAN = r"seeding\.randn or rand", "mean over images"


@pytest.mark.parametrize(
    ("check", "broken", "facts"),
    [
        (regularizer, DirectNoise, [DRAW]),
        (regularizer, WholeNoise, [DRAW]),
        (regularizer, Sum, [MEAN, "'Sum'"]),
        (regularizer, Spread, [MEAN]),
        (regularizer, Ratio, [MEAN]),
        (objective, DirectBrightness, [DRAW, "'loss'"]),
        (objective, SumOfLosses, [MEAN, "'loss'"]),
        (objective, SumInTheLog, [MEAN, "'size'"]),
        (bottleneck, DirectThree, [DRAW]),
        (discriminator, DirectJudge, [DRAW]),
    ],
)
def test_broken_component_is_caught(check: Check, broken: type, facts: list[str]) -> None:
    for fact in facts:
        with pytest.raises(AssertionError, match=fact):
            check(broken)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (regularizer, Noisy),
        (regularizer, NoiseOfTheBatch),
        (regularizer, DerivedNoise),
        (regularizer, Normed),
        (objective, Classifier),
        (bottleneck, Three),
        (discriminator, Judge),
    ],
)
def test_correct_component_passes(check: Check, right: type) -> None:
    check(right)
