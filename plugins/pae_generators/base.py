"""The base of the built-in generators: time convention, input checks, official weights.

Shapes: B samples, latents (B, C, h, w).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.contracts import Generator
from pae_framework.errors import DataError, UsageError
from pae_framework.flow.path import reversed_velocity
from pae_generators.config import TransformerConfig
from pae_generators.official import check_official


class FlowTransformer(Generator):
    """A transformer generator; its weights may use the reversed time convention.

    **Time.** For callers t = 0 is noise, t = 1 is data, and the velocity points from noise to data.
    A network with ``time: data_first`` (the weights of RAE) was trained in reverse, with t = 0 for
    data and velocity noise - data. Both follow the same straight lines, so

        v(x, t) = -v_network(x, 1 - t).

    Only this class converts.

    Raises:
        UsageError: the config is for other latents or another number of classes.
    """

    def __init__(self, config: TransformerConfig, latent: LatentShape, num_classes: int):
        super().__init__(config, latent, num_classes)
        self.settings = config
        try:
            config.check_latent(latent)
            self.conditional = config.class_count(num_classes) > 0
        except ValueError as error:
            raise UsageError(f"the generator does not fit: {error}") from error
        self.data_first = config.time == "data_first"

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity (B, C, h, w) at x (B, C, h, w), time t (B,), labels y (B,).

        Raises:
            DataError: the network was built for another shape of latents.
        """
        expected = (self.latent.channels, self.latent.side, self.latent.side)
        if x.shape[1:] != expected:
            shape = " x ".join(map(str, x.shape[1:]))
            raise DataError(f"the generator was built for latents of {self.latent}, not {shape}")

        def field(x: Tensor, t: Tensor) -> Tensor:
            return self.velocity(x, t, y)

        return reversed_velocity(field)(x, t) if self.data_first else field(x, t)

    @abstractmethod
    def velocity(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Velocity in the network's own time convention; shapes as in :meth:`forward`."""

    def from_official(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This network's state dict from official weights; see :func:`check_official`."""
        return check_official(self.state_dict(), tensors)

    def to_official(self) -> dict[str, Tensor]:
        """The weights by their official names, which are ours."""
        return {name: value.detach() for name, value in self.state_dict().items()}

    def save_diffusers(self, folder: Path, mean: Tensor, std: Tensor, shift: float) -> None:
        """Write a Diffusers pipeline; see :mod:`pae_generators.diffusers_pipeline`."""
        try:
            # Imported here: the pipeline imports this module, and Diffusers is optional.
            pipeline = import_module("pae_generators.diffusers_pipeline")
        except ImportError as error:
            raise UsageError(
                f"Diffusers cannot be used: {error}; install 'pae-framework[diffusers]'"
            ) from error
        pipeline.save_pipeline(self, folder, mean, std, shift)
