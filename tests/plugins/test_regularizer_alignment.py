"""SSR and SCR: values and gradients derived by hand, on 2 x 2 tokens in the plane."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Posterior, Regularizer, RegularizerInputs
from pae_framework.layers import tokens_to_map
from pae_regularizers.alignment import SCR, SSR
from pae_regularizers.config import SCRConfig, SSRConfig


def inputs(latents: Tensor, target: Tensor) -> RegularizerInputs:
    """Latents and target given as tokens (B, N, C); the other fields are not looked at."""
    images = torch.zeros(len(latents), 3, 2, 2)
    return RegularizerInputs(
        images=images,
        reconstruction=images,
        features=latents,
        posterior=Posterior(tokens_to_map(latents)),
        target=tokens_to_map(target),
        decode=lambda z: z,
        distance=lambda a, b: (a - b).abs().mean(),
        generator=torch.Generator(),
    )


def first_turned(angle: Tensor, length: float = 1.0) -> Tensor:
    """(1, 4, 2): the first token at ``angle`` to the x-axis, the others on it."""
    turned = torch.stack([angle.cos(), angle.sin()])
    aligned = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    return length * torch.cat([turned[None], aligned])[None]


ALIGNED = torch.tensor([3.0, 0.0]).expand(1, 4, 2)


def value_and_slope(term: Regularizer, degrees: float) -> tuple[float, float]:
    """The term and its derivative by the first token's angle, against aligned targets."""
    angle = torch.tensor(math.radians(degrees), requires_grad=True)
    value = term(inputs(first_turned(angle, length=2.0), ALIGNED))
    value.backward()
    assert angle.grad is not None
    return value.item(), angle.grad.item()


def two_tokens(degrees: float) -> tuple[RegularizerInputs, Tensor]:
    """Latents (1, 0) and, twice as long, at an angle to it; the targets' tokens are orthogonal.

    Returns the inputs and the angle, in radians, that gradients are taken by.
    """
    angle = torch.tensor(math.radians(degrees), requires_grad=True)
    turned = 2 * torch.stack([angle.cos(), angle.sin()])
    latents = torch.stack([torch.tensor([1.0, 0.0]), turned])[None]
    given = inputs(torch.zeros(1, 4, 2), torch.zeros(1, 4, 2))
    posterior = Posterior(latents.mT.view(1, 2, 1, 2))
    return replace(given, posterior=posterior, target=torch.eye(2).view(1, 2, 1, 2)), angle


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between the rows of a (N, C) and those of b (M, C)."""
    lengths = np.sqrt((a**2).sum(axis=1))[:, None] * np.sqrt((b**2).sum(axis=1))
    return np.einsum("ic,jc->ij", a, b) / lengths


def random_pair(channels: int = 5) -> tuple[Tensor, Tensor]:
    """Latents and targets as tokens (3, 16, C)."""
    generator = torch.Generator().manual_seed(4)
    latents, target = torch.randn(2, 3, 16, channels, generator=generator)
    return latents, target


class TestSSR:
    mean, total = SSR(SSRConfig()), SSR(SSRConfig(reduction="sum"))

    def test_two_tokens(self) -> None:
        # G(z) = [[1, cos a], [cos a, 1]], G(Z_T) = [[1, 0], [0, 1]]: the squares sum to 2 cos^2 a,
        # with slope -4 cos a sin a = -2 sin 2a. At 60 degrees: 1/2 and -sqrt(3); means: a fourth.
        for term, share in ((self.total, 1.0), (self.mean, 0.25)):
            given, angle = two_tokens(60.0)
            value = term(given)
            value.backward()
            assert value.item() == pytest.approx(share / 2, rel=1e-5)
            assert angle.grad is not None
            assert angle.grad.item() == pytest.approx(-share * math.sqrt(3), rel=1e-5)

    def test_agrees_with_numpy_in_float64(self) -> None:
        latents, target = random_pair()
        squares = [
            (cosines(z, z) - cosines(t, t)) ** 2
            for z, t in zip(latents.double().numpy(), target.double().numpy(), strict=True)
        ]
        assert self.mean(inputs(latents, target)).item() == pytest.approx(
            np.mean(squares), rel=1e-5
        )
        assert self.total(inputs(latents, target)).item() == pytest.approx(
            np.sum(squares) / 3, rel=1e-5
        )

    # 6 of the 16 Gram entries pair the turned token with another: (cos - 1)^2 each.
    @pytest.mark.parametrize("degrees", [60.0, 90.0])
    def test_one_token_out_of_line(self, degrees: float) -> None:
        sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
        value, slope = value_and_slope(self.mean, degrees)
        assert value == pytest.approx(6 / 16 * (cosine - 1) ** 2, rel=1e-5)
        assert slope == pytest.approx(6 / 16 * 2 * (1 - cosine) * sine, rel=1e-5)
        value, slope = value_and_slope(self.total, degrees)
        assert value == pytest.approx(6 * (cosine - 1) ** 2, rel=1e-5)
        assert slope == pytest.approx(6 * 2 * (1 - cosine) * sine, rel=1e-5)

    def test_rows_against_columns(self) -> None:
        # Latents differ by row, targets by column: 4 of the 6 pairs disagree, each entry by 1.
        x, y = [1.0, 0.0], [0.0, 1.0]
        rows, columns = torch.tensor([[x, x, y, y]]), torch.tensor([[x, y, x, y]])
        assert self.total(inputs(rows, columns)).item() == pytest.approx(8.0)
        assert self.mean(inputs(rows, columns)).item() == pytest.approx(0.5)

    def test_is_the_mean_over_images(self) -> None:
        turned = first_turned(torch.tensor(math.pi / 2))
        both = torch.cat([turned, ALIGNED])
        value = self.total(inputs(both, ALIGNED.expand(2, 4, 2)))
        assert value.item() == pytest.approx((6 + 0) / 2, rel=1e-5)

    def test_does_not_see_a_common_rotation_or_token_lengths(self) -> None:
        target = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
        rotation, _ = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))
        lengths = torch.tensor([1.0, 2.0, 3.0, 0.5]).view(1, 4, 1)
        value = self.mean(inputs(lengths * (target @ rotation), target))
        assert value.item() == pytest.approx(0.0, abs=1e-10)

    def test_channels_may_differ_in_number(self) -> None:
        assert self.mean(inputs(ALIGNED, torch.ones(1, 4, 7))).item() == pytest.approx(0, abs=1e-10)


class TestSCR:
    both = SCR(SCRConfig())
    pooled, tokens = SCR(SCRConfig(level="pooled")), SCR(SCRConfig(level="tokens"))

    def test_two_tokens(self) -> None:
        # Targets e1, e2; latents e1 and 2 (cos a, sin a).
        # Tokens: cosines 1 and sin a, so (1 - sin a) / 2 with slope -cos a / 2.
        # Pooled: of s = (1 + 2 cos a, 2 sin a) to (1, 1), cos = (1 + 2 cos a + 2 sin a) / (sqrt(2)
        # sqrt(5 + 4 cos a)). At 60 degrees: |s|^2 = 7, cos = (2 + sqrt(3)) / sqrt(14) and its slope
        # is (1 - sqrt(3)) / sqrt(14) + (2 + sqrt(3)) sqrt(3) / (7 sqrt(14)).
        root, unit = math.sqrt(3), math.sqrt(14)
        expected = {
            self.tokens: ((1 - root / 2) / 2, -0.25),
            self.pooled: (1 - (2 + root) / unit, -(1 - root) / unit - (2 + root) * root / 7 / unit),
        }
        expected[self.both] = tuple(map(sum, zip(*expected.values(), strict=True)))  # type: ignore[assignment]
        for term, (size, slope) in expected.items():
            given, angle = two_tokens(60.0)
            value = term(given)
            value.backward()
            assert value.item() == pytest.approx(size, rel=1e-4)
            assert angle.grad is not None
            assert angle.grad.item() == pytest.approx(slope, rel=1e-4)

    def test_agrees_with_numpy_in_float64(self) -> None:
        latents, target = random_pair()
        z, t = latents.double().numpy(), target.double().numpy()
        each = np.mean([np.diag(cosines(a, b)) for a, b in zip(z, t, strict=True)])
        pool = np.mean(np.diag(cosines(z.mean(axis=1), t.mean(axis=1))))
        given = inputs(latents, target)
        assert self.tokens(given).item() == pytest.approx(1 - each, rel=1e-5)
        assert self.pooled(given).item() == pytest.approx(1 - pool, rel=1e-5)
        assert self.both(given).item() == pytest.approx(2 - each - pool, rel=1e-5)

    def test_tokens(self) -> None:
        # one of four tokens at 90 degrees: (1 - 0) / 4, slope sin(90) / 4
        value, slope = value_and_slope(self.tokens, 90.0)
        assert value == pytest.approx(0.25, rel=1e-5)
        assert slope == pytest.approx(0.25, rel=1e-5)

    def test_pooled(self) -> None:
        # The sum of tokens is v = (3 + cos a, sin a), cos(v, x) = (3 + cos a) / sqrt(10 + 6 cos a).
        # At 90 degrees: 3 / sqrt(10), with derivative -1/sqrt(10) + 9/(10 sqrt(10)).
        value, slope = value_and_slope(self.pooled, 90.0)
        assert value == pytest.approx(1 - 3 / math.sqrt(10), rel=1e-5)
        assert slope == pytest.approx(0.1 / math.sqrt(10), rel=1e-4)

    def test_both_add_up(self) -> None:
        value, slope = value_and_slope(self.both, 90.0)
        assert value == pytest.approx(0.25 + 1 - 3 / math.sqrt(10), rel=1e-5)
        assert slope == pytest.approx(0.25 + 0.1 / math.sqrt(10), rel=1e-4)

    def test_is_0_for_equal_directions_and_4_for_opposite_ones(self) -> None:
        target = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.1
        assert self.both(inputs(2 * target, target)).item() == pytest.approx(0.0, abs=1e-6)
        assert self.both(inputs(-target, target)).item() == pytest.approx(4.0, rel=1e-6)

    def test_pooled_is_the_mean_before_the_cosine(self) -> None:
        # Tokens that cancel in pairs leave a pool that points along the two that do not.
        latents = torch.tensor([[[0.0, 5.0], [0.0, -5.0], [1.0, 0.0], [1.0, 0.0]]])
        assert self.pooled(inputs(latents, ALIGNED)).item() == pytest.approx(0.0, abs=1e-6)
        assert self.tokens(inputs(latents, ALIGNED)).item() == pytest.approx(0.5, rel=1e-6)


class TestTargetsOfOtherChannels:
    """Raw features as the target: latents reach their width by a learned projection."""

    def test_latents_of_as_many_channels_need_no_projection(self) -> None:
        term = SCR(SCRConfig())
        term.prepare(LatentShape(2, 2), width=7, target_channels=2)
        assert not list(term.parameters())

    def test_latents_are_projected_without_bias(self) -> None:
        term = SCR(SCRConfig())
        term.prepare(LatentShape(2, 2), width=7, target_channels=3)
        assert {name: tuple(w.shape) for name, w in term.named_parameters()} == {
            "project.weight": (3, 2, 1, 1)
        }

    @pytest.mark.parametrize(("level", "share"), [("tokens", 1), ("pooled", 1), ("both", 2)])
    def test_value_by_hand(self, level: str, share: int) -> None:
        # z = (1, 0) everywhere goes to the first column of W, (1, 2, 2) / 3 of length 1; its cosine
        # with the target (0, 0, 5) is 2/3.
        term = SCR(SCRConfig.model_validate({"level": level}))
        term.prepare(LatentShape(2, 2), width=3, target_channels=3)
        assert isinstance(term.project, nn.Conv2d)
        weight = torch.tensor([[1.0, 9.0], [2.0, 9.0], [2.0, 9.0]]) / 3
        term.project.weight.data = weight.view(3, 2, 1, 1)
        target = torch.tensor([0.0, 0.0, 5.0]).expand(1, 4, 3)
        value = term(inputs(ALIGNED / 3, target))
        assert value.item() == pytest.approx(share / 3, rel=1e-5)

    def test_the_projection_learns_with_the_latents(self) -> None:
        term = SCR(SCRConfig())
        term.prepare(LatentShape(5, 4), width=8, target_channels=8)
        latents = random_pair()[0].requires_grad_()
        term(inputs(latents, random_pair(8)[1])).backward()
        assert isinstance(term.project, nn.Conv2d)
        assert latents.grad is not None
        assert term.project.weight.grad is not None
        assert latents.grad.any()
        assert term.project.weight.grad.any()

    def test_ssr_needs_no_projection(self) -> None:
        term = SSR(SSRConfig())
        term.prepare(LatentShape(2, 2), width=7, target_channels=7)
        assert not list(term.parameters())
