"""ConvNeXt V2: timm's networks, names, tags and features; those of transformers and of FDr6."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from pae_encoders.clip_models import STATISTICS
from pae_encoders.convnext import ConvNeXtV2
from pae_encoders.convnext_config import CONVNEXTV2, ConvNeXtV2Config
from pae_framework.errors import CheckpointError
from pae_framework.layers import tokens_to_map
from pae_framework.metrics.fdr6 import NETWORKS
from pae_framework.metrics.fdr6_networks import pooled
from pae_framework.seeding import seeded

MODELS = list(CONVNEXTV2.variants)
ATTO = "convnextv2_atto"


def config_of(model: str = ATTO, **arguments: object) -> ConvNeXtV2Config:
    return ConvNeXtV2Config.model_validate({"model": model, "weights": "none", **arguments})


@pytest.fixture(scope="module")
def encoder() -> ConvNeXtV2:
    """With weights that are all random: timm starts GRN and biases at zero."""
    with seeded("test"):
        built = ConvNeXtV2(config_of(), 64)
        for weight in built.parameters():
            torch.nn.init.normal_(weight, std=0.1)
    return built.requires_grad_(False)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_table_has_all_models_of_timm_and_their_tags() -> None:
    assert sorted(MODELS) == sorted(timm.list_models("convnextv2_*"))
    tags = {f"{name}.{tag}" for name, each in CONVNEXTV2.variants.items() for tag in each.tags}
    assert tags == set(timm.list_models("convnextv2_*", pretrained=True))
    for name in tags:
        theirs = timm.get_pretrained_cfg(name)
        assert theirs is not None
        assert theirs.hf_hub_id == f"timm/{name}"
        assert (theirs.mean, theirs.std) == STATISTICS["imagenet"]


@pytest.mark.parametrize("model", MODELS)
def test_widths_grids_and_parameters_are_those_of_the_network(model: str) -> None:
    config = config_of(model)
    with torch.device("meta"):
        ours = ConvNeXtV2(config, 96)
        maps = list(ours.feature_maps(torch.empty(1, 3, 96, 96)))
    assert config.parameters(96) == sum(weight.numel() for weight in ours.parameters())
    assert (config.token_grid(96), config.token_width()) == (3, ours.network.num_features)
    shapes = [(each.shape[1], each.shape[2]) for each in maps]
    assert shapes == list(zip((576, 144, 36, 9), config.form.widths, strict=True))
    assert config.feature_maps() == len(maps)


def test_tokens_are_timm_s_last_feature_map_normalized(encoder: ConvNeXtV2, pixels: Tensor) -> None:
    theirs = timm.create_model(ATTO, num_classes=0).eval()
    theirs.load_state_dict(encoder.network.state_dict())
    with torch.no_grad():
        found, wanted = encoder(pixels), theirs.forward_features(pixels)  # (2, 320, 2, 2)
        torch.testing.assert_close(encoder.pool(pixels, "head"), theirs(pixels))
    centered = wanted - wanted.mean(1, keepdim=True)
    normalized = centered / (centered.square().mean(1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(tokens_to_map(found.tokens), normalized, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.pooled, wanted.mean((2, 3)))
    assert found.tokens.shape == (2, 4, 320)


def test_the_pooled_features_are_those_of_fdr6(encoder: ConvNeXtV2, pixels: Tensor) -> None:
    (described,) = (each for name, each in NETWORKS.items() if name.startswith("convnextv2"))
    model, _, tag = described.model.partition(".")
    assert tag in CONVNEXTV2.variants[model].tags
    wanted = pooled(encoder.network, described, pixels)
    torch.testing.assert_close(encoder(pixels).pooled, wanted)
    assert described.width == config_of(model).token_width()


@pytest.mark.slow
def test_features_are_those_of_transformers(encoder: ConvNeXtV2, pixels: Tensor) -> None:
    transformers = pytest.importorskip("transformers")
    form = encoder.settings.form
    config = transformers.ConvNextV2Config(hidden_sizes=form.widths, depths=form.blocks)
    theirs = transformers.ConvNextV2Model(config).eval()
    weights = encoder.network.state_dict().items()
    theirs.load_state_dict({transformers_name(name): as_linear(name, t) for name, t in weights})
    with torch.no_grad():
        wanted = theirs(pixels).last_hidden_state
        wanted = F.layer_norm(wanted.flatten(2).transpose(1, 2), (form.width,), eps=1e-6)
        torch.testing.assert_close(encoder(pixels).tokens, wanted, atol=1e-4, rtol=0)


def as_linear(name: str, weight: Tensor) -> Tensor:
    """A weight in the shape that linear layers and GRN on channels-last maps have."""
    if ".grn." in name:
        return weight.reshape(1, 1, 1, -1)
    return weight.flatten(1) if ".mlp.fc" in name and weight.ndim == 4 else weight


def transformers_name(name: str) -> str:
    """transformers' name for a weight of timm's."""
    if name.startswith("stem."):
        return name.replace("stem.0", "embeddings.patch_embeddings").replace(
            "stem.1", "embeddings.layernorm"
        )
    if name.startswith("head.norm"):
        return name.replace("head.norm", "layernorm")
    name = re.sub(r"downsample\.(\d)", r"downsampling_layer.\1", f"encoder.{name}")
    return (
        name.replace(".blocks.", ".layers.")
        .replace("conv_dw", "dwconv")
        .replace(".norm.", ".layernorm.")
        .replace("mlp.fc", "pwconv")
        .replace("mlp.grn", "grn")
    )


def meta_name(name: str) -> str:
    """The name in Meta's files for a weight of timm's."""
    name = name.replace("stem.", "downsample_layers.0.").replace("head.norm.", "norm.")
    name = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", name)
    name = name.replace(".blocks", "").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
    return name.replace("mlp.grn.weight", "grn.gamma").replace("mlp.grn.bias", "grn.beta")


@pytest.mark.parametrize("layout", ["timm", "timm without the last norm", "Meta"])
@pytest.mark.parametrize("classifier", [False, True])
def test_files_are_read(
    encoder: ConvNeXtV2, pixels: Tensor, tmp_path: Path, layout: str, classifier: bool
) -> None:
    weights = dict(encoder.network.state_dict())
    if classifier:
        weights |= {"head.fc.weight": torch.ones(9, 320), "head.fc.bias": torch.ones(9)}
    if layout == "Meta":
        weights = {meta_name(n): as_linear(n, t) for n, t in weights.items()}
        weights = {n.replace("head.fc.", "head."): t for n, t in weights.items()}
    elif layout == "timm without the last norm":
        weights = {n: t for n, t in weights.items() if not n.startswith("head.norm")}
    save_file({n: t.contiguous() for n, t in weights.items()}, tmp_path / "w.safetensors")
    read = ConvNeXtV2(config_of(weights=str(tmp_path / "w.safetensors")), 64)
    read.load_pretrained()
    with torch.no_grad():
        torch.testing.assert_close(read(pixels).tokens, encoder(pixels).tokens)


@pytest.mark.parametrize(
    "weights",
    [
        {"stem.0.weight": torch.zeros(48, 3, 4, 4)},
        {"stem.0.weight": torch.zeros(40, 3, 4, 4), "head.norm.weight": torch.zeros(320)},
        {"downsample_layers.0.0.weight": torch.zeros(40, 3, 4, 4), "other.weight": torch.eye(3)},
        {"conv1.weight": torch.zeros(3)},
    ],
    ids=["other widths", "incomplete", "unknown name", "another network"],
)
def test_files_of_other_networks_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    save_file(weights, tmp_path / "w.safetensors")
    read = ConvNeXtV2(config_of(weights=str(tmp_path / "w.safetensors")), 64)
    with pytest.raises(CheckpointError) as caught:
        read.load_pretrained()
    assert str(tmp_path / "w.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"model": "convnextv2_bas"}, "convnextv2_base"),
        ({"model": "convnextv2_base.fcmea"}, "fcmae"),
        ({"model": "convnextv2_small", "weights": "default"}, "convnextv2_small"),
        ({"model": ATTO, "weights": "fcmae_ft_in22k_in1k"}, "fcmae_ft_in1k"),
        ({"model": f"{ATTO}.fcmae", "weights": "fcmae_ft_in1k"}, "fcmae"),
    ],
)
def test_models_and_weights_that_do_not_exist(arguments: dict[str, str], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        config_of(**arguments)


def test_images_that_are_no_multiple_of_32_px_are_refused() -> None:
    with pytest.raises(ValueError, match="32 or 64"):
        config_of().token_grid(48)
    assert config_of(input_size=96).token_grid(48) == 3
