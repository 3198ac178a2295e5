"""The tokenizer `diffusers_vae`: autoencoders of Diffusers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from pae_framework.contracts import Posterior, Tokenizer
from pae_framework.errors import CheckpointError, DataError
from pae_framework.seeding import on_device, randn
from pae_tokenizers.diffusers_config import CONFIG, DiffusersVAEConfig


class DiffusersVAE(Tokenizer):
    """An autoencoder of Diffusers, with latents as its generators see them.

    AutoencoderKL: images in [-1, 1]; latents ``(z - shift_factor) * scaling_factor``, or with its
    ``latents_mean`` and ``latents_std`` if there are any. AutoencoderRAE: images in [0, 1]; latents
    as its own ``encode`` gives them, which are normalized.

    Raises:
        CheckpointError: Diffusers rejects the values in config.json.
    """

    def __init__(self, config: DiffusersVAEConfig, image_size: int):
        super().__init__()
        self.config = config
        self.latent = config.latent_shape(image_size)
        architecture = config.architecture()
        self.normalizes = architecture["_class_name"] == "AutoencoderRAE"
        made = _class_of(architecture)
        try:
            self.network = made.from_config(architecture)
            self._require_scaling()
        except Exception as error:
            where = config.local(CONFIG) or config.model
            raise CheckpointError(
                f"Diffusers builds no {made.__name__} of {where}: {type(error).__name__}: {error}"
            ) from error

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Latents (B, C, h, w) of images (B, 3, S, S) in [0, 1].

        Those of AutoencoderKL are sampled with the generator; without one, they are the mean.
        """
        if self.normalizes:
            return Posterior(self.network.encode(images).latent)
        found = self.network.encode(2 * images - 1).latent_dist
        mean = found.mean
        shift, scale = self._scaling(images)
        if generator is None:
            return Posterior((mean - shift) * scale)
        noise = on_device(randn(mean.shape, generator), mean.device).to(mean.dtype)
        return Posterior((mean + found.std * noise - shift) * scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) of latents (B, C, h, w)."""
        if self.normalizes:
            images: Tensor = self.network.decode(latents).sample
            return images.float()
        shift, scale = self._scaling(latents)
        decoded: Tensor = self.network.decode(latents / scale + shift).sample
        return (decoded.float() + 1) / 2

    def _scaling(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """What is subtracted from latents (B, C, h, w), and the factor after that."""
        config = self.network.config
        mean, std = config.get("latents_mean"), config.get("latents_std")
        shift = torch.tensor(mean or config.get("shift_factor") or 0.0, device=like.device)
        deviation = torch.tensor(std or 1.0, device=like.device)
        return shift.view(-1, 1, 1), config["scaling_factor"] / deviation.view(-1, 1, 1)

    def _require_scaling(self) -> None:
        if self.normalizes:
            return
        latents = torch.zeros(1, self.latent.channels, 1, 1)
        shift, scale = self._scaling(latents)
        if ((latents - shift) * scale).shape != latents.shape:
            raise ValueError(
                f"latents_mean and latents_std are not of {self.latent.channels} channels"
            )

    def load_pretrained(self) -> None:
        """Load the model's weights; Diffusers converts older names.

        Raises:
            DataError: they are not on this machine; says what to do.
            CheckpointError: the file is damaged or lacks weights.
        """
        if self.config.weights == "none":
            return
        self.config.fetch()
        if (missing := self.config.missing()) is not None:
            raise DataError(missing)
        file = self.config.weights_file()
        assert file is not None
        try:
            loaded, report = type(self.network).from_pretrained(
                file.parent,
                local_files_only=True,
                output_loading_info=True,
                low_cpu_mem_usage=False,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{file} does not fit config.json: {error}") from error
        if absent := sorted(report["missing_keys"]):
            listed = ", ".join(absent[:4])
            raise CheckpointError(f"{file} lacks {len(absent)} weights of the model: {listed} ...")
        self.network.load_state_dict(loaded.state_dict())


def _class_of(architecture: dict[str, Any]) -> Any:
    try:
        found: type[nn.Module] = getattr(import_module("diffusers"), architecture["_class_name"])
    except (ImportError, AttributeError) as error:
        raise DataError(
            f"{architecture['_class_name']} of Diffusers cannot be used ({error}); install "
            "'pae-framework[diffusers]'"
        ) from error
    return found
