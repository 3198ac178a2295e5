"""H_ref: features whose Gram matrix the refined targets learn (PAE).

Stated by the paper (arXiv 2605.07915, section 3): H is upsampled to 256 x 256 with AnyUp, gets a
"low-pass spatial normalization" of strength 0.4 and is downsampled bilinearly to the token grid.

Inferred here: the normalization subtracts ``strength`` times the low-passed features, by default
their mean over the image, from the features. Optionally (off by default) it divides by each
channel's deviation over the image. Bilinear means without aligned corners and, by default, without
antialiasing.
With the upsampler ``none`` the features stay on the token grid: bilinear up- and downsampling would
only smooth them slightly.

AnyUp (Wimmer et al., 2025; repository wimmerth/anyup at 351807a, CC-BY-4.0) is a learned upsampler
of any encoder's features, run from an unmodified checkout. Its network takes images (B, 3, U, U),
standardized as for ImageNet, and features (B, D, g, g) as they are. Each pixel of its result
(B, D, U, U) is a mean of tokens, weighted by the attention ``cross_decode(queries, keys, values)``.
So H_ref needs those weights only: :class:`Positions` asks for them, and no dense features are
computed. The result equals that of the dense features up to rounding.

Legend: B batch, N tokens, D encoder width, g grid side, S image side in px, U side of the dense
features.
"""

from __future__ import annotations

from math import isqrt, prod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.errors import DataError
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import imagenet_standardize, map_to_tokens, tokens_to_map
from pae_framework.tensor_files import load_state
from pae_framework.tokenizer.tokenizer_settings import AnyUpSettings, RefinementSettings
from pae_framework.weight_files import read_checkpoint

_EPSILON = 1e-6
_AT_ONCE = 2**27
"""Attention weights of the images that AnyUp gets at once: 0.5 GB in float32."""
_QUERIES_AT_ONCE = 2**13
"""Pixels per call of AnyUp's attention, which keeps weights of four heads; no effect on results."""


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
        size = settings.upsample_size or images.shape[-1]
        at_once = max(1, _AT_ONCE // (tokens.shape[1] * size**2))
        if settings.upsampler == "bilinear" or settings.low_pass_size is not None:
            at_once = 1  # the dense features of one image take 268 MB with 1024 channels
        pairs = zip(tokens.split(at_once), images.split(at_once), strict=True)
        return torch.cat([self._reference(*pair, size) for pair in pairs])

    def _reference(self, tokens: Tensor, images: Tensor, size: int) -> Tensor:
        settings, grid = self.settings, isqrt(tokens.shape[1])
        if settings.upsampler == "bilinear":
            return self._dense_reference(_resized(tokens_to_map(tokens), size), grid)
        weights = self._anyup_weights(tokens, images, size)
        with torch.autocast(tokens.device.type, enabled=False):  # as for cosine_gram
            if settings.low_pass_size is None:
                return self._weighted_reference(tokens, weights)
            dense = tokens.mT @ weights.flatten(2)  # (B, D, U U)
            return self._dense_reference(dense.unflatten(2, (size, size)), grid)

    def _dense_reference(self, dense: Tensor, grid: int) -> Tensor:
        """H_ref (B, N, D) of dense features (B, D, U, U)."""
        normalized = self._normalized(map_to_tokens(dense), per_token=dense.shape[-1] / grid)
        return map_to_tokens(self._downsampled(tokens_to_map(normalized), grid))

    def _weighted_reference(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """The same of the dense features ``tokens.mT @ weights``, which are not computed.

        Args:
            tokens: V, (B, N, D).
            weights: A, (B, N, U, U).

        The mean over pixels is mean(A) V, and the covariance of the pixels V^T cov(A) V.
        """
        settings, grid = self.settings, isqrt(tokens.shape[1])
        mean = weights.mean(dim=(2, 3))  # (B, N)
        kept = self._downsampled(weights, grid).flatten(2).mT - settings.low_pass * mean[:, None]
        reference = kept @ tokens
        if settings.spatial_norm:
            apart = weights.flatten(2) - mean[:, :, None]
            covariance = apart @ apart.mT / (apart.shape[2] - settings.unbiased)  # (B, N, N)
            variance = (tokens * (covariance @ tokens)).sum(dim=1, keepdim=True).clamp(min=0)
            reference = reference / (variance.sqrt() + _EPSILON) ** settings.spatial_norm
        return reference

    def _anyup_weights(self, tokens: Tensor, images: Tensor, size: int) -> Tensor:
        """The weight of each token at each pixel: (B, N, U, U)."""
        assert self.anyup is not None, "call load_pretrained first"
        guides = imagenet_normalized(images, size)
        weights = self.anyup(guides, tokens_to_map(tokens), q_chunk_size=_QUERIES_AT_ONCE)
        expected = (*tokens.shape[:2], size, size)
        if not isinstance(weights, Tensor) or weights.shape != expected:
            actual = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
            raise DataError(f"AnyUp returned {actual}, expected attention of shape {expected}")
        return weights.float()

    def _downsampled(self, x: Tensor, grid: int) -> Tensor:
        return F.interpolate(
            x, grid, mode="bilinear", align_corners=False, antialias=self.settings.antialias
        )

    def _normalized(self, tokens: Tensor, per_token: float) -> Tensor:
        settings = self.settings
        size = None if settings.low_pass_size is None else settings.low_pass_size * per_token
        return spatially_normalized(
            tokens, settings.low_pass, size, settings.spatial_norm, settings.unbiased
        )


class Positions(nn.Module):
    """AnyUp's cross-attention with its values replaced by one-hot positions of the tokens.

    The attention is linear in the values, so this gives its weights, (B, N, U, U).

    Args:
        attention: called with queries, keys, and values (B, any, g, g).
    """

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, **options: Any) -> Any:
        """What ``attention`` returns for the positions."""
        count, _, *grid = values.shape
        positions = torch.eye(prod(grid), dtype=values.dtype, device=values.device)
        positions = positions.unflatten(1, grid).expand(count, -1, -1, -1)
        return self.attention(queries, keys, positions, **options)


def spatially_normalized(
    tokens: Tensor,
    strength: float,
    size: float | None = None,
    deviation_power: float = 0.0,
    unbiased: bool = False,
) -> Tensor:
    """(x - strength * low_pass(x)) / (sd + 1e-6)^deviation_power of tokens x (B, N, D).

    Removing what tokens have in common increases the contrast of the Gram matrix.

    Args:
        tokens: of a square grid.
        strength: share of the low-passed tokens that is subtracted.
        size: deviation of the low pass's Gaussian, in tokens; None: the mean over the image.
        deviation_power: exponent of sd, each channel's deviation over the image after that.
        unbiased: divide the squares in sd by N - 1 instead of N. With an exponent of 1 this is
            ``spatial_zscore`` of iREPA (End2End-Diffusion/iREPA, jit/spnorm.py).
    """
    x = tokens - strength * low_passed(tokens, size)
    if deviation_power:
        x = x / (x.std(dim=1, keepdim=True, unbiased=unbiased) + _EPSILON) ** deviation_power
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
    """Build the network with the checkout's code, load its weights, make it return attention.

    The network is built with ``pretrained=False``, so nothing is downloaded.

    Raises:
        DataError: checkout or weights are missing, or the checkout does not return AnyUp.
        CheckpointError: the weights do not fit.
    """
    if (problem := settings.missing()) is not None:
        raise DataError(problem)
    checkout, weights = Path(settings.checkout).expanduser(), Path(settings.weights).expanduser()
    call = f"`{settings.model}(pretrained=False)` of its hubconf.py"
    try:
        network = torch.hub.load(str(checkout), settings.model, source="local", pretrained=False)
    except Exception as error:  # another project's code may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{checkout}: {call} failed ({reason})") from error
    attention = getattr(network, "cross_decode", None)
    if not isinstance(network, nn.Module) or not isinstance(attention, nn.Module):
        raise DataError(
            f"{checkout}: {call} returned {type(network).__name__}, not a network with an "
            "attention `cross_decode`"
        )
    tensors = read_checkpoint(weights, names=network.state_dict().keys())
    load_state(network, tensors, str(weights))
    network.cross_decode = Positions(attention)
    return network


def imagenet_normalized(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], resized to ``size`` px and standardized as for ImageNet."""
    if images.shape[-1] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return imagenet_standardize(images)


def _resized(x: Tensor, size: int) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
