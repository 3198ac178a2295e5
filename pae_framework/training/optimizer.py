"""AdamW and its learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import nn

from pae_framework.training.lr_factors import factors_by_name
from pae_framework.training.train_settings import OptimizerSettings

NO_FACTORS: Mapping[str, float] = MappingProxyType({})
FUSED_DEVICES = frozenset({"cpu", "cuda"})


def build_optimizer(
    module: nn.Module,
    settings: OptimizerSettings,
    lr_factors: Mapping[str, float] = NO_FACTORS,
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; weight decay on matrices only (not biases, norms).

    Parameters with the same factor of the learning rate make two groups, matrices first; each has
    its factor as ``lr_factor``. Fused where the device has that, else as torch chooses.

    Raises:
        UsageError: ``lr_factors`` names a part that the module does not have.
    """
    factors = factors_by_name(module, lr_factors)
    by_factor: dict[float, list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            by_factor.setdefault(factors[name], []).append(parameter)
    groups = []
    for factor, members in by_factor.items():
        shared = {"lr_factor": factor, "lr": factor * settings.lr}
        matrices = [p for p in members if p.ndim >= 2]
        others = [p for p in members if p.ndim < 2]
        groups.append({"params": matrices, "weight_decay": settings.weight_decay, **shared})
        groups.append({"params": others, "weight_decay": 0.0, **shared})
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        fused=_can_fuse(module.parameters()),
    )


def _can_fuse(parameters: Iterable[nn.Parameter]) -> bool:
    trainable = [p for p in parameters if p.requires_grad]
    return all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in trainable)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give each group ``lr`` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def learning_rate(step: int, total: int, settings: OptimizerSettings) -> float:
    """Learning rate of optimiser step ``step`` (the first is 0) of ``total``.

    Linear warm-up over ``warmup_steps`` (step 0 takes 1/warmup of the peak), then constant, or half
    a cosine from ``lr`` down to ``final_lr * lr`` at the last step.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    span = max(1, total - 1 - settings.warmup_steps)
    share = min(1.0, (step - settings.warmup_steps) / span)
    low = settings.final_lr * settings.lr
    return low + (settings.lr - low) * 0.5 * (1 + math.cos(math.pi * share))
