"""Learning rates per part: which weights a part of a model names.

A part is one or more whole components at the beginning of a weight's name: ``decoder`` has
``decoder.norm.weight``, not ``decoder_head.weight``. Objectives wrap what they train
(``tokenizer.decoder.norm.weight``), so a part that begins no name is looked for once more behind
the names' first component. Of two parts that a weight belongs to, the longer one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from pae_framework.errors import UsageError

Name = tuple[str, ...]


def factors_by_name(module: nn.Module, lr_factors: Mapping[str, float]) -> dict[str, float]:
    """The factor of each parameter's learning rate; 1 for those in no part.

    Raises:
        UsageError: the module has no such part; lists those it has.
    """
    names = {name: tuple(name.split(".")) for name, _ in module.named_parameters()}
    found: dict[str, tuple[int, float]] = dict.fromkeys(names, (0, 1.0))
    for part, factor in lr_factors.items():
        members = _members(part, names)
        if not members:
            raise UsageError(
                f"lr_factors.{part}: the model has no such part; it has {_parts(names.values())}"
            )
        for name, length in members.items():
            if length > found[name][0]:
                found[name] = (length, factor)
    return {name: factor for name, (_, factor) in found.items()}


def freeze_parts(module: nn.Module, lr_factors: Mapping[str, float]) -> None:
    """Freeze the parameters whose factor is 0: no gradient, no optimiser state, no average.

    Raises:
        UsageError: the module has no such part, or nothing is left to train.
    """
    factors = factors_by_name(module, lr_factors)
    frozen = [p for name, p in module.named_parameters() if factors[name] == 0]
    for parameter in frozen:
        parameter.requires_grad_(False)
    if frozen and not any(parameter.requires_grad for parameter in module.parameters()):
        raise UsageError("lr_factors: every part is frozen, nothing is left to train")


def _members(part: str, names: Mapping[str, Name]) -> dict[str, int]:
    """Names in a part, with the number of components that it covers of each."""
    wanted = tuple(part.split("."))
    size = len(wanted)
    plain = {name: size for name, parts in names.items() if parts[:size] == wanted}
    if plain:
        return plain
    behind = slice(1, size + 1)
    return {name: size + 1 for name, parts in names.items() if parts[behind] == wanted}


def _parts(names: Iterable[Name]) -> str:
    """Parts to choose from: modules one and two levels down; items of lists are left out."""
    modules = {name[:depth] for name in names for depth in (1, 2) if len(name) > depth}
    return ", ".join(sorted(".".join(m) for m in modules if not m[-1].isdigit())) or "none"
