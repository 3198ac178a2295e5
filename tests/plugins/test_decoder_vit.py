from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pae_decoders.config import VitDecoderConfig
from pae_decoders.vit import VitBlock, VitDecoder
from pae_framework.layers import patchify


@pytest.fixture(autouse=True)
def _reproducible():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def decoder(**changes) -> VitDecoder:
    config = {"width": 24, "depth": 2, "heads": 3, "patch": 2} | changes
    return VitDecoder(VitDecoderConfig(**config), width=10, grid=4)


def test_block_agrees_with_torchs_transformer_layer() -> None:
    ours = VitBlock(width=12, heads=3, hidden=20)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True,
        norm_first=True,
    )  # fmt: skip
    qkv = list(ours.attention.attention.values())
    theirs.self_attn.in_proj_weight.data = torch.cat([layer.weight.data for layer in qkv])
    theirs.self_attn.in_proj_bias.data = torch.cat([layer.bias.data for layer in qkv])
    theirs.self_attn.out_proj.load_state_dict(ours.attention.output.dense.state_dict())
    for mine, other in (
        (ours.layernorm_before, theirs.norm1),
        (ours.layernorm_after, theirs.norm2),
        (ours.intermediate.dense, theirs.linear1),
        (ours.output.dense, theirs.linear2),
    ):
        other.load_state_dict(mine.state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x))


def test_one_token_becomes_one_patch() -> None:
    # Without attention and with positions off, a token decodes to its own patch and no other.
    model = decoder()
    model.decoder_pos_embed.zero_()
    for block in model.decoder_layers:
        nn.init.zeros_(block.attention.output.dense.weight)
    tokens = torch.zeros(1, 16, 10)
    before = patchify(model(tokens), 2)
    tokens[0, 6] = 1.0  # row 1, column 2 of 4
    changed = (patchify(model(tokens), 2) - before).abs().sum(dim=-1)[0]
    assert changed.nonzero().flatten().tolist() == [6]
    image = (model(tokens) - model(torch.zeros(1, 16, 10))).abs().sum(dim=1)[0]
    rows, columns = image.nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 3, 4, 5)


def test_the_class_token_affects_the_image_only_by_attention() -> None:
    model, tokens = decoder(), torch.randn(2, 16, 10)
    before = model(tokens)
    assert before.shape == (2, 3, 8, 8)
    model.trainable_cls_token.data.normal_()
    assert not torch.allclose(model(tokens), before)
    model.trainable_cls_token.data.zero_()
    assert torch.equal(model(tokens), before)


def test_positions_are_fixed_and_the_class_tokens_is_zero() -> None:
    model = decoder()
    assert model.decoder_pos_embed.shape == (1, 17, 24)
    assert not model.decoder_pos_embed[:, 0].any()
    assert "decoder_pos_embed" not in dict(model.named_parameters())
    assert "decoder_pos_embed" in model.state_dict()


def test_last_layer_is_the_weight_of_the_head() -> None:
    model = decoder()
    assert model.last_layer() is model.decoder_pred.weight
    assert model.last_layer().shape == (3 * 2 * 2, 24)


def test_image_size_is_patch_times_grid() -> None:
    config = VitDecoderConfig(width=24, depth=1, heads=3, patch=16)
    assert config.image_size(16) == 256


def test_mlp_is_four_widths_by_default() -> None:
    assert decoder().decoder_layers[0].intermediate.dense.out_features == 96
    assert decoder(mlp=7).decoder_layers[0].intermediate.dense.out_features == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "`heads` 5 .*`width` 24"),
        ({"width": 30, "heads": 5}, "multiple of 4"),
        ({"patch": 0}, "greater than 0"),
    ],
)
def test_invalid_parameters_are_rejected(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VitDecoderConfig(**({"width": 24, "depth": 1, "heads": 3, "patch": 2} | changes))
