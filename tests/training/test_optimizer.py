"""The learning-rate schedule and the parameter groups, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from pae_framework.config import Length
from pae_framework.training.optimizer import (
    build_optimizer,
    learning_rate,
    set_learning_rate,
)
from pae_framework.training.train_settings import OptimizerSettings, TrainSettings


def test_warm_up_is_linear_and_ends_at_the_peak():
    settings = TrainSettings(steps=100, lr=0.8, warmup_steps=4, schedule="constant")
    rates = [learning_rate(step, 100, settings) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_cosine_decays_from_the_peak_to_the_final_share():
    settings = TrainSettings(steps=11, lr=1.0, schedule="cosine", final_lr=0.2)
    assert learning_rate(0, 11, settings) == pytest.approx(1.0)
    assert learning_rate(5, 11, settings) == pytest.approx(0.6)  # (1 + 0.2) / 2
    assert learning_rate(10, 11, settings) == pytest.approx(0.2)


def test_a_training_of_one_step_has_a_rate():
    settings = TrainSettings(steps=1, lr=0.5)
    assert learning_rate(0, 1, settings) == pytest.approx(0.5)


def test_a_line_holds_before_and_after_its_decay():
    settings = OptimizerSettings(
        lr=1.0,
        schedule="linear",
        final_lr=0.2,
        warmup_steps=2,
        decay_from=Length(steps=4),
        decay_to=Length(steps=8),
    )
    rates = [learning_rate(step, 11, settings) for step in range(11)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])


def test_without_ends_a_line_goes_from_the_warm_up_to_the_last_step():
    settings = OptimizerSettings(lr=1.0, schedule="linear", final_lr=0, warmup_steps=1)
    rates = [learning_rate(step, 6, settings) for step in range(6)]
    assert rates == pytest.approx([1, 1, 0.75, 0.5, 0.25, 0])


def test_raes_generator_decays_between_epochs_40_and_800():
    epoch = 1_281_167 / 1024
    settings = OptimizerSettings(
        lr=2e-4,
        schedule="linear",
        final_lr=0.1,
        decay_from=Length(epochs=40),
        decay_to=Length(epochs=800),
    )
    rates = [
        learning_rate(round(passes * epoch), round(1400 * epoch), settings, epoch)
        for passes in (0, 40, 420, 800, 1399)
    ]
    assert rates == pytest.approx([2e-4, 2e-4, 1.1e-4, 2e-5, 2e-5], rel=1e-4)


def test_a_cosine_that_the_training_does_not_finish():
    settings = OptimizerSettings(lr=1.0, final_lr=0, decay_to=Length(steps=8))
    assert [learning_rate(step, 5, settings) for step in (0, 4)] == pytest.approx([1, 0.5])


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "constant", "decay_from": {"steps": 4}},
        {"schedule": "constant", "decay_to": {"epochs": 4}},
        {"schedule": "linear", "decay_from": {"steps": 4}, "decay_to": {"steps": 4}},
        {"schedule": "linear", "decay_from": {"epochs": 9}, "decay_to": {"epochs": 2}},
        {"schedule": "linear", "warmup_steps": 5, "decay_from": {"steps": 4}},
        {"schedule": "cosine", "warmup_steps": 5, "decay_to": {"steps": 5}},
        {"schedule": "cosine", "decay_to": {"steps": 0}},
    ],
)
def test_a_decay_without_effect_or_order_is_rejected(settings: dict[str, Any]):
    with pytest.raises(ValidationError, match="decay"):
        OptimizerSettings.model_validate(settings)


LENGTHS = st.integers(1, 12)


@given(
    st.sampled_from(["constant", "cosine", "linear"]),
    st.integers(0, 3),
    st.sampled_from([0.1, 1.0]),
    st.none() | st.integers(3, 5),
    st.none() | st.integers(6, 20),
    LENGTHS,
    st.lists(LENGTHS, min_size=2, max_size=2),
)
def test_rates_that_do_not_depend_on_the_length_are_the_same_in_every_training(
    schedule: str,
    warmup: int,
    final: float,
    start: int | None,
    end: int | None,
    steps: int,
    lengths: list[int],
):
    decays = schedule != "constant"
    settings = OptimizerSettings(
        schedule=schedule,
        warmup_steps=warmup,
        final_lr=final,
        decay_from=None if start is None or not decays else Length(steps=start),
        decay_to=None if end is None or not decays else Length(steps=end),
    )
    if not settings.rates_depend_on_length(steps):
        one, other = ([learning_rate(x, n, settings) for x in range(steps)] for n in lengths)
        assert one == other


def test_rates_of_a_cosine_depend_on_the_length_after_the_warm_up():
    settings = OptimizerSettings(schedule="cosine", warmup_steps=3)
    assert not settings.rates_depend_on_length(3)
    assert settings.rates_depend_on_length(5)
    assert learning_rate(4, 8, settings) != learning_rate(4, 9, settings)


def test_only_matrices_decay_and_frozen_parameters_are_left_out():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module[2].requires_grad_(False)
    optimizer = build_optimizer(module, TrainSettings(steps=1, weight_decay=0.1))
    decaying, plain = optimizer.param_groups
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decaying["params"]] == [(4, 3)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (4,)]


def test_each_factor_has_groups_of_its_own_and_multiplies_every_learning_rate():
    module = nn.ModuleDict({"head": nn.Linear(3, 4), "tail": nn.Linear(4, 2)})
    optimizer = build_optimizer(
        module, TrainSettings(steps=1, lr=0.5, weight_decay=0.1), {"tail": 0.2}
    )
    groups = [
        ([tuple(p.shape) for p in g["params"]], g["weight_decay"], g["lr"])
        for g in optimizer.param_groups
    ]
    assert groups == [
        ([(4, 3)], 0.1, 0.5),
        ([(4,)], 0.0, 0.5),
        ([(2, 4)], 0.1, 0.1),
        ([(2,)], 0.0, 0.1),
    ]
    set_learning_rate(optimizer, 0.1)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.1, 0.1, 0.02, 0.02])


def test_a_factor_scales_the_step():
    """AdamW's first step is lr * sign(gradient)."""
    module = nn.ParameterDict(
        {"a": nn.Parameter(torch.zeros(1)), "b": nn.Parameter(torch.zeros(1))}
    )
    optimizer = build_optimizer(module, TrainSettings(steps=1), {"b": 0.25})
    set_learning_rate(optimizer, 0.4)
    (module["a"] + module["b"]).sum().backward()
    optimizer.step()
    assert module["a"].item() == pytest.approx(-0.4, rel=1e-5)
    assert module["b"].item() == pytest.approx(-0.1, rel=1e-5)


def test_the_fused_step_is_the_plain_one():
    plain = nn.Linear(3, 4)
    fused = nn.Linear(3, 4)
    fused.load_state_dict(plain.state_dict())
    settings = TrainSettings(steps=1, lr=0.1, weight_decay=0.1)
    optimizers = [build_optimizer(module, settings) for module in (plain, fused)]
    for group in optimizers[0].param_groups:
        group["fused"] = False
    assert optimizers[1].defaults["fused"]
    for _ in range(5):
        x = torch.randn(2, 3)
        for module, optimizer in zip((plain, fused), optimizers, strict=True):
            module(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(plain.weight, fused.weight, atol=1e-6)


def test_without_a_fused_step_torch_chooses():
    module = nn.Linear(3, 4, device="meta")
    assert not build_optimizer(module, TrainSettings(steps=1)).defaults["fused"]


def test_epochs_become_steps():
    settings = TrainSettings(epochs=2, batch_size=50)
    assert settings.total_steps(1000) == 40
    assert settings.total_steps(10) == 1  # never none


@pytest.mark.parametrize("lengths", [{}, {"steps": 3, "epochs": 1}])
def test_exactly_one_length_is_required(lengths):
    with pytest.raises(ValueError, match=r"`steps`.*`epochs`"):
        TrainSettings(**lengths)
