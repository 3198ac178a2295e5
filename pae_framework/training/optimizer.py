"""AdamW, its learning-rate schedule, and learning-rate factors by prefix of weight names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch
from torch import nn

from pae_framework.errors import UsageError
from pae_framework.training.train_settings import OptimizerSettings

NO_FACTORS: Mapping[str, float] = MappingProxyType({})
FUSED_DEVICES = frozenset({"cpu", "cuda"})

NameComponents = tuple[str, ...]


def build_optimizer(
    module: nn.Module,
    settings: OptimizerSettings,
    lr_factors: Mapping[str, float] = NO_FACTORS,
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; weight decay on matrices only (not biases, norms).

    Parameters with the same learning-rate factor form two groups, matrices first; each group holds
    its factor as ``lr_factor``. Fused if the device supports it, else torch chooses.

    Raises:
        UsageError: a prefix in ``lr_factors`` covers no parameter.
    """
    factors = parameter_factors(module, lr_factors)
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
    """Set each group's learning rate to ``lr`` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def learning_rate(
    step: int, total: int, settings: OptimizerSettings, steps_per_epoch: float = 1.0
) -> float:
    """Learning rate of optimizer step ``step`` (the first is 0) of ``total``.

    Linear warm-up over ``warmup_steps`` (step 0 takes 1/warmup of the peak), then constant; or half
    a cosine or a line from ``lr`` at ``decay_from`` down to ``final_lr * lr`` at ``decay_to``, and
    constant before and after. Without these the decay ends at the last step and starts after the
    warm-up.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    start, end = settings.warmup_steps, total - 1
    if settings.decay_from is not None:
        start = max(start, settings.decay_from.in_steps(steps_per_epoch))
    if settings.decay_to is not None:
        end = settings.decay_to.in_steps(steps_per_epoch)
    share = min(1.0, max(0, step - start) / max(1, end - start))
    low = settings.final_lr * settings.lr
    height = 1 - share if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * share))
    return low + (settings.lr - low) * height


def parameter_factors(module: nn.Module, lr_factors: Mapping[str, float]) -> dict[str, float]:
    """The learning-rate factor of each parameter, by its name; 1 if no prefix covers it.

    A prefix in ``lr_factors`` is one or more whole components of a parameter's name: ``decoder``
    covers ``decoder.norm.weight``, not ``decoder_head.weight``. Objectives wrap what they train
    (``tokenizer.decoder.norm.weight``), so a prefix that no name starts with is tried again behind
    the names' first component. The longest prefix wins.

    Raises:
        UsageError: a prefix covers no parameter; lists the module's prefixes.
    """
    names = {name: tuple(name.split(".")) for name, _ in module.named_parameters()}
    longest: dict[str, tuple[int, float]] = dict.fromkeys(names, (0, 1.0))
    for prefix, factor in lr_factors.items():
        covered = _covered(prefix, names)
        if not covered:
            raise UsageError(
                f"lr_factors.{prefix}: no weight has this prefix; prefixes of this model: "
                f"{_prefixes(names.values())}"
            )
        for name, length in covered.items():
            if length > longest[name][0]:
                longest[name] = (length, factor)
    return {name: factor for name, (_, factor) in longest.items()}


def freeze_parameters(module: nn.Module, lr_factors: Mapping[str, float]) -> None:
    """Freeze the parameters with factor 0: no gradient, no optimizer state, no EMA.

    Raises:
        UsageError: a prefix covers no parameter, or nothing is left to train.
    """
    factors = parameter_factors(module, lr_factors)
    frozen = [p for name, p in module.named_parameters() if factors[name] == 0]
    for parameter in frozen:
        parameter.requires_grad_(False)
    if frozen and not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError("lr_factors freeze all weights; set one above 0")


def _covered(prefix: str, names: Mapping[str, NameComponents]) -> dict[str, int]:
    """Names that a prefix covers, with the number of their components up to its end."""
    wanted = tuple(prefix.split("."))
    for skipped in (0, 1):
        end = skipped + len(wanted)
        covered = {
            name: end for name, components in names.items() if components[skipped:end] == wanted
        }
        if covered:
            break
    return covered


def _prefixes(names: Iterable[NameComponents]) -> str:
    """Prefixes to suggest: modules one and two levels down, without items of lists."""
    modules = {name[:depth] for name in names for depth in (1, 2) if len(name) > depth}
    return ", ".join(sorted(".".join(m) for m in modules if not m[-1].isdigit())) or "none"
