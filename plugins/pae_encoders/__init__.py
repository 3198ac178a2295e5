"""Built-in encoders. This module registers them and imports no torch."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_encoders(register: Register) -> None:
    """Register tiny_vit and small_cnn."""
    register(
        "tiny_vit",
        target="pae_encoders.tiny_vit:TinyViT",
        config="pae_encoders.config:TinyViTConfig",
        summary="small ViT that the run trains itself: masked autoencoding and classification",
    )
    register(
        "small_cnn",
        target="pae_encoders.small_cnn:SmallCNN",
        config="pae_encoders.config:SmallCNNConfig",
        summary="small convolutional classifier that the run trains itself; for Frechet features",
    )
