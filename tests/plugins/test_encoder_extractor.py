"""Encoders as extractors: pooling, resize, and what a distance in their features is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pae_encoders import vfm, vfm_config
from pae_encoders.clip import CLIP
from pae_encoders.clip_config import CLIPConfig
from pae_encoders.config import InceptionConfig, SmallCNNConfig
from pae_encoders.inception import InceptionEncoder
from pae_encoders.small_cnn import SmallCNN
from pae_framework.contracts import Encoder
from pae_framework.metrics.inception import PUBLISHED, WeightsIdentity
from pae_framework.seeding import seeded

TINY = {"weights": "none", "size": {"width": 32, "depth": 2, "heads": 2, "grid": 4}}


def encoder(kind: type[Any], config: Any, **arguments: Any) -> Encoder:
    with seeded("test"):
        built: Encoder = kind(config.model_validate({**TINY, **arguments}), 64)
    return built


@pytest.mark.parametrize(
    ("use", "poolings"),
    [
        ("DINOv2", ("cls", "mean")),
        ("DINOv3", ("cls", "mean")),
        ("MAE", ("cls", "mean")),
        ("SigLIP2", ("mean",)),
    ],
)
def test_the_first_pooling_is_that_of_the_encoder(use: str, poolings: tuple[str, ...]) -> None:
    built = encoder(getattr(vfm, use), getattr(vfm_config, f"{use}Config"))
    pixels = built.normalize(torch.rand(2, 3, 64, 64))
    assert built.config.poolings() == poolings
    with torch.no_grad():
        features = built(pixels)
        assert torch.equal(built.pool(pixels, poolings[0]), features.pooled)
        assert torch.equal(built.pool(pixels, "mean"), features.tokens.mean(1))


@pytest.mark.parametrize("model", ["ViT-B-16", "coca_ViT-L-14", "ViT-L-14-CLIPA"])
def test_the_head_of_clip_is_what_open_clip_returns(model: str) -> None:
    built = encoder(CLIP, CLIPConfig, model=model, input_size=4 * (14 if "L-14" in model else 16))
    assert isinstance(built, CLIP)
    pixels = built.normalize(torch.rand(2, 3, 64, 64))
    with torch.no_grad():
        built.visual.ln_post.weight.mul_(torch.rand_like(built.visual.ln_post.weight))
        torch.testing.assert_close(built.pool(pixels, "head"), built.visual(pixels))


def test_a_distance_in_random_features_is_called_random() -> None:
    label = encoder(vfm.DINOv2, vfm_config.DINOv2Config).distance_label("gFD", "dinov2")
    assert label == "gFD (random dinov2 vit_large_patch14_reg4_dinov2)"
    label = encoder(CLIP, CLIPConfig).distance_label("rFD", "clip")
    assert label == "rFD (random clip ViT-L-14)"


def test_a_distance_in_pretrained_features_names_the_model_and_is_no_fid(tmp_path: Path) -> None:
    config = vfm_config.MAEConfig(weights=str(tmp_path / "a.pt"))
    assert config.distance_label("gFD", "mae") == "gFD (mae vit_large_patch16_224)"


@pytest.mark.parametrize(
    ("sha256", "label"),
    [
        ("none", "gFD (random Inception)"),
        (f"{PUBLISHED}00", "gFID"),
        ("0123456789", "gFD (Inception with weights 01234567)"),
    ],
)
def test_only_inception_with_the_published_weights_gives_an_fid(sha256: str, label: str) -> None:
    built = InceptionEncoder(InceptionConfig(weights="none"), 64)
    built.weights = WeightsIdentity(sha256)
    assert built.distance_label("gFD", "inception") == label


def test_a_classifier_that_the_run_trains_needs_no_other_name() -> None:
    built = SmallCNN(SmallCNNConfig(width=8, depth=2), 64)
    assert built.distance_label("gFD", "small_cnn") == "gFD"


def test_a_plugins_pretrained_encoder_is_named() -> None:
    class Acme(SmallCNN):
        pass

    class AcmeConfig(SmallCNNConfig):
        trainable = False

    assert Acme(AcmeConfig(width=8, depth=2), 64).distance_label("gFD", "acme") == "gFD (acme)"
