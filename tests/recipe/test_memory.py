"""The memory estimate: counts against built networks, kept numbers against a measured pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kept_numbers import kept_numbers
from torch import nn

from pae_decoders.config import VitDecoderConfig
from pae_decoders.vit import VitDecoder
from pae_encoders.config import SmallCNNConfig, TinyViTConfig
from pae_encoders.small_cnn import SmallCNN
from pae_encoders.tiny_vit import TinyViT
from pae_framework.config import LatentShape, block_activations
from pae_framework.layers import Block
from pae_framework.preflight.memory import training_memory
from pae_framework.recipe.load import load_recipe
from pae_generators.config import LightningDiTConfig
from pae_generators.lightningdit import LightningDiT
from pae_modulators.config import DAMConfig
from pae_modulators.dam import DetailAwareModulator

SIZE, GRID, WIDTH = 64, 8, 64
ENCODER = TinyViTConfig(patch=8, width=WIDTH, depth=3, heads=2)
CNN = SmallCNNConfig(width=16, depth=3)
DECODER = VitDecoderConfig(width=96, depth=2, heads=3, patch=8)
LATENT = LatentShape(8, GRID)
GENERATOR = LightningDiTConfig(depth=3, width=96, heads=3, patch=1)


def learnable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_a_block_keeps_sixteen_numbers_per_token_and_channel() -> None:
    # norms: inputs 2, outputs 2; attention: q, k, v and its result; MLP: 4 before and 4 after GELU
    width, tokens, blocks = 32, 10, 3
    weights = blocks * 12 * width**2
    assert block_activations(weights, tokens, width) == 16 * width * tokens * blocks


def test_the_formula_is_close_to_a_measured_block() -> None:
    block = Block(64, 2)
    x = torch.randn(1, 64, 64, requires_grad=True)
    measured = kept_numbers(block, lambda: block(x))
    assert block_activations(12 * 64**2, 64, 64) == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize(
    ("counted", "build"),
    [
        (ENCODER.parameters(SIZE), lambda: TinyViT(ENCODER, SIZE)),
        (CNN.parameters(SIZE), lambda: SmallCNN(CNN, SIZE)),
        (DECODER.parameters(WIDTH, GRID), lambda: VitDecoder(DECODER, WIDTH, GRID)),
    ],
    ids=["tiny_vit", "small_cnn", "vit"],
)
def test_configs_count_the_parameters_of_their_networks(
    counted: int, build: Callable[[], nn.Module]
) -> None:
    with torch.device("meta"):
        assert counted == learnable(build())


def test_activations_are_within_a_factor_of_two_of_a_measured_pass() -> None:
    images, tokens = torch.rand(1, 3, SIZE, SIZE), torch.randn(1, GRID**2, WIDTH)
    encoder, cnn = TinyViT(ENCODER, SIZE), SmallCNN(CNN, SIZE)
    decoder, dam = VitDecoder(DECODER, WIDTH, GRID), DetailAwareModulator(DAMConfig(), encoder)
    dit = LightningDiT(GENERATOR, LATENT, 10)
    dam_weights = DAMConfig().parameters_at(WIDTH, GRID, 8)
    latents, label, time = torch.randn(1, 8, GRID, GRID), torch.zeros(1, dtype=int), torch.rand(1)
    for name, estimate, module, run in (
        ("tiny_vit", ENCODER.activations(SIZE), encoder, lambda: encoder(images).tokens),
        ("small_cnn", CNN.activations(SIZE), cnn, lambda: cnn(images).pooled),
        ("vit", DECODER.activations(GRID), decoder, lambda: decoder(tokens)),
        (
            "dam",
            block_activations(dam_weights, GRID**2, WIDTH),
            dam,
            lambda: dam(images, tokens),
        ),
        ("dit", GENERATOR.activations(LATENT), dit, lambda: dit(latents, time, label)),
    ):
        measured = kept_numbers(module, run)
        print(f"{name}: estimated {estimate}, measured {measured}")
        assert estimate is not None
        assert measured / 2 <= estimate <= 2 * measured, name


def stage(name: str, *overrides: str):
    loaded = load_recipe("quickstart", overrides)
    return next(s for s in training_memory(loaded.recipe) if s.stage == name)


def test_weights_need_sixteen_bytes_and_four_more_for_the_ema() -> None:
    plain, averaged = stage("generator", "generator.train.ema=null"), stage("generator")
    assert averaged.weights * 16 == plain.weights * 20


def test_a_checkpoint_has_three_numbers_per_weight_and_one_more_for_the_ema() -> None:
    """The weight, AdamW's two moments, and the average: 4 bytes each."""
    plain, averaged = stage("generator", "generator.train.ema=null"), stage("generator")
    assert plain.checkpoint == 12 * plain.trained
    assert averaged.checkpoint == 16 * averaged.trained


@pytest.mark.parametrize("lengths", [(0.05,), (0.05, 0.1), (0.03, 0.1, 0.25)])
def test_each_length_of_ema_snapshots_needs_one_more_number_per_weight(
    lengths: tuple[float, ...],
) -> None:
    snapshots = f"generator.train.ema_snapshots={{every: 10, lengths: {list(lengths)}}}"
    plain, averaged = stage("generator"), stage("generator", snapshots)
    more = 4 * len(lengths) * plain.trained
    assert averaged.weights - plain.weights == averaged.checkpoint - plain.checkpoint == more


def test_settings_that_save_memory_lower_the_estimate() -> None:
    whole = stage("tokenizer")
    assert stage("tokenizer", "tokenizer.train.accumulate=4").activations == whole.activations // 4
    saving = stage("tokenizer", "tokenizer.train.activation_checkpointing=true")
    assert saving.activations < whole.activations
    assert saving.weights == whole.weights
    # mcr decodes twice more and compares both in the encoder's features
    alone = stage("tokenizer", "tokenizer.regularizers.mcr=null")
    assert 2 < whole.activations / alone.activations < 3
    assert stage("tokenizer", "tokenizer.regularizers.mcr.weight=0") == alone


def test_a_component_of_unknown_size_is_listed() -> None:
    assert stage("tokenizer").unknown == ()
    opponent = "tokenizer.adversarial={weight: 0.1, discriminator: {use: patchgan}}"
    assert "discriminator" in stage("tokenizer", opponent).unknown
