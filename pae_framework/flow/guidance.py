"""Guidance: a velocity field x, t -> v from networks and labels, which counts its evaluations.

Shapes: x, v (B, C, h, w); t one time for all; labels (B,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pae_framework.contracts import Generator
from pae_framework.flow.flow_settings import Guidance
from pae_framework.flow.path import Velocity

Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""x, t -> (c, g): the velocity for the labels, and the one to guide away from."""


class GuidedVelocity:
    """A velocity field: ``plain``, or g + scale (c - g) of a ``pair`` (c, g) inside the interval.

    The interval includes both ends. Outside it, or without a pair, only ``plain`` is computed.

    Attributes:
        evaluations: number of calls.
        guided_evaluations: number of guided calls; each costs two network passes per sample.
    """

    def __init__(self, plain: Velocity, pair: Pair | None, guidance: Guidance):
        self._plain = plain
        self._pair = pair
        self._guidance = guidance
        self.evaluations = 0
        self.guided_evaluations = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity (B, C, h, w) at x, one time t for all, in the float type of x."""
        low, high = self._guidance.interval
        self.evaluations += 1
        if self._pair is None or not low <= t <= high:
            return self._plain(x, t).to(x.dtype)
        self.guided_evaluations += 1
        conditional, other = self._pair(x, t)
        # In bf16 the difference, and so what guidance amplifies, would have few digits.
        return combine(conditional.to(x.dtype), other.to(x.dtype), self._guidance)


def guided(
    model: Generator,
    labels: Tensor,
    guidance: Guidance,
    weak: Generator | None = None,
    bf16: bool = False,
) -> GuidedVelocity:
    """Velocity field of ``model`` for the labels (B,), guided according to the settings.

    Args:
        model: the network to sample from.
        labels: classes (B,) int64.
        guidance: scale (1: none), channels, interval.
        weak: for autoguidance (Karras et al. 2024; RAE): a weaker network over the same latents and
            classes, called with the same labels; None: classifier-free, with the null label.
        bf16: compute the networks under autocast.
    """
    autocast = torch.autocast(labels.device.type, torch.bfloat16, enabled=bf16)

    def plain(x: Tensor, t: Tensor) -> Tensor:
        return model(x, _per_sample(t, x), labels)

    def with_and_without_label(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x_twice = torch.cat([x, x])  # (2 B, C, h, w)
        both = torch.cat([labels, torch.full_like(labels, model.num_classes)])  # (2 B,)
        conditional, unconditional = model(x_twice, _per_sample(t, x_twice), both).chunk(2)
        return conditional, unconditional

    def of_both_networks(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        assert weak is not None
        times = _per_sample(t, x)
        return model(x, times, labels), weak(x, times, labels)

    if guidance.scale == 1:
        return GuidedVelocity(autocast(plain), None, guidance)
    pair = with_and_without_label if weak is None else of_both_networks
    return GuidedVelocity(autocast(plain), autocast(pair), guidance)


def combine(conditional: Tensor, other: Tensor, guidance: Guidance) -> Tensor:
    """g + scale (c - g) of c and g, both (B, C, h, w).

    With ``first_three`` only channels 0, 1, 2 are guided and the others stay conditional.
    LightningDiT's samplers do this for latents of any width, so its scales (6.7 to 10) are larger
    than those of samplers that guide all channels, such as GAE's.
    """
    channels = slice(0, 3) if guidance.channels == "first_three" else slice(None)
    c, g = conditional[:, channels], other[:, channels]
    guided = conditional.clone()
    guided[:, channels] = g + guidance.scale * (c - g)
    return guided


def _per_sample(t: Tensor, x: Tensor) -> Tensor:
    if t.device != x.device:  # filling does not wait for the device, as copying a time to it would
        return torch.full((len(x),), float(t), dtype=torch.float32, device=x.device)
    return t.to(torch.float32).expand(len(x))
