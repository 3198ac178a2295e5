"""Ways to build a component for a check: at one size, with inputs for it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pae_framework.seeding import seeded
from pae_framework.testing.modules import as_if_trained


def _unchanged(component: Any) -> Any:
    return component


@dataclass(frozen=True)
class Setup:
    """A component at one size.

    Args:
        at: names the size in messages, such as ``images of 16 px``.
        component: its class.
        arguments: of the constructor.
        check: the checks of its kind, of a component that was built.
        inputs: inputs for a number of images; row i of each belongs to image i.
        compute: the result of a component for inputs.
        per_image: whether row i of the result belongs to image i; otherwise it is one number.
        prepare: what the engine does with a component that was built, before anything else.
    """

    at: str
    component: Callable[..., Any]
    arguments: tuple[Any, ...]
    check: Callable[[Any], None]
    inputs: Callable[[int], tuple[Tensor, ...]]
    compute: Callable[..., Tensor]
    per_image: bool = True
    prepare: Callable[[Any], Any] = _unchanged

    def build(self, seed: str = "contract") -> Any:
        """Build the component under a seed, as the engine does."""
        with seeded(seed):
            return self.prepare(self.component(*self.arguments))

    def module(self) -> nn.Module:
        """The component in eval mode, with moved weights: weights of zero would hide faults."""
        built: nn.Module = as_if_trained(self.build())
        return built.eval()

    def on_meta(self) -> nn.Module:
        """The component on the meta device, with any network that it is built for."""
        arguments = tuple(
            copy.deepcopy(argument).to("meta") if isinstance(argument, nn.Module) else argument
            for argument in self.arguments
        )
        with torch.device("meta"):
            built: nn.Module = replace(self, arguments=arguments).build()
        return built.eval()


def accepted(candidates: Iterable[int], accepts: Callable[[int], object]) -> list[int]:
    """The candidates for which ``accepts`` raises no ValueError.

    Raises:
        AssertionError: it raises something else.
    """
    found = []
    for candidate in candidates:
        try:
            accepts(candidate)
        except ValueError:
            continue
        except Exception as error:
            raise AssertionError(
                f"the config fails for a size of {candidate} with {type(error).__name__}: {error}; "
                "it must raise a ValueError that says which sizes it takes"
            ) from error
        found.append(candidate)
    return found
