"""GAE's encoder, decoder and bottleneck: sizes, formulas, files, noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kept_numbers import kept_numbers
from pydantic import ValidationError
from torch import Tensor, nn

from pae_bottlenecks.bottlenecks import NoisySphere
from pae_bottlenecks.config import NoisySphereConfig
from pae_decoders.config import GaeDecoderConfig
from pae_decoders.gae_decoder import GaeDecoder
from pae_encoders.gae_config import GaeEncoderConfig
from pae_encoders.gae_encoder import GaeEncoder
from pae_framework.errors import CheckpointError
from pae_framework.interop.tokenizer_weights import match_state_dict, read_released, released_state
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_modulators.config import NoModulatorConfig
from pae_modulators.none import NoModulator

WIDTH, DEPTH, HEADS, PATCH, LATENT, SIZE = 32, 2, 4, 4, 6, 12
GRID = SIZE // PATCH
TINY: dict[str, Any] = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "patch": PATCH}


def tokenizer(latent: int = LATENT, size: int = SIZE, **network: Any) -> ComposedTokenizer:
    encoder = GaeEncoder(GaeEncoderConfig(latent=latent, **network), size)
    bottleneck = NoisySphere(NoisySphereConfig(), encoder.width, encoder.grid)
    decoder = GaeDecoder(GaeDecoderConfig(**network), latent, encoder.grid)
    modulator = NoModulator(NoModulatorConfig(), encoder)
    return ComposedTokenizer(encoder, modulator, bottleneck, decoder, train_encoder=True)


def released(width: int, depth: int, patch: int, latent: int, grid: int) -> dict[str, torch.Size]:
    """The names and shapes of gae_d32_inference.ckpt, for any size."""
    hidden = 256 * -(-(width * 8 // 3) // 256)
    blocks = {
        **{"attn.qkv": (3 * width, width), "attn.proj": (width, width)},
        **{"mlp.fc1": (hidden, width), "mlp.gate": (hidden, width), "mlp.fc2": (width, hidden)},
    }
    shapes: dict[str, tuple[int, ...]] = {
        "foundation_encoder.patch_embed.weight": (width, 3, patch, patch),
        "foundation_encoder.pos_embed": (1, grid**2, width),
        "foundation_encoder.proj_out.weight": (width, width),
        "adapter.model.weight": (latent, width),
        "decoder.pos_embed": (1, grid**2, width),
        "decoder.z_proj.weight": (width, latent),
        "decoder.linear_out.weight": (3 * patch**2, width),
        **{
            f"{network}.blocks.{i}.{name}.weight": shape
            for network in ("foundation_encoder", "decoder")
            for i in range(depth)
            for name, shape in blocks.items()
        },
    }
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = released(WIDTH, DEPTH, PATCH, LATENT, GRID)
    return {name: 0.2 * torch.randn(size, generator=generator) for name, size in shapes.items()}


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        built = tokenizer(32, 256)
    # 310.38 M and 309.36 M are published, the former without the adapter of 32 x 1024.
    assert parameters(built.encoder) - 32 * 1024 == 310_378_496
    assert parameters(built.decoder) == 309_362_688
    exported = {name: tensor.shape for name, tensor in released_state(built).items()}
    assert exported == released(1024, 24, 16, 32, 16)
    assert (built.latent.channels, built.latent.side) == (32, 16)


@settings(max_examples=20)
@given(heads=st.integers(1, 4), head=st.integers(1, 40), depth=st.integers(1, 3))
def test_the_configs_count_the_parameters(heads: int, head: int, depth: int) -> None:
    network: dict[str, Any] = {"width": heads * head, "depth": depth, "heads": heads, "patch": 4}
    encoder, decoder = GaeEncoderConfig(latent=5, **network), GaeDecoderConfig(**network)
    with torch.device("meta"):
        assert parameters(GaeEncoder(encoder, 12)) == encoder.parameters(12)
        assert parameters(GaeDecoder(decoder, 5, 3)) == decoder.parameters(5, 3)


@pytest.mark.parametrize("config", [GaeEncoderConfig, GaeDecoderConfig])
def test_heads_divide_the_width(config: type[GaeEncoderConfig | GaeDecoderConfig]) -> None:
    with pytest.raises(ValidationError, match=r"5.*32"):
        config(width=32, heads=5)


def test_images_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"250.*16"):
        GaeEncoderConfig().token_grid(250)


def test_the_configs_count_the_activations() -> None:
    network: dict[str, Any] = {"width": 256, "depth": 3, "heads": 4, "patch": 4}
    built = tokenizer(size=32, **network)
    images, tokens = torch.rand(1, 3, 32, 32), torch.rand(1, 64, LATENT)
    measured = kept_numbers(built.encoder, lambda: built.encoder(images).tokens)
    assert built.encoder.config.activations(32) == pytest.approx(measured, rel=0.1)
    measured = kept_numbers(built.decoder, lambda: built.decoder(tokens))
    assert GaeDecoderConfig(**network).activations(8) == pytest.approx(measured, rel=0.1)


# --- formulas -------------------------------------------------------------------------------------


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def reference_blocks(weights: dict[str, Tensor], network: str, x: Tensor) -> Tensor:
    K = WIDTH // HEADS
    for i in range(DEPTH):
        block = f"{network}.blocks.{i}"
        q, k, v = (rms(x) @ weights[f"{block}.attn.qkv.weight"].T).split(WIDTH, dim=-1)
        heads = []
        for h in range(HEADS):
            rows = slice(h * K, (h + 1) * K)
            scores = rms(q[..., rows]) @ rms(k[..., rows]).mT / K**0.5
            heads.append(scores.softmax(-1) @ v[..., rows])
        x = x + torch.cat(heads, -1) @ weights[f"{block}.attn.proj.weight"].T
        y = rms(x)
        gate = y @ weights[f"{block}.mlp.gate.weight"].T
        hidden = F.silu(y @ weights[f"{block}.mlp.fc1.weight"].T) * gate
        x = x + hidden @ weights[f"{block}.mlp.fc2.weight"].T
    return rms(x)


def reference_latents(weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """(B, N, C) of pixels (B, 3, S, S) in [-1, 1]."""
    x = F.conv2d(pixels, weights["foundation_encoder.patch_embed.weight"], stride=PATCH)
    x = x.flatten(2).mT + weights["foundation_encoder.pos_embed"]
    x = reference_blocks(weights, "foundation_encoder", x)
    x = x @ weights["foundation_encoder.proj_out.weight"].T
    return rms(x @ weights["adapter.model.weight"].T)


def reference_pixels(weights: dict[str, Tensor], latents: Tensor) -> Tensor:
    x = latents @ weights["decoder.z_proj.weight"].T + weights["decoder.pos_embed"]
    patches = reference_blocks(weights, "decoder", x) @ weights["decoder.linear_out.weight"].T
    image = torch.empty(len(x), 3, SIZE, SIZE)
    for n in range(GRID**2):
        row, column = PATCH * (n // GRID), PATCH * (n % GRID)
        patch = patches[:, n].reshape(-1, PATCH, PATCH, 3).permute(0, 3, 1, 2)
        image[:, :, row : row + PATCH, column : column + PATCH] = patch
    return image


def write(content: dict[str, Any], path: Path) -> Path:
    torch.save(content, path)
    return path


def loaded(path: Path) -> ComposedTokenizer:
    built = tokenizer(**TINY)
    built.load_state_dict(match_state_dict(read_released(path), built).tokenizer)
    return built.eval()


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_file_gives_the_networks_of_the_formulas(tmp_path: Path, wrapped: bool) -> None:
    weights = random_weights()
    content = {"state_dict": weights} if wrapped else weights
    built = loaded(write(content, tmp_path / "gae_d32_inference.ckpt"))
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    latents = reference_latents(weights, 2 * images - 1)
    with torch.no_grad():
        z = built.encode(images).latents
        torch.testing.assert_close(z, latents.mT.unflatten(-1, (GRID, GRID)), rtol=0, atol=2e-5)
        expected = (reference_pixels(weights, latents) + 1) / 2
        torch.testing.assert_close(built.decode(z), expected, rtol=0, atol=1e-4)


def test_norms_are_computed_in_float32() -> None:
    built, images = tokenizer(**TINY), torch.rand(2, 3, SIZE, SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = built.encode(images).latents
    assert latents.dtype == torch.float32
    norms = latents.square().sum(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, LATENT), rtol=1e-3, atol=0)


def test_what_a_file_holds_for_its_training_is_left_out(tmp_path: Path) -> None:
    file = write(random_weights() | {"teacher.weight": torch.zeros(1)}, tmp_path / "t.ckpt")
    assert "1 tensors of its training left out" in read_released(file).summary


def test_it_is_exported_by_the_same_names(tmp_path: Path) -> None:
    weights = random_weights()
    exported = released_state(loaded(write(weights, tmp_path / "t.ckpt")))
    assert exported.keys() == weights.keys()
    assert all(torch.equal(exported[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda file: file.pop("adapter.model.weight"), "encoder.adapter.model.weight"),
        (lambda file: file.pop("decoder.pos_embed"), "decoder.pos_embed"),
        (lambda file: file.update({"decoder.more": torch.zeros(1)}), "decoder.more"),
        (
            lambda file: file.update({"foundation_encoder.pos_embed": torch.zeros(1, 16, WIDTH)}),
            "encoder.foundation_encoder.pos_embed is 1x16x32, not 1x9x32",
        ),
        (lambda file: file["decoder.z_proj.weight"].fill_(torch.nan), "not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], fact: str
) -> None:
    weights = random_weights()
    change(weights)
    with pytest.raises(CheckpointError) as caught:
        loaded(write(weights, tmp_path / "t.ckpt"))
    assert fact in str(caught.value)


# --- training -------------------------------------------------------------------------------------


def test_every_weight_is_trained() -> None:
    built, images = tokenizer(**TINY).train(), torch.rand(2, 3, SIZE, SIZE)
    built.decode(built.encode(images).latents).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in built.parameters())


def test_the_noise_has_one_normal_strength_per_image() -> None:
    images, values = 4000, (8, 8, 8)
    sphere = NoisySphere(NoisySphereConfig(), 8, 8)
    x = torch.randn(images, *values, generator=torch.Generator().manual_seed(0))
    found = sphere(x, torch.Generator().manual_seed(1))
    noise = (found.latents - found.mean).flatten(1)  # s_b N(0, 1)
    strengths = noise.square().mean(dim=1)  # about s_b^2, of mean 1/16
    assert strengths.mean() == pytest.approx(0.25**2, rel=0.1)
    # |s_b| is half-normal: of all images, 38.3 % have less than half its deviation.
    assert (strengths.sqrt() < 0.125).float().mean() == pytest.approx(0.383, abs=0.03)
    assert torch.equal(found.mean, sphere(x).latents)


def test_without_noise_latents_are_on_the_sphere() -> None:
    x = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    quiet = NoisySphere(NoisySphereConfig(noise=0), 8, 3)
    latents = quiet(x, torch.Generator()).latents
    torch.testing.assert_close(latents.norm(dim=1), torch.full((2, 3, 3), 8**0.5))
