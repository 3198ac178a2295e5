"""PatchGAN: a convolutional discriminator of overlapping patches.

Isola, Zhu, Zhou and Efros, CVPR 2017, arXiv 1611.07004, in the form of VQGAN and latent diffusion
(``NLayerDiscriminator`` of taming-transformers), whose state dict it shares.
"""

from __future__ import annotations

from torch import Tensor, nn

from pae_discriminators.config import PatchGANConfig
from pae_framework.contracts import Discriminator


class PatchGAN(Discriminator):
    """4x4 convolutions: several of stride 2, one of stride 1, and one to a map of logits.

    BatchNorm follows all but the first and the last. In training steps of both networks it uses
    batch statistics (taming-transformers, latent diffusion and VA-VAE leave it in train mode), so
    an image's logits depend on the rest of the batch. In eval mode they do not.
    """

    batch_statistics = True

    def __init__(self, config: PatchGANConfig, image_size: int):
        super().__init__(config, image_size)
        width = config.width
        layers: list[nn.Module] = [_convolution(3, width, stride=2, bias=True), _activation()]
        for depth in range(1, config.layers + 1):
            wider = config.width * min(2**depth, 8)
            stride = 2 if depth < config.layers else 1
            layers += [_convolution(width, wider, stride, bias=False), nn.BatchNorm2d(wider)]
            layers += [_activation()]
            width = wider
        self.main = nn.Sequential(*layers, _convolution(width, 1, stride=1, bias=True))
        self.apply(_initialize)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, M), one per patch, of images (B, 3, S, S) in [0, 1]; 30 x 30 at 256 px."""
        return self.main(2 * images - 1).flatten(1)


def _convolution(channels: int, width: int, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels, width, kernel_size=4, stride=stride, padding=1, bias=bias)


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.2)


def _initialize(module: nn.Module) -> None:
    """As in DCGAN: convolution weights N(0, 0.02), norm weights N(1, 0.02)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
