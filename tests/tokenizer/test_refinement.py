from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor, nn

from pae_framework.errors import DataError
from pae_framework.layers import cosine_gram
from pae_framework.tokenizer.refinement import PriorRefiner, RefinementObjective
from pae_framework.tokenizer.tokenizer_settings import RefinementSettings


def refiner(encoder: FakeEncoder, channels: int = 6, **changes: Any) -> PriorRefiner:
    settings = {"depth": 1, "heads": 2, "train": {"steps": 1}} | changes
    return PriorRefiner(RefinementSettings.model_validate(settings), encoder, channels)


def tokens() -> Tensor:
    return torch.randn(5, 16, 32)


IMAGES = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))
"""Looked at by learned upsamplers only."""


def loss(refine: PriorRefiner, x: Tensor) -> dict[str, Tensor]:
    return refine.loss(x, IMAGES[: len(x)])


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
        terms = loss(refine, x)
        assert terms.keys() == {"reproduction", "loss"}
        assert terms["reproduction"].item() == pytest.approx(3 * 4.0, rel=1e-6)

    def test_gram_is_the_weighted_mean_over_all_pairs(self, encoder: FakeEncoder) -> None:
        # All targets alike (cosines 1); H_ref = H alternates between two orthogonal tokens, so
        # half of the pairs have cosine 1 and half 0: mean of (1 - G)^2 = 1/2.
        x = torch.zeros(1, 16, 32)
        x[:, 0::2, 0], x[:, 1::2, 1] = 2.0, 5.0
        refine = refiner(encoder, channels=2, reproduction=0.0, gram=4.0, low_pass=0.0)
        refine.projector = Returns(torch.ones(1, 2, 4, 4))  # type: ignore[assignment]
        terms = loss(refine, x)
        assert terms.keys() == {"gram", "loss"}
        assert terms["gram"].item() == pytest.approx(4 * 0.5, rel=1e-5)

    def test_gram_and_its_gradient_on_two_tokens_in_the_plane(self, encoder: FakeEncoder) -> None:
        # H: two orthogonal tokens, G(H) = [[1, 0], [0, 1]]. Z_T: two tokens at an angle a, so
        # G = [[1, cos a], [cos a, 1]] and the mean of squares is 2 cos^2 a / 4 = cos^2 a / 2;
        # by a its derivative is -cos a sin a. At a = 60 degrees: 1/8 and -sqrt(3)/4.
        angle = torch.tensor(math.pi / 3, requires_grad=True)
        one, zero = torch.ones(()), torch.zeros(())
        z = torch.stack([torch.stack([one, angle.cos()]), torch.stack([zero, angle.sin()])])
        refine = refiner(encoder, channels=2, reproduction=0.0, low_pass=0.0)
        refine.projector = Returns(z.view(1, 2, 1, 2))  # type: ignore[assignment]
        gram = loss(refine, 3 * torch.eye(2, 32)[None])["gram"]
        gram.backward()
        assert gram.item() == pytest.approx(1 / 8, rel=1e-5)
        assert angle.grad is not None
        assert angle.grad.item() == pytest.approx(-math.sqrt(3) / 4, rel=1e-4)

    def test_reproduction_and_its_gradient_on_two_tokens(self, encoder: FakeEncoder) -> None:
        # Q_t gives w H; entries of H: 1, 2, 3, 4. Mean of ((w - 1) h)^2 = (w - 1)^2 30/4; by w:
        # (w - 1) 15. At w = 3: 30 and 30.
        w = torch.tensor(3.0, requires_grad=True)
        x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        refine = refiner(encoder, gram=0.0)
        refine.projector = Returns(torch.ones(1, 2, 1, 2))  # type: ignore[assignment]
        refine.deprojector = Returns(w * x)  # type: ignore[assignment]
        reproduction = loss(refine, x)["reproduction"]
        reproduction.backward()
        assert reproduction.item() == pytest.approx(30.0)
        assert w.grad is not None
        assert w.grad.item() == pytest.approx(30.0)

    def test_agrees_with_numpy_in_float64(self, encoder: FakeEncoder) -> None:
        x, z = tokens(), torch.randn(5, 6, 4, 4)
        refine = refiner(encoder, gram=2.0, reproduction=0.0, low_pass=0.3)
        refine.projector = Returns(z)  # type: ignore[assignment]

        def gram(a: np.ndarray) -> np.ndarray:
            lengths = np.sqrt((a**2).sum(axis=1))
            return np.einsum("ik,jk->ij", a, a) / np.outer(lengths, lengths)

        total = 0.0
        for features, targets in zip(x.double().numpy(), z.double().numpy(), strict=True):
            reference = features - 0.3 * features.mean(axis=0)
            difference = gram(targets.reshape(6, 16).T) - gram(reference)
            total += (difference**2).mean() / 5
        assert loss(refine, x)["gram"].item() == pytest.approx(2 * total, rel=1e-5)

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
        assert loss(refine, x)["gram"].item() == pytest.approx(2.0, rel=1e-4)

    def test_is_the_sum_of_its_terms(self, encoder: FakeEncoder) -> None:
        terms = loss(refiner(encoder), tokens())
        assert terms["loss"].item() == pytest.approx(
            terms["reproduction"].item() + terms["gram"].item(), rel=1e-6
        )

    def test_a_term_of_weight_0_is_not_computed(self, encoder: FakeEncoder) -> None:
        refine = refiner(encoder, reproduction=0.0)
        refine.deprojector = Refuses()  # type: ignore[assignment]
        assert "reproduction" not in loss(refine, tokens())

    def test_training_lowers_it(self, encoder: FakeEncoder) -> None:
        refine, x = refiner(encoder, channels=16), tokens()
        optimizer = torch.optim.Adam(refine.parameters(), lr=3e-3)
        first = loss(refine, x)
        for _ in range(30):
            optimizer.zero_grad()
            loss(refine, x)["loss"].backward()
            optimizer.step()
        last = loss(refine, x)
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
        expected = refine.loss(encoder(encoder.normalize(images)).tokens, images)
        torch.testing.assert_close(terms, expected)
        terms["loss"].backward()
        assert all(parameter.grad is not None for parameter in refine.parameters())
        assert all(parameter.grad is None for parameter in encoder.parameters())

    def test_the_reference_is_made_of_tokens_and_their_images(
        self, encoder: FakeEncoder, images: torch.Tensor
    ) -> None:
        refine, seen = refiner(encoder), list[Tensor]()

        def reference(*given: Tensor) -> Tensor:
            seen.extend(given)
            return given[0]

        refine.structure.forward = reference  # type: ignore[method-assign, assignment]
        RefinementObjective(refine, encoder)((images, torch.zeros(3)), torch.Generator())
        tokens, pictures = seen
        torch.testing.assert_close(tokens, encoder(encoder.normalize(images)).tokens)
        assert pictures is images


class TestCenter:
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
            results.append((refine.targets(x + shift), loss(refine, x + shift)["loss"]))
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)

    def test_off_ignores_the_mean(self, encoder: FakeEncoder) -> None:
        refine, x = refiner(encoder), tokens()
        before = refine.targets(x)
        refine.mean.fill_(3.0)
        assert torch.equal(refine.targets(x), before)

    def test_no_images_is_an_error(self, encoder: FakeEncoder) -> None:
        with pytest.raises(DataError, match=r"refinement\.centre"):
            refiner(encoder, centre=True).measure([])


class TestSettings:
    def test_the_smoke_version_needs_nothing_from_elsewhere(self) -> None:
        values = {
            "depth": 3,
            "width": 64,
            "heads": 2,
            "gram": 0.3,
            "upsampler": "anyup",
            "anyup": {"checkout": "nowhere", "weights": "nowhere.pth"},
            "train": {"steps": 7},
        }
        small = RefinementSettings.model_validate(values).smoke()
        expected = {"depth": 1, "gram": 0.3, "train": {"steps": 7}}
        assert small == RefinementSettings.model_validate(expected)
        assert small.missing() is None


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
