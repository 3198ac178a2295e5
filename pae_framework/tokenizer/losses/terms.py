"""A term of the tokenizer's loss: a name, a weight, and optionally a schedule and adaptive factor.

The adversarial term and the regularizers are :class:`LossTerm` objects, each with random numbers of
its own. Reconstruction terms (``reconstruction.py``) have a name and a weight too, but are no such
objects: they are always active, without a factor or randomness, and are computed together, because
adaptive factors and regularizers use their sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from pae_framework.config import Length, WeightSchedule
from pae_framework.contracts import Regularizer, RegularizerInputs
from pae_framework.errors import PluginError, UsageError
from pae_framework.tokenizer.losses.adaptive_weight import REGULARIZER_BOUNDS, Bounds
from pae_framework.tokenizer.model import ComposedTokenizer


@dataclass(frozen=True)
class Ramp:
    """A value by step: 0 until ``start``, then linearly from ``first`` to ``last`` in ``steps``."""

    start: int = 0
    steps: int = 0
    first: float = 0.0
    last: float = 1.0

    @classmethod
    def of_weight(
        cls, weight: float | WeightSchedule, start: Length | None, per_epoch: float
    ) -> Self:
        """A weight from ``start`` on (None: step 0); an epoch has ``per_epoch`` steps."""
        begin = start.in_steps(per_epoch) if start else 0
        if isinstance(weight, WeightSchedule):
            return cls(begin, weight.in_steps(per_epoch), weight.first, weight.to)
        return cls(begin, last=weight)

    def at(self, step: int) -> float:
        """The value at an optimizer step, counted from 0."""
        passed = step - self.start
        if passed < 0:
            return 0.0
        if passed >= self.steps:
            return self.last
        return self.first + passed / self.steps * (self.last - self.first)


class LossTerm(ABC):
    """A term that the objective adds to the reconstruction terms.

    Args:
        name: in the log.
        adaptive: whether to multiply by the ratio of gradient norms, reconstruction over term, at
            :meth:`layer`, too.
        purpose: seeds the term's random numbers, together with the seed of the step.
    """

    bounds: ClassVar[Bounds]
    layer_name: ClassVar[str]
    of_reconstruction: ClassVar[bool] = False
    """Whether the term depends on nothing that is trained but the reconstruction."""

    def __init__(self, name: str, adaptive: bool, purpose: tuple[str, ...]):
        self.name, self.adaptive, self.purpose = name, adaptive, purpose

    @abstractmethod
    def __call__(self, inputs: RegularizerInputs) -> Tensor:
        """The unweighted term, a scalar."""

    @abstractmethod
    def layer(self, tokenizer: ComposedTokenizer) -> nn.Parameter:
        """The parameter at which gradient norms are measured."""

    @abstractmethod
    def weight_at(self, step: int) -> float:
        """Factor of the term at an optimizer step; at 0 the term is not computed."""


class RegularizerTerm(LossTerm):
    """A regularizer under its label; its adaptive factor is measured before the latents."""

    bounds = REGULARIZER_BOUNDS
    layer_name = "last layer before the latents"

    def __init__(self, label: str, regularizer: Regularizer, ramp: Ramp):
        super().__init__(label, regularizer.adaptive, ("regularizer", label))
        self.regularizer, self.ramp = regularizer, ramp

    def weight_at(self, step: int) -> float:
        """The ramp's value."""
        return self.ramp.at(step)

    def __call__(self, inputs: RegularizerInputs) -> Tensor:
        """The regularizer's value.

        Raises:
            PluginError: it is no scalar.
        """
        value = self.regularizer(inputs)
        if not isinstance(value, Tensor) or value.shape or not value.is_floating_point():
            found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else value
            raise PluginError(
                f"the regularizer {self.name!r} ({type(self.regularizer).__qualname__} of "
                f"{type(self.regularizer).__module__}) gives {found!s:.80}, not a scalar tensor"
            )
        return value

    def layer(self, tokenizer: ComposedTokenizer) -> nn.Parameter:
        """The last layer before the latents; see :meth:`ComposedTokenizer.layer_before_latents`.

        Raises:
            UsageError: there is none.
        """
        layer = tokenizer.layer_before_latents()
        if layer is None:
            raise UsageError(
                f"the adaptive weight of {self.name!r} needs a projector, which "
                "tokenizer.bottleneck lacks, or tokenizer.train_encoder=true with an encoder that "
                f"has a last layer; set tokenizer.regularizers.{self.name}.weight=0"
            )
        return layer


class NamedModules(nn.Module):
    """A ModuleDict that also takes names of Module attributes, such as ``half``."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        super().__init__()
        self._modules.update(modules)  # add_module rejects attribute names

    def __setattr__(self, name: str, value: object) -> None:
        # nn.Module would reject the flag `training` if a module has that name.
        assert not isinstance(value, nn.Module | nn.Parameter), (
            f"{name}: pass it to the constructor"
        )
        object.__setattr__(self, name, value)
