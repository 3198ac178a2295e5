"""The generators as models of Hugging Face's Diffusers.

Imported only on demand: Diffusers is an optional dependency. Weights keep their official names.

**Time.** Diffusers' flow-matching schedulers use noise levels: sigma = 0 is data, sigma = 1 noise,
``timestep = 1000 sigma``. They step along dx/dsigma, which is -v(x, t) at our t = 1 - sigma.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from pae_framework.config import LatentShape
from pae_framework.errors import CheckpointError
from pae_framework.flow.path import reversed_velocity
from pae_generators.base import FlowTransformer
from pae_generators.config import LightningDiTConfig, TransformerConfig
from pae_generators.config_dh import DiTDHConfig
from pae_generators.dit_dh import DiTDH
from pae_generators.lightningdit import LightningDiT

TIMESTEPS = 1000
"""Diffusers' timestep of pure noise."""


class DiffusersGenerator(FlowTransformer):
    """A generator as a Diffusers model, which can be rebuilt from its config.

    Args:
        in_channels: latent channels C.
        sample_size: latent side h = w.
        num_classes: K; label K is the null label of classifier-free guidance.
        network: fields of the generator's config.
        latents_mean: C numbers m; latents are x * s + m for samples x of the network.
        latents_std: C numbers s.
    """

    network_config: ClassVar[type[TransformerConfig]]

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        sample_size: int,
        num_classes: int,
        network: Mapping[str, Any],
        latents_mean: Sequence[float],
        latents_std: Sequence[float],
    ):
        latent = LatentShape(in_channels, sample_size)
        super().__init__(self.network_config(**network), latent, num_classes)

    def forward(  # type: ignore[override]  # Diffusers' convention
        self,
        hidden_states: Tensor,
        timestep: Tensor | float,
        class_labels: Tensor | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Velocity dx/dsigma (B, C, h, w), as ``.sample``.

        Args:
            hidden_states: latents (B, C, h, w).
            timestep: 1000 sigma, (B,) or one for all.
            class_labels: classes (B,) int64; None: the null label for all.
            return_dict: whether to return an object instead of a tuple.
        """
        x, forward, labels = hidden_states, super().forward, class_labels
        if labels is None:
            labels = torch.full((len(x),), self.num_classes, device=x.device)

        def field(x: Tensor, t: Tensor) -> Tensor:
            return forward(x, t, labels)

        sigma = torch.as_tensor(timestep, dtype=torch.float32, device=x.device) / TIMESTEPS
        velocity = reversed_velocity(field)(x, sigma.expand(len(x)))
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)


class LightningDiTModel(DiffusersGenerator, LightningDiT, ModelMixin, ConfigMixin):  # type: ignore[misc]
    """LightningDiT for Diffusers."""

    network_config = LightningDiTConfig


class DiTDHModel(DiffusersGenerator, DiTDH, ModelMixin, ConfigMixin):  # type: ignore[misc]
    """DiT-DH for Diffusers."""

    network_config = DiTDHConfig


MODELS: dict[type[FlowTransformer], type[LightningDiTModel] | type[DiTDHModel]] = {
    LightningDiT: LightningDiTModel,
    DiTDH: DiTDHModel,
}


def diffusers_model(
    generator: FlowTransformer, mean: Tensor, std: Tensor
) -> LightningDiTModel | DiTDHModel:
    """Convert a generator to a Diffusers model that shares its weights.

    Args:
        generator: a LightningDiT or DiT-DH.
        mean: mean of its training latents, C values in any shape.
        std: their standard deviation.

    Raises:
        CheckpointError: the generator is another network.
    """
    model_class = MODELS.get(type(generator))
    if model_class is None:
        raise CheckpointError(f"{type(generator).__name__} has no Diffusers form")
    # Another machine may lack xformers; the result is the same.
    network = generator.settings.model_copy(update={"attention": "sdpa"})
    with torch.device("meta"):
        model = model_class(
            in_channels=generator.latent.channels,
            sample_size=generator.latent.side,
            num_classes=generator.num_classes,
            network=network.model_dump(mode="json"),
            latents_mean=mean.flatten().tolist(),
            latents_std=std.flatten().tolist(),
        )
    model.load_state_dict(generator.state_dict(), assign=True)
    return model.eval()
