"""Registers an encoder, a regularizer and an evaluator. Imports no torch."""

from pae_framework import hookimpl

pae_api = 1


@hookimpl
def pae_register_encoders(register):
    register(
        "texture",
        target="acme_texture.texture_encoder:Texture",
        config="acme_texture.parameters:TextureConfig",
        summary="local contrast and one convolution, frozen at random weights",
    )


@hookimpl
def pae_register_regularizers(register):
    register(
        "contrast",
        target="acme_texture.contrast:Contrast",
        config="acme_texture.parameters:ContrastConfig",
        summary="reconstructions have the local contrast of their images",
    )


@hookimpl
def pae_register_evaluators(register):
    register(
        "sharpness",
        target="acme_texture.sharpness:Sharpness",
        config="acme_texture.parameters:SharpnessConfig",
        summary="local contrast of reconstructions over that of their images",
    )
