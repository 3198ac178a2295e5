from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor

from pae_framework.build import build_tokenizer
from pae_framework.config import LatentShape
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.model import ComposedTokenizer

Build = Callable[..., ComposedTokenizer]
GAUSSIAN = {"use": "gaussian", "channels": 5}
PARTS = {"delta_encoder", "latent_compressor", "latent_decompressor", "decoder"}


def prefixes(tokenizer: ComposedTokenizer) -> set[str]:
    return {key.split(".")[0] for key in tokenizer.state_dict()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestShapes:
    @pytest.mark.parametrize(
        ("bottleneck", "channels"),
        [({"use": "sphere", "channels": 6}, 6), (GAUSSIAN, 5), ("identity", 32)],
    )
    def test_images_to_latents_and_back(
        self, build: Build, images: Tensor, bottleneck: object, channels: int
    ) -> None:
        tokenizer = build(bottleneck=bottleneck)
        latents = tokenizer.encode(images).latents
        assert tokenizer.latent == LatentShape(channels, 4)
        assert latents.shape == (3, channels, 4, 4)
        assert tokenizer.decode(latents).shape == images.shape

    def test_a_decoder_of_another_size_is_refused(
        self, section: Callable[..., TokenizerSection], registry: Registry, encoder: FakeEncoder
    ) -> None:
        decoder = {"use": "vit", "width": 24, "depth": 1, "heads": 3, "patch": 8}
        with pytest.raises(AssertionError):
            build_tokenizer(section(decoder=decoder), 16, registry, encoder)


class TestStateDict:
    def test_has_the_parts_of_the_released_files_and_no_encoder(self, build: Build) -> None:
        assert prefixes(build()) == PARTS
        assert prefixes(build(bottleneck=GAUSSIAN)) == PARTS
        assert prefixes(build(modulator="none")) == PARTS - {"delta_encoder"}

    def test_identity_has_statistics_and_no_projector(self, build: Build) -> None:
        tokenizer = build(bottleneck="identity", modulator="none")
        assert prefixes(tokenizer) == {"bottleneck", "decoder"}

    def test_round_trip(self, build: Build, images: Tensor) -> None:
        first, second = build(), build()
        assert not torch.equal(first.encode(images).latents, second.encode(images).latents)
        second.load_state_dict(first.state_dict(), strict=True)
        assert torch.equal(first.encode(images).latents, second.encode(images).latents)

    def test_fixed_positions_are_not_trained(self, build: Build) -> None:
        tokenizer = build()
        trained = {name for name, parameter in tokenizer.named_parameters()}
        fixed = tokenizer.state_dict().keys() - trained
        assert fixed == {"delta_encoder.pos_embed", "decoder.decoder_pos_embed"}


class TestFrozenEncoder:
    def test_stays_in_eval_mode(self, build: Build, images: Tensor) -> None:
        tokenizer = build().train()
        assert not tokenizer.encoder.training
        # In train mode its dropout would make two passes differ.
        first, again = (tokenizer.features(images).tokens for _ in range(2))
        assert torch.equal(first, again)

    def test_gets_no_gradient(self, build: Build, images: Tensor) -> None:
        tokenizer = build()
        tokenizer.decode(tokenizer.encode(images).latents).sum().backward()
        assert not tokenizer.features(images).tokens.requires_grad
        assert all(not p.requires_grad and p.grad is None for p in tokenizer.encoder.parameters())
        assert all(p.grad is not None for p in tokenizer.parameters())

    def test_follows_the_device(self, build: Build) -> None:
        tokenizer = build().to("meta")
        assert {p.device.type for p in tokenizer.encoder.parameters()} == {"meta"}
        assert {p.device.type for p in tokenizer.parameters()} == {"meta"}

    def test_is_not_among_the_modules(self, build: Build, encoder: FakeEncoder) -> None:
        tokenizer = build()
        assert tokenizer.encoder is encoder
        assert all(module is not encoder for module in tokenizer.modules())


class TestEncode:
    def test_modulator_sees_the_normalized_pixels(self, build: Build, images: Tensor) -> None:
        tokenizer = build()
        seen = []
        tokenizer.delta_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        tokenizer.encode(images)
        # (x - mean) / std of the last channel: mean 0.3, std 0.2
        torch.testing.assert_close(seen[0][:, 2], (images[:, 2] - 0.3) / 0.2)

    def test_is_encode_features_of_its_parts(self, build: Build, images: Tensor) -> None:
        tokenizer = build()
        pixels = tokenizer.encoder.normalize(images)
        tokens = tokenizer.features(images).tokens
        expected = tokenizer.encode(images).latents
        assert torch.equal(tokenizer.encode_features(pixels, tokens).latents, expected)

    def test_only_the_generator_is_random(self, build: Build, images: Tensor) -> None:
        tokenizer = build(bottleneck=GAUSSIAN)
        posterior = tokenizer.encode(images)
        assert posterior.mean is not None
        assert torch.equal(posterior.latents, posterior.mean)
        drawn, again = (tokenizer.encode(images, generator(3)).latents for _ in range(2))
        assert torch.equal(drawn, again)
        assert not torch.equal(drawn, posterior.latents)


class TestIdentity:
    def test_measured_latents_have_mean_0_and_variance_1(self, build: Build) -> None:
        tokenizer = build(bottleneck="identity", modulator="none")
        images = torch.rand(50, 3, 16, 16)
        tokenizer.measure(images.split(20))
        latents = tokenizer.encode(images).latents
        torch.testing.assert_close(latents.mean(0), torch.zeros(32, 4, 4), atol=1e-4, rtol=0)
        variance = latents.var(0, unbiased=False)
        torch.testing.assert_close(variance, torch.ones(32, 4, 4), atol=1e-2, rtol=0)

    def test_the_decoder_gets_the_tokens_back(self, build: Build, images: Tensor) -> None:
        tokenizer = build(bottleneck="identity", modulator="none")
        tokenizer.measure([torch.rand(50, 3, 16, 16)])
        tokens = tokenizer.features(images).tokens
        expected = tokenizer.encoder.denormalize(tokenizer.decoder(tokens))
        decoded = tokenizer.decode(tokenizer.encode(images).latents)
        torch.testing.assert_close(decoded, expected, atol=1e-4, rtol=0)

    def test_measuring_a_bottleneck_without_statistics_encodes_nothing(self, build: Build) -> None:
        tokenizer = build()
        before = {key: value.clone() for key, value in tokenizer.state_dict().items()}
        tokenizer.measure([torch.rand(2, 3, 16, 16)])
        assert all(torch.equal(value, before[key]) for key, value in tokenizer.state_dict().items())


class TestDecode:
    def test_does_not_clamp(self, build: Build) -> None:
        tokenizer = build()
        tokenizer.decoder.decoder_pred.bias.data.fill_(10.0)
        decoded = tokenizer.decode(torch.randn(2, 6, 4, 4))
        assert decoded.min() > 1.0

    def test_is_float32_under_autocast(self, build: Build, images: Tensor) -> None:
        tokenizer = build()
        with torch.autocast("cpu", torch.bfloat16):
            latents = tokenizer.encode(images).latents
            decoded = tokenizer.decode(latents)
        assert latents.dtype == decoded.dtype == torch.float32
        norms = latents.norm(dim=1)
        torch.testing.assert_close(norms, torch.full((3, 4, 4), 6**0.5), rtol=1e-3, atol=0)
