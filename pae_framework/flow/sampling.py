"""Sample latents: noise by sample number, labels by plan, one integration per batch.

Shapes: M samples, latents (M, C, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import SampleSettings, SolverSettings
from pae_framework.flow.guidance import GuidedVelocity, guided
from pae_framework.flow.solvers import integrate
from pae_framework.seeding import derive_seed, generator


@dataclass
class EvaluationCount:
    """Velocity evaluations that were made, summed over samples."""

    samples: int = 0
    total: int = 0
    guided: int = 0

    def add(self, samples: int, total: int, guided: int) -> None:
        """Add ``samples`` samples of ``total`` evaluations each, ``guided`` of them guided."""
        self.samples += samples
        self.total += samples * total
        self.guided += samples * guided

    @property
    def mean(self) -> tuple[float, float]:
        """Mean evaluations per sample, and guided ones among them."""
        samples = max(1, self.samples)
        return self.total / samples, self.guided / samples


class SampleNoise:
    """Standard normal noise of some samples, each with a random stream of its own.

    The first draw is a sample's start; later draws are the noise of its steps. Draw k of sample i
    depends only on (seed, i, k) and the latent's shape, not on the other samples.

    Args:
        indices: sample numbers (M,).
        seed: seed of the sample set.
        latent: shape of one latent.
    """

    def __init__(self, indices: Tensor | Sequence[int], seed: int, latent: LatentShape):
        # torch's CPU generator keeps only 32 bits of a seed. With a hash of (seed, i), two of
        # 50 000 samples would share their noise for one seed in four. Counting up from a hash
        # avoids that.
        first = derive_seed(seed, "noise")
        self._streams = [
            torch.Generator().manual_seed((first + int(index)) % 2**32) for index in indices
        ]
        self._shape = (latent.channels, latent.side, latent.side)

    def draw(self) -> Tensor:
        """The next noise (M, C, h, w) float32, on the CPU."""
        if not self._streams:
            return torch.empty(0, *self._shape)
        return torch.stack([torch.randn(self._shape, generator=own) for own in self._streams])


@torch.no_grad()
def sample_latents(
    model: Generator,
    labels: Tensor,
    indices: Tensor | Sequence[int],
    settings: SampleSettings,
    seed: int,
    latent: LatentShape,
    *,
    weak: Generator | None = None,
    count: EvaluationCount | None = None,
) -> Tensor:
    """Sample one latent per label, ``settings.batch_size`` at a time.

    All noise of sample i depends only on (seed, i), so neither the batch size nor the other samples
    change it. For the same reason adaptive solvers, which choose one step size for a whole batch,
    get one sample at a time.

    Args:
        model: velocity model; put it in eval mode first.
        labels: classes (M,) int64.
        indices: sample numbers (M,).
        settings: solver, steps, shift, guidance, batch size.
        seed: seed of the noise.
        latent: shape of one latent.
        weak: the second network of autoguidance, if the settings name one.
        count: the evaluations are added to it.

    Returns:
        Normalised latents (M, C, h, w) float32, on the model's device.
    """
    assert len(labels) == len(indices)
    assert (weak is None) == (settings.guidance.autoguidance is None)
    device = next(model.parameters()).device
    settings = settings.for_latent(latent)
    size = 1 if settings.adaptive else settings.batch_size
    latents = [torch.empty(0, latent.channels, latent.side, latent.side, device=device)]
    for start in range(0, len(labels), size):
        batch = slice(start, start + size)
        velocity = guided(model, labels[batch].to(device), settings.guidance, weak)
        noise = SampleNoise(indices[batch], seed, latent)
        latents.append(integrate(velocity, noise.draw().to(device), settings, noise.draw))
        if count is not None:
            count.add(len(latents[-1]), velocity.evaluations, velocity.guided_evaluations)
    return torch.cat(latents)


def label_plan(count: int, num_classes: int, seed: int, labels: str = "balanced") -> Tensor:
    """Labels (count,) int64 of a sample set, in an order shuffled by the seed.

    ``balanced``: class counts differ by at most one; which classes get one more is random. The
    order is shuffled because scores over consecutive splits (inception score) need mixed classes.
    ``uniform``: each label is drawn independently.
    """
    random = generator(seed, "labels")
    if labels == "uniform":
        return torch.randint(num_classes, (count,), generator=random)
    assert labels == "balanced"
    whole_rounds = torch.arange(num_classes).repeat(count // num_classes)
    rest = torch.randperm(num_classes, generator=random)[: count % num_classes]
    plan = torch.cat([whole_rounds, rest])
    return plan[torch.randperm(count, generator=random)]


@dataclass(frozen=True)
class Evaluations:
    """Velocity evaluations of one integration, and how many of them are guided.

    A guided evaluation costs two network passes per sample: with and without a label, or of two
    networks.
    """

    total: int
    guided: int


def planned_evaluations(settings: SolverSettings) -> Evaluations | None:
    """Evaluations of one integration, counted on a field of zeros.

    None for adaptive solvers, whose steps depend on the field.
    """
    if settings.adaptive:
        return None

    def pair(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    zero = torch.zeros(1, 1, 1, 1)
    guided_pair = pair if settings.guidance.scale > 1 else None
    field = GuidedVelocity(lambda x, t: zero, guided_pair, settings.guidance)
    integrate(field, zero, settings, lambda: zero)
    return Evaluations(field.evaluations, field.guided_evaluations)
