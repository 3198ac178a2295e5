"""Reconstruction terms: each by its own definition, and none that has no weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizer_fakes import FakeEncoder
from torch import Tensor

from pae_framework.build import build_networks
from pae_framework.dry_run.flops import count_forward
from pae_framework.preflight.memory import training_memory
from pae_framework.recipe.checks.loss_checks import RESERVED, label_problem
from pae_framework.recipe.load import load_recipe
from pae_framework.tokenizer.losses import reconstruction
from pae_framework.tokenizer.losses.lpips import build_lpips
from pae_framework.tokenizer.losses.perceptual import PerceptualDistance
from pae_framework.tokenizer.losses.reconstruction import ReconstructionTerms, total
from pae_framework.tokenizer.tokenizer_settings import ReconstructionSettings


def terms(encoder: FakeEncoder, **values: Any) -> ReconstructionTerms:
    return ReconstructionTerms(ReconstructionSettings.model_validate(values), encoder)


ALL = {"l1": 2.0, "perceptual": {"weight": 3.0}, "lpips": {"weight": 0.5, "weights": "none"}}


def test_every_term_by_its_definition(encoder: FakeEncoder, images: Tensor) -> None:
    module = terms(encoder, **ALL)
    other = torch.rand_like(images)
    found = module.comparison()(images, other)
    lpips = build_lpips(ReconstructionSettings.model_validate(ALL).lpips)
    expected = {
        "l1": 2 * (images - other).abs().mean(),
        "perceptual": 3 * PerceptualDistance(encoder)(images, other).mean(),
        "lpips": 0.5 * lpips(images, other).mean(),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    torch.testing.assert_close(total(found, images), sum(expected.values()))


def test_every_term_is_described_and_its_name_reserved() -> None:
    """What a new term must bring: a key of the settings and a row in the table."""
    described = ReconstructionSettings().terms
    assert list(described) == list(reconstruction.TERMS)
    for name, settings in described.items():
        assert label_problem(name, RESERVED) is not None
        assert settings.smallest_image >= 1
        assert hasattr(settings, "missing") is (name == "lpips")


@pytest.mark.parametrize("name", reconstruction.TERMS)
def test_every_term_that_is_on_is_counted_in_memory_and_operations(name: str) -> None:
    alone = ["tokenizer.reconstruction.perceptual.weight=0", "tokenizer.regularizers={}"]
    weight = f"tokenizer.reconstruction.{name}" + ("=1" if name == "l1" else ".weight=1")
    none = load_recipe("quickstart", alone)  # but l1, which costs nothing
    one = load_recipe("quickstart", [*alone, weight])
    size, settings = one.recipe.data.image_size, one.recipe.tokenizer.reconstruction
    assert list(settings.active_terms) == list(dict.fromkeys(["l1", name]))
    term = settings.active_terms[name]

    networks = build_networks(one.recipe, one.registry, 10)
    *_, flops = count_forward(networks, one.recipe).compare
    assert (flops > 0) == (name != "l1")
    before, after = (
        next(stage for stage in training_memory(loaded.recipe) if stage.stage == "tokenizer")
        for loaded in (none, one)
    )
    kept = term.activations(one.recipe.tokenizer.encoder.config, size)
    assert kept is not None
    assert after.activations - before.activations == after.images * kept * 4


def test_what_has_weight_0_is_neither_built_nor_computed(
    encoder: FakeEncoder, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("built")

    for name in reconstruction.TERMS:
        monkeypatch.setitem(reconstruction.TERMS, name, refuse)
    module = terms(encoder, l1=0.0, perceptual={"weight": 0.0}, lpips={"weight": 0.0})
    assert module.comparison()(images, images) == {}
    assert total({}, images).item() == 0.0
    with pytest.raises(AssertionError, match="built"):
        terms(encoder, perceptual={"weight": 0.0}, lpips={"weight": 1.0, "weights": "none"})


def test_within_a_step_no_image_is_described_twice(encoder: FakeEncoder, images: Tensor) -> None:
    module = terms(encoder, **ALL)
    calls = []
    module.lpips.network[0].register_forward_hook(lambda *_: calls.append(1))
    compare = module.comparison()
    other = torch.rand_like(images)
    first = compare(images, other)["lpips"]
    assert torch.equal(compare(other, images)["lpips"], first)
    assert (len(calls), encoder.map_calls) == (2, 2)
    module.comparison()(images, other)
    assert (len(calls), encoder.map_calls) == (4, 4)


def test_networks_are_frozen_and_in_no_checkpoint(encoder: FakeEncoder, images: Tensor) -> None:
    module = terms(encoder, **ALL).train()
    assert not module.state_dict()
    assert not list(module.parameters())
    assert not module.lpips.training
    other = torch.rand_like(images).requires_grad_()
    total(module.comparison()(other, images), images).backward()
    assert other.grad is not None
    assert other.grad.any()
    assert all(p.grad is None for p in module.lpips.parameters())


def test_networks_follow_the_terms(encoder: FakeEncoder) -> None:
    module = terms(encoder, **ALL).double()
    assert next(module.lpips.parameters()).dtype == torch.float64
    assert module.lpips.mean.dtype == torch.float64
