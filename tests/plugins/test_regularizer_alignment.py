"""SSR and SCR: values and gradients derived by hand, on 2 x 2 tokens in the plane."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pae_framework.contracts import Posterior, Regularizer, RegularizerInputs
from pae_framework.layers import tokens_to_map
from pae_framework.plugins import load_registry
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


class TestSSR:
    mean, total = SSR(SSRConfig()), SSR(SSRConfig(reduction="sum"))

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


@pytest.mark.parametrize(("name", "component"), [("ssr", SSR), ("scr", SCR)])
def test_registered_and_in_need_of_a_target(name: str, component: type[Regularizer]) -> None:
    spec = load_registry().find("regularizer", name)
    assert spec.component_class() is component
    assert spec.config_class().needs_target  # type: ignore[attr-defined]
