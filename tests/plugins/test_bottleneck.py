from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_bottlenecks.bottlenecks import Gaussian, Identity, Sphere
from pae_bottlenecks.config import GaussianConfig, IdentityConfig, SphereConfig
from pae_framework.errors import DataError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestSphere:
    def test_value_by_hand(self) -> None:
        # mean square of (3, 4) is 12.5
        x = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
        z = Sphere(SphereConfig(channels=2), 8, 1)(x).latents
        expected = torch.tensor([3.0, 4.0]) / math.sqrt(12.5)
        torch.testing.assert_close(z.flatten(), expected)

    @settings(deadline=None)
    @given(seed=st.integers(0, 1000), channels=st.integers(1, 40), scale=st.floats(1e-3, 1e4))
    def test_every_token_has_norm_sqrt_of_channels(
        self, seed: int, channels: int, scale: float
    ) -> None:
        # With m the mean square, |z|^2 = C m / (m + eps): C unless m is as small as eps.
        x = scale * torch.randn(2, channels, 3, 3, generator=generator(seed))
        z = Sphere(SphereConfig(channels=channels), 8, 3)(x).latents
        m = x.double().square().mean(dim=1)
        expected = (channels * m / (m + 1e-6)).float()
        torch.testing.assert_close(z.square().sum(dim=1), expected, rtol=1e-5, atol=1e-6)

    def test_a_zero_token_stays_zero(self) -> None:
        z = Sphere(SphereConfig(channels=2), 8, 1)(torch.zeros(1, 2, 1, 1)).latents
        assert not z.any()

    def test_latents_are_float32_and_exact_for_bf16_input(self) -> None:
        x = torch.full((1, 3, 1, 1), 7.0, dtype=torch.bfloat16)
        z = Sphere(SphereConfig(channels=3), 8, 1)(x).latents
        assert z.dtype == torch.float32
        torch.testing.assert_close(z.flatten(), torch.ones(3))


class TestGaussian:
    bottleneck = Gaussian(GaussianConfig(channels=2), 8, 1)

    def test_takes_mean_and_log_variance_of_each_channel(self) -> None:
        assert (self.bottleneck.in_channels, self.bottleneck.channels) == (4, 2)

    def test_without_generator_the_mean_is_the_latent(self) -> None:
        x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
        posterior = self.bottleneck(x)
        assert posterior.latents.flatten().tolist() == [1, 2]
        assert posterior.logvar is not None
        assert posterior.logvar.flatten().tolist() == [3, 4]

    def test_log_variance_is_clamped(self) -> None:
        x = torch.tensor([0.0, 0.0, 100.0, -100.0]).view(1, 4, 1, 1)
        logvar = self.bottleneck(x).logvar
        assert logvar is not None
        assert logvar.flatten().tolist() == [20, -30]

    def test_moments_of_samples(self) -> None:
        # channels N(2, 0.5^2) and N(-1, 3^2); tolerances are 5 standard errors of n draws
        n = 40_000
        x = torch.tensor([2.0, -1.0, 2 * math.log(0.5), 2 * math.log(3.0)]).view(1, 4, 1, 1)
        latents = self.bottleneck(x.expand(n, -1, -1, -1), generator()).latents.flatten(1)
        for channel, (mean, std) in enumerate([(2.0, 0.5), (-1.0, 3.0)]):
            drawn = latents[:, channel]
            assert drawn.mean().item() == pytest.approx(mean, abs=5 * std / math.sqrt(n))
            assert drawn.std().item() == pytest.approx(std, abs=5 * std / math.sqrt(2 * n))

    def test_the_generator_decides(self) -> None:
        x = torch.zeros(2, 4, 1, 1)
        first, again, other = (self.bottleneck(x, generator(seed)).latents for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_gradients_reach_mean_and_variance(self) -> None:
        x = torch.zeros(1, 4, 1, 1, requires_grad=True)
        self.bottleneck(x, generator()).latents.sum().backward()
        assert x.grad is not None
        noise = torch.randn(1, 2, 1, 1, generator=generator())
        # z = mean + exp(logvar / 2) * noise, at logvar 0
        torch.testing.assert_close(x.grad[:, :2], torch.ones(1, 2, 1, 1))
        torch.testing.assert_close(x.grad[:, 2:], 0.5 * noise)


class TestIdentity:
    def test_statistics_are_numpys_whatever_the_batches(self) -> None:
        x = 3.0 * torch.randn(23, 4, 2, 2, generator=generator()) + 1.0
        bottleneck = Identity(IdentityConfig(), 4, 2)
        bottleneck.measure(x.split([1, 10, 2, 10]))
        values = x.numpy().astype(np.float64)
        np.testing.assert_allclose(
            bottleneck.mean.numpy(), values.mean(axis=0), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(bottleneck.var.numpy(), values.var(axis=0), rtol=1e-5)

    def test_variance_survives_a_large_mean(self) -> None:
        # In float32, E[x^2] - E[x]^2 around 1e4 would lose all digits of a variance of 1.
        x = torch.tensor([10_001.0, 9_999.0]).view(2, 1, 1, 1)
        bottleneck = Identity(IdentityConfig(), 1, 1)
        bottleneck.measure(x.split(1))
        assert bottleneck.var.item() == 1.0

    def test_latents_by_hand(self) -> None:
        bottleneck = Identity(IdentityConfig(), 1, 1)
        bottleneck.measure([torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)])  # mean 3, variance 4
        z = bottleneck(torch.tensor([7.0]).view(1, 1, 1, 1)).latents
        assert z.item() == pytest.approx(4 / math.sqrt(4 + 1e-5), rel=1e-6)

    def test_invert_undoes_it(self) -> None:
        x = 2.0 * torch.randn(8, 4, 2, 2, generator=generator()) + 5.0
        bottleneck = Identity(IdentityConfig(), 4, 2)
        bottleneck.measure([x])
        torch.testing.assert_close(bottleneck.invert(bottleneck(x).latents), x)

    def test_statistics_are_part_of_the_state_dict(self) -> None:
        measured, loaded = (Identity(IdentityConfig(), 3, 2) for _ in range(2))
        measured.measure([torch.randn(5, 3, 2, 2, generator=generator())])
        loaded.load_state_dict(measured.state_dict())
        assert torch.equal(loaded.mean, measured.mean)
        assert torch.equal(loaded.var, measured.var)

    def test_no_images_is_an_error(self) -> None:
        with pytest.raises(DataError, match="identity"):
            Identity(IdentityConfig(), 1, 1).measure([])

    @pytest.mark.parametrize("mean", [None, 2.0])
    @pytest.mark.parametrize("var", [None, 9.0])
    def test_what_its_file_lacks_changes_nothing(
        self, tmp_path: Path, mean: float | None, var: float | None
    ) -> None:
        path = tmp_path / "stat.pt"
        values = {"mean": mean, "var": var}
        filled = {key: None if x is None else torch.full((3, 2, 2), x) for key, x in values.items()}
        torch.save(filled, path)
        bottleneck = Identity(IdentityConfig(statistics=str(path)), 3, 2)
        bottleneck.load_pretrained()
        x = torch.randn(5, 3, 2, 2, generator=generator())
        expected = (x - (mean or 0.0)) / (1.0 if var is None else math.sqrt(var + 1e-5))
        torch.testing.assert_close(bottleneck(x).latents, expected)
