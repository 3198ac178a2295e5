"""The weight average, by hand."""

from __future__ import annotations

import torch
from torch import nn

from pae_framework.training.ema import EMA


def module_with(value: float) -> nn.Module:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, value)
    return module


def test_the_average_moves_by_one_minus_decay():
    module = module_with(1.0)
    ema = EMA(module, decay=0.75)
    nn.init.constant_(module.weight, 3.0)
    ema.update()  # 0.75 * 1 + 0.25 * 3
    assert ema.state_dict()["weight"].item() == 1.5
    ema.update()  # 0.75 * 1.5 + 0.25 * 3
    assert ema.state_dict()["weight"].item() == 1.875


def test_average_is_a_copy_not_a_view():
    module = module_with(1.0)
    ema = EMA(module, decay=0.9)
    nn.init.constant_(module.weight, 5.0)
    assert ema.state_dict()["weight"].item() == 1.0


def test_frozen_parameters_are_not_averaged():
    module = nn.Sequential(module_with(1.0), module_with(2.0))
    module[1].requires_grad_(False)
    assert list(EMA(module, 0.9).state_dict()) == ["0.weight"]


def test_state_is_restored():
    ema = EMA(module_with(1.0), 0.9)
    ema.load_state_dict({"weight": torch.tensor([[7.0]])})
    assert ema.state_dict()["weight"].item() == 7.0
