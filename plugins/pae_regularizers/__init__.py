"""Built-in regularizers. This registration module imports no torch."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_regularizers(register: Register) -> None:
    """Register the built-in regularizers."""
    register(
        "ssr",
        target="pae_regularizers.alignment:SSR",
        config="pae_regularizers.config:SSRConfig",
        summary="spatial structure: similarities between latent tokens match the targets' (PAE)",
    )
    register(
        "scr",
        target="pae_regularizers.alignment:SCR",
        config="pae_regularizers.config:SCRConfig",
        summary="semantic consistency: latent tokens have the directions of the targets (PAE)",
    )
    register(
        "mcr",
        target="pae_regularizers.continuity:MCR",
        config="pae_regularizers.config:MCRConfig",
        summary="manifold continuity: rotating the latents changes the images little (PAE)",
    )
    register(
        "kl",
        target="pae_regularizers.kl:KL",
        config="pae_regularizers.config:KLConfig",
        summary="divergence of a gaussian bottleneck from the standard normal (KL-VAE)",
    )
    register(
        "vf",
        target="pae_regularizers.foundation:VF",
        config="pae_regularizers.config:VFConfig",
        summary="projected latents align with the encoder's features up to margins (VA-VAE)",
    )
    register(
        "diffusion",
        target="pae_regularizers.diffusion:Diffusion",
        config="pae_regularizers.config:DiffusionConfig",
        summary="loss of a small velocity network on the latents (the paper's auxiliary diffusion)",
    )
