from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from pae_framework.contracts import Posterior, RegularizerInputs
from pae_regularizers.config import KLConfig
from pae_regularizers.kl import KL


def inputs(mean: Tensor | None, logvar: Tensor | None) -> RegularizerInputs:
    empty = torch.zeros(1)
    return RegularizerInputs(
        images=empty,
        reconstruction=empty,
        features=empty,
        posterior=Posterior(empty if mean is None else mean, mean, logvar),
        target=None,
        decode=lambda z: z,
        distance=lambda a, b: (a - b).abs().mean(),
        generator=torch.Generator(),
    )


def test_values_by_hand() -> None:
    # mean 2, variance 1: 4/2. mean 0, variance e: (e - 2)/2. Standard normal: 0.
    mean = torch.tensor([2.0, 0.0, 0.0]).view(1, 3, 1, 1)
    logvar = torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)
    total = 2 + (math.e - 2) / 2
    assert KL(KLConfig())(inputs(mean, logvar)).item() == pytest.approx(total / 3, rel=1e-6)
    value = KL(KLConfig(reduction="sum"))(inputs(mean, logvar)).item()
    assert value == pytest.approx(total, rel=1e-6)


def test_sum_is_per_image_and_its_mean_over_the_batch() -> None:
    mean = torch.tensor([2.0, 4.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)  # 4 entries: 2, then 8
    value = KL(KLConfig(reduction="sum"))(inputs(mean, torch.zeros(2, 1, 2, 2)))
    assert value.item() == pytest.approx((4 * 2 + 4 * 8) / 2)


def test_agrees_with_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 2, 3, 4, 4, generator=generator)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(KL(KLConfig())(inputs(mean, logvar)), expected)


def test_gradient_by_hand() -> None:
    # d/d mean = mean, d/d logvar = (var - 1) / 2, over the number of entries
    mean = torch.tensor([3.0, -1.0]).view(1, 2, 1, 1).requires_grad_()
    logvar = torch.tensor([math.log(5.0), 0.0]).view(1, 2, 1, 1).requires_grad_()
    KL(KLConfig())(inputs(mean, logvar)).backward()
    assert mean.grad is not None
    assert logvar.grad is not None
    assert mean.grad.flatten().tolist() == pytest.approx([1.5, -0.5])
    assert logvar.grad.flatten().tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_it_needs_a_bottleneck_with_moments() -> None:
    assert KLConfig.needs_moments
    with pytest.raises(AssertionError):
        KL(KLConfig())(inputs(None, None))
