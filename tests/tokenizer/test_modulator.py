from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tokenizer_fakes import FakeEncoder
from torch import nn

from pae_framework.engine_components import DAMConfig, NoModulatorConfig
from pae_framework.tokenizer.modulator import CrossAttention, DetailAwareModulator, NoModulator


def test_training_starts_from_the_normalised_tokens(encoder: FakeEncoder) -> None:
    dam = DetailAwareModulator(DAMConfig(depth=2), encoder)
    pixels, tokens = torch.randn(2, 3, 16, 16), torch.randn(2, 16, 32)
    torch.testing.assert_close(dam(pixels, tokens), F.layer_norm(tokens, (32,)))


def test_gamma_scales_and_beta_shifts_the_tokens(encoder: FakeEncoder) -> None:
    dam = DetailAwareModulator(DAMConfig(depth=1), encoder)
    gamma, beta = torch.randn(32), torch.randn(32)
    dam.fusion_proj.bias.data = torch.cat([gamma, beta])
    pixels, tokens = torch.randn(2, 3, 16, 16), torch.randn(2, 16, 32)
    expected = F.layer_norm(tokens * (1 + gamma) + beta, (32,))
    torch.testing.assert_close(dam(pixels, tokens), expected)


def test_detail_is_learned_in_through_the_zero_projection(encoder: FakeEncoder) -> None:
    dam = DetailAwareModulator(DAMConfig(depth=1), encoder)
    dam(torch.randn(2, 3, 16, 16), torch.randn(2, 16, 32)).square()[..., 0].sum().backward()
    assert dam.fusion_proj.weight.grad is not None
    assert dam.fusion_proj.weight.grad.abs().sum() > 0
    # Behind a zero weight nothing moves in the first step.
    patch = dam.patch_embed.proj.weight.grad
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
    dam = DetailAwareModulator(DAMConfig(depth=1), encoder)
    assert dam.layers[0].cross_attn.heads == encoder.heads == 4
    dam = DetailAwareModulator(DAMConfig(depth=1, heads=8), encoder)
    assert dam.layers[0].self_attn.heads == 8


def test_heads_that_do_not_divide_the_width_are_refused(encoder: FakeEncoder) -> None:
    with pytest.raises(ValueError, match="5 heads do not divide the width 32"):
        DetailAwareModulator(DAMConfig(depth=1, heads=5), encoder)


def test_no_modulator_leaves_tokens_alone(encoder: FakeEncoder) -> None:
    tokens = torch.randn(2, 16, 32)
    assert NoModulator(NoModulatorConfig(), encoder)(torch.randn(2, 3, 16, 16), tokens) is tokens
