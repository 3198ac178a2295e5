"""MCR: the rotation, the closed form for a linear decoder, and which way gradients flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.contracts import Posterior, RegularizerInputs
from pae_framework.tokenizer.rotation import random_tangent, rotate
from pae_regularizers.config import MCRConfig
from pae_regularizers.continuity import MCR

COS_42 = math.cos(math.radians(42.5))
COS_85 = math.cos(math.radians(85))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Sum of squares per token, mean over tokens: chords of the sphere by their squared length."""
    return (a - b).square().sum(dim=1).mean()


def inputs(latents: Tensor, decode: Callable[[Tensor], Tensor], seed: int = 0) -> RegularizerInputs:
    return RegularizerInputs(
        images=torch.zeros(1),
        reconstruction=decode(latents),
        features=torch.zeros(1),
        posterior=Posterior(latents),
        target=None,
        decode=decode,
        distance=squared,
        generator=generator(seed),
    )


def unit_latents() -> Tensor:
    z = torch.randn(2, 6, 3, 3, generator=generator(9))
    return z / z.norm(dim=1, keepdim=True)


class TestRotation:
    @settings(deadline=None)
    @given(
        seed=st.integers(0, 1000),
        channels=st.integers(2, 40),
        degrees=st.floats(1, 179),
        scale=st.floats(0.01, 100),
    )
    def test_keeps_the_length_and_turns_by_the_angle(
        self, seed: int, channels: int, degrees: float, scale: float
    ) -> None:
        z = scale * torch.randn(2, channels, 2, 2, generator=generator(seed)).double()
        u = random_tangent(z, generator(seed + 1))
        turned = rotate(z, u, math.radians(degrees))
        torch.testing.assert_close(turned.norm(dim=1), z.norm(dim=1))
        cosine = torch.cosine_similarity(turned, z, dim=1)
        expected = torch.full_like(cosine, math.cos(math.radians(degrees)))
        torch.testing.assert_close(cosine, expected, rtol=0, atol=1e-9)

    @settings(deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_tangent_is_orthogonal_and_as_long(self, seed: int) -> None:
        z = torch.randn(2, 8, 2, 2, generator=generator(seed))
        u = random_tangent(z, generator(seed + 1))
        dot = (u * z).sum(dim=1) / z.square().sum(dim=1)
        torch.testing.assert_close(dot, torch.zeros_like(dot), rtol=0, atol=1e-5)
        torch.testing.assert_close(u.norm(dim=1), z.norm(dim=1))

    def test_a_zero_token_stays_zero_and_harms_no_gradient(self) -> None:
        z = torch.zeros(1, 3, 1, 1, requires_grad=True)
        turned = rotate(z, random_tangent(z, generator()), 1.0)
        turned.sum().backward()
        assert not turned.any()
        assert z.grad is not None
        assert z.grad.isfinite().all()

    def test_is_the_papers_step_along_the_tangent_brought_back_to_the_sphere(self) -> None:
        z = unit_latents()
        u, angle = random_tangent(z, generator()), math.radians(42.5)
        stepped = z + math.tan(angle) * u
        expected = stepped / stepped.norm(dim=1, keepdim=True)
        torch.testing.assert_close(rotate(z, u, angle), expected)

    def test_directions_are_uniform_and_each_tokens_own(self) -> None:
        # Around e1 in three dimensions u = (0, cos a, sin a) with a uniform: E[u] = 0 and
        # E[u2^2] = 1/2; the variances are 1/2 and 1/8.
        n = 10_000
        z = torch.zeros(1, 3, 100, 100)
        z[:, 0] = 1.0
        u = random_tangent(z, generator()).flatten(2)[0]
        five_errors = 5 * math.sqrt(0.5 / n)
        assert u[1].mean().item() == pytest.approx(0, abs=five_errors)
        assert u[2].mean().item() == pytest.approx(0, abs=five_errors)
        assert u[1].square().mean().item() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 8 / n))


class TestValue:
    # With a decoder that is the identity, d is the squared chord 2 (1 - cos) between unit tokens.
    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            (MCRConfig(), 4 * (1 - COS_42)),  # 42.5 degrees from each to the next
            (MCRConfig(mode="single"), 2 * (1 - COS_42) + 2 * (1 - COS_85)),
            (MCRConfig(mode="single", angles=(42.5,)), 2 * (1 - COS_42)),
            (MCRConfig(mode="single", angles=(85.0,)), 2 * (1 - COS_85)),
            (MCRConfig(angles=(60.0,)), 1.0),
        ],
    )
    @pytest.mark.parametrize("seed", [0, 1])
    def test_closed_form_for_the_identity(
        self, config: MCRConfig, expected: float, seed: int
    ) -> None:
        value = MCR(config)(inputs(unit_latents(), lambda z: z, seed))
        assert value.item() == pytest.approx(expected, rel=1e-5)

    def test_two_tokens_in_the_plane_under_l1(self) -> None:
        # Tokens k e1 and k e2, turned by +-a: each goes from k (1, 0) to k (cos a, +-sin a), or
        # likewise, so the absolute differences add up to k (1 - cos a + sin a) whichever way it
        # turns; mean over 4 entries: k (1 - cos a + sin a) / 2. The stopped side does not move
        # with k, so by k the slope is that of the sum over the moving side of sign(difference) x:
        # (-cos a + sin a) per token, / 2 in the mean.
        a = math.radians(42.5)
        for seed in range(4):
            k = torch.tensor(1.0, requires_grad=True)
            z = k * torch.eye(2).view(1, 2, 1, 2)
            given = replace(
                inputs(z, lambda x: x, seed), distance=lambda x, y: (x - y).abs().mean()
            )
            value = MCR(MCRConfig(angles=(42.5,)))(given)
            value.backward()
            assert value.item() == pytest.approx((1 - math.cos(a) + math.sin(a)) / 2, rel=1e-5)
            assert k.grad is not None
            assert k.grad.item() == pytest.approx((math.sin(a) - math.cos(a)) / 2, rel=1e-4)

    @pytest.mark.parametrize("angle", [42.5, 85.0])
    def test_of_one_angle_both_modes_are_the_same(self, angle: float) -> None:
        cascade, single = (
            MCR(MCRConfig.model_validate({"mode": mode, "angles": [angle]}))
            for mode in ("cascade", "single")
        )
        given = [inputs(unit_latents(), lambda z: z.tanh()) for _ in range(2)]
        assert torch.equal(cascade(given[0]), single(given[1]))

    def test_a_decoder_that_ignores_its_latents_is_perfectly_continuous(self) -> None:
        assert MCR(MCRConfig())(inputs(unit_latents(), torch.zeros_like)).item() == 0

    def test_decodes_all_angles_in_one_call(self) -> None:
        sizes = []

        def decode(z: Tensor) -> Tensor:
            sizes.append(len(z))
            return z

        MCR(MCRConfig())(inputs(unit_latents(), decode))
        assert sizes == [2, 4]  # the reconstruction, made before; then both angles


class TestGradient:
    """x = w z with unit tokens: the moving side alone gives 2 w |z|^2 (1 - cos) per comparison;
    without the stop-gradients both sides would move, and it would be twice that."""

    def test_decoder_learns_at_the_moving_side_only(self) -> None:
        w = torch.tensor(1.0, requires_grad=True)
        MCR(MCRConfig())(inputs(unit_latents(), lambda z: w * z)).backward()
        assert w.grad is not None
        assert w.grad.item() == pytest.approx(4 * (1 - COS_42), rel=1e-5)

    def test_latents_are_reached_through_the_rotation(self) -> None:
        scale = torch.tensor(1.0, requires_grad=True)
        MCR(MCRConfig())(inputs(scale * unit_latents(), lambda z: z)).backward()
        assert scale.grad is not None
        assert scale.grad.item() == pytest.approx(4 * (1 - COS_42), rel=1e-5)

    @pytest.mark.parametrize("mode", ["cascade", "single"])
    def test_nothing_reaches_the_reconstruction(self, mode: str) -> None:
        given_inputs = inputs(unit_latents().requires_grad_(), lambda z: 2 * z)
        given_inputs.reconstruction.retain_grad()
        MCR(MCRConfig.model_validate({"mode": mode}))(given_inputs).backward()
        assert given_inputs.reconstruction.grad is None

    def test_the_nearer_decode_is_not_pulled_towards_the_farther(self) -> None:
        # Offsets a, b added to the decodes of the two angles: x_m + a is compared with x_r, and
        # x_l + b with a stopped x_m + a. So the slope by a is that of the first comparison alone.
        z = unit_latents()
        a = torch.zeros((), requires_grad=True)

        def decode(x: Tensor) -> Tensor:
            if len(x) == len(z):
                return x
            middle, last = x.chunk(2)
            return torch.cat([middle + a, last])

        given_inputs = inputs(z, decode)
        MCR(MCRConfig())(given_inputs).backward()
        middle = rotate(z, random_tangent(z, generator()), math.radians(42.5))
        expected = 2 * (middle - z).sum(dim=1).mean()
        assert a.grad is not None
        torch.testing.assert_close(a.grad, expected, rtol=1e-4, atol=1e-5)


class TestConfig:
    @pytest.mark.parametrize(
        ("angles", "message"),
        [
            ((85.0, 42.5), "angles"),
            ((0.0,), "between 0 and 180"),
            ((180.0,), "between 0 and 180"),
            ((), "at least 1"),
        ],
    )
    def test_invalid_angles_are_rejected(self, angles: tuple[float, ...], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            MCRConfig(angles=angles)

    def test_latents_of_one_channel_are_rejected(self) -> None:
        with pytest.raises(ValueError, match=str(LatentShape(1, 2))):
            MCRConfig().check_latent(LatentShape(1, 2))
