"""A Diffusers pipeline that samples latents, and its folder. Imported only on demand.

Shapes: B samples, latents (B, C, h, w).
"""

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
"""Tolerance for float32 times at the ends of a guidance interval."""


@dataclass
class LatentFlowOutput(BaseOutput):
    """Output of the pipeline: ``latents`` (B, C, h, w) float32, as the tokenizer decodes them."""

    latents: Tensor


class LatentFlowPipeline(DiffusionPipeline):
    """Samples latents by Euler's rule with classifier-free guidance, like ``pae sample``.

    Args:
        transformer: a model of :mod:`pae_generators.diffusers_model`.
        scheduler: its ``shift`` is the inverse of ours, because its time is reversed.
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
        """Sample one latent per label.

        Args:
            class_labels: B classes.
            num_inference_steps: Euler steps.
            guidance_scale: s in g + s (c - g); 1: none.
            guidance_interval: times t (0 noise, 1 data) between which guidance is on.
            guidance_channels: guide only so many of the first channels (LightningDiT: 3); None:
                all.
            end: last time, before the shift (RAE: 0.999).
            generator: draws the noise.
            latents: noise (B, C, h, w) to use instead.
            return_dict: whether to return an object instead of a tuple.

        Raises:
            UsageError: a label is not a class, the noise has another shape, or guidance is on for
                an unconditional network.
        """
        labels = self._labels(class_labels, guidance_scale)
        x = self._noise(len(labels), generator, latents)
        # One noise level more than steps, and the scheduler appends sigma = 0.
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
        """Guided dx/dsigma (B, C, h, w) float32."""
        if scale == 1:
            return self._predict(x, timestep, labels)
        null = torch.full_like(labels, self.transformer.config.num_classes)
        both = self._predict(torch.cat([x, x]), timestep, torch.cat([labels, null]))
        conditional, unconditional = both.chunk(2)
        guided = conditional.clone()
        full = unconditional + scale * (conditional - unconditional)  # (B, C, h, w)
        guided[:, :channels] = full[:, :channels]
        return guided

    def _predict(self, x: Tensor, timestep: Tensor, labels: Tensor) -> Tensor:
        model = self.transformer
        return model(x.to(model.dtype), timestep.expand(len(x)), labels).sample.float()

    def _labels(self, class_labels: Sequence[int], scale: float) -> Tensor:
        classes = self.transformer.config.num_classes
        if wrong := [label for label in class_labels if not 0 <= label < classes]:
            raise UsageError(f"class_labels: {wrong[0]} is not in 0 to {classes - 1}")
        if scale != 1 and not self.transformer.conditional:
            raise UsageError("this network is unconditional; set guidance_scale=1")
        return torch.tensor(list(class_labels), device=self._execution_device)

    def _noise(
        self,
        count: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: Tensor | None,
    ) -> Tensor:
        config, device = self.transformer.config, self._execution_device
        shape = (count, config.in_channels, config.sample_size, config.sample_size)
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        if latents.shape != shape:
            raise UsageError(f"latents are {tuple(latents.shape)}; expected {shape}")
        return latents.to(device, torch.float32)

    def _per_channel(self, name: str) -> Tensor:
        values = self.transformer.config[name]
        return torch.tensor(values, device=self._execution_device).view(1, -1, 1, 1)


def save_pipeline(
    generator: FlowTransformer, folder: Path, mean: Tensor, std: Tensor, shift: float
) -> None:
    """Write a generator as a folder that :class:`LatentFlowPipeline` loads.

    It contains ``model_index.json``, ``transformer/`` (config and weights) and ``scheduler/``
    (config).

    Args:
        generator: in float32, on the CPU.
        folder: created if missing.
        mean: mean of its training latents, (1, C, 1, 1).
        std: their standard deviation, (1, C, 1, 1).
        shift: shift s of our sampling times, t' = s t / (1 + (s - 1) t). With sigma = 1 - t that is
            sigma' = a sigma / (1 + (a - 1) sigma), the scheduler's formula, for a = 1 / s.

    Raises:
        CheckpointError: the generator has no Diffusers form.
    """
    scheduler = FlowMatchEulerDiscreteScheduler(TIMESTEPS, shift=reversed_shift(shift))
    LatentFlowPipeline(diffusers_model(generator, mean, std), scheduler).save_pretrained(folder)
