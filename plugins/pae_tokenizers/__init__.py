"""Built-in tokenizers that are one component. This module registers them and imports no torch."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_tokenizers(register: Register) -> None:
    """Register autoencoders of other projects, and latents without one."""
    register(
        "diffusers_vae",
        target="pae_tokenizers.diffusers_vae:DiffusersVAE",
        config="pae_tokenizers.diffusers_config:DiffusersVAEConfig",
        summary="pretrained AutoencoderKL or AutoencoderRAE of Diffusers, frozen",
    )
    register(
        "torchscript",
        target="pae_tokenizers.torchscript:TorchScriptTokenizer",
        config="pae_tokenizers.config:TorchScriptConfig",
        summary="pretrained encoder and decoder in TorchScript files, frozen",
    )
    register(
        "latents",
        target="pae_tokenizers.latents:LatentsOnly",
        config="pae_tokenizers.config:LatentsConfig",
        summary="a folder of latents without encoder and decoder",
    )
