"""Pretrained encoders: names and sizes, the encoder contract, files of weights, bad input."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import yaml
from layouts.transformers_encoders import CASES, GRID, SIZE, Case, every_case, images
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from pae_encoders import vfm
from pae_encoders.clip_config import CLIPConfig
from pae_encoders.convnext_config import ConvNeXtV2Config
from pae_encoders.families import DINOV2, DINOV3, FAMILIES, MAE, SIGLIP2, Family, Variant
from pae_encoders.vfm import FoundationEncoder
from pae_encoders.vfm_config import (
    DINOv2Config,
    DINOv3Config,
    MAEConfig,
    PretrainedConfig,
    SigLIP2Config,
)
from pae_framework import hub
from pae_framework.errors import CheckpointError, DataError
from pae_framework.testing.encoders import check_encoder
from pae_framework.training.blocks import find_blocks, recompute_blocks
from pae_modulators.config import FinetuneConfig
from pae_modulators.finetune import FinetunedEncoder

CONFIGS = {
    "dinov2": DINOv2Config,
    "dinov3": DINOv3Config,
    "mae": MAEConfig,
    "siglip2": SigLIP2Config,
}
EVERY_CONFIG = [*CONFIGS.values(), CLIPConfig, ConvNeXtV2Config]
CLASSES = {"dinov2": "DINOv2", "dinov3": "DINOv3", "mae": "MAE", "siglip2": "SigLIP2"}


# --- the table of models --------------------------------------------------------------------------

EVERY_MODEL = [
    pytest.param(family, variant, id=variant.name)
    for family in FAMILIES
    for variant in family.variants.values()
]


@pytest.mark.parametrize(("family", "variant"), EVERY_MODEL)
def test_every_model_is_what_timm_builds(family: Family, variant: Variant) -> None:
    form = variant.form
    with torch.device("meta"):
        theirs = timm.create_model(variant.name, num_classes=0)
    block = theirs.blocks[0]

    assert theirs.patch_embed.patch_size == (form.patch, form.patch)
    assert (theirs.embed_dim, len(theirs.blocks)) == (form.width, form.depth)
    assert (block.attn.num_heads, block.mlp.fc2.in_features) == (form.heads, form.mlp)
    assert theirs.num_prefix_tokens == form.class_token + form.registers
    if family is not DINOV3:
        assert theirs.patch_embed.grid_size == (form.grid, form.grid)
    # Ours has no affine part in the last norm, a mask token where there was one in training, the
    # class token's place where timm adds it to the token, and the biases timm leaves out as zero.
    added = -2 + (family in (DINOV2, DINOV3)) + (family is DINOV2 and form.registers > 0)
    if family is DINOV3 and "_qkvb" not in variant.name and "_7b_" not in variant.name:
        added += 2 * form.depth
    count = sum(weight.numel() for weight in theirs.parameters())
    assert form.parameters() == count + added * form.width


every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.use)


@every_family
def test_every_tag_is_one_of_timm_s(family: Family) -> None:
    for variant in family.variants.values():
        tags = set(timm.list_pretrained(f"{variant.name}.*"))
        assert {variant.hub_name(tag) for tag in variant.tags} <= tags
    assert set(family.variants) <= timm_s_models(family)


@pytest.mark.upstream
@every_family
def test_every_model_of_timm_s_is_in_the_table(family: Family) -> None:
    assert set(family.variants) == timm_s_models(family)


def timm_s_models(family: Family) -> set[str]:
    if family is DINOV3:
        known = timm.list_models("vit_*_dinov3*")
    elif family is SIGLIP2:
        tagged = timm.list_pretrained("vit_*_siglip_*.v2_webli")
        known = [name.split(".")[0] for name in tagged if "_gap_" not in name]
    elif family is MAE:
        known = [name.split(".")[0] for name in timm.list_pretrained("vit_*.mae")]
    else:
        known = timm.list_models("vit_*_dinov2")
    return set(known)


def open_clip_s_models() -> set[str]:
    names = open_clip.list_models()
    return {name for name in names if name.startswith("ViT-") and "SigLIP2" in name}


@pytest.mark.upstream
def test_every_siglip2_of_open_clip_s_is_in_the_table() -> None:
    assert set(SIGLIP2.aliases) == open_clip_s_models()


def test_open_clip_s_names_are_towers_of_timm_s() -> None:
    assert set(SIGLIP2.aliases) <= open_clip_s_models()
    for alias, name in SIGLIP2.aliases.items():
        vision = open_clip.get_model_config(alias)["vision_cfg"]
        form = SIGLIP2.variants[name].form
        assert vision["timm_model_name"] == name
        assert vision["image_size"] == form.grid * form.patch
        pretrained = open_clip.get_pretrained_cfg(alias, "webli")
        assert pretrained["hf_hub"].strip("/") == f"timm/{alias}"
        assert pretrained["mean"] == pretrained["std"] == (0.5, 0.5, 0.5)


def test_an_open_clip_model_s_trunk_is_this_encoder() -> None:
    default = SigLIP2Config().model
    with torch.device("meta"):
        whole = open_clip.create_model(default, load_weights=False, device="meta")
        ours = vfm.SigLIP2(SigLIP2Config(model=default, weights="none"), 256)

    theirs = {n: tuple(t.shape) for n, t in whole.state_dict().items() if n.startswith("visual.")}

    wanted = {"visual.trunk.norm.weight": (1152,), "visual.trunk.norm.bias": (1152,)}
    for name, tensor in ours.state_dict().items():
        wanted["visual.trunk." + name.removeprefix("vit.")] = tuple(tensor.shape)
    assert theirs == wanted


# --- the contract ---------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("size", [16, 48])
def test_contract(case: Case, size: int) -> None:
    check_encoder(case.encoder(size))


@every_case
def test_attributes_come_from_the_model(case: Case) -> None:
    encoder = case.encoder(64)

    assert (encoder.mean, encoder.std) == case.statistics
    assert (encoder.grid, encoder.width, encoder.heads) == (4, 32, 2)
    assert encoder.patch == (14 if case.family == "DINOv2" else 16)
    assert not encoder.train().training
    assert not encoder.vit.blocks[0].training


@every_case
def test_it_can_be_finetuned_with_its_blocks_computed_again(case: Case) -> None:
    modulator = FinetunedEncoder(FinetuneConfig(), case.encoder(32)).train()
    assert len(find_blocks(modulator)) == 2
    recompute_blocks(modulator)

    tokens = modulator(case.encoder(32).normalize(images(1, 32)), torch.empty(0))
    tokens.square().sum().backward()

    learning = {name for name, weight in modulator.named_parameters() if weight.requires_grad}
    assert {"encoder.vit.blocks.0.attn.qkv.weight", "encoder.vit.patch_embed.proj.bias"} <= learning
    assert not [name for name in learning if "attn_pool" in name or "mask_token" in name]


def test_satellite_weights_have_statistics_of_their_own() -> None:
    name = "vit_large_patch16_dinov3.sat493m"
    size = {"width": 32, "depth": 1, "heads": 2}

    encoder = vfm.DINOv3(DINOv3Config(model=name, weights="none", size=size), 16)

    assert encoder.mean == pytest.approx((0.43, 0.411, 0.296))
    assert encoder.std == pytest.approx((0.213, 0.156, 0.143))


@pytest.mark.parametrize("use", CONFIGS)
def test_smoke_keeps_the_patch_and_needs_no_file(use: str) -> None:
    config = CONFIGS[use]()
    small = config.smoke()

    assert small.missing() is None
    assert type(config).model_validate(small.model_dump()) == small
    assert small.form.patch == config.form.patch
    assert small.form.registers == config.form.registers
    assert small.token_grid(256) == config.token_grid(256) == 16
    assert small.parameters(256) < 200_000 < 300_000_000 < config.parameters(256)
    encoder = getattr(vfm, CLASSES[use])(small, 32)
    assert encoder(encoder.normalize(images(1, 32))).tokens.shape == (1, 4, 32)


# --- files of weights -----------------------------------------------------------------------------


def scrambled(case: Case, **changes: Any) -> FoundationEncoder:
    """An encoder whose every weight is random."""
    encoder = case.encoder(16 * GRID, **changes)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
    return encoder


def load(case: Case, tensors: dict[str, Tensor], path: Path) -> FoundationEncoder:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    else:
        torch.save({"model": tensors}, path)
    encoder = case.encoder(16 * GRID, weights=str(path))
    encoder.load_pretrained()
    return encoder


def timm_model(case: Case) -> torch.nn.Module:
    """The model as timm itself builds it, at the tiny size, with random weights."""
    config = case.encoder(16).settings
    torch.manual_seed(7)
    arguments: dict[str, Any] = (
        {} if config.family is DINOV3 else {"img_size": GRID * config.form.patch}
    )
    if config.family is SIGLIP2:
        arguments["act_layer"] = "gelu_tanh"
    model = timm.create_model(
        config.variant.name,
        pretrained=False,
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_ratio=4.0 if case.family == "DINOv3" or "giant" not in case.model else 2 * 88 / 32,
        **arguments,
    ).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name not in ("norm.weight", "norm.bias"):
                weight.copy_(0.3 * torch.randn(weight.shape))
    return model


@every_case
@pytest.mark.parametrize("prefix", ["", "module."])
def test_timm_s_files(case: Case, prefix: str, tmp_path: Path) -> None:
    theirs = timm_model(case)
    tensors = {prefix + name: tensor for name, tensor in theirs.state_dict().items()}

    ours = load(case, tensors, tmp_path / "weights.safetensors")
    pixels = ours.normalize(images(2, 16 * GRID))

    with torch.no_grad():
        wanted = theirs.forward_features(pixels)[:, case.dropped :]
        torch.testing.assert_close(ours(pixels).tokens, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_open_clip_s_files_are_read_for_their_image_tower(suffix: str, tmp_path: Path) -> None:
    case = CASES["siglip2"]
    wanted = scrambled(case)
    tower = {"visual.trunk." + n.removeprefix("vit."): t for n, t in wanted.state_dict().items()}
    norm = {"visual.trunk.norm.weight": torch.ones(32), "visual.trunk.norm.bias": torch.zeros(32)}
    text = {"text.token_embedding.weight": torch.zeros(9, 32), "logit_scale": torch.ones(1)}

    found = load(case, {**tower, **norm, **text}, tmp_path / f"open_clip_model{suffix}")

    assert_equal_states(found, wanted)


META_DINOV2 = {"vit.": "", "reg_token": "register_tokens"}


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def other(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in tensors.items()}


HEADS = {"dino_head.mlp.0.weight": torch.zeros(4, 32), "ibot_head.last.weight": torch.zeros(4, 32)}
TRAININGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "DINOv2, teacher_checkpoint": lambda x: {"teacher": with_prefix("backbone.", x) | HEADS},
    "DINOv2, FSDP": lambda x: {
        "model": with_prefix("teacher.backbone.", x)
        | with_prefix("student.backbone.", other(x))
        | with_prefix("teacher.", HEADS),
        "iteration": 9,
    },
    "DINO": lambda x: {
        "student": with_prefix("module.backbone.", other(x)),
        "teacher": with_prefix("backbone.", x),
        "args": argparse.Namespace(arch="vit_small"),
    },
    "timm": lambda x: {"state_dict": other(x), "state_dict_ema": x, "epoch": 3},
    "Lightning": lambda x: {"state_dict": with_prefix("model.encoder.", x), "epoch": 3},
    "compiled": lambda x: with_prefix("_orig_mod.", x),
    "MAE": lambda x: {"model": x, "optimizer": {}, "args": argparse.Namespace(lr=1e-4)},
}


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("name", ["dinov2", "dinov2 with registers", "dinov3", "mae", "siglip2"])
def test_files_of_trainings(name: str, training: str, tmp_path: Path) -> None:
    wanted = timm_model(CASES[name]).state_dict()
    expected = load(CASES[name], wanted, tmp_path / "bare.safetensors")
    path = tmp_path / "weights.pth"
    torch.save(TRAININGS[training](wanted), path)
    encoder = CASES[name].encoder(16 * GRID, weights=str(path))
    encoder.load_pretrained()
    assert_equal_states(encoder, expected)


@every_case
@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_a_tensor_of_any_other_shape_is_another_network(
    case: Case, layout: str, tmp_path: Path
) -> None:
    if layout == "timm":
        tensors = dict(timm_model(case).state_dict())
        tensors |= {"mask_token": torch.zeros(1, 32)} if "DINO" in case.family else {}
    else:
        released = case.encoder(16 * GRID).to_released()
        tensors = {name.removeprefix(case.prefix): x for name, x in released.items()}
    path = tmp_path / "weights.safetensors"
    encoder = case.encoder(16 * GRID, weights=str(path))
    unused = ("norm.", "fc_norm.", "layernorm.", "post_layernorm.", "head.", "rope")
    for name in tensors:
        in_block = re.search(r"blocks\.|layers?\.", name) and not name.endswith("qkv.bias")
        if in_block or name.startswith(unused):
            continue
        for shape in ((), (0,), (1, 1), (2, 3, 5)):
            save_file({**tensors, name: torch.zeros(shape)}, path)
            with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
                encoder.load_pretrained()


META_DINOV3 = {
    "vit.": "",
    "reg_token": "storage_tokens",
    "gamma_": "ls",
    "fc1_g": "w1",
    "fc1_x": "w2",
}


@pytest.mark.parametrize("name", ["dinov2 with registers", "dinov2", "dinov2 gated"])
def test_meta_s_files_of_dinov2(name: str, tmp_path: Path) -> None:
    wanted = scrambled(CASES[name])
    state = dict(wanted.state_dict())
    places = [state.pop("class_position"), state.pop("vit.pos_embed")]
    swap = {"fc1": "w12", "fc2": "w3"} if "gated" in name else {}
    theirs = {renamed(n, META_DINOV2 | swap): t for n, t in state.items()}
    theirs |= {"pos_embed": torch.cat(places, dim=1), "norm.weight": torch.ones(32)}

    assert_equal_states(load(CASES[name], theirs, tmp_path / "dinov2.pth"), wanted)


@pytest.mark.parametrize("name", ["dinov3", "dinov3 gated"])
def test_meta_s_files_of_dinov3(name: str, tmp_path: Path) -> None:
    wanted = scrambled(CASES[name])
    swap = {"fc2": "w3"} if "gated" in name else {}
    theirs = {renamed(n, META_DINOV3 | swap): t for n, t in wanted.state_dict().items()}
    theirs = {
        n.replace(".ls1", ".ls1.gamma").replace(".ls2", ".ls2.gamma"): t for n, t in theirs.items()
    }
    for i in range(2):
        q, v = (theirs.pop(f"blocks.{i}.attn.{x}_bias") for x in "qv")
        theirs[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q, torch.full_like(q, 9.0), v])
        theirs[f"blocks.{i}.attn.qkv.bias_mask"] = torch.zeros(96)
    theirs["mask_token"] = theirs["mask_token"][0]
    theirs |= {"rope_embed.periods": torch.ones(4), "norm.bias": torch.zeros(32)}

    assert_equal_states(load(CASES[name], theirs, tmp_path / "dinov3.pth"), wanted)


def renamed(name: str, table: dict[str, str]) -> str:
    for ours, theirs in table.items():
        name = name.replace(ours, theirs)
    return name


def assert_equal_states(found: FoundationEncoder, wanted: FoundationEncoder) -> None:
    state = wanted.state_dict()
    assert set(found.state_dict()) == set(state)
    assert [n for n, t in found.state_dict().items() if not torch.equal(t, state[n])] == []


# --- the hub --------------------------------------------------------------------------------------


@dataclass
class Hub:
    """A hub whose cache and downloads the test can see."""

    cache: dict[str, Path] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    state = Hub()

    def fetch(self: hub.HubFile) -> Path:
        state.fetched.append(self.where)
        state.cache[self.where] = Path("fetched")
        return Path("fetched")

    monkeypatch.setattr(hub.HubFile, "cached", lambda self: state.cache.get(self.where))
    monkeypatch.setattr(hub.HubFile, "fetch", fetch)
    for name in ("HF_HUB_OFFLINE", "PAE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return state


WHERE = {
    "dinov2": "hub:timm/vit_large_patch14_reg4_dinov2.lvd142m/model.safetensors",
    "dinov3": "hub:timm/vit_large_patch16_dinov3.lvd1689m/model.safetensors",
    "mae": "hub:timm/vit_large_patch16_224.mae/model.safetensors",
    "siglip2": "hub:timm/vit_so400m_patch16_siglip_256.v2_webli/model.safetensors",
}


@pytest.mark.parametrize("use", CONFIGS)
def test_missing_weights_are_named_and_fetched_once(use: str, fake_hub: Hub) -> None:
    config = CONFIGS[use]()

    assert config.missing() == (
        f"its weights ({WHERE[use]}) are not in the cache; run `pae fetch RECIPE`"
    )
    assert config.fetch() == WHERE[use]
    assert config.missing() is None
    assert config.fetch() is None
    assert fake_hub.fetched == [WHERE[use]]


@pytest.mark.parametrize("weights", ["none", "file"])
@pytest.mark.parametrize("config", EVERY_CONFIG)
def test_every_model_takes_random_weights_and_a_file(
    config: type[PretrainedConfig], weights: str, fake_hub: Hub, tmp_path: Path
) -> None:
    """Models without published weights, too."""
    file = tmp_path / "weights.safetensors"
    file.touch()
    for model in config.family.model_names:
        found = config(model=model, weights=weights if weights == "none" else str(file))
        assert found.missing() is None
        assert found.fetch() is None
        assert (found.remote is None) == (not found.variant.tags)
    assert not fake_hub.fetched


@pytest.mark.parametrize("config", EVERY_CONFIG)
def test_every_model_names_a_file_that_is_missing(
    config: type[PretrainedConfig], tmp_path: Path
) -> None:
    file = tmp_path / "weights.safetensors"
    for model in config.family.model_names:
        found = config(model=model, weights=str(file))
        assert str(file) in str(found.missing())
        with pytest.raises(DataError, match=re.escape(str(file))):
            found.fetch()


def test_another_tag_is_another_file() -> None:
    model = "vit_large_patch16_dinov3"
    wanted = f"hub:timm/{model}.sat493m/model.safetensors"

    assert DINOv3Config(model=model, weights="sat493m").remote.where == wanted
    assert DINOv3Config(model=f"{model}.sat493m").remote.where == wanted


@pytest.mark.parametrize(
    "model",
    ["ViT-B-16-SigLIP2", "vit_base_patch16_siglip_224", "vit_base_patch16_siglip_224.v2_webli"],
)
def test_siglip2_takes_whichever_file_is_there(model: str, fake_hub: Hub) -> None:
    config = SigLIP2Config(model=model)
    assert isinstance(config.remote, hub.EitherFile)
    assert config.missing() is not None

    open_clip_file = "hub:timm/ViT-B-16-SigLIP2/open_clip_model.safetensors"
    fake_hub.cache[open_clip_file] = Path("both towers")
    assert config.missing() is None
    assert config.remote.fetch() == Path("both towers")
    assert not fake_hub.fetched


@pytest.mark.parametrize("use", CONFIGS)
def test_offline_machines_are_told_what_to_do_and_download_nothing(
    use: str, fake_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAE_OFFLINE", "1")
    with torch.device("meta"):
        encoder = getattr(vfm, CLASSES[use])(CONFIGS[use](), 256)

    with pytest.raises(DataError, match="pae fetch"):
        encoder.load_pretrained()
    assert not fake_hub.fetched


def test_without_weights_nothing_is_loaded(fake_hub: Hub) -> None:
    encoder = CASES["mae"].encoder(16)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}

    encoder.load_pretrained()

    assert all(torch.equal(before[name], t) for name, t in encoder.state_dict().items())
    assert not fake_hub.fetched


# --- bad input ------------------------------------------------------------------------------------


def test_unknown_models_name_the_family_and_the_nearest() -> None:
    with pytest.raises(ValidationError) as caught:
        DINOv2Config(model="vit_large_patch14_reg_dinov2")

    message = str(caught.value)
    assert "dinov2 model 'vit_large_patch14_reg_dinov2'" in message
    assert "did you mean 'vit_large_patch14_reg4_dinov2'" in message
    assert "vit_small_patch14_dinov2" in message
    assert "vit_large_patch16_dinov3" not in message


def test_the_nearest_name_does_not_depend_on_capitals() -> None:
    with pytest.raises(ValidationError, match="did you mean 'ViT-L-16-SigLIP2-256'"):
        SigLIP2Config(model="vit-l-16-siglip2-256")


@pytest.mark.parametrize(
    ("config", "model", "other"),
    [
        (DINOv2Config, "vit_large_patch16_dinov3", "dinov3"),
        (MAEConfig, "ViT-SO400M-16-SigLIP2-256", "siglip2"),
        (SigLIP2Config, "vit_large_patch16_224.mae", "mae"),
        (DINOv3Config, "vit_giant_patch14_dinov2.lvd142m", "dinov2"),
    ],
)
def test_a_name_of_another_family_is_sent_there(
    config: Callable[..., Any], model: str, other: str
) -> None:
    with pytest.raises(ValidationError, match=rf"use[=: ]+{other}\b"):
        config(model=model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "imagenet"}, "'imagenet'.*lvd1689m, sat493m"),
        ({"model": "vit_large_patch16_dinov3.x"}, "'x'.*lvd1689m, sat493m"),
        (
            {"model": "vit_large_patch16_dinov3.sat493m", "weights": "lvd1689m"},
            "model.*'sat493m'.*weights.*'lvd1689m'",
        ),
        ({"size": SIZE}, "size.*weights.*none.*file"),
        ({"size": SIZE, "weights": "sat493m"}, "size.*weights.*none.*file"),
        ({"size": {**SIZE, "heads": 5}, "weights": "none"}, "heads.*5.*width.*32"),
        ({"size": {**SIZE, "heads": 16}, "weights": "none"}, "width per head"),
    ],
)
def test_parameters_that_contradict_each_other(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DINOv3Config(**arguments)


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        (MAEConfig(), 250, "250 px.*16 px.*240 or 256 px"),
        (DINOv2Config(), 250, "250 px.*14 px.*14/16.*240 or 256 px"),
        (
            DINOv2Config(input_size=225),
            256,
            "input_size.*225.*14 px.*224 or 238",
        ),
        (MAEConfig(input_size=8), 256, "input_size.*8 px.*16 px"),
    ],
)
def test_sizes_the_patch_does_not_divide(config: Any, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.token_grid(size)


def test_grids_of_default_and_chosen_inputs() -> None:
    assert DINOv2Config().token_grid(256) == 16  # 224 / 14
    assert DINOv2Config().token_grid(512) == 32  # 448 / 14
    assert DINOv2Config(input_size=518).token_grid(250) == 37
    assert MAEConfig().token_grid(256) == 16
    assert MAEConfig(model="vit_huge_patch14_224").token_grid(256) == 16
    assert SigLIP2Config(model="ViT-B-32-SigLIP2-256").token_grid(256) == 8


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    config = MAEConfig(weights=str(tmp_path / "absent.safetensors"))

    assert config.missing() == f"no such file: {tmp_path / 'absent.safetensors'}"
    with pytest.raises(DataError, match=r"absent\.safetensors"):
        config.fetch()


def test_a_file_of_another_network_says_what_differs(tmp_path: Path) -> None:
    # MAE's small network where DINOv2's with registers is wanted: another patch, no layer scale.
    other = timm_model(CASES["mae"])

    with pytest.raises(CheckpointError) as caught:
        load(CASES["dinov2 with registers"], other.state_dict(), tmp_path / "mae.safetensors")

    message = str(caught.value)
    assert "mae.safetensors" in message
    assert "vit_small_patch14_reg4_dinov2" in message
    assert "missing: vit.reg_token, vit.blocks.0.ls1.gamma" in message
    assert "vit.patch_embed.proj.weight is 32x3x16x16, not 32x3x14x14" in message


@pytest.mark.parametrize("wanted", ["mae", "dinov2", "dinov3", "siglip2"])
@pytest.mark.parametrize("given", ["mae", "dinov2", "dinov3", "siglip2"])
def test_no_family_takes_another_s_file(wanted: str, given: str, tmp_path: Path) -> None:
    ours = CASES[given].encoder(16 * GRID)
    prefix = CASES[given].prefix
    layouts = {
        "timm": timm_model(CASES[given]).state_dict(),
        "transformers": {n.removeprefix(prefix): t for n, t in ours.to_released().items()},
    }

    for layout, tensors in layouts.items():
        path = tmp_path / f"{layout}.safetensors"
        if wanted == given:
            load(CASES[wanted], tensors, path)
        else:
            with pytest.raises(CheckpointError, match=f"{layout}.safetensors"):
                load(CASES[wanted], tensors, path)


@pytest.mark.parametrize("name", ["mae", "dinov2", "dinov2 with registers", "siglip2"])
@pytest.mark.parametrize("layout", ["timm", "transformers"])
def test_positions_of_another_grid_are_read_with_the_size_that_the_error_names(
    name: str, layout: str, tmp_path: Path
) -> None:
    case, path = CASES[name], tmp_path / "weights.safetensors"
    size = {**SIZE, "grid": GRID + 1}
    larger = case.encoder(16 * GRID, size=size)
    if layout == "timm":
        tensors = {n.removeprefix("vit."): t for n, t in larger.state_dict().items()}
        if (
            position := tensors.pop("class_position", None)
        ) is not None and "registers" not in name:
            tensors["pos_embed"] = torch.cat([position, tensors["pos_embed"]], dim=1)
    else:
        released = larger.to_released()
        tensors = {n.removeprefix(case.prefix): t for n, t in released.items()}

    with pytest.raises(CheckpointError) as caught:
        load(case, tensors, path)

    assert f"{GRID + 1} x {GRID + 1} tokens" in str(caught.value)
    named = yaml.safe_load(str(caught.value).partition("size=")[2].partition("}")[0] + "}")
    right = case.encoder(16 * GRID, size=named, weights=str(path))
    right.load_pretrained()
    assert torch.equal(right.state_dict()["vit.pos_embed"], larger.state_dict()["vit.pos_embed"])
