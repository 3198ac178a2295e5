from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor, nn

from pae_framework.errors import DataError
from pae_framework.settings import RefinementSettings
from pae_framework.tokenizer.refinement import (
    PriorRefiner,
    RefinementObjective,
    spatially_normalised,
)
from pae_framework.tokenizer.similarity import cosine_gram


def refiner(encoder: FakeEncoder, channels: int = 6, **changes: Any) -> PriorRefiner:
    settings = {"depth": 1, "heads": 2, "train": {"steps": 1}} | changes
    return PriorRefiner(RefinementSettings.model_validate(settings), encoder, channels)


def tokens() -> Tensor:
    return torch.randn(5, 16, 32)


class Refuses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("must not be computed")


class Returns(nn.Module):
    def __init__(self, value: Tensor):
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return self.value


class TestCosineGram:
    def test_value_by_hand(self) -> None:
        # tokens at 0, 60 and 90 degrees, of lengths 1, 2 and 3
        degrees = torch.tensor([0.0, 60.0, 90.0]).deg2rad()
        lengths = torch.tensor([[1.0], [2.0], [3.0]])
        x = lengths * torch.stack([degrees.cos(), degrees.sin()], dim=1)
        c30 = math.sqrt(3) / 2
        expected = torch.tensor([[1.0, 0.5, 0.0], [0.5, 1.0, c30], [0.0, c30, 1.0]])
        torch.testing.assert_close(cosine_gram(x[None])[0], expected, atol=1e-6, rtol=0)

    def test_is_float32_under_autocast(self) -> None:
        x = tokens()
        with torch.autocast("cpu", torch.bfloat16):
            gram = cosine_gram(x)
        assert torch.equal(gram, cosine_gram(x))


class TestReference:
    def test_subtracts_a_share_of_the_mean_token(self) -> None:
        x = torch.tensor([[[1.0, 0.0], [3.0, 4.0]]])  # mean (2, 2)
        expected = torch.tensor([[[0.2, -0.8], [2.2, 3.2]]])
        torch.testing.assert_close(spatially_normalised(x, 0.4), expected)

    def test_strength_0_is_the_identity_and_1_leaves_no_mean(self) -> None:
        x = tokens()
        assert torch.equal(spatially_normalised(x, 0.0), x)
        mean = spatially_normalised(x, 1.0).mean(dim=1)
        torch.testing.assert_close(mean, torch.zeros(5, 32), atol=1e-6, rtol=0)


class TestTargets:
    def test_lie_on_the_sphere_of_the_latents(self, encoder: FakeEncoder) -> None:
        targets = refiner(encoder, channels=6).targets(100 * tokens())
        assert targets.shape == (5, 6, 4, 4)
        norms = targets.norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(6)), rtol=1e-4, atol=0)

    def test_have_no_gradient(self, encoder: FakeEncoder) -> None:
        assert not refiner(encoder).targets(tokens()).requires_grad


class TestLoss:
    def test_reproduction_is_the_weighted_mean_square(self, encoder: FakeEncoder) -> None:
        x = tokens()
        refine = refiner(encoder, reproduction=3.0, gram=0.0)
        refine.deprojector = Returns(x + 2.0)  # type: ignore[assignment]
        terms = refine.loss(x)
        assert terms.keys() == {"reproduction", "loss"}
        assert terms["reproduction"].item() == pytest.approx(3 * 4.0, rel=1e-6)

    def test_gram_is_the_weighted_mean_over_all_pairs(self, encoder: FakeEncoder) -> None:
        # All targets alike (cosines 1); H_ref = H alternates between two orthogonal tokens, so
        # half of the pairs have cosine 1 and half 0: mean of (1 - G)^2 = 1/2.
        x = torch.zeros(1, 16, 32)
        x[:, 0::2, 0], x[:, 1::2, 1] = 2.0, 5.0
        refine = refiner(encoder, channels=2, reproduction=0.0, gram=4.0, low_pass=0.0)
        refine.projector = Returns(torch.ones(1, 2, 4, 4))  # type: ignore[assignment]
        terms = refine.loss(x)
        assert terms.keys() == {"gram", "loss"}
        assert terms["gram"].item() == pytest.approx(4 * 0.5, rel=1e-5)

    def test_low_pass_takes_what_all_tokens_share_out_of_the_reference(
        self, encoder: FakeEncoder
    ) -> None:
        # Tokens m + e and m - e alternate: less their mean m they are opposite, cosines +-1;
        # against targets all alike, half of the pairs are off by 2: mean 2.
        x = torch.ones(1, 16, 32)
        x[:, 0::2, 0] += 0.1
        x[:, 1::2, 0] -= 0.1
        refine = refiner(encoder, channels=2, reproduction=0.0, low_pass=1.0)
        refine.projector = Returns(torch.ones(1, 2, 4, 4))  # type: ignore[assignment]
        assert refine.loss(x)["gram"].item() == pytest.approx(2.0, rel=1e-4)

    def test_is_the_sum_of_its_terms(self, encoder: FakeEncoder) -> None:
        terms = refiner(encoder).loss(tokens())
        assert terms["loss"].item() == pytest.approx(
            terms["reproduction"].item() + terms["gram"].item(), rel=1e-6
        )

    def test_a_term_of_weight_0_is_not_computed(self, encoder: FakeEncoder) -> None:
        refine = refiner(encoder, reproduction=0.0)
        refine.deprojector = Refuses()  # type: ignore[assignment]
        assert "reproduction" not in refine.loss(tokens())

    def test_training_lowers_it(self, encoder: FakeEncoder) -> None:
        refine, x = refiner(encoder, channels=16), tokens()
        optimizer = torch.optim.Adam(refine.parameters(), lr=3e-3)
        first = refine.loss(x)
        for _ in range(30):
            optimizer.zero_grad()
            refine.loss(x)["loss"].backward()
            optimizer.step()
        last = refine.loss(x)
        assert last["reproduction"] < 0.8 * first["reproduction"]
        assert last["gram"] < 0.8 * first["gram"]


class TestObjective:
    def test_is_the_refiners_loss_on_the_frozen_tokens(
        self, encoder: FakeEncoder, images: torch.Tensor
    ) -> None:
        refine = refiner(encoder)
        objective = RefinementObjective(refine, encoder).train()
        assert not encoder.training
        assert {name.split(".")[0] for name in objective.state_dict()} == {"refiner"}
        terms = objective((images, torch.zeros(3)), torch.Generator())
        expected = refine.loss(encoder(encoder.normalize(images)).tokens)
        torch.testing.assert_close(terms, expected)
        terms["loss"].backward()
        assert all(parameter.grad is not None for parameter in refine.parameters())
        assert all(parameter.grad is None for parameter in encoder.parameters())


class TestCentre:
    def test_measures_the_mean_token_of_all_images(self, encoder: FakeEncoder) -> None:
        refine, x = refiner(encoder, centre=True), tokens() + 7
        refine.measure(x.split([1, 4]))
        expected = x.numpy().astype(np.float64).mean(axis=(0, 1))
        np.testing.assert_allclose(refine.mean.numpy(), expected, rtol=1e-6)

    def test_makes_everything_blind_to_a_shift_of_the_features(self, encoder: FakeEncoder) -> None:
        refine, x = refiner(encoder, centre=True), tokens()
        results = []
        for shift in (0.0, 3.0):
            refine.measure([x + shift])
            results.append((refine.targets(x + shift), refine.loss(x + shift)["loss"]))
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)

    def test_off_measures_nothing(self, encoder: FakeEncoder) -> None:
        refine = refiner(encoder)
        refine.measure([tokens()])
        assert not refine.mean.any()

    def test_no_images_is_an_error(self, encoder: FakeEncoder) -> None:
        with pytest.raises(DataError, match="needs images"):
            refiner(encoder, centre=True).measure([])


def test_state_dict_round_trip(encoder: FakeEncoder) -> None:
    first, second = refiner(encoder, centre=True), refiner(encoder, centre=True)
    x = tokens()
    first.measure([x])
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first.targets(x), second.targets(x))


def test_width_and_heads_follow_the_encoder(encoder: FakeEncoder) -> None:
    settings = RefinementSettings.model_validate({"train": {"steps": 1}})
    deprojector = PriorRefiner(settings, encoder, 6).deprojector
    assert deprojector.embed.out_features == 32
    assert [block.attn.heads for block in deprojector.blocks] == [encoder.heads] * 4 == [4] * 4
