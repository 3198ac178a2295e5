"""RAE's discriminator: small heads on the features of a frozen DINO ViT-S/8.

RAE (arXiv 2510.11690), stage 1, after StyleGAN-T (arXiv 2301.09515). Legend: B batch, N tokens, D
width of the frozen network.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from pae_discriminators.augment import augmented
from pae_discriminators.config import DINO_VIT_S8, DinoDiscriminatorConfig
from pae_framework.contracts import Discriminator
from pae_framework.frozen import UsesFrozen
from pae_framework.hub import weights_path
from pae_framework.layers import imagenet_standardize
from pae_framework.tensor_files import load_state
from pae_framework.weight_files import read_checkpoint

SLOPE = 0.2
"""Negative slope of the LeakyReLUs."""


class DinoDiscriminator(Discriminator, UsesFrozen):
    """Five heads: one on the last block's patch tokens, one on those after each of four blocks.

    Only the heads are trained and in the state dict. Images are resized to the frozen network's
    input (bilinear, not antialiased); gradients flow through the network to them.
    """

    frozen: nn.Module

    def __init__(self, config: DinoDiscriminatorConfig, image_size: int):
        super().__init__(config, image_size)
        self.config = config
        self.hold_frozen("frozen", _vit(config))
        self.heads = nn.ModuleList(Head(config.width) for _ in (None, *config.layers))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, 5 N) of images (B, 3, S, S) in [0, 1]: head after head, token after token."""
        features = self.features(images)
        logits = [head(x) for head, x in zip(self.heads, features, strict=True)]
        return torch.cat(logits, dim=1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Patch tokens (B, D, N) after the last block, then after each block in ``layers``."""
        size = self.config.resolution
        pixels = F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False)
        last, blocks = self.config.depth - 1, self.config.layers
        indices = sorted({*blocks, last})
        outputs = self.frozen.forward_intermediates(  # type: ignore[operator]
            imagenet_standardize(pixels),
            indices=indices,
            norm=False,
            output_fmt="NLC",
            intermediates_only=True,
        )
        tokens = {block: x.transpose(1, 2) for block, x in zip(indices, outputs, strict=True)}
        return [tokens[block] for block in (last, *blocks)]

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Translation, brightness, saturation and contrast at random."""
        return augmented(images, generator)

    def load_pretrained(self) -> None:
        """Load the frozen network's weights; see :meth:`Discriminator.load_pretrained`."""
        if self.config.weights == "none":
            return
        path = weights_path(self.config.weights, DINO_VIT_S8)
        found = read_checkpoint(path, "average", self.frozen.state_dict().keys())
        tensors = {name: value for name, value in found.items() if not name.startswith(_UNUSED)}
        load_state(self.frozen, tensors, str(path))
        _zero_key_bias(self.frozen)


class Head(nn.Module):
    """Convolutions over the token sequence: kernel 1, kernel 9 with a residual, one to a logit."""

    def __init__(self, width: int):
        super().__init__()
        self.first = _block(width, kernel=1)
        self.second = _block(width, kernel=9)
        self.last = spectral_norm(nn.Conv1d(width, 1, kernel_size=1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, N), float32, of features (B, D, N)."""
        x = self.first(x)
        x = (self.second(x) + x) / math.sqrt(2)
        return self.last(x).squeeze(1).float()


class VirtualBatchNorm(nn.InstanceNorm1d):
    """Batch norm over virtual batches of one image: statistics over its tokens, in float32."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-6, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, N) to (B, D, N)."""
        return super().forward(x.float())


def _block(width: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, padding_mode="circular")
    return nn.Sequential(spectral_norm(convolution), VirtualBatchNorm(width), nn.LeakyReLU(SLOPE))


def _vit(config: DinoDiscriminatorConfig) -> nn.Module:
    """timm's ViT; its MLPs use the tanh form of GELU, as in RAE."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=config.resolution,
        patch_size=config.patch,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.heads,
        num_classes=0,
        act_layer="gelu_tanh",
    )


_UNUSED = ("head.", "x_scale", "x_shift")
"""A projection head and input constants in released files."""


@torch.no_grad()
def _zero_key_bias(network: nn.Module) -> None:
    """Set the biases of the attention's keys to zero, as RAE does.

    They shift all logits of a query equally, so attention only changes by rounding.
    """
    for name, bias in network.named_parameters():
        if name.endswith("attn.qkv.bias"):
            bias.chunk(3)[1].zero_()
