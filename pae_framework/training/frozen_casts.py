"""Frozen weights in the type that they are computed in.

Autocast keeps the casts of trained weights for the forward pass, but casts a frozen weight at every
use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pae_framework.frozen import UsesFrozen
from pae_framework.seeding import seeded

CAST = torch.ops.aten._to_copy.default


@torch.no_grad()
def cast_frozen(network: nn.Module, run: Callable[[], Sequence[Tensor]]) -> None:
    """Cast to bf16, once, the frozen weights that autocast would cast at every use.

    Results under autocast keep their bits, because these are the same casts. Weights that are also
    used in float32, such as those of norms and positions, keep their type. So do weights that
    ``run`` does not use. All keep theirs if the results of ``run`` change nevertheless, as when a
    network computes in the type of its weights.

    Args:
        network: on its device; its frozen weights, and those of the frozen networks it uses.
        run: uses the network as it will be used, in eval mode, and returns the results; called
            twice under autocast, with the same random numbers.
    """
    weights = list(_frozen_weights(network))
    if not weights:
        return

    def results() -> Sequence[Tensor]:
        with seeded("frozen casts"), torch.autocast(weights[0].device.type, torch.bfloat16):
            return run()

    with _Uses(weights) as uses:
        expected = results()
    exact = {weight: weight.data for weight in weights if uses.of(weight) == {torch.bfloat16}}
    for weight, data in exact.items():
        weight.data = data.to(torch.bfloat16)
    kept = False
    try:
        kept = _equal(results, expected)
    finally:
        if not kept:
            for weight, data in exact.items():
                weight.data = data


def _equal(results: Callable[[], Sequence[Tensor]], expected: Sequence[Tensor]) -> bool:
    try:
        return all(map(torch.equal, results(), expected))
    except Exception:  # types that do not go together, as torch or the network itself reports
        return False


def _frozen_weights(network: nn.Module) -> Iterator[nn.Parameter]:
    """The frozen weights of a network and of the frozen networks that it uses."""
    for module in network.modules():
        yield from (weight for weight in module.parameters(False) if not weight.requires_grad)
        if isinstance(module, UsesFrozen):
            for helper in module.frozen_modules().values():
                yield from _frozen_weights(helper)


class _Uses(TorchDispatchMode):
    """Records the types in which operations use the given weights."""

    def __init__(self, weights: Sequence[Tensor]):
        super().__init__()
        self._types: dict[int, set[torch.dtype]] = {id(weight): set() for weight in weights}

    def of(self, weight: Tensor) -> set[torch.dtype]:
        """The types that a weight is cast to; its own if an operation uses it as it is."""
        return self._types[id(weight)]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for value in tree_leaves((args, kwargs)):
            if id(value) in self._types:
                cast = (kwargs or {}).get("dtype") if func is CAST else None
                self._types[id(value)].add(cast or value.dtype)
        return func(*args, **(kwargs or {}))
