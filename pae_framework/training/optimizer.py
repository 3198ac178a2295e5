"""AdamW and its learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from pae_framework.settings import TrainSettings


def build_optimizer(module: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; weight decay on matrices only (not biases, norms)."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = bool(trainable) and trainable[0].is_cuda
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        fused=fused,
    )


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
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
