"""From the latents' channels to those of what they are compared with."""

from __future__ import annotations

from torch import nn


def channel_map(latent_channels: int, target_channels: int) -> nn.Conv2d:
    """A learned 1x1 convolution without bias from d to D channels (VA-VAE's ``reverse_proj``).

    The target is the one that is left alone: were it projected, both sides could agree on nothing.
    """
    return nn.Conv2d(latent_channels, target_channels, kernel_size=1, bias=False)
