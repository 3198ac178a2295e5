"""Built-in discriminators: PatchGAN, and heads on frozen DINO features (RAE)."""

from __future__ import annotations

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_discriminators(register: Register) -> None:
    """Register the built-in discriminators."""
    register(
        "patchgan",
        target="pae_discriminators.patchgan:PatchGAN",
        config="pae_discriminators.config:PatchGANConfig",
        summary="convolutional discriminator of overlapping patches (VQGAN, VA-VAE)",
    )
    register(
        "dino",
        target="pae_discriminators.dino:DinoDiscriminator",
        config="pae_discriminators.config:DinoDiscriminatorConfig",
        summary="heads on the features of a frozen DINO ViT-S/8 (RAE)",
    )
