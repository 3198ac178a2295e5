"""CLIP's image towers: open-clip's networks, names, tags, statistics and features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.modified_resnet import AttentionPool2d
from open_clip.transformer import QuickGELU
from pydantic import ValidationError
from safetensors.torch import save_file

from pae_encoders.clip import CLIP
from pae_encoders.clip_config import CLIPConfig
from pae_encoders.clip_models import CLIP as FAMILY
from pae_encoders.clip_models import ClipForm, ResNetForm
from pae_encoders.clip_timm_models import TIMM_FORMS
from pae_encoders.families import SIGLIP2
from pae_framework import hub
from pae_framework.errors import CheckpointError
from pae_framework.seeding import seeded

MODELS = list(FAMILY.model_names)
RESNETS = [name for name, variant in FAMILY.variants.items() if type(variant.form) is ResNetForm]
TAGS = [(model, tag) for model in MODELS for tag in FAMILY.variants[model].tags]
TINY = {"width": 32, "depth": 2, "heads": 2, "grid": 4}


def config_of(model: str, **arguments: Any) -> CLIPConfig:
    return CLIPConfig.model_validate({"model": model, **arguments})


def encoder(model: str = "ViT-B-16", image_size: int = 64, **arguments: Any) -> CLIP:
    with seeded("test"):
        return CLIP(config_of(model, **{"weights": "none", "size": TINY, **arguments}), image_size)


def test_every_model_of_open_clip_is_in_the_tables() -> None:
    assert set(MODELS) | set(SIGLIP2.aliases) == set(open_clip.list_models())


@pytest.mark.parametrize("model", [name for name in MODELS if name not in TIMM_FORMS])
def test_a_tower_is_the_one_that_open_clip_builds(model: str) -> None:
    """Names, shapes and number of parameters, at the published size."""
    config = config_of(model, weights="none")
    form = config.form
    with torch.device("meta"):
        ours = CLIP(config, 16 * form.patch)
        settings = open_clip.get_model_config(model)
        theirs = open_clip.model._build_vision_tower(
            settings["embed_dim"], settings["vision_cfg"], settings.get("quick_gelu", False)
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.visual.state_dict().items()}
    assert shapes == {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert set(ours.state_dict()) == {f"visual.{name}" for name in shapes}
    assert config.parameters(16 * form.patch) == sum(w.numel() for w in theirs.parameters())
    assert str(ours.visual) == str(theirs)


@pytest.mark.parametrize("model", MODELS)
def test_tags_are_open_clip_s(model: str) -> None:
    assert set(FAMILY.variants[model].tags) == set(open_clip.list_pretrained_tags_by_model(model))


@pytest.mark.parametrize(("model", "tag"), TAGS, ids=":".join)
def test_weights_are_those_that_open_clip_s_tag_names(model: str, tag: str) -> None:
    config, theirs = config_of(model, weights=tag), open_clip.get_pretrained_cfg(model, tag)
    assert config.published is not None
    place = f"{config.published.repository}/{config.published.file or ''}"
    assert place == theirs["hf_hub"]
    assert config.statistics == (tuple(theirs["mean"]), tuple(theirs["std"]))
    if not isinstance(form := config.form, ClipForm):
        return
    own = bool(open_clip.get_model_config(model).get("quick_gelu"))
    assert form.quick_gelu == (own or bool(theirs.get("quick_gelu")))


@pytest.mark.parametrize("model", ["ViT-B-16", "ViT-L-14-CLIPA", "coca_ViT-L-14", "ViT-M-16-alt"])
@pytest.mark.parametrize("grid", [4, 6])
def test_tokens_are_open_clip_s_before_the_affine_part_of_the_last_norm(
    model: str, grid: int
) -> None:
    """At the learned grid and at another one, whose positions open-clip resizes when it loads."""
    patch = FAMILY.variants[model].form.patch
    ours = encoder(model, grid * patch, input_size=grid * patch)
    pixels = torch.randn(2, 3, grid * patch, grid * patch)
    state = {f"visual.{name}": tensor for name, tensor in ours.visual.state_dict().items()}
    size = {**TINY, "grid": grid}
    theirs = encoder(model, grid * patch, size=size, input_size=grid * patch)
    open_clip.model.resize_pos_embed(state, theirs)
    theirs.load_state_dict(state)
    with torch.no_grad():
        (wanted,) = theirs.visual.forward_intermediates(
            pixels, indices=1, intermediates_only=True, output_fmt="NLC"
        )["image_intermediates"]
        wanted = torch.nn.functional.layer_norm(wanted, (32,))
        torch.testing.assert_close(ours(pixels).tokens, wanted, atol=1e-5, rtol=0)
        assert ours(pixels).pooled.shape == (2, 32)


def test_the_class_token_is_the_one_that_open_clip_pools() -> None:
    ours = encoder()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours.visual.proj.copy_(torch.randn_like(ours.visual.proj))
        wanted = ours.visual(pixels)
        torch.testing.assert_close(ours(pixels).pooled @ ours.visual.proj, wanted)


@pytest.fixture(scope="module")
def resnet() -> CLIP:
    """The smallest ResNet, whose shortcuts and residuals both count."""
    built = encoder("RN50", 224, size=None)
    with torch.no_grad():
        for name, weight in built.named_parameters():
            if name.endswith("bn3.weight"):
                weight.fill_(0.3)
    return built


def test_tokens_of_a_resnet_are_the_last_map_before_the_attention_pooling(resnet: CLIP) -> None:
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        output = resnet.visual.forward_intermediates(pixels)
        *_, last = output["image_intermediates"]
        features = resnet(pixels)
        maps = list(resnet.feature_maps(pixels))
        head = resnet.pool(pixels, "head")
    assert last.shape == (1, 2048, 7, 7)
    for row, column in [(0, 1), (1, 0), (6, 5)]:
        wanted = last[:, :, row, column]
        wanted = (wanted - wanted.mean()) / wanted.std(correction=0)
        torch.testing.assert_close(
            features.tokens[:, 7 * row + column], wanted, atol=1e-4, rtol=1e-5
        )
    torch.testing.assert_close(features.pooled, last.mean((2, 3)))
    sizes = [(56**2, 256), (28**2, 512), (14**2, 1024), (7**2, 2048)]
    assert [tuple(m.shape[1:]) for m in maps] == sizes
    torch.testing.assert_close(head, output["image_features"])
    assert head.shape == (1, 1024)


def test_the_attention_pooling_of_a_resnet_is_resized_to_the_grid(resnet: CLIP) -> None:
    """If all positions are equal, it is that of a network built for 2 x 2 tokens."""
    small = encoder("RN50", 64, size=None)
    small.load_state_dict(resnet.state_dict())
    theirs = AttentionPool2d(2, 2048, 32, 1024)
    with torch.no_grad():
        positions = small.visual.attnpool.positional_embedding
        positions[1:] = positions[1]
        state = small.visual.attnpool.state_dict()
        theirs.load_state_dict({**state, "positional_embedding": positions[:5]})
        pixels = small.normalize(torch.rand(2, 3, 64, 64))
        features = small(pixels)
        *_, tokens = small.feature_maps(pixels)
        wanted = theirs(tokens.transpose(1, 2).unflatten(2, (2, 2)))
        assert features.tokens.shape == (2, 4, 2048)
        torch.testing.assert_close(small.pool(pixels, "head"), wanted)


def test_a_file_with_the_weights_of_a_resnet_is_read(resnet: CLIP, tmp_path: Path) -> None:
    """The statistics of its batch norms too; those in ``resnet`` are the initial ones."""
    theirs = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    theirs["visual.bn1.running_mean"] += 1
    save_file({**theirs, "logit_scale": torch.ones(1)}, tmp_path / "clip.safetensors")
    ours = encoder("RN50.openai", 64, size=None, weights=str(tmp_path / "clip.safetensors"))
    ours.load_pretrained()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("model", RESNETS)
def test_a_smoke_run_of_a_resnet_is_of_the_smallest(model: str) -> None:
    smoke = config_of(model, input_size=320).smoke()
    assert (smoke.model, smoke.weights, smoke.input_side(64)) == ("RN50", "none", 64)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_open_clip_is_read_for_its_image_tower(suffix: str, tmp_path: Path) -> None:
    theirs = {name: torch.randn_like(tensor) for name, tensor in encoder().state_dict().items()}
    whole = {**theirs, "logit_scale": torch.ones(1), "token_embedding.weight": torch.ones(9, 32)}
    path = tmp_path / f"open_clip_model{suffix}"
    save_file(whole, path) if suffix == ".safetensors" else torch.save(whole, path)
    ours = encoder(weights=str(path))
    ours.load_pretrained()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize(
    ("tensors", "fact"),
    [({"conv1.weight": torch.ones(2)}, "visual"), ({"visual.proj": torch.ones(2, 2)}, "proj")],
)
def test_a_file_of_another_network_is_refused(
    tensors: dict[str, torch.Tensor], fact: str, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=fact):
        encoder(weights=str(tmp_path / "weights.safetensors")).load_pretrained()


@pytest.mark.parametrize(("weights", "quick"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_the_activation_is_that_of_the_weights(weights: str, quick: bool) -> None:
    with torch.device("meta"):
        network = CLIP(config_of("ViT-B-32", weights=weights), 224)
    assert any(isinstance(module, QuickGELU) for module in network.modules()) is quick


@pytest.mark.parametrize(
    ("model", "quick"),
    [
        ("ViT-B-32.openai", True),
        ("ViT-B-32-quickgelu", True),
        ("ViT-B-32-quickgelu.openai", True),
        ("ViT-B-32.laion2b_s34b_b79k", False),
        ("ViT-B-32", False),
        ("ViT-M-16-alt", False),
    ],
)
@pytest.mark.parametrize("size", [None, TINY], ids=["published size", "other size"])
def test_the_activation_of_a_file_is_that_of_the_tag_that_the_model_names(
    model: str, quick: bool, size: dict[str, int] | None
) -> None:
    with torch.device("meta"):
        network = CLIP(config_of(model, weights="weights/clip.safetensors", size=size), 256)
    assert any(isinstance(module, QuickGELU) for module in network.modules()) is quick


def test_missing_weights_are_named_and_the_file_that_exists_is_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    def fetch(self: hub.HubFile) -> Path:
        tried.append(self.name)
        if self.name.endswith(".safetensors"):
            raise OSError("404")
        return Path("fetched")

    monkeypatch.setattr(hub.HubFile, "cached", lambda self: None)
    monkeypatch.setattr(hub.HubFile, "fetch", fetch)
    config = config_of("ViT-B-16", weights="dfn2b")
    assert "apple/DFN2B-CLIP-ViT-B-16" in str(config.missing())
    assert config.remote.fetch() == Path("fetched")
    assert tried == ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ({"model": "convnext_tiny", "size": TINY, "weights": "none"}, ["size", "convnext_tiny"]),
        ({"model": "MobileCLIP-B", "attention": "matmul"}, ["attention", "MobileCLIP-B"]),
        ({"model": "EVA02-B-16", "size": {**TINY, "width": 12}, "weights": "none"}, ["rotary"]),
        ({"model": "ViTamin-S", "weights": "webli"}, ["ViTamin-S", "datacomp1b"]),
        ({"model": "RN50", "size": TINY, "weights": "none"}, ["size", "RN50", "ViT"]),
        ({"model": "RN50", "attention": "matmul"}, ["attention", "RN50", "ViT"]),
        ({"model": "RN51"}, ["RN50"]),
        ({"model": "RN50x4", "weights": "yfcc15m"}, ["RN50x4", "openai"]),
        ({"model": "ViT-L-16-SigLIP2-256"}, ["use: siglip2"]),
        ({"model": "ViT-B-33"}, ["ViT-B-32"]),
        ({"model": "ViT-S-16"}, ["ViT-S-16", "none"]),
        ({"model": "ViT-B-32", "weights": "laion"}, ["laion2b_s34b_b79k", "openai"]),
        ({"model": "ViT-B-32.openai", "weights": "laion2b_e16"}, ["laion2b_e16"]),
    ],
)
def test_wrong_models_and_tags_say_what_is_right(
    arguments: dict[str, Any], facts: list[str]
) -> None:
    with pytest.raises(ValidationError) as caught:
        CLIPConfig.model_validate(arguments)
    assert [fact for fact in facts if fact not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("model", "size", "grid"), [("ViT-B-32", 256, 8), ("ViT-L-14", 256, 16), ("ViT-B-16", 256, 16)]
)
def test_grids(model: str, size: int, grid: int) -> None:
    assert config_of(model).token_grid(size) == grid


def test_an_image_size_that_does_not_fit_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="224 or 256 px"):
        config_of("ViT-B-32").token_grid(250)
