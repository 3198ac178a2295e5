"""The learning-rate schedule and the parameter groups, by hand."""

from __future__ import annotations

import pytest
from torch import nn

from pae_framework.settings import TrainSettings
from pae_framework.training.optimizer import build_optimizer, learning_rate


def test_warm_up_is_linear_and_ends_at_the_peak():
    settings = TrainSettings(steps=100, lr=0.8, warmup_steps=4, schedule="constant")
    rates = [learning_rate(step, 100, settings) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_cosine_goes_from_the_peak_over_the_middle_to_the_final_share():
    settings = TrainSettings(steps=11, lr=1.0, schedule="cosine", final_lr=0.2)
    assert learning_rate(0, 11, settings) == pytest.approx(1.0)
    assert learning_rate(5, 11, settings) == pytest.approx(0.6)  # (1 + 0.2) / 2
    assert learning_rate(10, 11, settings) == pytest.approx(0.2)


def test_a_training_of_one_step_has_a_rate():
    settings = TrainSettings(steps=1, lr=0.5)
    assert learning_rate(0, 1, settings) == pytest.approx(0.5)


def test_only_matrices_decay_and_frozen_parameters_are_left_out():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module[2].requires_grad_(False)
    optimizer = build_optimizer(module, TrainSettings(steps=1, weight_decay=0.1))
    decaying, plain = optimizer.param_groups
    assert (decaying["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [tuple(p.shape) for p in decaying["params"]] == [(4, 3)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (4,)]


def test_epochs_become_steps():
    settings = TrainSettings(epochs=2, batch_size=50)
    assert settings.total_steps(1000) == 40
    assert settings.total_steps(10) == 1  # never none


@pytest.mark.parametrize("lengths", [{}, {"steps": 3, "epochs": 1}])
def test_exactly_one_length_is_asked_for(lengths):
    with pytest.raises(ValueError, match="either `steps` or `epochs`"):
        TrainSettings(**lengths)
