"""Build timm networks of the configured size. Downloads nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
from torch import nn

from pae_encoders.families import DINOV3, MAE, SIGLIP2, Family, Form

MAE_EPS = 1e-12
"""Epsilon of the norms in transformers' ViTMAE, used by PAE and RAE; MAE's own is 1e-6."""


def build_trunk(family: Family, name: str, form: Form) -> Any:
    """timm's network ``name`` with the sizes of ``form`` and random weights.

    It takes images of any multiple of its patch size. Class and register tokens have no positions.
    The last norm has no affine part (PAE, RAE).
    """
    # timm counts the two input layers of a gated MLP as one layer, except in DINOv3.
    layers = 2 if form.gated and family is not DINOV3 else 1
    arguments: dict[str, Any] = {
        "embed_dim": form.width,
        "depth": form.depth,
        "num_heads": form.heads,
        "mlp_ratio": (layers * form.mlp + 0.5) / form.width,  # timm rounds the product down
        "num_classes": 0,
        "dynamic_img_size": True,
    }
    if family is DINOV3:
        arguments["qkv_bias"] = form.biases > 0
    else:
        arguments |= {"img_size": form.grid * form.patch, "no_embed_class": True}
    if family is MAE:
        arguments["norm_layer"] = partial(nn.LayerNorm, eps=MAE_EPS)
    if family is SIGLIP2:
        # SigLIP was trained with the tanh approximation; timm uses exact GELU in its B and L sizes.
        arguments["act_layer"] = "gelu_tanh"
    trunk: Any = timm.create_model(name, pretrained=False, **arguments)
    trunk.norm = nn.LayerNorm(form.width, eps=trunk.norm.eps, elementwise_affine=False)
    return trunk


def image_statistics(name: str) -> tuple[Any, Any]:
    """Mean and standard deviation per channel that the weights ``name.tag`` were trained with."""
    config = timm.get_pretrained_cfg(name)
    assert config is not None, f"timm has no {name}"
    return config.mean, config.std
