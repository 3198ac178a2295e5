"""The encoder's trainable copy: its start, what is trained and what is frozen."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor, nn

from pae_framework.contracts import Features
from pae_framework.errors import UsageError
from pae_framework.tokenizer.model import ComposedTokenizer
from pae_modulators.config import FinetuneConfig
from pae_modulators.finetune import FinetunedEncoder

pytestmark = pytest.mark.usefixtures("reproducible")


def finetuned(encoder: FakeEncoder) -> FinetunedEncoder:
    """As the engine makes it: of an encoder that is frozen and in eval mode."""
    return FinetunedEncoder(FinetuneConfig(), encoder.eval().requires_grad_(False))


def test_a_tokenizer_starts_as_without_a_modulator(
    build: Callable[..., ComposedTokenizer], images: Tensor
) -> None:
    finetuning, plain = build(modulator="finetune"), build(modulator="none")
    rest = {k: v for k, v in finetuning.state_dict().items() if "delta_encoder." not in k}
    plain.load_state_dict(rest)
    for tokenizer in (finetuning, plain):
        tokenizer.train()
    latents = finetuning.encode(images).latents
    torch.testing.assert_close(latents, plain.encode(images).latents, rtol=0, atol=0)


def test_its_weights_have_the_modulators_prefix(build: Callable[..., ComposedTokenizer]) -> None:
    names = {name for name in build(modulator="finetune").state_dict() if "delta_encoder" in name}
    parts = ("embed.weight", "embed.bias", "mix.weight", "mix.bias")
    assert names == {f"delta_encoder.encoder.{part}" for part in parts}


def test_it_is_trained_and_the_encoder_stays_frozen(
    build: Callable[..., ComposedTokenizer], encoder: FakeEncoder, images: Tensor
) -> None:
    tokenizer = build(modulator="finetune").train()
    before = copy.deepcopy(encoder.state_dict())
    features = tokenizer.features(images).tokens
    optimizer = torch.optim.SGD(tokenizer.parameters(), lr=0.1)
    first = tokenizer.encode(images).latents
    first[:, 0].sum().backward()
    optimizer.step()
    assert not torch.equal(tokenizer.encode(images).latents, first)
    learned = tokenizer.delta_encoder.encoder.state_dict()  # type: ignore[union-attr]
    assert all(not torch.equal(learned[name], before[name]) for name in ("embed.weight",))
    torch.testing.assert_close(encoder.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(tokenizer.features(images).tokens, features)


def test_it_uses_the_normalized_pixels_and_not_the_tokens(
    encoder: FakeEncoder, images: Tensor
) -> None:
    modulator = finetuned(encoder)
    pixels = encoder.normalize(images)
    nonsense = torch.full((3, 16, 32), torch.nan)
    torch.testing.assert_close(modulator(pixels, nonsense), encoder(pixels).tokens)


def test_dropout_stays_off(encoder: FakeEncoder, images: Tensor) -> None:
    modulator = finetuned(encoder).train()
    assert modulator.training
    assert not any(part.training for part in modulator.encoder.modules())


class WithHead(FakeEncoder):
    """An encoder with a pooling head of its own, which tokens do not go through."""

    def __init__(self, encoder: FakeEncoder):
        super().__init__(encoder.config, encoder.image_size)  # type: ignore[arg-type]
        self.head = nn.Linear(32, 32)

    def forward(self, pixels: Tensor) -> Features:
        features = super().forward(pixels)
        return Features(features.tokens, self.head(features.pooled))


def test_only_what_the_tokens_depend_on_is_trained(encoder: FakeEncoder) -> None:
    trained = {
        name.removeprefix("encoder."): weight.requires_grad
        for name, weight in finetuned(WithHead(encoder)).train().named_parameters()
    }
    head = {"head.weight": False, "head.bias": False}
    assert trained == head | {
        f"{part}.{kind}": True for part in ("embed", "mix") for kind in ("weight", "bias")
    }


@torch.no_grad()
def test_it_can_be_built_and_trained_under_no_grad(encoder: FakeEncoder) -> None:
    assert all(weight.requires_grad for weight in finetuned(encoder).train().parameters())


def test_unused_weights_are_determined_once_and_only_for_training(encoder: FakeEncoder) -> None:
    modulator = finetuned(encoder)
    modulator.requires_grad_(False).eval()  # as every stage but its own has it
    assert modulator.encoder.calls == 0
    modulator.train()
    assert not any(weight.requires_grad for weight in modulator.parameters())

    modulator = finetuned(WithHead(encoder)).train()
    assert modulator.encoder.calls == 1
    modulator.encoder.embed.requires_grad_(False)  # as `lr_factors` do after it
    modulator.eval().train()
    assert modulator.encoder.calls == 1
    learning = {name.split(".")[1] for name, w in modulator.named_parameters() if w.requires_grad}
    assert learning == {"mix"}


class WithoutGradient(FakeEncoder):
    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Features:
        return super().forward(pixels)


def test_an_encoder_without_gradient_cannot_be_finetuned(encoder: FakeEncoder) -> None:
    stopped = WithoutGradient(encoder.config, encoder.image_size)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="WithoutGradient"):
        finetuned(stopped).train()
