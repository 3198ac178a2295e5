"""FDr6: its constants, its formula by hand, and its networks at the published size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from pae_framework.errors import DataError
from pae_framework.metrics import fdr6_networks
from pae_framework.metrics.fdr6 import INCEPTION, NETWORKS, VALIDATION, FDr6Network, fdr6
from pae_framework.metrics.fdr6_networks import FDr6Features, build, pooled

NAMES = list(NETWORKS)


def test_the_constants_are_the_published_ones() -> None:
    """Sides, pools and distances of the validation images of FD-loss and nanogen-evals."""
    rows = {
        name: (network.side, network.pool, network.validation) for name, network in NETWORKS.items()
    }
    assert rows == {
        "convnextv2_base.fcmae_ft_in22k_in1k": (224, "spatial", 56.87),
        "vit_large_patch14_dinov2.lvd142m": (256, "cls", 14.19),
        "vit_large_patch16_224.mae": (224, "cls", 0.04),
        "vit_so400m_patch16_siglip_256.v2_webli": (224, "head", 0.60),
        "vit_large_patch14_clip_224.openai": (256, "cls", 5.60),
    }
    assert VALIDATION[INCEPTION] == 1.68
    assert len(VALIDATION) == 6


def test_the_validation_images_have_one() -> None:
    assert fdr6(VALIDATION) == pytest.approx(1)


def test_a_case_by_hand() -> None:
    """1.68 / 1.68 + 113.74 / 56.87 + 42.57 / 14.19 + .16 / .04 + 3 / .6 + 33.6 / 5.6 = 21."""
    distances = dict(zip((INCEPTION, *NAMES), (1.68, 113.74, 42.57, 0.16, 3.0, 33.6), strict=True))
    assert fdr6(distances) == pytest.approx(21 / 6)


@pytest.mark.parametrize("lacking", [INCEPTION, *NAMES])
def test_it_is_never_a_mean_of_fewer(lacking: str) -> None:
    distances = {name: value for name, value in VALIDATION.items() if name != lacking}
    with pytest.raises(ValueError, match=f"lacks {lacking}"):
        fdr6(distances)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_timm_s_at_its_published_size(name: str) -> None:
    network = NETWORKS[name]
    with torch.device("meta"):
        ours, theirs = build(network), timm.create_model(name, pretrained=False, num_classes=0)
        images = torch.empty(2, 3, network.side, network.side)
        features = pooled(ours, network, images)
    shapes = {key: tensor.shape for key, tensor in ours.state_dict().items()}
    assert shapes == {key: tensor.shape for key, tensor in theirs.state_dict().items()}
    assert features.shape == (2, network.width)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> FDr6Network:
    """A small network of the same kind in place of a large one."""
    return FDr6Network("vit_tiny_patch16_224.augreg_in21k", 64, "cls", 192, 1.0)


def test_features_are_timm_s_class_token_and_do_not_depend_on_the_batch(small: FDr6Network) -> None:
    images = torch.randint(256, (3, 3, 48, 48), dtype=torch.uint8)
    extract = FDr6Features(small, "none")
    features = extract(images)
    assert features.shape == (3, 192)
    torch.testing.assert_close(features[1:2], extract(images[1:2]), atol=1e-4, rtol=1e-4)
    network = build(small)
    pixels = torch.nn.functional.interpolate(
        images / 255, size=64, mode="bicubic", align_corners=False, antialias=True
    )
    with torch.no_grad():
        wanted = network.forward_features((pixels - 0.5) / 0.5)[:, 0]
    torch.testing.assert_close(features, wanted, atol=1e-4, rtol=1e-4)


def test_weights_of_a_folder_are_loaded(small: FDr6Network, tmp_path: Path) -> None:
    network = build(small)
    state = {name: torch.randn_like(tensor) for name, tensor in network.state_dict().items()}
    save_file(state, tmp_path / f"{small.model}.safetensors")
    loaded = FDr6Features(small, str(tmp_path))._network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_missing_weights_are_named(small: FDr6Network, tmp_path: Path) -> None:
    assert small.missing("none") is None
    assert small.model in str(small.missing(str(tmp_path)))
    with pytest.raises(DataError, match=small.model):
        FDr6Features(small, str(tmp_path))


def test_random_networks_are_always_the_same(small: FDr6Network) -> None:
    first, second = build(small).state_dict(), build(small).state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture
def _tf32() -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    yield
    matmul.allow_tf32, cudnn.allow_tf32 = before


@pytest.mark.usefixtures("_tf32")
def test_features_are_in_full_precision_whatever_the_run_allows(
    small: FDr6Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = []

    def allows() -> tuple[bool, bool]:
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    def record(network: object, described: object, pixels: torch.Tensor) -> torch.Tensor:
        allowed.append(allows())
        return pixels.flatten(1)

    monkeypatch.setattr(fdr6_networks, "pooled", record)
    FDr6Features(small, "none")(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert allowed == [(False, False)]
    assert allows() == (True, True)


def test_other_weights_have_another_digest(small: FDr6Network, tmp_path: Path) -> None:
    state = build(small).state_dict()
    key = next(name for name in state if name.endswith("bias"))
    save_file({**state, key: state[key] + 1}, tmp_path / f"{small.model}.safetensors")
    digests = [FDr6Features(small, weights).digest for weights in ("none", "none", str(tmp_path))]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_full_size_with_random_weights_extracts(name: str) -> None:
    images = torch.randint(256, (1, 3, 32, 32), dtype=torch.uint8)
    assert FDr6Features(NETWORKS[name], "none")(images).isfinite().all()
