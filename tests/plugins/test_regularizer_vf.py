"""VF: value and gradient by hand on two tokens in the plane, margins, the projection."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pae_framework.config import LatentShape
from pae_framework.contracts import Posterior, RegularizerInputs
from pae_regularizers.config import VFConfig
from pae_regularizers.foundation import VF


def vf(channels: int, width: int, **parameters: Any) -> VF:
    """A prepared term with margins 0, unless stated."""
    margins = {"distance_margin": 0.0, "cosine_margin": 0.0}
    term = VF(VFConfig.model_validate(margins | parameters))
    term.prepare(LatentShape(channels, 2), width, None)
    return term


def projection(term: VF) -> nn.Conv2d:
    assert isinstance(term.project, nn.Conv2d)
    return term.project


def inputs(latents: Tensor, features: Tensor) -> RegularizerInputs:
    """Latents (B, C, h, w) and features (B, N, D); the other fields are not looked at."""
    empty = torch.zeros(1)
    return RegularizerInputs(
        images=empty,
        reconstruction=empty,
        features=features,
        posterior=Posterior(latents),
        target=None,
        decode=lambda z: z,
        distance=lambda a, b: (a - b).abs().mean(),
        generator=torch.Generator(),
    )


def at_60_degrees(**parameters: Any) -> tuple[float, float]:
    """Value and slope where z' are e1 and (cos a, sin a), a = 60 degrees, and f are e1, e2.

    The projection is the identity, the tokens are 2 and 3 long.
    """
    angle = torch.tensor(math.pi / 3, requires_grad=True)
    turned = 3 * torch.stack([angle.cos(), angle.sin()])
    latents = torch.stack([torch.tensor([2.0, 0.0]), turned], dim=1).view(1, 2, 1, 2)
    term = vf(2, 2, **parameters)
    projection(term).weight.data = torch.eye(2).view(2, 2, 1, 1)
    value = term(inputs(latents, 5 * torch.eye(2)[None]))
    value.backward()
    assert angle.grad is not None
    return value.item(), angle.grad.item()


COS, SIN = 0.5, math.sqrt(3) / 2


class TestByHand:
    # Cosines among z': 1, cos a, cos a, 1; among f: 1, 0, 0, 1. So two of four pairs differ, by
    # cos a: L_distance = relu(cos a - m_d) / 2, slope -sin a / 2.
    @pytest.mark.parametrize(
        ("margin", "value", "slope"),
        [(0.0, COS / 2, -SIN / 2), (0.25, (COS - 0.25) / 2, -SIN / 2), (0.6, 0.0, 0.0)],
    )
    def test_distances(self, margin: float, value: float, slope: float) -> None:
        found = at_60_degrees(cosine_weight=0.0, distance_margin=margin)
        assert found == (pytest.approx(value, rel=1e-5), pytest.approx(slope, rel=1e-5))

    # cos(f_i, z'_i): 1 and sin a. L_cosine = relu(1 - m_c - sin a) / 2, slope -cos a / 2; the
    # first token is always within its margin.
    @pytest.mark.parametrize(
        ("margin", "value", "slope"),
        [(0.0, (1 - SIN) / 2, -COS / 2), (0.1, (0.9 - SIN) / 2, -COS / 2), (0.5, 0.0, 0.0)],
    )
    def test_directions(self, margin: float, value: float, slope: float) -> None:
        found = at_60_degrees(distance_weight=0.0, cosine_margin=margin)
        assert found == (pytest.approx(value, rel=1e-4), pytest.approx(slope, abs=1e-6, rel=1e-4))

    def test_weights_add_them_up(self) -> None:
        value, slope = at_60_degrees(distance_weight=3.0, cosine_weight=0.5)
        assert value == pytest.approx(3 * COS / 2 + 0.5 * (1 - SIN) / 2, rel=1e-5)
        assert slope == pytest.approx(-3 * SIN / 2 - 0.5 * COS / 2, rel=1e-5)

    def test_directions_that_disagree_without_reaching_a_margin_cost_the_whole_angle(self) -> None:
        # z' opposite to f: cosines -1, so 1 - m_c + 1; cosines among tokens are the same.
        term = vf(3, 3, cosine_margin=0.5)
        projection(term).weight.data = -torch.eye(3).view(3, 3, 1, 1)
        features = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
        value = term(inputs(features.mT.reshape(2, 3, 2, 2), features))
        assert value.item() == pytest.approx(1.5, rel=1e-5)


def test_agrees_with_numpy_in_float64() -> None:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 4, 3, 3, generator=generator)
    features = torch.randn(2, 9, 6, generator=generator)
    term = vf(4, 6, distance_margin=0.2, cosine_margin=0.3, distance_weight=2.0)
    weight = projection(term).weight.detach().double().numpy()[:, :, 0, 0]

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    z = latents.double().numpy().reshape(2, 4, 9).transpose(0, 2, 1)
    z, f = unit(z @ weight.T), unit(features.double().numpy())
    apart = np.abs(np.einsum("bic,bjc->bij", z, z) - np.einsum("bic,bjc->bij", f, f))
    directions = 1 - 0.3 - np.einsum("bic,bic->bi", z, f)
    expected = 2 * np.maximum(apart - 0.2, 0).mean() + np.maximum(directions, 0).mean()
    assert term(inputs(latents, features)).item() == pytest.approx(expected, rel=1e-5)


def test_latents_and_projection_learn_and_features_do_not() -> None:
    term = vf(4, 6)
    latents = torch.randn(2, 4, 2, 2, requires_grad=True)
    term(inputs(latents, torch.randn(2, 4, 6))).backward()
    assert latents.grad is not None
    assert latents.grad.any()
    weights = dict(term.named_parameters())
    assert {name: tuple(w.shape) for name, w in weights.items()} == {"project.weight": (6, 4, 1, 1)}
    gradient = weights["project.weight"].grad
    assert gradient is not None
    assert gradient.any()


def test_the_adaptive_weight_is_left_to_the_engine() -> None:
    assert VF(VFConfig()).adaptive
    assert not VF(VFConfig(adaptive=False)).adaptive


def test_margins_are_va_vaes_last_ones() -> None:
    config = VFConfig()
    assert (config.distance_margin, config.cosine_margin) == (0.25, 0.5)
    assert (config.distance_weight, config.cosine_weight) == (1.0, 1.0)


def test_a_term_without_a_part_is_refused() -> None:
    with pytest.raises(ValidationError, match="`weight: 0`"):
        VFConfig(distance_weight=0, cosine_weight=0)


def test_it_needs_neither_targets_nor_moments() -> None:
    assert not VFConfig.needs_target
    assert not VFConfig.needs_moments
