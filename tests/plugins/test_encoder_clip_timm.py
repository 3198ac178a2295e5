"""CLIP's image towers that open-clip builds around a network of timm's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.timm_model import TimmModel
from safetensors.torch import save_file

from pae_encoders.clip import CLIP
from pae_encoders.clip_config import CLIPConfig
from pae_encoders.clip_timm_models import TIMM_FORMS
from pae_framework.seeding import seeded

SIZABLE = [name for name, form in TIMM_FORMS.items() if form.resizable]
FIXED = [name for name, form in TIMM_FORMS.items() if form.kind == "fixed"]
FAMILIES = (
    *("convnext_large_d", "EVA02-B-16", "MobileCLIP-B", "MobileCLIP2-S0", "PE-Core-T-16-384"),
    *("swin_base_patch4_window7_224", "ViT-B-16-SigLIP", "vit_medium_patch16_gap_256"),
    *("vit_relpos_medium_patch16_cls_224", "ViTamin-S-LTT"),
)
TINY = {"width": 32, "depth": 2, "heads": 2}


def config_of(model: str, **arguments: Any) -> CLIPConfig:
    return CLIPConfig.model_validate({"model": model, "weights": "none", **arguments})


def own_side(model: str) -> int:
    return TIMM_FORMS[model].grid * TIMM_FORMS[model].patch


def open_clip_s(model: str) -> TimmModel:
    settings = open_clip.get_model_config(model)
    visual = open_clip.model._build_vision_tower(settings["embed_dim"], settings["vision_cfg"])
    assert isinstance(visual, TimmModel)
    return visual.eval()


def encoder(model: str, side: int, **arguments: Any) -> CLIP:
    with seeded("test"):
        return CLIP(config_of(model, input_size=side, **arguments), side)


@pytest.mark.parametrize(
    "model",
    [pytest.param(name, marks=[] if name in FAMILIES else pytest.mark.slow) for name in TIMM_FORMS],
)
def test_a_tower_of_timm_s_is_the_one_that_open_clip_builds(model: str) -> None:
    """Names, shapes and number of weights at the published size; grid and width of the tokens."""
    side = own_side(model)
    config = config_of(model, input_size=side)
    with torch.device("meta"):
        ours, theirs = CLIP(config, side), open_clip_s(model)
        features = ours(torch.empty(1, 3, side, side))
        maps = list(ours.feature_maps(torch.empty(1, 3, side, side)))
    shapes = {name: tensor.shape for name, tensor in ours.visual.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert config.parameters(side) == sum(weight.numel() for weight in theirs.parameters())
    assert features.tokens.shape == (1, config.token_grid(side) ** 2, config.token_width())
    assert features.pooled.shape == (1, config.token_width())
    assert len(maps) == config.feature_maps()
    assert maps[-1].shape == features.tokens.shape
    assert config.token_width() % config.token_heads() == 0


@pytest.mark.parametrize(
    ("model", "side"),
    [("convnext_tiny", 96), ("MobileCLIP2-S0", 128), ("PE-Core-T-16-384", 96), ("ViTamin-S", 96)],
)
def test_features_are_those_of_open_clip_at_any_size_of_images(model: str, side: int) -> None:
    """open-clip resizes the positions of a network once, this encoder at every pass.

    Tokens go row by row. The affine part of the last norm of an untrained network has no effect.
    """
    ours, theirs = encoder(model, side), open_clip_s(model)
    theirs.load_state_dict(ours.visual.state_dict())
    if hasattr(theirs.trunk, "set_input_size"):
        theirs.set_input_size(side)
    pixels = torch.randn(1, 3, side, side)
    with torch.no_grad():
        features, embedding = ours(pixels), ours.pool(pixels, "head")
        last = theirs.trunk.forward_features(pixels)
        torch.testing.assert_close(embedding, theirs(pixels), atol=1e-5, rtol=1e-4)
    prefix = getattr(theirs.trunk, "num_prefix_tokens", 0)
    grid = ours.grid
    grids = last if last.ndim == 4 else last[:, prefix:].mT.unflatten(2, (grid, grid))
    for row, column in [(0, 0), (0, grid - 1), (grid - 1, 0)]:
        wanted = torch.nn.functional.layer_norm(grids[:, :, row, column], (ours.width,), eps=1e-6)
        found = features.tokens[:, grid * row + column]
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)
    if prefix:
        torch.testing.assert_close(features.pooled, last[:, 0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("model", ["ViT-B-16-SigLIP", "EVA01-g-14", "EVA02-B-16", "PE-Core-B-16"])
def test_a_vit_of_timm_s_is_built_at_another_size(model: str) -> None:
    """Its positions are resized to the tokens of the input; the kernel computes the same."""
    patch = TIMM_FORMS[model].patch
    ours = encoder(model, 4 * patch, size={**TINY, "grid": 4})
    larger = encoder(model, 6 * patch, size={**TINY, "grid": 4}, attention="matmul")
    larger.load_state_dict(ours.state_dict())
    ours.visual.trunk.set_input_size(6 * patch)
    pixels = torch.randn(2, 3, 6 * patch, 6 * patch)
    with torch.no_grad():
        wanted, features = ours.visual(pixels), larger(pixels)
        torch.testing.assert_close(larger.pool(pixels, "head"), wanted, atol=1e-5, rtol=1e-4)
    assert features.tokens.shape == (2, 36, 32)
    assert larger.config.parameters(6 * patch) is None


@pytest.mark.parametrize("model", SIZABLE)
def test_a_smoke_run_keeps_patch_and_poolings_of_a_vit(model: str) -> None:
    smoke = config_of(model).smoke()
    assert smoke.token_width() == 32
    assert (smoke.form.patch, smoke.poolings()) == (
        TIMM_FORMS[model].patch,
        config_of(model).poolings(),
    )


@pytest.mark.parametrize("model", sorted(set(TIMM_FORMS) - set(SIZABLE)))
def test_a_smoke_run_keeps_patch_and_poolings_of_another_tower(model: str) -> None:
    config = config_of(model, input_size=own_side(model))
    smoke = config.smoke()
    assert (smoke.form.patch, smoke.poolings()) == (config.form.patch, config.poolings())
    assert smoke.token_grid(256) == 256 // config.form.patch


@pytest.mark.parametrize("model", FIXED)
@pytest.mark.parametrize("arguments", [{}, {"input_size": 256}])
def test_a_tower_with_relative_positions_takes_its_own_size_only(
    model: str, arguments: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="input_size: 224") as caught:
        config_of(model, **arguments).token_grid(256)
    assert model in str(caught.value)
    assert config_of(model, input_size=224).token_grid(256) == TIMM_FORMS[model].grid


@pytest.mark.parametrize("model", ["convnext_tiny", "MobileCLIP2-S0", "ViTamin-S"])
def test_values_kept_for_the_backward_pass_are_about_those_of_the_table(model: str) -> None:
    """At another size than the table's."""
    side, kept = 64, {}
    ours = encoder(model, side)
    weights = {id(weight) for weight in ours.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() / 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = ours(torch.randn(1, 3, side, side)).tokens
    assert tokens.requires_grad
    estimate = ours.settings.activations(side)
    assert estimate is not None
    assert sum(kept.values()) / 1.3 < estimate < 1.3 * sum(kept.values())


def test_a_file_of_open_clip_is_read_for_its_tower_of_timm_s(tmp_path: Path) -> None:
    theirs = {
        n: torch.randn_like(t) for n, t in open_clip_s("PE-Core-T-16-384").state_dict().items()
    }
    named = {f"visual.{name}": tensor for name, tensor in theirs.items()}
    save_file({**named, "logit_scale": torch.ones(1)}, tmp_path / "clip.safetensors")
    ours = encoder("PE-Core-T-16-384", 64, weights=str(tmp_path / "clip.safetensors"))
    ours.load_pretrained()
    assert all(torch.equal(t, theirs[n]) for n, t in ours.visual.state_dict().items())
