"""Sample latents: noise by sample number, a plan of labels, one integration per batch.

Shapes: M samples, latents (M, C, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import SampleSettings, SolverSettings
from pae_framework.flow.guidance import GuidedVelocity, guided
from pae_framework.flow.solvers import integrate
from pae_framework.seeding import derive_seed, generator, on_device


@dataclass
class EvaluationCount:
    """Velocity evaluations, summed over samples.

    A guided evaluation costs two network passes: with and without a label, or of two networks.
    """

    samples: int = 0
    total: int = 0
    guided: int = 0

    def add(self, samples: int, total: int, guided: int) -> None:
        """Add ``samples`` samples of ``total`` evaluations each, ``guided`` of them guided."""
        self.samples += samples
        self.total += samples * total
        self.guided += samples * guided

    def include(self, other: EvaluationCount) -> None:
        """Add the samples of another count."""
        self.samples += other.samples
        self.total += other.total
        self.guided += other.guided

    @property
    def mean(self) -> tuple[float, float]:
        """Mean evaluations per sample, and guided ones among them."""
        samples = max(1, self.samples)
        return self.total / samples, self.guided / samples


class SampleNoise:
    """Standard normal noise of samples, each with its own random stream.

    The first draw is the start of a sample; later draws are the noise of its steps. Draw k of
    sample i depends only on (seed, i, k) and the shape of the latent, not on the other samples.

    Args:
        indices: sample numbers (M,).
        seed: seed of the sample set.
        latent: shape of one latent.
    """

    def __init__(self, indices: Tensor | Sequence[int], seed: int, latent: LatentShape):
        # torch's CPU generator keeps only 32 bits of a seed. If each seed were a hash of (seed, i),
        # two of 50 000 samples would have the same noise for one seed in four. Counting up from
        # one hash avoids that.
        first = derive_seed(seed, "noise")
        self._streams = [
            torch.Generator().manual_seed((first + int(index)) % 2**32) for index in indices
        ]
        self._shape = (latent.channels, latent.side, latent.side)

    def draw(self) -> Tensor:
        """The next noise (M, C, h, w) float32, on the CPU."""
        if not self._streams:
            return torch.empty(0, *self._shape)
        return torch.stack([torch.randn(self._shape, generator=stream) for stream in self._streams])


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

    The noise of sample i depends only on (seed, i), not on the batch size or the other samples. For
    the same reason adaptive solvers, which choose one step size for a batch, get one sample at a
    time. With ``settings.compile`` every batch has the full size, so that no other is compiled.

    Args:
        model: velocity model; put it in eval mode first.
        labels: classes (M,) int64.
        indices: sample numbers (M,).
        settings: solver, steps, shift, guidance, precision, batch size.
        seed: seed of the noise.
        latent: shape of one latent.
        weak: the second network, if the settings use autoguidance.
        count: counts the evaluations.

    Returns:
        Normalized latents (M, C, h, w) float32, on the model's device.
    """
    assert len(labels) == len(indices)
    assert (weak is None) == (settings.guidance.autoguidance is None)
    device = next(model.parameters()).device
    settings = settings.for_latent(latent)
    size = 1 if settings.adaptive else settings.batch_size
    latents = [torch.empty(0, latent.channels, latent.side, latent.side, device=device)]
    bf16, numbers = settings.precision == "bf16", torch.as_tensor(indices)
    for start in range(0, len(labels), size):
        samples = torch.arange(start, min(start + size, len(labels)))  # (n,)
        filled = samples
        if settings.compile:
            filled = F.pad(samples, (0, size - len(samples)), value=start)  # (size,)
        velocity = guided(model, labels[filled].to(device), settings.guidance, weak, bf16)
        noise = SampleNoise(numbers[filled], seed, latent)
        drawn = integrate(velocity, on_device(noise.draw(), device), settings, noise.draw)
        latents.append(drawn[: len(samples)])
        if count is not None:
            count.add(len(samples), velocity.evaluations, velocity.guided_evaluations)
    return torch.cat(latents)


def label_plan(count: int, num_classes: int, seed: int, labels: str = "balanced") -> Tensor:
    """Labels (count,) int64 of a sample set, in an order shuffled by the seed.

    ``balanced``: class counts differ by at most one, and which classes have one more is random. The
    order is shuffled because scores over consecutive splits (inception score) need mixed classes.
    ``uniform``: labels are independent.
    """
    random = generator(seed, "labels")
    if labels == "uniform":
        return torch.randint(num_classes, (count,), generator=random)
    assert labels == "balanced"
    full_rounds = torch.arange(num_classes).repeat(count // num_classes)
    rest = torch.randperm(num_classes, generator=random)[: count % num_classes]
    plan = torch.cat([full_rounds, rest])  # (count,)
    return plan[torch.randperm(count, generator=random)]


def planned_evaluations(settings: SolverSettings) -> EvaluationCount | None:
    """Evaluations for one sample, counted with velocity 0.

    None for adaptive solvers, whose steps depend on the velocity.
    """
    if settings.adaptive:
        return None

    zero = torch.zeros(1, 1, 1, 1)
    guided_pair = (lambda x, t: (zero, zero)) if settings.guidance.scale > 1 else None
    field = GuidedVelocity(lambda x, t: zero, guided_pair, settings.guidance)
    integrate(field, zero, settings, lambda: zero)
    return EvaluationCount(1, field.evaluations, field.guided_evaluations)
