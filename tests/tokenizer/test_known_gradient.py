"""Scalars whose gradient at the images is computed once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pae_framework.tokenizer.losses.known_gradient import with_known_gradients


class Counted(torch.autograd.Function):
    """The mean square; counts its backward passes."""

    passes = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square().mean()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        Counted.passes += 1
        return outer[0] * 2 * ctx.saved_tensors[0] / ctx.saved_tensors[0].numel()


def scalars(x: Tensor) -> dict[str, Tensor]:
    return {"square": Counted.apply(x), "sine": x.sin().mean()}


@pytest.fixture
def weight() -> Tensor:
    return torch.tensor([0.3, -1.2, 2.0], requires_grad=True)


def images(weight: Tensor) -> Tensor:
    return (weight * torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]])).cos()


@pytest.mark.parametrize("seed", [1.0, 0.5, 4.0])
def test_values_and_gradients_are_the_same_bits(weight: Tensor, seed: float) -> None:
    """Scaled by a power of two; in the order of the reference implementation, the last first."""
    results = []
    for ways in (scalars, lambda x: with_known_gradients(scalars, x)):
        terms = ways(images(weight))
        total = seed * torch.stack(list(terms.values())).sum()
        results.append((terms, torch.autograd.grad(total, weight)[0]))
    (plain, expected), (known, found) = results
    assert torch.equal(found, expected)
    assert list(known) == list(plain)
    for name, value in plain.items():
        assert torch.equal(known[name], value)


def test_any_other_factor_changes_the_rounding_only(weight: Tensor) -> None:
    (expected,) = torch.autograd.grad(0.7 * scalars(images(weight))["sine"], weight)
    known = with_known_gradients(scalars, images(weight))["sine"]
    (found,) = torch.autograd.grad(0.7 * known, weight)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_the_way_back_is_gone_once(weight: Tensor) -> None:
    Counted.passes = 0
    value = with_known_gradients(scalars, images(weight))["square"]
    for _ in range(3):
        torch.autograd.grad(value, weight, retain_graph=True)
    assert Counted.passes == 1


def test_a_share_weights_what_other_processes_add() -> None:
    """A sum over processes adds the others' gradients, which are weighted by their shares."""
    others = torch.tensor([10.0, 20.0])

    class SumsGradients(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.sum()

        @staticmethod
        def backward(ctx: Any, *outer: Tensor) -> Tensor:
            return outer[0] + others

    x = torch.zeros(2, requires_grad=True)
    value = with_known_gradients(lambda y: {"it": SumsGradients.apply(y)}, x, share=0.25)["it"]
    (found,) = torch.autograd.grad(0.25 * value, x)
    assert torch.equal(found, 0.25 + others)


def test_a_scalar_of_something_else_has_no_gradient(weight: Tensor) -> None:
    constant, other = torch.tensor(3.0), torch.tensor(2.0, requires_grad=True)
    found = with_known_gradients(lambda x: {"a": constant, "b": 2 * other}, images(weight))
    assert [value.item() for value in found.values()] == [3, 4]
    assert not any(value.requires_grad for value in found.values())


def test_without_gradients_nothing_is_known(weight: Tensor) -> None:
    with torch.no_grad():
        found = with_known_gradients(scalars, images(weight))
    assert not any(value.requires_grad for value in found.values())
    still = with_known_gradients(scalars, torch.ones(2, 3))
    assert still["square"].item() == 1
