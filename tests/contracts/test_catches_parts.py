"""The checks of a tokenizer's parts and of generators find what is broken, and say what it is.

Each broken component differs from one that passes in one thing.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.config import (
    BottleneckConfig,
    DecoderConfig,
    EncoderConfig,
    GeneratorConfig,
    LatentShape,
    ModulatorConfig,
)
from pae_framework.contracts import (
    Bottleneck,
    Decoder,
    Encoder,
    Features,
    Generator,
    Modulator,
    Posterior,
    PretrainingObjective,
)
from pae_framework.layers import map_to_tokens, unpatchify
from pae_framework.seeding import randn
from pae_framework.testing.bottlenecks import check_bottleneck
from pae_framework.testing.decoders import check_decoder
from pae_framework.testing.encoders import check_encoder
from pae_framework.testing.generators import check_generator
from pae_framework.testing.modulators import check_modulator

SIZE, PATCH, GRID, WIDTH = 8, 2, 4, 8
Check = Callable[[type], None]


# --- encoders -------------------------------------------------------------------------------------


class PatchesConfig(EncoderConfig):
    def token_grid(self, image_size: int) -> int:
        return image_size // PATCH

    def token_width(self) -> int:
        return WIDTH


class TrainedConfig(PatchesConfig):
    trainable = True


class Patches(Encoder):
    """Right in all things."""

    def __init__(self, config: EncoderConfig, image_size: int):
        super().__init__(config, image_size)
        self.grid, self.width, self.heads, self.patch = GRID, WIDTH, 2, PATCH
        self.mean, self.std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
        self.embed = nn.Conv2d(3, WIDTH, PATCH, PATCH)

    def forward(self, pixels: Tensor) -> Features:
        tokens = F.layer_norm(map_to_tokens(self.embed(pixels)), (WIDTH,))
        return Features(tokens, tokens.mean(1))


class Trained(Patches):
    def pretraining(self, num_classes: int) -> PretrainingObjective:
        return Classifier(self, num_classes)


class Classifier(PretrainingObjective):
    def __init__(self, encoder: Encoder, num_classes: int):
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(WIDTH, num_classes)

    def loss(self, images, labels, generator):
        noise = 0.1 * randn(images.shape, generator)
        pooled = self.encoder(self.encoder.normalize(images + noise)).pooled
        return {"loss": F.cross_entropy(self.head(pooled), labels)}


class WrongGrid(Patches):
    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.grid = 2


class WrongHeads(Patches):
    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.heads = 3


class OtherHeadsConfig(PatchesConfig):
    def token_heads(self) -> int:
        return 4


class OneWayNormalization(Patches):
    def denormalize(self, pixels):
        return pixels


class ClassTokenLeft(Patches):
    def forward(self, pixels):
        features = super().forward(pixels)
        return Features(F.pad(features.tokens, (0, 0, 1, 0)), features.pooled)


class NoNorm(Patches):
    def forward(self, pixels):
        tokens = 10 * super().forward(pixels).tokens
        return Features(tokens, tokens.mean(1))


class Blind(Patches):
    def forward(self, pixels):
        return super().forward(torch.zeros_like(pixels) + torch.linspace(0, 1, SIZE))


class Noisy(Patches):
    def forward(self, pixels):
        return super().forward(pixels + 0.1 * torch.randn(pixels.shape))


class BatchStatistics(Patches):
    def forward(self, pixels):
        return super().forward(pixels - pixels.mean(0))


class NoGradient(Patches):
    @torch.no_grad()
    def feature_maps(self, pixels):
        return [self.forward(pixels).tokens]


class PlainTensor(Patches):
    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.offset = torch.ones(3, 1, 1)


class ForgottenState(Patches):
    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.register_buffer("offset", torch.randn(3, 1, 1), persistent=False)

    def forward(self, pixels):
        return super().forward(pixels + self.offset)


class TiedWeights(Patches):
    def __init__(self, config, image_size):
        super().__init__(config, image_size)
        self.again = self.embed.weight


class Overflowing(Patches):
    def forward(self, pixels):
        tokens = self.embed(pixels)
        low = tokens.dtype == torch.bfloat16
        tokens = F.layer_norm(map_to_tokens(tokens.float() * (-1 if low else 1)), (WIDTH,))
        return Features(tokens, tokens.mean(1))


class GlobalDice(Trained):
    def pretraining(self, num_classes):
        objective = Classifier(self, num_classes)
        objective.loss_ = objective.loss
        objective.loss = lambda images, labels, generator: objective.loss_(
            images + torch.rand(1), labels, generator
        )
        return objective


class LossWithoutName(Trained):
    def pretraining(self, num_classes):
        objective = Classifier(self, num_classes)
        loss = objective.loss
        objective.loss = lambda *given: {"class": loss(*given)["loss"]}
        return objective


class HeadOnly(Trained):
    def pretraining(self, num_classes):
        objective = Classifier(self, num_classes)
        objective.head.forward = lambda x: F.linear(
            x.detach(), objective.head.weight, objective.head.bias
        )
        return objective


# --- modulators -----------------------------------------------------------------------------------


class Detail(Modulator):
    """Right: starts at zero, as PAE's does."""

    def __init__(self, config: ModulatorConfig, encoder: Encoder):
        super().__init__(config, encoder)
        self.embed = nn.Conv2d(3, encoder.width, encoder.patch, encoder.patch)
        self.out = nn.Linear(encoder.width, encoder.width)
        nn.init.zeros_(self.out.weight)

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        return tokens + self.out(map_to_tokens(self.embed(pixels)))


class OtherShape(Detail):
    def forward(self, pixels, tokens):
        return super().forward(pixels, tokens)[:, :4]


class Dropping(Detail):
    def forward(self, pixels, tokens):
        return F.dropout(super().forward(pixels, tokens), 0.1, self.training)


class OverTheBatch(Detail):
    def forward(self, pixels, tokens):
        return super().forward(pixels, tokens) - tokens.mean(0)


class UnusedWeight(Detail):
    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.more = nn.Linear(2, 2)


# --- bottlenecks ----------------------------------------------------------------------------------


class HalfConfig(BottleneckConfig):
    def latent_channels(self, token_width: int) -> int:
        return 3


class Half(Bottleneck):
    """Right: three of six channels, with noise while training, scaled by what it measured."""

    statistics_images = 4

    def __init__(self, config: BottleneckConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.in_channels, self.channels = 6, 3
        self.register_buffer("scale", torch.ones(()))

    def measure(self, batches):
        self.scale.fill_(max(batch.abs().max() for batch in batches))

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Posterior:
        z = x.float()[:, :3] / self.scale
        if generator is not None:
            z = z + 0.1 * randn(z.shape, generator)
        return Posterior(z)

    def invert(self, latents: Tensor) -> Tensor:
        return latents * self.scale


class OtherChannels(Half):
    def __init__(self, config, width, grid):
        super().__init__(config, width, grid)
        self.channels = 6


class UnprojectedHalf(Half):
    projected = False


class AlwaysNoisy(Half):
    def forward(self, x, generator):
        return super().forward(x, generator or torch.Generator().manual_seed(torch.seed()))


class OwnDice(Half):
    def forward(self, x, generator):
        found = super().forward(x, None)
        return found if generator is None else Posterior(found.latents + torch.rand(1))


class Detached(Half):
    def forward(self, x, generator):
        return Posterior(super().forward(x, generator).latents.detach())


class LogvarOnly(Half):
    def forward(self, x, generator):
        found = super().forward(x, generator)
        return Posterior(found.latents, logvar=found.latents)


class LosesStatistics(Half):
    def __init__(self, config, width, grid):
        super().__init__(config, width, grid)
        self.register_buffer("scale", torch.ones(()), persistent=False)


# --- decoders -------------------------------------------------------------------------------------


class PatchConfig(DecoderConfig):
    def image_size(self, grid: int) -> int:
        return PATCH * grid


class Linear(Decoder):
    """Right: one linear layer."""

    def __init__(self, config: DecoderConfig, width: int, grid: int):
        super().__init__(config, width, grid)
        self.head = nn.Linear(width, 3 * PATCH**2)

    def forward(self, tokens: Tensor) -> Tensor:
        return unpatchify(self.head(tokens), PATCH)

    def last_layer(self) -> nn.Parameter:
        return self.head.weight


class OtherSize(Linear):
    def forward(self, tokens):
        return F.avg_pool2d(super().forward(tokens), 2)


class BatchNorm(Linear):
    def __init__(self, config, width, grid):
        super().__init__(config, width, grid)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, tokens):
        return self.norm(super().forward(tokens))


class ForeignLastLayer(Linear):
    def last_layer(self):
        return nn.Parameter(torch.ones(3))


class CutOff(Linear):
    def forward(self, tokens):
        with torch.no_grad():
            image = super().forward(tokens)
        return image + 0 * self.head.weight.sum() + 0 * self.head.bias.sum()


class Exploding(Linear):
    def forward(self, tokens):
        return super().forward(tokens) / 0


# --- generators -----------------------------------------------------------------------------------


class Net(Generator):
    """Right: one convolution, shifted by time and label; gives zero when it is new."""

    def __init__(self, config: GeneratorConfig, latent: LatentShape, num_classes: int):
        super().__init__(config, latent, num_classes)
        self.body = nn.Conv2d(latent.channels, latent.channels, 1)
        self.labels = nn.Embedding(num_classes + 1, latent.channels)
        nn.init.zeros_(self.body.weight)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        condition = self.labels(y) + t[:, None]
        return self.body(x + condition[:, :, None, None])


class NoNull(Net):
    def forward(self, x, t, y):
        return super().forward(x, t, y % self.num_classes)


class Timeless(Net):
    def forward(self, x, t, y):
        return super().forward(x, 0 * t, y)


class BlowsUpAtTheEnd(Net):
    def forward(self, x, t, y):
        return super().forward(x, 1 / (1 - t), y)


class Half16(Net):
    def forward(self, x, t, y):
        return super().forward(x, t, y).half()


class LookingAround(Net):
    def forward(self, x, t, y):
        return super().forward(x, t.mean().expand(len(t)), y)


# --- the checks -----------------------------------------------------------------------------------


def encoder(cls: type[Encoder], config: type[EncoderConfig] = PatchesConfig) -> None:
    check_encoder(cls(config(), SIZE))


def trained(cls: type[Encoder]) -> None:
    encoder(cls, TrainedConfig)


def modulator(cls: type[Modulator]) -> None:
    of, config = Patches(PatchesConfig(), SIZE), ModulatorConfig()
    check_modulator(cls(config, of), config, of)


def bottleneck(cls: type[Bottleneck]) -> None:
    config = HalfConfig()
    check_bottleneck(cls(config, WIDTH, GRID), config, WIDTH, GRID)


def decoder(cls: type[Decoder]) -> None:
    config = PatchConfig()
    check_decoder(cls(config, WIDTH, GRID), config, WIDTH, GRID)


def generator(cls: type[Generator]) -> None:
    config = GeneratorConfig()
    check_generator(cls(config, LatentShape(3, 4), 2), config)


CASES = [
    (encoder, WrongGrid, r"token_grid.* 4, .*encoder\.grid .*2"),
    (encoder, WrongHeads, "3 heads .*width 8"),
    (encoder, OneWayNormalization, "denormalize"),
    (encoder, ClassTokenLeft, r"tokens .*\(3, 17, 8\).*\(3, 16, 8\)"),
    (encoder, NoNorm, "mean square of 1e\\+02"),
    (encoder, Blind, "two different images .*equal"),
    (encoder, Noisy, "torch's global random state"),
    (encoder, BatchStatistics, "other images of the batch"),
    (encoder, NoGradient, "feature map 0.*no gradient"),
    (encoder, PlainTensor, "offset of PlainTensor is a plain tensor"),
    (encoder, ForgottenState, "neither a parameter nor a persistent buffer"),
    (encoder, TiedWeights, "safetensors"),
    (encoder, Overflowing, "bf16 autocast.* 200%"),
    (trained, GlobalDice, "the pretraining loss .*torch's global random state"),
    (trained, LossWithoutName, "`loss`"),
    (trained, HeadOnly, "no gradient .*the encoder"),
    (modulator, OtherShape, r"\(3, 4, 8\).*\(3, 16, 8\)"),
    (modulator, Dropping, "torch's global random state"),
    (modulator, OverTheBatch, "other images of the batch"),
    (modulator, UnusedWeight, r"the weight more\.weight"),
    (bottleneck, OtherChannels, "latent_channels .*3, .*6"),
    (bottleneck, UnprojectedHalf, r"`projected` .* 8 .* not 6"),
    (bottleneck, AlwaysNoisy, "the bottleneck without a generator"),
    (bottleneck, OwnDice, "given a generator.*torch's global random state"),
    (bottleneck, Detached, "the latents: no gradient"),
    (bottleneck, LogvarOnly, "logvar.*mean"),
    (bottleneck, LosesStatistics, "neither a parameter nor a persistent buffer"),
    (decoder, OtherSize, r"\(3, 3, 4, 4\).*\(3, 3, 8, 8\)"),
    (decoder, BatchNorm, "other images of the batch"),
    (decoder, ForeignLastLayer, "last_layer .*of the decoder"),
    (decoder, CutOff, "all gradients are zero"),
    (decoder, Exploding, "NaN or infinity"),
    (generator, NoNull, "does not depend on the label"),
    (generator, Timeless, "does not depend on the time"),
    (generator, BlowsUpAtTheEnd, "the generator.*NaN or infinity"),
    (generator, Half16, "float16.*float32"),
    (generator, LookingAround, "other images of the batch"),
]


@pytest.mark.parametrize(("check", "broken", "fact"), CASES)
def test_broken_component_is_caught(check: Check, broken: type, fact: str) -> None:
    with pytest.raises(AssertionError, match=fact):
        check(broken)


@pytest.mark.parametrize(
    ("check", "right"),
    [
        (encoder, Patches),
        (trained, Trained),
        (modulator, Detail),
        (bottleneck, Half),
        (decoder, Linear),
        (generator, Net),
    ],
)
def test_correct_component_passes(check: Check, right: type) -> None:
    check(right)


def test_heads_are_those_the_config_promises() -> None:
    with pytest.raises(AssertionError, match=r"token_heads.* 4, .*encoder\.heads .*2"):
        encoder(Patches, OtherHeadsConfig)


def test_a_check_leaves_the_component_as_it_was():
    config = GeneratorConfig()
    net = Net(config, LatentShape(3, 4), 2)
    before = {name: value.clone() for name, value in net.state_dict().items()}

    check_generator(net, config)

    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
