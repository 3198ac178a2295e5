"""Built-in decoders. This registration module imports no torch."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_decoders(register: Register) -> None:
    """Register the built-in decoders."""
    register(
        "vit",
        target="pae_decoders.vit:VitDecoder",
        config="pae_decoders.config:VitDecoderConfig",
        summary="vision transformer as in ViT-MAE's decoder (PAE, RAE)",
    )
    register(
        "ldm_cnn",
        target="pae_decoders.ldm_decoder:LdmDecoder",
        config="pae_decoders.config:LdmDecoderConfig",
        summary="convolutional decoder of latent diffusion (KL-VAE, VA-VAE)",
    )
