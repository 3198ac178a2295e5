"""Tiny pretrained encoders, and the transformers classes they must equal, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor, nn

from pae_encoders import vfm, vfm_config
from pae_encoders.vfm import FoundationEncoder

WIDTH, DEPTH, HEADS, GRID = 32, 2, 2, 4
SIZE = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "grid": GRID}
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

COMMON = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "attn_implementation": "eager",
}


def dinov2(**more: Any) -> nn.Module:
    config = transformers.Dinov2Config(
        **COMMON, patch_size=14, image_size=14 * GRID, mlp_ratio=4, **more
    )
    return transformers.Dinov2Model(config)


def dinov2_registers() -> nn.Module:
    config = transformers.Dinov2WithRegistersConfig(
        **COMMON, patch_size=14, image_size=14 * GRID, mlp_ratio=4, num_register_tokens=4
    )
    return transformers.Dinov2WithRegistersModel(config)


def dinov3(**more: Any) -> nn.Module:
    config = transformers.DINOv3ViTConfig(
        **COMMON,
        patch_size=16,
        image_size=16 * GRID,
        intermediate_size=4 * WIDTH,
        num_register_tokens=4,
        **more,
    )
    return transformers.DINOv3ViTModel(config)


def mae() -> nn.Module:
    config = transformers.ViTMAEConfig(
        **COMMON,
        patch_size=16,
        image_size=16 * GRID,
        intermediate_size=4 * WIDTH,
        mask_ratio=0.0,
    )
    return transformers.ViTMAEModel(config)


def siglip() -> nn.Module:
    config = transformers.SiglipVisionConfig(
        **COMMON, patch_size=16, image_size=16 * GRID, intermediate_size=4 * WIDTH
    )
    return transformers.SiglipVisionModel(config)


@dataclass(frozen=True)
class Case:
    """An encoder, the class it must equal, what that one's tokens begin with, and statistics."""

    family: str
    model: str
    reference: Callable[[], nn.Module]
    dropped: int
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    prefix: str = "encoder."
    mlp_ratio: float = 4.0

    def encoder(self, image_size: int, **changes: Any) -> FoundationEncoder:
        """Ours, untrained."""
        size = {**SIZE, "mlp_ratio": self.mlp_ratio}
        config = getattr(vfm_config, f"{self.family}Config")(
            **{"model": self.model, "weights": "none", "size": size, **changes}
        )
        torch.manual_seed(1)
        encoder: FoundationEncoder = getattr(vfm, self.family)(config, image_size)
        return encoder


# transformers takes 2/3 of 4 D for a gated MLP of DINOv2, rounded up to a multiple of 8: 88.
CASES = {
    "dinov2 with registers": Case(
        "DINOv2", "vit_small_patch14_reg4_dinov2", dinov2_registers, dropped=5
    ),
    "dinov2": Case("DINOv2", "vit_small_patch14_dinov2", dinov2, dropped=1),
    "dinov2 gated": Case(
        "DINOv2",
        "vit_giant_patch14_dinov2",
        lambda: dinov2(use_swiglu_ffn=True),
        dropped=1,
        mlp_ratio=88 / 32,
    ),
    "dinov3": Case("DINOv3", "vit_small_patch16_dinov3", dinov3, dropped=5),
    "dinov3 gated": Case(
        "DINOv3",
        "vit_small_plus_patch16_dinov3",
        lambda: dinov3(use_gated_mlp=True, hidden_act="silu"),
        dropped=5,
    ),
    "dinov3 7b": Case(
        "DINOv3",
        "vit_7b_patch16_dinov3",
        lambda: dinov3(use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False),
        dropped=5,
    ),
    "mae": Case("MAE", "vit_base_patch16_224", mae, dropped=1, prefix="model."),
    "siglip2": Case("SigLIP2", "ViT-B-16-SigLIP2-256", siglip, dropped=0, statistics=HALVES),
}
LAST_NORM = ("norm.", "layernorm.", "post_layernorm.")

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def reference(case: Case, scale: float = 0.3) -> nn.Module:
    """The transformers class with random weights of deviation ``scale``, but for the last norm's
    affine part, which changes nothing."""
    torch.manual_seed(0)
    model = case.reference().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(LAST_NORM):
                weight.fill_(float(name.endswith("weight")))
            else:
                weight.copy_(scale * torch.randn(weight.shape, generator=generator))
    return model


def saved(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """What transformers writes to a file: the names that published files have."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def released(case: Case, model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """The same by its names in a released PAE tokenizer, less the leading ``encoder.``."""
    tensors = saved(model, folder)
    return {case.prefix + n: t for n, t in tensors.items() if not n.startswith(LAST_NORM)}


def last_hidden_state(model: nn.Module, pixels: Tensor) -> Tensor:
    """What the transformers class makes of pixels, at whatever size they have."""
    arguments: dict[str, Any] = {}
    if isinstance(model, transformers.ViTMAEModel | transformers.SiglipVisionModel):
        arguments["interpolate_pos_encoding"] = True
    if isinstance(model, transformers.ViTMAEModel):
        # Ascending noise: tokens stay in order, and with mask ratio 0 all stay.
        count = (pixels.shape[-1] // 16) ** 2
        arguments["noise"] = torch.arange(count).expand(len(pixels), -1)
    with torch.no_grad():
        return model(pixels, **arguments).last_hidden_state


def images(count: int, size: int) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2))
