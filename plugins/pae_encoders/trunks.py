"""timm's networks in the form a config asks for. Nothing is downloaded here."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
from torch import nn

from pae_encoders.families import DINOV3, MAE, SIGLIP2, Family, Form

MAE_EPS = 1e-12
"""What transformers' ViTMAE, and so PAE and RAE, add to variances; MAE's own code adds 1e-6."""


def build_trunk(family: Family, name: str, form: Form) -> Any:
    """A network of random weights: timm's ``name`` with the sizes of ``form``.

    It takes images of any size that its patch divides; positions hold no place for class and
    register tokens; the last norm has no affine part (PAE, RAE).
    """
    arguments: dict[str, Any] = {
        "embed_dim": form.width,
        "depth": form.depth,
        "num_heads": form.heads,
        "mlp_ratio": _mlp_ratio(family, form),
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
        # SigLIP was trained with the tanh form; timm gives its B and L sizes the exact one.
        arguments["act_layer"] = "gelu_tanh"
    trunk: Any = timm.create_model(name, pretrained=False, **arguments)
    trunk.norm = nn.LayerNorm(form.width, eps=trunk.norm.eps, elementwise_affine=False)
    return trunk


def image_statistics(name: str) -> tuple[Any, Any]:
    """Mean and deviation per channel that the weights ``name.tag`` were trained with."""
    found = timm.get_pretrained_cfg(name)
    assert found is not None, f"timm has no {name}"
    return found.mean, found.std


def _mlp_ratio(family: Family, form: Form) -> float:
    """The ratio from which timm, rounding down, gets the width inside the MLP."""
    packed = 2 if form.gated and family is not DINOV3 else 1
    return (packed * form.mlp + 0.5) / form.width
