"""A term of the tokenizer's loss: named, weighted, perhaps scheduled, perhaps adaptive.

Reconstruction terms are computed together (``reconstruction.py``): they are also what adaptive
terms are balanced by, and the distance that regularizers compare images with. The adversarial term
and the regularizers are :class:`LossTerm` objects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from torch import Tensor, nn

from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.tokenizer.losses.adaptive_weight import REGULARIZER, Bounds
from pae_framework.tokenizer.model import Tokenizer


class LossTerm(ABC):
    """A term that the objective adds to the reconstruction terms.

    Args:
        name: in the log.
        weight: factor of the term, times :meth:`share`.
        adaptive: whether to also multiply by the ratio of gradient norms, reconstruction over term,
            at :meth:`layer`, within ``bounds``.
        purpose: with the seed of the step, seeds the term's random numbers.
    """

    bounds: ClassVar[Bounds]
    layer_name: ClassVar[str]

    def __init__(self, name: str, weight: float, adaptive: bool, purpose: tuple[str, ...]):
        self.name, self.weight, self.adaptive, self.purpose = name, weight, adaptive, purpose

    @abstractmethod
    def __call__(self, inputs: RegularizerInputs) -> Tensor:
        """The unweighted term, a scalar."""

    @abstractmethod
    def layer(self, tokenizer: Tokenizer) -> nn.Parameter:
        """The weight at which gradients are compared."""

    def share(self, step: int) -> float:
        """Share of the weight at an optimiser step, from 0 (the term is not computed) to 1."""
        return 1.0


class RegularizerTerm(LossTerm):
    """A regularizer under its label, balanced at the projector's convolution."""

    bounds = REGULARIZER
    layer_name = "last layer before the latents"

    def __init__(self, label: str, regularizer: Regularizer, weight: float):
        super().__init__(label, weight, regularizer.adaptive, ("regularizer", label))
        self.regularizer = regularizer

    def __call__(self, inputs: RegularizerInputs) -> Tensor:
        """The regularizer's value."""
        term: Tensor = self.regularizer(inputs)
        return term

    def layer(self, tokenizer: Tokenizer) -> nn.Parameter:
        """The projector's convolution."""
        return tokenizer.layer_before_latents()


class NamedModules(nn.Module):
    """Sub-modules by name. Unlike in ModuleDict, a name may be one of torch's, such as ``half``."""

    __setattr__ = object.__setattr__  # type: ignore[assignment]  # takes any name, such as training

    def __init__(self, modules: Mapping[str, nn.Module]):
        super().__init__()
        self._modules.update(modules)  # add_module refuses names that a Module has

    def __getitem__(self, name: str) -> nn.Module:
        module = self._modules[name]
        assert module is not None
        return module

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)
