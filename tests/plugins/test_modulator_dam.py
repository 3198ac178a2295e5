"""The detail-aware modulator: its start, its fusions, the layout of its weights."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from tokenizer_fakes import FakeEncoder
from torch import Tensor, nn

from pae_modulators.config import DAMConfig, NoModulatorConfig
from pae_modulators.dam import CrossAttention, DetailAwareModulator
from pae_modulators.none import NoModulator

Shape = tuple[int, ...]
pytestmark = pytest.mark.usefixtures("reproducible")


def dam(encoder: FakeEncoder, **parameters: Any) -> DetailAwareModulator:
    return DetailAwareModulator(DAMConfig.model_validate({"depth": 1} | parameters), encoder)


def pixels_and_tokens() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 3, 16, 16), torch.randn(2, 16, 32)


def shapes(module: nn.Module) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def parameters(name: str, weight: Shape) -> dict[str, Shape]:
    """A weight, with a bias for each of its outputs."""
    return {f"{name}.weight": weight, f"{name}.bias": weight[:1]}


@pytest.mark.parametrize("fusion", ["sft", "add"])
def test_training_starts_from_the_normalized_tokens(encoder: FakeEncoder, fusion: str) -> None:
    pixels, tokens = pixels_and_tokens()
    out = dam(encoder, depth=2, fusion=fusion)(pixels, tokens)
    torch.testing.assert_close(out, F.layer_norm(tokens, (32,)))


class TestFusion:
    """Each against its formula, with weights chosen by hand."""

    def test_sft_scales_by_gamma_and_shifts_by_beta(self, encoder: FakeEncoder) -> None:
        modulator = dam(encoder)
        gamma, beta = torch.randn(32), torch.randn(32)
        modulator.fusion_proj.bias.data = torch.cat([gamma, beta])
        pixels, tokens = pixels_and_tokens()
        expected = F.layer_norm(tokens * (1 + gamma) + beta, (32,))
        torch.testing.assert_close(modulator(pixels, tokens), expected)

    def test_add_brings_the_projected_detail_to_the_tokens(self, encoder: FakeEncoder) -> None:
        modulator = dam(encoder, fusion="add")
        modulator.fusion_proj.weight.data = 3 * torch.eye(32)
        detail, tokens = torch.randn(2, 2, 16, 32)
        expected = F.layer_norm(3 * detail + tokens, (32,))
        torch.testing.assert_close(modulator.fuse(detail, tokens), expected)

    def test_concat_puts_the_tokens_first(self, encoder: FakeEncoder) -> None:
        modulator = dam(encoder, fusion="concat")
        assert modulator.fusion_proj.weight.any()  # not zero: u itself goes through it
        modulator.fusion_proj.weight.data = torch.cat([torch.eye(32), 2 * torch.eye(32)], dim=1)
        modulator.fusion_proj.bias.data = torch.full((32,), 0.5)
        detail, tokens = torch.randn(2, 2, 16, 32)
        expected = F.layer_norm(tokens + 2 * detail + 0.5, (32,))
        torch.testing.assert_close(modulator.fuse(detail, tokens), expected)

    def test_none_leaves_the_detail_alone(self, encoder: FakeEncoder) -> None:
        detail, tokens = torch.randn(2, 2, 16, 32)
        assert dam(encoder, fusion="none").fuse(detail, tokens) is detail

    def test_without_cross_attention_the_detail_knows_pixels_only(
        self, encoder: FakeEncoder
    ) -> None:
        pixels, tokens = pixels_and_tokens()
        blind, seeing = (dam(encoder, fusion="none", cross=cross) for cross in (False, True))
        assert torch.equal(blind(pixels, tokens), blind(pixels, tokens + torch.randn(32)))
        assert not torch.equal(seeing(pixels, tokens), seeing(pixels, tokens + torch.randn(32)))


class TestKeys:
    """Names and shapes of the released checkpoints (prefix ``delta_encoder.``), by hand."""

    always: ClassVar = {
        "pos_embed": (1, 16, 32),
        **parameters("patch_embed.proj", (32, 3, 4, 4)),
        **parameters("layers.0.norm1", (32,)),
        **parameters("layers.0.self_attn.qkv", (96, 32)),
        **parameters("layers.0.self_attn.proj", (32, 32)),
        **parameters("layers.0.norm3", (32,)),
        **parameters("layers.0.mlp.fc1", (128, 32)),
        **parameters("layers.0.mlp.fc2", (32, 128)),
    }
    crossing: ClassVar = {
        **parameters("layers.0.norm2_q", (32,)),
        **parameters("layers.0.norm2_kv", (32,)),
        **parameters("layers.0.cross_attn.q_proj", (32, 32)),
        **parameters("layers.0.cross_attn.k_proj", (32, 32)),
        **parameters("layers.0.cross_attn.v_proj", (32, 32)),
        **parameters("layers.0.cross_attn.proj", (32, 32)),
    }

    @pytest.mark.parametrize(
        ("fusion", "projection"),
        [("sft", (64, 32)), ("add", (32, 32)), ("concat", (32, 64)), ("none", None)],
    )
    @pytest.mark.parametrize("cross", [True, False])
    def test_of_every_fusion(
        self, encoder: FakeEncoder, fusion: str, projection: Shape | None, cross: bool
    ) -> None:
        expected = self.always | (self.crossing if cross else {})
        if projection is not None:
            expected |= parameters("fusion_proj", projection) | parameters("final_ln", (32,))
        assert shapes(dam(encoder, fusion=fusion, cross=cross)) == expected


def test_detail_is_learned_in_through_the_zero_projection(encoder: FakeEncoder) -> None:
    modulator = dam(encoder)
    modulator(*pixels_and_tokens()).square()[..., 0].sum().backward()
    assert modulator.fusion_proj.weight.grad is not None
    assert modulator.fusion_proj.weight.grad.abs().sum() > 0
    # Behind a zero weight nothing moves in the first step.
    patch = modulator.patch_embed.proj.weight.grad
    assert patch is not None
    assert not patch.any()


def test_cross_attention_agrees_with_torch() -> None:
    ours, theirs = CrossAttention(12, 3), nn.MultiheadAttention(12, 3, batch_first=True)
    projections = (ours.q_proj, ours.k_proj, ours.v_proj)
    theirs.in_proj_weight.data = torch.cat([p.weight.data for p in projections])
    theirs.in_proj_bias.data = torch.cat([p.bias.data for p in projections])
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(ours(x, context), theirs(x, context, context)[0])


def test_heads_default_to_the_encoders(encoder: FakeEncoder) -> None:
    assert dam(encoder).layers[0].cross_attn.heads == encoder.heads == 4
    assert dam(encoder, heads=8).layers[0].self_attn.heads == 8


def test_heads_that_do_not_divide_the_width_are_refused(encoder: FakeEncoder) -> None:
    with pytest.raises(ValueError, match="5 heads do not divide the width 32"):
        dam(encoder, heads=5)


def test_the_smoke_version_is_one_block_with_the_encoders_heads() -> None:
    small = DAMConfig(heads=16, fusion="add").smoke()
    assert small == DAMConfig(depth=1, fusion="add")


def test_no_modulator_leaves_tokens_alone(encoder: FakeEncoder) -> None:
    tokens = torch.randn(2, 16, 32)
    assert NoModulator(NoModulatorConfig(), encoder)(torch.randn(2, 3, 16, 16), tokens) is tokens
