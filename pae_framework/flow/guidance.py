"""Classifier-free guidance: a generator with labels becomes a velocity field x, t -> v."""

from __future__ import annotations

import torch
from torch import Tensor

from pae_framework.contracts import Generator
from pae_framework.flow.path import Velocity
from pae_framework.settings import Guidance


def guided(model: Generator, labels: Tensor, guidance: Guidance) -> Velocity:
    """Velocity field of ``model`` for the labels (B,), guided where the settings say so.

    Inside the interval, ends included, it is u + scale (c - u) of the conditional c and the
    unconditional u, from one pass of twice the batch. Outside, and with scale 1, it is c alone, and
    u is not computed. With ``first_three`` only channels 0, 1, 2 are guided and the others stay
    conditional: what LightningDiT's samplers do to latents of any width, which is why its scales
    (6.7 to 10) are larger than those of samplers that guide all channels, such as GAE's.
    """
    low, high = guidance.interval
    guided_channels = slice(0, 3) if guidance.channels == "first_three" else slice(None)
    both = torch.cat([labels, torch.full_like(labels, model.num_classes)])

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        if guidance.scale == 1 or not low <= t <= high:
            return model(x, _per_sample(t, x), labels)
        doubled = torch.cat([x, x])
        conditional, unconditional = model(doubled, _per_sample(t, doubled), both).chunk(2)
        c, u = conditional[:, guided_channels], unconditional[:, guided_channels]
        result = conditional.clone()
        result[:, guided_channels] = u + guidance.scale * (c - u)
        return result

    return velocity


def _per_sample(t: Tensor, x: Tensor) -> Tensor:
    return t.to(device=x.device, dtype=torch.float32).expand(len(x))
