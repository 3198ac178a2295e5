"""Draw latents: noise by sample number, labels by plan, one integration per batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.contracts import Generator
from pae_framework.flow.guidance import guided
from pae_framework.flow.solvers import SOLVERS
from pae_framework.flow.time import time_grid
from pae_framework.seeding import derive_seed, generator
from pae_framework.settings import SampleSettings


@torch.no_grad()
def draw(
    model: Generator,
    labels: Tensor,
    indices: Tensor | Sequence[int],
    settings: SampleSettings,
    seed: int,
    latent: LatentShape,
) -> Tensor:
    """Draw one latent per label, ``settings.batch_size`` at a time.

    Sample i starts from noise that is a function of (seed, i) only, so neither the batch size nor
    the other samples change it.

    Args:
        model: velocity model, used as it stands (put it in eval mode first).
        labels: classes (M,) int64.
        indices: sample numbers (M,).
        settings: solver, steps, shift, guidance, batch size.
        seed: seed of the noise.
        latent: shape of one latent.

    Returns:
        Normalised latents (M, C, h, w) float32, on the model's device.
    """
    assert len(labels) == len(indices)
    device = next(model.parameters()).device
    times = time_grid(settings.steps, settings.shift)
    integrate = SOLVERS[settings.solver].integrate
    latents = []
    for start in range(0, len(labels), settings.batch_size):
        batch = slice(start, start + settings.batch_size)
        velocity = guided(model, labels[batch].to(device), settings.guidance)
        noise = initial_noise(indices[batch], seed, latent).to(device)
        latents.append(integrate(velocity, noise, times))
    return torch.cat(latents) if latents else torch.empty(0, *_shape(latent), device=device)


def initial_noise(indices: Tensor | Sequence[int], seed: int, latent: LatentShape) -> Tensor:
    """Standard normal noise (M, C, h, w) on the CPU; row i is a function of (seed, indices[i])."""
    # torch's CPU generator keeps only 32 bits of a seed. A hash of (seed, i) would make two of
    # 50 000 samples share their noise once in four seeds; counting up from a hash never does.
    first = derive_seed(seed, "noise")
    rows = [
        torch.randn(
            _shape(latent), generator=torch.Generator().manual_seed((first + int(i)) % 2**32)
        )
        for i in indices
    ]
    return torch.stack(rows) if rows else torch.empty(0, *_shape(latent))


def label_plan(count: int, num_classes: int, seed: int) -> Tensor:
    """Labels (count,) int64 of a sample set: as even over the classes as they can be, shuffled.

    Class counts differ by at most one; which classes come once more is drawn too. The order is
    shuffled because scores over consecutive splits (inception score) need mixed classes.
    """
    random = generator(seed, "labels")
    even = torch.arange(num_classes).repeat(count // num_classes)
    rest = torch.randperm(num_classes, generator=random)[: count % num_classes]
    labels = torch.cat([even, rest])
    return labels[torch.randperm(count, generator=random)]


def _shape(latent: LatentShape) -> tuple[int, int, int]:
    return (latent.channels, latent.side, latent.side)
