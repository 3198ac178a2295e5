"""Adaptive weights on a layer whose gradients can be seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pae_framework.errors import UsageError
from pae_framework.tokenizer.losses.adaptive_weight import (
    ADVERSARIAL_BOUNDS,
    REGULARIZER_BOUNDS,
    Bounds,
    gradient_norm,
)


@pytest.fixture
def layer() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, 2.0]))


def factor(reconstruction: Tensor, term: Tensor, layer: nn.Parameter, bounds: Bounds) -> Tensor:
    return bounds.factor(
        gradient_norm(reconstruction, layer, "the reconstruction"), gradient_norm(term, layer, "it")
    )


def linear(layer: nn.Parameter, *factors: float) -> Tensor:
    """A scalar whose gradient at the layer is ``factors``."""
    return (layer * torch.tensor(factors)).sum()


def test_the_factor_is_the_ratio_of_gradient_lengths(layer: nn.Parameter) -> None:
    bounds, reconstruction = Bounds(eps=1e-6, most=1e4), linear(layer, 3, 4)
    half = factor(reconstruction, linear(layer, 6, 8), layer, bounds)
    assert half.item() == pytest.approx(5 / 10, rel=1e-6)
    tenfold = factor(reconstruction, linear(layer, 0, 0.5), layer, bounds)
    assert tenfold.item() == pytest.approx(5 / 0.500001)


@pytest.mark.parametrize(
    ("bounds", "expected"), [(ADVERSARIAL_BOUNDS, 1e4), (REGULARIZER_BOUNDS, 5e4)]
)
def test_of_a_term_with_no_slope_it_is_bounded(
    layer: nn.Parameter, bounds: Bounds, expected: float
) -> None:
    """5 / 1e-6 exceeds the 1e4 of RAE; 5 / 1e-4 stays below the 1e8 of VA-VAE."""
    found = factor(linear(layer, 3, 4), linear(layer, 0, 0), layer, bounds)
    assert found.item() == pytest.approx(expected)


def test_of_a_reconstruction_with_no_slope_it_is_0(layer: nn.Parameter) -> None:
    found = factor(linear(layer, 0, 0), linear(layer, 3, 4), layer, ADVERSARIAL_BOUNDS)
    assert found.item() == 0.0


def test_it_carries_no_gradient_and_leaves_none(layer: nn.Parameter) -> None:
    reconstruction, term = linear(layer, 3, 4), linear(layer, 6, 8)
    weight = factor(reconstruction, term, layer, ADVERSARIAL_BOUNDS)
    assert not weight.requires_grad
    assert layer.grad is None
    (reconstruction + weight * term).backward()  # the graphs are still there
    assert layer.grad is not None
    # the term's share of the gradient is as long as the reconstruction's
    torch.testing.assert_close(layer.grad, torch.tensor([3.0, 4.0]) * 2, rtol=1e-5, atol=0)


def test_what_has_no_gradient_at_the_layer_is_refused(layer: nn.Parameter) -> None:
    other = nn.Parameter(torch.ones(2))
    for term in (torch.tensor(1.0), linear(other, 1, 1)):
        with pytest.raises(UsageError, match="'vf'"):
            gradient_norm(term, layer, "the term 'vf'")
    layer.requires_grad_(False)
    with pytest.raises(UsageError, match="lr_factors"):
        gradient_norm(linear(other, 1, 1) + linear(layer, 1, 1), layer, "it")
