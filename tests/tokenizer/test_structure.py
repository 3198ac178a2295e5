"""H_ref: its equation by hand, what upsampling does to it, and AnyUp from a checkout made here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pae_framework.errors import CheckpointError, DataError
from pae_framework.layers import map_to_tokens
from pae_framework.tokenizer.structure import StructureReference, low_passed, spatially_normalized
from pae_framework.tokenizer.tokenizer_settings import RefinementSettings


def reference(**changes: Any) -> StructureReference:
    values = {"low_pass": 0.0, "train": {"steps": 1}} | changes
    return StructureReference(RefinementSettings.model_validate(values))


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(2))


class TestNormalization:
    def test_subtracts_a_share_of_the_mean_token(self) -> None:
        x = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])  # mean (2, 2)
        expected = torch.tensor([[[0.2, -0.8], [2.2, 3.2]]])
        torch.testing.assert_close(spatially_normalized(x, 0.4), expected)

    def test_strength_0_is_the_identity_and_1_leaves_no_mean(self) -> None:
        x = torch.randn(5, 16, 32)
        assert torch.equal(spatially_normalized(x, 0.0), x)
        mean = spatially_normalized(x, 1.0).mean(dim=1)
        torch.testing.assert_close(mean, torch.zeros(5, 32), atol=1e-6, rtol=0)

    @pytest.mark.parametrize(("power", "expected"), [(0.5, 2.0), (1.0, 1.0)])
    def test_divides_by_a_power_of_the_deviation(self, power: float, expected: float) -> None:
        # One channel: 3 and 11, less the mean -4 and 4; its deviation over the image is 4.
        x = torch.tensor([[[3.0], [11.0]]])
        found = spatially_normalized(x, 1.0, deviation_power=power)
        torch.testing.assert_close(found, torch.tensor([[[-expected], [expected]]]))

    def test_a_channel_without_deviation_stays_finite(self) -> None:
        assert spatially_normalized(torch.ones(1, 4, 2), 1.0, deviation_power=1.0).isfinite().all()


class TestLowPass:
    def test_is_a_gaussian_blur_by_hand(self) -> None:
        # A single 1 at the corner of 2 x 2 tokens: per axis the weights are 1 and e = exp(-1/2)
        # (size 1), over 1 + e. Kept along an axis: a = 1 / (1 + e); crossed: b = e / (1 + e).
        e = math.exp(-0.5)
        a, b = 1 / (1 + e), e / (1 + e)
        x = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 4, 1)
        expected = torch.tensor([a * a, a * b, a * b, b * b]).view(1, 4, 1)
        torch.testing.assert_close(low_passed(x, 1.0), expected)

    def test_is_float32_under_autocast(self) -> None:
        x = torch.randn(2, 25, 3)
        with torch.autocast("cpu", torch.bfloat16):
            found = low_passed(x, 1.0)
        assert torch.equal(found, low_passed(x, 1.0))

    def test_leaves_constants_and_ends_at_the_mean(self) -> None:
        x = torch.randn(2, 25, 3)
        torch.testing.assert_close(low_passed(torch.ones(1, 25, 3), 0.7), torch.ones(1, 25, 3))
        torch.testing.assert_close(low_passed(x, 1e4), low_passed(x, None).expand(2, 25, 3))
        torch.testing.assert_close(low_passed(x, 0.05), x)

    def test_keeps_rows_and_columns_apart(self) -> None:
        # Every row is constant, growing downwards, and stays so under the blur.
        rows = torch.arange(4.0).repeat_interleave(4).view(1, 16, 1)
        found = low_passed(rows, 0.8).view(4, 4)
        torch.testing.assert_close(found, found[:, :1].expand(4, 4))
        assert (found[1:, 0] > found[:-1, 0]).all()


class TestUpsampling:
    def test_none_stays_on_the_token_grid(self) -> None:
        x = torch.randn(2, 16, 8)
        found = reference(low_pass=0.4)(x, images())
        assert torch.equal(found, x - 0.4 * x.mean(dim=1, keepdim=True))

    def test_bilinear_there_and_back_by_hand(self) -> None:
        # 2 x 2 tokens to 8 px and back. Along an axis, the centers of tokens 0 and 1 lie at 1.5
        # and 5.5 px; each comes back as the mean of the pixels beside it. Pixels 1 and 2 lie at
        # -1/8 (clamped to 0) and 1/8 tokens from token 0: weights 1 and 7/8 + 1/8, so token 0
        # comes back as 15/16 of itself and 1/16 of its neighbor.
        x = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 4, 1)
        found = reference(upsampler="bilinear", upsample_size=8)(x, images(1))
        own, other = 15 / 16, 1 / 16
        expected = torch.tensor([own * own, own * other, own * other, other * other])
        torch.testing.assert_close(found, expected.view(1, 4, 1))

    def test_dense_features_have_the_size_of_the_images_by_default(self) -> None:
        x = torch.randn(2, 16, 8)
        default = reference(upsampler="bilinear")(x, images(size=32))
        stated = reference(upsampler="bilinear", upsample_size=32)(x, images(size=64))
        assert torch.equal(default, stated)
        assert not torch.equal(default, reference(upsampler="bilinear")(x, images(size=64)))

    def test_the_mean_is_that_of_the_dense_features(self) -> None:
        # Upsampling is linear and keeps constants, so subtracting before or after is the same.
        x = torch.randn(2, 16, 8)
        plain = reference(upsampler="bilinear")(x, images())
        dense = torch.nn.functional.interpolate(
            x.mT.reshape(2, 8, 4, 4), 32, mode="bilinear", align_corners=False
        )
        expected = plain - 0.4 * dense.mean(dim=(2, 3))[:, None]
        found = reference(upsampler="bilinear", low_pass=0.4)(x, images())
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_the_blur_is_as_wide_in_pixels_as_in_tokens(self) -> None:
        # A smooth pattern leaves about as much behind on either grid; a blur taken in px of the
        # dense grid (8 times narrower) would leave next to nothing.
        angles = torch.arange(8) * (2 * math.pi / 8)
        x = map_to_tokens((angles.sin()[:, None] * torch.ones(8)).view(1, 1, 8, 8))
        sparse = reference(low_pass=1.0, low_pass_size=1.5)(x, images(1))
        dense = reference(low_pass=1.0, low_pass_size=1.5, upsampler="bilinear", upsample_size=64)
        inner = slice(2 * 8, 6 * 8)  # rows away from the border
        left = sparse[:, inner].square().mean().item()
        assert left > 0.2 * x[:, inner].square().mean().item()
        found = dense(x, images(1))[:, inner].square().mean().item()
        assert found == pytest.approx(left, rel=0.15)

    def test_has_no_gradient_and_no_state(self) -> None:
        module = reference(upsampler="bilinear")
        assert not module(torch.randn(1, 4, 3, requires_grad=True), images(1)).requires_grad
        assert not module.state_dict()


HUBCONF = '''
import torch
from torch import nn


class Attention(nn.Module):
    """Softmax over tokens of queries times keys, at every pixel."""

    def forward(self, queries, keys, values, vis_attn=False, q_chunk_size=None):
        weights = (queries.flatten(2).mT @ keys.flatten(2)).softmax(dim=-1)
        pixels = weights @ values.flatten(2).mT
        return pixels.mT.unflatten(2, queries.shape[-2:])


class Network(nn.Module):
    """Attention guided by the image's colors and by the direction of the features."""

    def __init__(self):
        super().__init__()
        self.sharpness = nn.Parameter(torch.zeros(()))
        self.cross_decode = Attention()

    def forward(self, image, features, output_size=None, vis_attn=False, q_chunk_size=None):
        keys = nn.functional.adaptive_avg_pool2d(image, features.shape[-2:])
        direction = nn.functional.normalize(features, dim=1)[:, :1]
        return self.cross_decode(
            self.sharpness * image, keys * (1 + direction), features, q_chunk_size=q_chunk_size
        )


def anyup(pretrained=True, device="cpu"):
    if pretrained:
        raise RuntimeError("would download")
    return Network()


def anyup_multi_backbone(pretrained=True, device="cpu"):
    network = anyup(pretrained)
    network.register_buffer("backbones", torch.zeros(5))
    return network
'''


@pytest.fixture
def checkout(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "hubconf.py").write_text(HUBCONF)
    torch.save({"sharpness": torch.tensor(3.0)}, tmp_path / "anyup.pth")
    return {"checkout": str(folder), "weights": str(tmp_path / "anyup.pth")}


def dense_features(checkout: dict[str, str], tokens: Tensor, given: Tensor) -> Tensor:
    """AnyUp's own result (B, D, U, U), from the checkout and the file, without this package."""
    network = torch.hub.load(checkout["checkout"], "anyup", source="local", pretrained=False)
    network.load_state_dict(torch.load(checkout["weights"]))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    side = math.isqrt(tokens.shape[1])
    features = tokens.mT.unflatten(2, (side, side))
    with torch.no_grad():
        return network((given - mean) / deviation, features)


class TestAnyUp:
    @pytest.mark.parametrize("antialias", [False, True])
    @pytest.mark.parametrize(
        "normalization",
        [
            {"low_pass": 0.4},
            {"low_pass": 0.4, "spatial_norm": 1.0},
            {"low_pass": 1.0, "spatial_norm": 1.0, "unbiased": True},
            {"low_pass": 0.0, "spatial_norm": 0.5},
            {"low_pass": 0.4, "low_pass_size": 1.5},
            {"low_pass": 0.4, "low_pass_size": 1.5, "spatial_norm": 1.0},
        ],
        ids=str,
    )
    def test_equals_the_dense_features_normalized_and_resized(
        self, checkout: dict[str, str], normalization: dict[str, float], antialias: bool
    ) -> None:
        module = reference(upsampler="anyup", anyup=checkout, antialias=antialias, **normalization)
        module.load_pretrained()
        x, given = torch.randn(3, 16, 8), images(3, size=32)
        dense = map_to_tokens(dense_features(checkout, x, given))  # (B, U U, D)
        size = normalization.get("low_pass_size")
        blurred = low_passed(dense, None if size is None else 8 * size)
        expected = dense - normalization["low_pass"] * blurred
        if power := normalization.get("spatial_norm"):
            variance = expected.var(dim=1, keepdim=True, correction="unbiased" in normalization)
            expected = expected / (variance.sqrt() + 1e-6) ** power
        expected = torch.nn.functional.interpolate(
            expected.mT.unflatten(2, (32, 32)), 4, mode="bilinear", antialias=antialias
        )
        torch.testing.assert_close(module(x, given), map_to_tokens(expected), atol=1e-6, rtol=1e-5)

    def test_agrees_to_1e_6_where_no_deviation_is_divided_by(
        self, checkout: dict[str, str]
    ) -> None:
        module = reference(upsampler="anyup", anyup=checkout)
        module.load_pretrained()
        x, given = torch.randn(3, 16, 8), images(3, size=32)
        dense = dense_features(checkout, x, given)
        expected = torch.nn.functional.interpolate(dense, 4, mode="bilinear")
        assert (module(x, given) - map_to_tokens(expected)).abs().max() < 1e-6

    def test_images_together_equal_each_alone(
        self, checkout: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = reference(upsampler="anyup", anyup=checkout, spatial_norm=1.0)
        module.load_pretrained()
        x, given = torch.randn(5, 16, 8), images(5, size=32)
        together = module(x, given)
        monkeypatch.setattr("pae_framework.tokenizer.structure._AT_ONCE", 2 * 16 * 32**2)
        torch.testing.assert_close(module(x, given), together, atol=1e-6, rtol=1e-6)

    def test_images_are_resized_to_the_size_asked_for(self, checkout: dict[str, str]) -> None:
        module = reference(upsampler="anyup", anyup=checkout, upsample_size=16)
        module.load_pretrained()
        assert module(torch.randn(2, 16, 8), images(2, size=32)).shape == (2, 16, 8)

    def test_the_other_model_has_its_own_entry_and_file(self, checkout: dict[str, str]) -> None:
        other = checkout | {"model": "anyup_multi_backbone"}
        with pytest.raises(CheckpointError, match="backbones"):
            reference(upsampler="anyup", anyup=other).load_pretrained()
        torch.save(
            {"sharpness": torch.tensor(3.0), "backbones": torch.ones(5)}, checkout["weights"]
        )
        module = reference(upsampler="anyup", anyup=other)
        module.load_pretrained()
        assert module.anyup is not None
        assert torch.equal(module.anyup.get_buffer("backbones"), torch.ones(5))

    @pytest.mark.parametrize(
        ("model", "file"),
        [
            ("anyup", "anyup_paper.pth"),
            ("anyup_multi_backbone", "anyup_multi_backbone.pth"),
        ],
    )
    def test_the_missing_file_is_named_with_its_license(
        self, checkout: dict[str, str], model: str, file: str
    ) -> None:
        Path(checkout["weights"]).unlink()
        settings = reference(upsampler="anyup", anyup=checkout | {"model": model}).settings
        message = settings.missing() or ""
        assert file in message
        assert "CC-BY-4.0" in message

    def test_is_frozen_and_outside_the_state(self, checkout: dict[str, str]) -> None:
        module = reference(upsampler="anyup", anyup=checkout)
        module.load_pretrained()
        module.train()
        assert module.anyup is not None
        assert not module.anyup.training
        assert not any(weight.requires_grad for weight in module.anyup.parameters())
        assert not module.state_dict()
        assert not list(module.parameters())

    def test_other_upsamplers_load_nothing(self) -> None:
        nowhere = {"checkout": "nowhere", "weights": "nowhere.pth"}
        module = reference(upsampler="bilinear", anyup=nowhere)
        module.load_pretrained()
        assert module.anyup is None
        assert module.settings.missing() is None

    def test_what_is_missing_is_named(self, checkout: dict[str, str], tmp_path: Path) -> None:
        settings = reference(upsampler="anyup", anyup=checkout).settings
        assert settings.missing() is None
        Path(checkout["weights"]).unlink()
        assert checkout["weights"] in (settings.missing() or "")
        (tmp_path / "checkout" / "hubconf.py").unlink()
        assert "hubconf.py" in (settings.missing() or "")
        with pytest.raises(DataError, match=r"hubconf\.py"):
            StructureReference(settings).load_pretrained()

    def test_the_recipe_must_say_where_it_is(self) -> None:
        with pytest.raises(ValidationError, match="anyup"):
            reference(upsampler="anyup")

    @pytest.mark.parametrize(
        ("hubconf", "message"),
        [
            ("def other(): ...", "hubconf.py"),
            ("import no_such_module", "no_such_module"),
            ("def anyup(pretrained): return 3", "int"),
            ("import torch\ndef anyup(pretrained): return torch.nn.Linear(1, 1)", "cross_decode"),
        ],
    )
    def test_another_checkout_is_refused(
        self, checkout: dict[str, str], hubconf: str, message: str
    ) -> None:
        (Path(checkout["checkout"]) / "hubconf.py").write_text(hubconf)
        with pytest.raises(DataError, match=message):
            reference(upsampler="anyup", anyup=checkout).load_pretrained()

    def test_other_weights_are_refused(self, checkout: dict[str, str]) -> None:
        torch.save({"shift": torch.zeros(())}, checkout["weights"])
        with pytest.raises(CheckpointError, match="1 missing: sharpness"):
            reference(upsampler="anyup", anyup=checkout).load_pretrained()

    def test_attention_of_another_shape_is_refused(self, checkout: dict[str, str]) -> None:
        module = reference(upsampler="anyup", anyup=checkout)
        module.hold_frozen("anyup", Sparse())
        with pytest.raises(DataError, match=r"\(1, 8, 4, 4\)"):
            module(torch.randn(1, 16, 8), images(1))


class Sparse(nn.Module):
    def forward(self, image: Tensor, features: Tensor, q_chunk_size: int) -> Tensor:
        return features
