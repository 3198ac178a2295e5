"""The flow-matching objective: mean squared velocity error plus a direction term.

Shapes: B samples, latents (B, C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.contracts import Batch, Generator, LossTerms
from pae_framework.flow.flow_settings import FlowSettings
from pae_framework.flow.path import interpolate, path_velocity, sample_times
from pae_framework.seeding import on_device, rand, randn


class FlowObjective(nn.Module):
    """A velocity model with its loss.

    Args:
        model: the trained network.
        settings: see :func:`flow_loss`.
        encode: maps the images of batches to normalized latents; None: batches hold latents.
    """

    def __init__(
        self,
        model: Generator,
        settings: FlowSettings,
        encode: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.model = model
        self.settings = settings
        self._encode = encode

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        """Loss terms of (normalized latents (B, C, h, w), labels (B,)): :func:`flow_loss`.

        With ``encode``, of (images (B, 3, S, S) in [0, 1], labels (B,)).
        """
        latents, labels = batch
        if self._encode is not None:
            latents = self._encode(latents)
        return flow_loss(self.model, latents, labels, self.settings, generator)


def flow_loss(
    model: Generator, x1: Tensor, labels: Tensor, settings: FlowSettings, rng: torch.Generator
) -> LossTerms:
    """Loss of a velocity model on a batch; ``rng`` draws noise x_0, times and dropped labels.

    Args:
        model: the velocity model; label ``model.num_classes`` is its null label.
        x1: normalized latents (B, C, h, w) of any float type; times, noise and the loss are
            float32, since bfloat16 would round times to 8 bits.
        labels: classes (B,) int64.
        settings: times, weight of the direction term, share of dropped labels.
        rng: source of all randomness, on any device.

    Returns:
        ``mse``, ``cosine`` (weighted; absent if its weight is 0) and ``loss``, their sum.
    """
    x1 = x1.float()  # (B, C, h, w)
    x0 = randn(x1.shape, rng)
    x0 = on_device(x0, x1.device)  # (B, C, h, w)
    time = settings.time.for_latent(model.latent)
    t = on_device(sample_times(time, len(x1), rng), x1.device)  # (B,)
    labels = drop_labels(labels, model.num_classes, settings.label_drop, rng)  # (B,)
    velocity = model(interpolate(x0, x1, t), t, labels)  # (B, C, h, w)
    mse, cosine = velocity_terms(velocity, path_velocity(x0, x1))
    if settings.cosine_weight == 0:
        return {"mse": mse, "loss": mse}
    cosine = settings.cosine_weight * cosine
    return {"mse": mse, "cosine": cosine, "loss": mse + cosine}


def velocity_terms(v: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Compare velocities v with targets u, both (B, C, h, w), in float32 (LightningDiT).

    Returns:
        The mean squared error, and the mean over samples and positions of 1 - cos(v, u), the cosine
        along the channels (eps 1e-8).
    """
    v, u = v.float(), u.float()
    return F.mse_loss(v, u), (1 - F.cosine_similarity(v, u, dim=1, eps=1e-8)).mean()


def drop_labels(labels: Tensor, null: int, share: float, rng: torch.Generator) -> Tensor:
    """Replace each label (B,) by the null label with probability ``share``, independently."""
    dropped = rand((len(labels),), rng) < share
    return labels.masked_fill(on_device(dropped, labels.device), null)
