"""H_ref: features whose Gram matrix the refined targets learn (PAE).

Stated by the paper (arXiv 2605.07915, section 3): H is upsampled to 256 x 256 with AnyUp, gets a
"low-pass spatial normalization" of strength 0.4 and is downsampled bilinearly to the token grid.

Inferred here: the normalization subtracts ``strength`` times the low-passed features, by default
their mean over the image, from the features. Optionally (off by default) it divides by each
channel's deviation over the image. Bilinear means without antialiasing and without aligned corners.
With the upsampler ``none`` the features stay on the token grid: bilinear up- and downsampling would
only smooth them slightly.

AnyUp (Wimmer et al., 2025; repository wimmerth/anyup) is a learned upsampler of any encoder's
features, run from an unmodified checkout. Inferred from its description, not checked against its
code: its ``hubconf.py`` has an entry ``anyup`` that takes ``pretrained``;
the network takes images (B, 3, U, U), standardized as for ImageNet, and features (B, D, g, g), and
returns features (B, D, U, U).

Legend: B batch, N tokens, D encoder width, g grid side, S image side in px, U side of the dense
features.
"""

from __future__ import annotations

from math import isqrt
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.errors import DataError
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import imagenet_standardize, map_to_tokens, tokens_to_map
from pae_framework.tensor_files import load_state
from pae_framework.tokenizer.tokenizer_settings import AnyUpSettings, RefinementSettings
from pae_framework.weight_files import read_checkpoint


class StructureReference(UsesFrozen):
    """Computes H_ref from frozen features. It has no parameters.

    AnyUp stays outside the module tree. :meth:`load_pretrained` loads it; only the training of the
    refinement needs it.
    """

    anyup: nn.Module | None

    def __init__(self, settings: RefinementSettings):
        super().__init__()
        self.settings = settings
        self.anyup = None

    def load_pretrained(self) -> None:
        """Load AnyUp if it is the upsampler.

        Raises:
            DataError: it is missing, or its checkout does not return a network.
            CheckpointError: its weights do not fit.
        """
        if self.settings.upsampler == "anyup":
            assert self.settings.anyup is not None
            self.hold_frozen("anyup", load_anyup(self.settings.anyup))

    @torch.no_grad()
    def forward(self, tokens: Tensor, images: Tensor) -> Tensor:
        """H_ref (B, N, D) of tokens (B, N, D) and their images (B, 3, S, S) in [0, 1].

        Raises:
            DataError: AnyUp does not return dense features.
        """
        settings = self.settings
        if settings.upsampler == "none":
            return self._normalized(tokens, per_token=1.0)
        # One image at a time: the dense features of one image take 268 MB with 1024 channels.
        pairs = zip(tokens.split(1), images.split(1), strict=True)
        return torch.cat([self._dense_reference(*pair) for pair in pairs])

    def _dense_reference(self, tokens: Tensor, images: Tensor) -> Tensor:
        grid = isqrt(tokens.shape[1])
        size = self.settings.upsample_size or images.shape[-1]
        dense = self._upsampled(tokens_to_map(tokens), images, size)  # (1, D, U, U)
        dense = tokens_to_map(self._normalized(map_to_tokens(dense), per_token=size / grid))
        return map_to_tokens(_resized(dense, grid))

    def _upsampled(self, features: Tensor, images: Tensor, size: int) -> Tensor:
        """Dense features (B, D, U, U) of features (B, D, g, g)."""
        if self.settings.upsampler == "bilinear":
            return _resized(features, size)
        assert self.anyup is not None, "call load_pretrained first"
        dense = self.anyup(imagenet_normalized(images, size), features)
        expected = (*features.shape[:2], size, size)
        if not isinstance(dense, Tensor) or dense.shape != expected:
            actual = tuple(dense.shape) if isinstance(dense, Tensor) else type(dense).__name__
            raise DataError(f"AnyUp returned {actual}, expected features of shape {expected}")
        return dense.float()

    def _normalized(self, tokens: Tensor, per_token: float) -> Tensor:
        settings = self.settings
        size = None if settings.low_pass_size is None else settings.low_pass_size * per_token
        return spatially_normalized(tokens, settings.low_pass, size, settings.spatial_norm)


def spatially_normalized(
    tokens: Tensor, strength: float, size: float | None = None, deviation_power: float = 0.0
) -> Tensor:
    """(x - strength * low_pass(x)) / (sd + 1e-6)^deviation_power of tokens x (B, N, D).

    Removing what tokens have in common increases the contrast of the Gram matrix.

    Args:
        tokens: of a square grid.
        strength: share of the low-passed tokens that is subtracted.
        size: deviation of the low pass's Gaussian, in tokens; None: the mean over the image.
        deviation_power: exponent of sd, each channel's biased deviation over the image after that.
    """
    x = tokens - strength * low_passed(tokens, size)
    if deviation_power:
        x = x / (x.std(dim=1, keepdim=True, unbiased=False) + 1e-6) ** deviation_power
    return x


def low_passed(tokens: Tensor, size: float | None) -> Tensor:
    """Tokens (B, N, D) after a Gaussian blur; if ``size`` is None, their mean (B, 1, D).

    At the border the kernel is truncated and renormalized, so constants stay constant and a very
    large ``size`` gives the mean.
    """
    if size is None:
        return tokens.mean(dim=1, keepdim=True)
    with torch.autocast(tokens.device.type, enabled=False):  # as for cosine_gram
        positions = torch.arange(isqrt(tokens.shape[1]), device=tokens.device, dtype=tokens.dtype)
        kernel = (-0.5 * ((positions[:, None] - positions) / size).square()).softmax(dim=1)
        return map_to_tokens(kernel @ tokens_to_map(tokens) @ kernel.mT)


def load_anyup(settings: AnyUpSettings) -> nn.Module:
    """Build the network with the checkout's code and load its weights from the file.

    The network is built with ``pretrained=False``, so nothing is downloaded.

    Raises:
        DataError: checkout or weights are missing, or the checkout does not return a network.
        CheckpointError: the weights do not fit.
    """
    if (problem := settings.missing()) is not None:
        raise DataError(problem)
    checkout, weights = Path(settings.checkout).expanduser(), Path(settings.weights).expanduser()
    try:
        network = torch.hub.load(str(checkout), "anyup", source="local", pretrained=False)
    except Exception as error:  # another project's code may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{checkout}: `anyup(pretrained=False)` of its hubconf.py failed ({reason})"
        ) from error
    if not isinstance(network, nn.Module):
        raise DataError(f"{checkout}: its `anyup` returns {type(network).__name__}, not a network")
    tensors = read_checkpoint(weights, names=network.state_dict().keys())
    load_state(network, tensors, str(weights))
    return network


def imagenet_normalized(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], resized to ``size`` px and standardized as for ImageNet."""
    if images.shape[-1] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return imagenet_standardize(images)


def _resized(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
