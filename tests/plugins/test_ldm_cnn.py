"""Latent diffusion's convolutional encoder and decoder: sizes, formulas, files, adaptive weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kept_numbers import kept_numbers
from layouts.ldm_autoencoders import Reference, Shape, random_weights, shapes
from pydantic import ValidationError
from torch import Tensor, nn

from pae_bottlenecks.bottlenecks import DiagonalGaussian
from pae_bottlenecks.config import DiagonalGaussianConfig
from pae_decoders.config import LdmDecoderConfig
from pae_decoders.ldm_decoder import LdmDecoder
from pae_encoders.ldm_config import LdmEncoderConfig
from pae_encoders.ldm_encoder import LdmEncoder
from pae_framework.errors import CheckpointError
from pae_framework.interop.tokenizer_weights import match_state_dict, read_released, released_state
from pae_framework.tokenizer.losses.terms import Ramp, RegularizerTerm
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_modulators.config import NoModulatorConfig
from pae_modulators.none import NoModulator
from pae_regularizers.config import VFConfig
from pae_regularizers.foundation import VF

SIZE = 16


def tokenizer(shape: Shape, size: int = SIZE) -> ComposedTokenizer:
    pyramid: dict[str, Any] = {
        "channels": shape.ch,
        "multipliers": shape.ch_mult,
        "blocks": shape.blocks,
        "attention": len(shape.attn_levels),
    }
    encoder = LdmEncoder(LdmEncoderConfig(latent=shape.z, **pyramid), size)
    bottleneck = DiagonalGaussian(DiagonalGaussianConfig(), encoder.width, encoder.grid)
    decoder = LdmDecoder(LdmDecoderConfig(**pyramid), shape.z, encoder.grid)
    modulator = NoModulator(NoModulatorConfig(), encoder)
    return ComposedTokenizer(encoder, modulator, bottleneck, decoder, train_encoder=True)


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


F8D4 = Shape(128, (1, 2, 4, 4), 2, (), 4)
F16D32 = Shape(128, (1, 1, 2, 2, 4), 2, (4,), 32)


@pytest.mark.parametrize(
    ("shape", "count"),
    # Stable Diffusion's autoencoder has 83 653 863 parameters; VA-VAE states 70 M.
    [(F8D4, 83_653_863), (F16D32, 69_836_067)],
    ids=["f8d4", "f16d32"],
)
def test_the_published_sizes(shape: Shape, count: int) -> None:
    with torch.device("meta"):
        built = tokenizer(shape, 256)
    assert parameters(built) == count
    assert sum(torch.Size(size).numel() for size in shapes(shape).values()) == count
    factor = 2 ** (len(shape.ch_mult) - 1)
    assert (built.latent.channels, built.latent.side) == (shape.z, 256 // factor)


@settings(max_examples=20)
@given(
    multipliers=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    blocks=st.integers(1, 3),
    attention=st.integers(0, 4),
    latent=st.integers(1, 5),
)
def test_the_configs_count_the_parameters(
    multipliers: list[int], blocks: int, attention: int, latent: int
) -> None:
    given_: dict[str, Any] = {"channels": 32, "multipliers": multipliers, "blocks": blocks}
    if attention > len(multipliers):
        with pytest.raises(ValidationError):
            LdmDecoderConfig(**given_, attention=attention)
        return
    encoder = LdmEncoderConfig(**given_, attention=attention, latent=latent)
    decoder = LdmDecoderConfig(**given_, attention=attention)
    with torch.device("meta"):
        assert parameters(LdmEncoder(encoder, 16)) == encoder.parameters(16)
        assert parameters(LdmDecoder(decoder, latent, 2)) == decoder.parameters(latent, 2)


def test_the_configs_count_the_activations() -> None:
    shape = Shape(32, (1, 2, 2), 2, (2,), 4)
    built = tokenizer(shape, 32)
    encoder, decoder = built.encoder, built.decoder
    pixels, tokens = torch.rand(1, 3, 32, 32), torch.rand(1, 64, 4)
    measured = kept_numbers(encoder, lambda: encoder(pixels).tokens)
    assert encoder.config.activations(32) == pytest.approx(measured, rel=0.05)
    measured = kept_numbers(decoder, lambda: decoder(tokens))
    counted = LdmDecoderConfig(channels=32, multipliers=(1, 2, 2), attention=1).activations(8)
    assert counted == pytest.approx(measured, rel=0.05)


# --- files ----------------------------------------------------------------------------------------

SHAPES = [Shape(), Shape(32, (1, 1, 2), 2, (2,), 3), Shape(32, (2, 1), 1, (), 4)]


def write(content: dict[str, Any], path: Path) -> Path:
    torch.save(content, path)
    return path


def loaded(path: Path, shape: Shape) -> ComposedTokenizer:
    built = tokenizer(shape)
    built.load_state_dict(match_state_dict(read_released(path), built).tokenizer)
    return built.eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_gives_the_networks_of_the_formulas(tmp_path: Path, shape: Shape) -> None:
    weights = random_weights(shape)
    built, reference = loaded(write(weights, tmp_path / "t.ckpt"), shape), Reference(weights)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        posterior = built.encode(images)
        mean, logvar = reference.moments(2 * images - 1).chunk(2, dim=1)
        torch.testing.assert_close(posterior.latents, mean, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(posterior.logvar, logvar.clamp(-30, 20), rtol=1e-4, atol=1e-4)
        expected = (reference.pixels(mean) + 1) / 2
        torch.testing.assert_close(built.decode(mean), expected, rtol=1e-4, atol=1e-4)


OF_TRAINING = {
    "loss.logvar": torch.zeros(()),
    "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4),
    "loss.perceptual_loss.net.slice1.0.weight": torch.zeros(2, 3, 3, 3),
    "foundation_model.model.blocks.0.attn.qkv.weight": torch.zeros(6, 2),
    "linear_proj.weight": torch.zeros(8, 4, 1, 1),
}


@pytest.mark.parametrize("wrapped", [True, False])
def test_what_only_the_training_uses_is_left_out_and_said(tmp_path: Path, wrapped: bool) -> None:
    weights = random_weights(Shape())
    content: dict[str, Any] = {**weights, **OF_TRAINING}
    if wrapped:
        content = {"state_dict": content, "global_step": 7}
    file = read_released(write(content, tmp_path / "t.ckpt"))
    assert "5 tensors" in file.summary
    plain = read_released(write(weights, tmp_path / "plain.ckpt"))
    assert "tensors" not in plain.summary
    assert file.state.keys() == plain.state.keys()


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_exported_by_the_same_names(tmp_path: Path, shape: Shape) -> None:
    weights = random_weights(shape)
    exported = released_state(loaded(write(weights, tmp_path / "t.ckpt"), shape))
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda file: file.pop("quant_conv.bias"), "encoder.quant_conv.bias"),
        (lambda file: file.pop("decoder.mid.attn_1.q.weight"), "decoder.mid.attn_1.q.weight"),
        (lambda file: file.update({"other.weight": torch.zeros(1)}), "other.weight"),
        (
            lambda file: file.update({"encoder.conv_out.weight": torch.zeros(6, 64, 3, 3)}),
            "encoder.conv_out.weight is 6x64x3x3, not 8x64x3x3",
        ),
        (lambda file: file["post_quant_conv.weight"].fill_(torch.nan), "not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], fact: str
) -> None:
    weights = random_weights(Shape())
    change(weights)
    with pytest.raises(CheckpointError) as caught:
        loaded(write(weights, tmp_path / "t.ckpt"), Shape())
    assert fact in str(caught.value)


# --- adaptive weight ------------------------------------------------------------------------------


def test_the_adaptive_weight_is_measured_at_the_last_convolution_of_the_encoder() -> None:
    built = tokenizer(Shape())
    term = RegularizerTerm("vf", VF(VFConfig()), Ramp())
    assert term.layer(built) is built.encoder.conv_out.weight  # type: ignore[union-attr]
