"""Draw latents: noise by sample number, labels by plan, one integration per batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.flow.guidance import guided
from pae_framework.flow.integrate import integrate
from pae_framework.flow.noise import SampleNoise
from pae_framework.seeding import generator


@dataclass
class EvaluationCount:
    """Velocity evaluations as they happened, added up over samples."""

    samples: int = 0
    total: int = 0
    guided: int = 0

    def add(self, samples: int, total: int, guided: int) -> None:
        """Count ``samples`` that were integrated with ``total`` evaluations each."""
        self.samples += samples
        self.total += samples * total
        self.guided += samples * guided

    @property
    def mean(self) -> tuple[float, float]:
        """Evaluations of a sample, and guided ones among them."""
        samples = max(1, self.samples)
        return self.total / samples, self.guided / samples


@torch.no_grad()
def draw(
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
    """Draw one latent per label, ``settings.batch_size`` at a time.

    All noise of sample i, at the start and at every step, is a function of (seed, i) only, so
    neither the batch size nor the other samples change it. For the same reason dopri5, which
    chooses one step for a whole batch, is given one sample at a time.

    Args:
        model: velocity model, used as it stands (put it in eval mode first).
        labels: classes (M,) int64.
        indices: sample numbers (M,).
        settings: solver, steps, shift, guidance, batch size.
        seed: seed of the noise.
        latent: shape of one latent.
        weak: the second network of autoguidance, where the settings name one.
        count: is told how many evaluations there were.

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
            drawn = len(latents[-1])
            count.add(drawn, velocity.evaluations, velocity.guided_evaluations)
    return torch.cat(latents)


def label_plan(count: int, num_classes: int, seed: int, labels: str = "balanced") -> Tensor:
    """Labels (count,) int64 of a sample set, in an order shuffled by the seed.

    ``balanced``: as even over the classes as they can be. Class counts differ by at most one; which
    classes come once more is drawn too. The order is shuffled because scores over consecutive
    splits (inception score) need mixed classes. ``uniform``: each label drawn by itself.
    """
    random = generator(seed, "labels")
    if labels == "uniform":
        return torch.randint(num_classes, (count,), generator=random)
    assert labels == "balanced"
    even = torch.arange(num_classes).repeat(count // num_classes)
    rest = torch.randperm(num_classes, generator=random)[: count % num_classes]
    plan = torch.cat([even, rest])
    return plan[torch.randperm(count, generator=random)]
