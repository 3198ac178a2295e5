"""Shares of the terms in the loss and in the gradient at the latents, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_fakes import FakeEncoder
from torch import Tensor

from pae_framework.build import build_objective, build_tokenizer
from pae_framework.recipe.models import TokenizerSection
from pae_framework.registry import Registry
from pae_framework.tokenizer.losses.objective import TokenizerObjective
from pae_framework.tokenizer.losses.term_shares import measure_shares
from pae_framework.tokenizer.losses.terms import Ramp, RegularizerTerm
from pae_framework.training.blocks import recompute_blocks
from pae_framework.world import ONE_PROCESS, World

Make = Callable[..., TokenizerObjective]


def by_hand() -> tuple[dict[str, Tensor], Tensor]:
    """Terms of z = (1, 2): 3 z_0, -z_0 z_1, and one that does not depend on z."""
    z = torch.tensor([1.0, 2.0], requires_grad=True)
    free = torch.tensor(5.0, requires_grad=True)
    return {"a": 3 * z[0], "b": -z[0] * z[1], "free": 1 * free}, z


def test_shares_by_hand() -> None:
    """Values 3, -2, 5. Gradients (3, 0) and (-2, -1): norms 3 and the root of 5."""
    terms, z = by_hand()
    root, found = math.sqrt(5), measure_shares(*by_hand(), ONE_PROCESS, 1.0)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {
            **{"loss/a": 0.3, "loss/b": 0.2, "loss/free": 0.5},
            **{"grad/a": 3 / (3 + root), "grad/b": root / (3 + root), "grad/free": 0},
        }
    )
    sum(terms.values()).backward()  # the graph is still there, and no gradient was added
    assert z.grad is not None
    assert z.grad.tolist() == [3 - 2, -1]


def test_terms_of_0_and_latents_without_gradient_have_the_share_0() -> None:
    z = torch.ones(2)
    found = measure_shares({"a": 0 * z.sum(), "b": 0 * z.sum()}, z, ONE_PROCESS, 1.0)
    assert [value.item() for value in found.values()] == [0, 0, 0, 0]


@settings(max_examples=20)
@given(st.lists(st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=5))
def test_each_kind_adds_up_to_1_and_does_not_depend_on_the_scale(factors: list[float]) -> None:
    z = torch.tensor([0.3, -1.2], requires_grad=True)
    results = []
    for scale in (1, 7):
        terms = {f"t{i}": scale * factor * z.square().sum() for i, factor in enumerate(factors)}
        results.append(measure_shares(terms, z, ONE_PROCESS, 1.0))
    for kind in ("loss/", "grad/"):
        shares = [value for name, value in results[0].items() if name.startswith(kind)]
        assert len(shares) == len(factors)
        assert sum(shares).item() == pytest.approx(1, abs=1e-5)
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-5, atol=1e-6)


class Both(World):
    """Two processes, one after the other: sums are what the first sent and what is sent now."""

    def __init__(self) -> None:
        self.sent: list[Tensor] = []

    def sum(self, values: Tensor) -> Tensor:
        self.sent.append(values)
        return torch.stack(self.sent).sum(0)


@pytest.mark.parametrize("first", [1, 3, 5])
def test_processes_that_share_a_batch_measure_its_shares(first: int) -> None:
    """Six images: means over all are the means over both parts, weighted by their images."""
    images = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))

    def terms(z: Tensor) -> dict[str, Tensor]:
        return {"square": z.square().mean(), "cubic": (z**3).mean(), "plain": -z.sum(1).mean()}

    z = images.clone().requires_grad_()
    whole = measure_shares(terms(z), z, ONE_PROCESS, 1.0)
    world = Both()
    for part in images.split([first, 6 - first]):
        z = part.clone().requires_grad_()
        found = measure_shares(terms(z), z, world, len(part) / 6)
    for name, value in whole.items():
        torch.testing.assert_close(found[name], value)


@pytest.fixture
def make(
    section: Callable[..., TokenizerSection], registry: Registry, encoder: FakeEncoder
) -> Make:
    """An objective with aligned, adaptive and continuity terms."""

    def make(**changes: Any) -> TokenizerObjective:
        terms = {"ssr": {"weight": 0.2}, "mcr": {"weight": 0.5}, "vf": {"weight": 0.1}}
        described = section(regularizers=terms, target="raw", **changes)
        torch.manual_seed(2)
        tokenizer = build_tokenizer(described, 16, registry, encoder)
        return build_objective(tokenizer, described, registry)

    return make


def step_of(objective: TokenizerObjective, step: int, images: Tensor) -> dict[str, Tensor]:
    objective.begin_step(step)
    return objective.loss(images, torch.Generator().manual_seed(5))


def test_the_objective_measures_at_the_cadence_and_changes_nothing(
    make: Make, images: Tensor
) -> None:
    """With `log_shares_every: 2`, in the second step, the fourth, and so on."""
    plain, measuring = make(), make(log_shares_every=2)
    for step in range(4):
        expected, found = step_of(plain, step, images), step_of(measuring, step, images)
        shares = {name for name in found if name.startswith(("loss/", "grad/"))}
        terms = expected.keys() - {"loss", "vf_weight"}
        measured = {f"{kind}/{name}" for name in terms for kind in ("loss", "grad")}
        assert shares == (measured if step % 2 else set())
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        expected["loss"].backward()
        found["loss"].backward()
        pairs = zip(plain.parameters(), measuring.parameters(), strict=True)
        assert all(a.grad is None or torch.equal(a.grad, b.grad) for a, b in pairs)


def test_recomputed_activations_give_the_same_shares(make: Make, images: Tensor) -> None:
    objective = make(log_shares_every=1)
    expected = step_of(objective, 0, images)
    recompute_blocks(objective)
    found = step_of(objective, 0, images)
    found["loss"].backward()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_a_weight_multiplies_the_odds_of_its_term(make: Make, images: Tensor) -> None:
    """Against the other terms, a term of four times the weight has four times the share."""
    found = []
    for weight in (0.2, 0.8):
        objective = make(log_shares_every=1)
        (term,) = [term for term in objective.terms if term.name == "ssr"]
        assert isinstance(term, RegularizerTerm)
        term.ramp = Ramp(last=weight)
        found.append(step_of(objective, 0, images))
    for kind in ("loss", "grad"):
        low, high = ((x[f"{kind}/ssr"] / x[f"{kind}/mcr"]).item() for x in found)
        assert high == pytest.approx(4 * low, rel=1e-4)
        assert low > 0
