"""FeatureMSE: the value by hand, what it ignores, the projection."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Posterior, RegularizerInputs
from pae_regularizers.config import FeatureMSEConfig
from pae_regularizers.matching import FeatureMSE


def feature_mse(channels: int, width: int) -> FeatureMSE:
    term = FeatureMSE(FeatureMSEConfig())
    term.prepare(LatentShape(channels, 2), width, None)
    return term


def inputs(posterior: Posterior, features: Tensor) -> RegularizerInputs:
    """The other fields are not looked at."""
    empty = torch.zeros(1)
    return RegularizerInputs(
        images=empty,
        reconstruction=empty,
        features=features,
        posterior=posterior,
        target=None,
        decode=lambda z: z,
        distance=lambda a, b: (a - b).abs().mean(),
        generator=torch.Generator(),
    )


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Normalized vectors have mean square 1, so the term is 2 (1 - cos), whatever their lengths.
@pytest.mark.parametrize(
    ("feature", "value"), [((5, 0), 0), ((0, 0.5), 2), ((-3, 0), 4), ((1, 1), 2 - 2**0.5)]
)
def test_by_hand(feature: tuple[float, float], value: float) -> None:
    latents = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    found = feature_mse(2, 2)(inputs(Posterior(latents), torch.tensor([[feature]]).float()))
    assert found.item() == pytest.approx(value, abs=1e-4)


def test_tokens_are_compared_at_their_own_positions() -> None:
    latents = random(2, 3, 2, 2)
    features = latents.flatten(2).mT  # (B, N, C)
    term = feature_mse(3, 3)
    assert term(inputs(Posterior(latents), features)).item() == pytest.approx(0, abs=1e-6)
    assert term(inputs(Posterior(latents), features.flip(1))) > 0.1


def test_noise_of_the_bottleneck_is_ignored() -> None:
    mean, noisy, features = random(1, 3, 2, 2), random(1, 3, 2, 2, seed=1), random(1, 4, 3, seed=2)
    term = feature_mse(3, 3)
    found = term(inputs(Posterior(noisy, mean), features))
    assert torch.equal(found, term(inputs(Posterior(mean), features)))


def test_latents_are_projected_to_features_of_another_width() -> None:
    term = feature_mse(3, 5)
    assert isinstance(term.project, nn.Conv2d)
    assert term.project.weight.shape == (5, 3, 1, 1)
    assert term.project.bias is None
    latents = random(1, 3, 2, 2).requires_grad_()
    term(inputs(Posterior(latents), random(1, 4, 5, seed=1))).backward()
    assert latents.grad is not None
    assert latents.grad.any()
    assert not list(feature_mse(3, 3).parameters())
