"""Built-in encoders. This module registers them and imports no torch."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1

PRETRAINED = (
    ("dinov2", "DINOv2", "pretrained DINOv2 (timm), frozen; with or without register tokens"),
    ("dinov3", "DINOv3", "pretrained DINOv3 (timm), frozen"),
    ("mae", "MAE", "pretrained encoder of a masked autoencoder (timm), frozen"),
    ("siglip2", "SigLIP2", "pretrained SigLIP2 image tower (open-clip, timm), frozen"),
)


@hookimpl
def pae_register_encoders(register: Register) -> None:
    """Register the encoders that a run trains, and the pretrained ones."""
    register(
        "tiny_vit",
        target="pae_encoders.tiny_vit:TinyViT",
        config="pae_encoders.config:TinyViTConfig",
        summary="small ViT trained in the run by masked autoencoding and classification",
    )
    register(
        "small_cnn",
        target="pae_encoders.small_cnn:SmallCNN",
        config="pae_encoders.config:SmallCNNConfig",
        summary="small convolutional classifier trained in the run; for Frechet features",
    )
    register(
        "ldm_cnn",
        target="pae_encoders.ldm_encoder:LdmEncoder",
        config="pae_encoders.ldm_config:LdmEncoderConfig",
        summary="convolutional encoder of latent diffusion, trained with the tokenizer (KL-VAE)",
    )
    register(
        "gae_vit",
        target="pae_encoders.gae_encoder:GaeEncoder",
        config="pae_encoders.gae_config:GaeEncoderConfig",
        summary="vision transformer with an adapter, trained with the tokenizer (GAE)",
    )
    register(
        "gae_teacher",
        target="pae_encoders.gae_teacher:GaeTeacher",
        config="pae_encoders.gae_config:GaeTeacherConfig",
        summary="DINOv2's tokens compressed to few channels, trained in the run; a teacher (GAE)",
    )
    register(
        "inception",
        target="pae_encoders.inception:InceptionEncoder",
        config="pae_encoders.config:InceptionConfig",
        summary="pretrained Inception-v3 of FID (torch-fidelity), frozen; for Frechet features",
    )
    register(
        "clip",
        target="pae_encoders.clip:CLIP",
        config="pae_encoders.clip_config:CLIPConfig",
        summary="pretrained image tower of an open-clip model, such as CLIP's, frozen",
    )
    register(
        "convnextv2",
        target="pae_encoders.convnext:ConvNeXtV2",
        config="pae_encoders.convnext_config:ConvNeXtV2Config",
        summary="pretrained ConvNeXt V2 (timm), frozen",
    )
    for name, target, summary in PRETRAINED:
        register(
            name,
            target=f"pae_encoders.vfm:{target}",
            config=f"pae_encoders.vfm_config:{target}Config",
            summary=summary,
        )
