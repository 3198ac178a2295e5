"""A Diffusers pipeline that draws latents, and the folder it is kept in; imported on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers import FlowMatchEulerDiscreteScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from pae_framework.errors import UsageError
from pae_framework.flow.path import reversed_shift
from pae_generators.base import FlowTransformer
from pae_generators.diffusers_model import TIMESTEPS, diffusers_model

ROUNDING = 1e-6
"""How far float32 may carry a time over the end of a guidance interval."""


@dataclass
class LatentFlowOutput(BaseOutput):
    """What the pipeline gives: ``latents`` (B, C, h, w) float32, as the tokenizer decodes them."""

    latents: Tensor


class LatentFlowPipeline(DiffusionPipeline):
    """Latents by Euler's rule with classifier-free guidance, as ``pae sample`` draws them.

    Args:
        transformer: a model of :mod:`pae_generators.diffusers_model`.
        scheduler: its ``shift`` is the inverse of ours, for its time runs the other way.
    """

    model_cpu_offload_seq = "transformer"  # type: ignore[assignment]

    def __init__(self, transformer: ModelMixin, scheduler: FlowMatchEulerDiscreteScheduler):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int],
        num_inference_steps: int = 50,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        guidance_channels: int | None = None,
        end: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        return_dict: bool = True,
    ) -> LatentFlowOutput | tuple[Tensor]:
        """Draw one latent per label.

        Args:
            class_labels: B classes.
            num_inference_steps: Euler steps.
            guidance_scale: s in g + s (c - g); 1: none.
            guidance_interval: times t (0 noise, 1 data) between which guidance is on.
            guidance_channels: how many of the first channels are guided (LightningDiT: 3); None:
                all.
            end: last time, before the shift (RAE: 0.999).
            generator: of the noise.
            latents: the noise itself, (B, C, h, w).
            return_dict: False: a tuple.

        Raises:
            UsageError: a class there is not, noise of another shape, or guidance of an
                unconditional network.
        """
        labels = self._labels(class_labels, guidance_scale)
        x = self._noise(len(labels), generator, latents)
        # One noise level more than steps: the scheduler adds sigma = 0 behind the last.
        sigmas = np.linspace(1, 1 - end, num_inference_steps + 1)
        self.scheduler.set_timesteps(sigmas=sigmas, device=x.device)
        timesteps = self.scheduler.timesteps[:-1]
        low, high = guidance_interval[0] - ROUNDING, guidance_interval[1] + ROUNDING
        times = [1 - timestep / TIMESTEPS for timestep in timesteps.tolist()]
        for timestep, t in zip(self.progress_bar(timesteps), times, strict=True):
            scale = guidance_scale if low <= t <= high else 1.0
            v = self._velocity(x, timestep, labels, scale, guidance_channels)
            x = self.scheduler.step(v, timestep, x).prev_sample
        x = x * self._per_channel("latents_std") + self._per_channel("latents_mean")
        self.maybe_free_model_hooks()
        return LatentFlowOutput(latents=x) if return_dict else (x,)

    def _velocity(
        self, x: Tensor, timestep: Tensor, labels: Tensor, scale: float, channels: int | None
    ) -> Tensor:
        """dx/dsigma (B, C, h, w) float32, of two passes where the scale is not 1."""
        if scale == 1:
            return self._predict(x, timestep, labels)
        null = torch.full_like(labels, self.transformer.config.num_classes)
        both = self._predict(torch.cat([x, x]), timestep, torch.cat([labels, null]))
        conditional, unconditional = both.chunk(2)
        chosen, guided = slice(channels), conditional.clone()
        guided[:, chosen] = (unconditional + scale * (conditional - unconditional))[:, chosen]
        return guided

    def _predict(self, x: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        model = self.transformer
        return model(x.to(model.dtype), timestep.expand(len(x)), labels).sample.float()

    def _labels(self, class_labels: Sequence[int], scale: float) -> Tensor:
        classes = self.transformer.config.num_classes
        if wrong := [label for label in class_labels if not 0 <= label < classes]:
            raise UsageError(f"there is no class {wrong[0]}; classes are 0 to {classes - 1}")
        if scale != 1 and not self.transformer.conditional:
            raise UsageError("guidance needs labels, and this network is unconditional; say 1")
        return torch.tensor(list(class_labels), device=self._execution_device)

    def _noise(
        self,
        count: int,
        generator: torch.Generator | list[torch.Generator] | None,
        given: Tensor | None,
    ) -> Tensor:
        config, device = self.transformer.config, self._execution_device
        shape = (count, config.in_channels, config.sample_size, config.sample_size)
        if given is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        if given.shape != shape:
            raise UsageError(f"latents: noise is {tuple(given.shape)}; expected {shape}")
        return given.to(device, torch.float32)

    def _per_channel(self, name: str) -> Tensor:
        values = self.transformer.config[name]
        return torch.tensor(values, device=self._execution_device).view(1, -1, 1, 1)


def save_pipeline(
    generator: FlowTransformer, folder: Path, mean: Tensor, std: Tensor, shift: float
) -> None:
    """Write a generator as the folder :class:`LatentFlowPipeline` is loaded from.

    ``model_index.json``, ``transformer/`` (config and weights) and ``scheduler/`` (config).

    Args:
        generator: in float32, on the CPU.
        folder: is made if it is not there.
        mean: of its training latents, (1, C, 1, 1); ``std`` the deviation.
        shift: of sampling times, ours: t' = s t / (1 + (s - 1) t). With sigma = 1 - t that is
            sigma' = a sigma / (1 + (a - 1) sigma), the scheduler's formula, for a = 1 / s.

    Raises:
        CheckpointError: this kind of generator has no Diffusers form.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(TIMESTEPS, shift=reversed_shift(shift))
    LatentFlowPipeline(diffusers_model(generator, mean, std), scheduler).save_pretrained(folder)
