"""Parameters of the tokenizer `diffusers_vae`. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pae_framework.config import LatentShape, PathText, TokenizerConfig
from pae_framework.errors import DataError
from pae_framework.hub import EitherFile, HubFile, offline

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "AutoencoderKL": {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "block_out_channels": [64],
        "layers_per_block": 1,
        "act_fn": "silu",
        "latent_channels": 4,
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
        "shift_factor": None,
        "latents_mean": None,
        "latents_std": None,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "mid_block_add_attention": True,
    },
    "AutoencoderRAE": {
        "encoder_type": "dinov2",
        "encoder_hidden_size": 768,
        "encoder_patch_size": 14,
        "encoder_num_hidden_layers": 12,
        "decoder_hidden_size": 512,
        "decoder_num_hidden_layers": 8,
        "decoder_num_attention_heads": 16,
        "decoder_intermediate_size": 2048,
        "patch_size": 16,
        "encoder_input_size": 224,
        "num_channels": 3,
        "encoder_norm_mean": None,
        "encoder_norm_std": None,
        "latents_mean": None,
        "latents_std": None,
        "reshape_to_2d": True,
        "scaling_factor": 1.0,
    },
}
"""Classes of Diffusers that are supported, as ``_class_name`` in config.json names them: the
arguments that change the network or its latents, with Diffusers' defaults."""

WITHOUT_EFFECT = frozenset(
    {"force_upcast", "image_size", "noise_tau", "sample_size", "use_encoder_loss"}
)
"""Arguments that change neither: of pipelines, of tiles, of a training, or that others imply."""

CONFIG = "config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
"""Names of the weights in a folder; the first that exists is read."""

_SD_VAE: Mapping[str, Any] = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
}
KNOWN = dict.fromkeys(("stabilityai/sd-vae-ft-ema", "stabilityai/sd-vae-ft-mse"), _SD_VAE)
"""Configurations of models that can be described without their files."""

_MOST_LEVELS = 12
_RAE_SIZES = ("encoder_hidden_size", "encoder_patch_size", "encoder_input_size", "patch_size")


class DiffusersVAEConfig(TokenizerConfig):
    """A pretrained autoencoder in the layout of Diffusers.

    Latents are those that a generator of the model is trained on: the mean of the posterior,
    shifted and scaled as ``config.json`` says. They are always the same for an image.
    """

    model: PathText = Field(
        description="folder with config.json and weights, or name of a repository on the hub"
    )
    subfolder: str | None = Field(
        None, description="folder in the model, such as `vae`; null: none"
    )
    weights: Literal["default", "none"] = Field(
        "default", description="default: those of the model; none: random"
    )
    small: bool = Field(
        False, description="a small network with latents of the same shape, for smoke runs"
    )

    @model_validator(mode="after")
    def _small_is_random(self) -> Self:
        if self.small and self.weights != "none":
            raise ValueError("a `small` network has no pretrained weights; set weights=none")
        return self

    @classmethod
    def known_models(cls) -> Mapping[str, tuple[str, ...]]:
        """Models that can be described without their files."""
        return dict.fromkeys(KNOWN, ("default", "none"))

    def latent_shape(self, image_size: int) -> LatentShape:
        """Channels and downsampling of the model."""
        config = self.architecture()
        if config["_class_name"] == "AutoencoderRAE":
            sizes = {key: self._number(config, key) for key in _RAE_SIZES}
            return _rae_shape(sizes, image_size)
        levels = config["block_out_channels"]
        if not isinstance(levels, list) or not 0 < len(levels) <= _MOST_LEVELS:
            raise ValueError(f"{self.model}: block_out_channels in config.json is {levels!r}")
        factor = 1 << (len(levels) - 1)
        if image_size % factor:
            raise ValueError(
                f"images of {image_size} px are not divisible by the downsampling of {factor}"
            )
        return LatentShape(self._number(config, "latent_channels"), image_size // factor)

    def _number(self, config: Mapping[str, Any], key: str) -> int:
        value = config[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{self.model}: {key} in config.json is {value!r}, expected 1 or more")
        return value

    def architecture(self) -> dict[str, Any]:
        """The arguments of the class of Diffusers, with its name as ``_class_name``.

        Without those that change neither the network nor its latents. Defaults are filled in, so
        it is the same whether config.json states them or not.

        Raises:
            ValueError: there is no config.json, or one of another class; says where.
        """
        written = self._written()
        stated = {
            key: value
            for key, value in written.items()
            if not key.startswith("_") and key not in WITHOUT_EFFECT
        }
        name = written["_class_name"]
        config = {"_class_name": name, **DEFAULTS[name], **stated}
        return _small(config) if self.small else config

    def _written(self) -> dict[str, Any]:
        path = self.local(CONFIG)
        if path is None:
            if self._known:
                return dict(KNOWN[self.model])
            raise ValueError(self._absent(CONFIG))
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        name = config.get("_class_name") if isinstance(config, dict) else None
        if name not in DEFAULTS:
            raise ValueError(f"{path} describes {name!r}, expected one of: {', '.join(DEFAULTS)}")
        return dict(config)

    def local(self, name: str) -> Path | None:
        """A file of the model on this machine: in its folder, or in the cache of the hub."""
        if self._on_hub:
            return self._remote(name).cached()
        inside = self._folder / name
        return inside if inside.is_file() else None

    @property
    def _known(self) -> bool:
        return self.model in KNOWN and self.subfolder is None

    @property
    def _on_hub(self) -> bool:
        named = self.model.count("/") == 1 and not self.model.startswith((".", "/", "~"))
        return named and not Path(self.model).is_dir()

    @property
    def _folder(self) -> Path:
        return Path(self.model).expanduser() / (self.subfolder or "")

    def _remote(self, name: str) -> HubFile:
        return HubFile(self.model, name if self.subfolder is None else f"{self.subfolder}/{name}")

    def _absent(self, name: str) -> str:
        if not self._on_hub:
            return f"no {name} in {self._folder}: expected a folder that Diffusers has saved"
        remote = self._remote(name)
        # A recipe is valid only if the configuration is known.
        readable = name != CONFIG or self._known
        remedy = "pae fetch RECIPE" if readable else f"hf download {self.model} {remote.name}"
        return f"{remote.where} is not in the cache; run `{remedy}`"

    def weights_file(self) -> Path | None:
        """The weights on this machine; None if they are not there."""
        return next(filter(None, map(self.local, WEIGHTS)), None)

    def files(self) -> Mapping[str, Path]:
        """The weights, unless the hub has them."""
        if self.weights == "none" or self._on_hub:
            return {}
        return {"model": self.weights_file() or self._folder / WEIGHTS[0]}

    def hashed(self) -> dict[str, Any]:
        """With the architecture, which says how latents are scaled."""
        return {**super().hashed(), "architecture": self.architecture()}

    def missing(self) -> str | None:
        """Diffusers, the configuration or the weights."""
        if find_spec("diffusers") is None:
            return "it needs the package diffusers: pip install 'pae-framework[diffusers]'"
        if self.weights == "none":
            return None
        return self._missing_file()

    def _missing_file(self) -> str | None:
        if self.weights_file() is None:
            return self._absent(WEIGHTS[0])
        return None if self.local(CONFIG) is not None else self._absent(CONFIG)

    def fetch(self) -> str | None:
        """Download configuration and weights from the hub."""
        missing = self._missing_file()
        if self.weights == "none" or missing is None or not self._on_hub:
            return None
        if offline():
            raise DataError(f"{missing} on a machine with network access")
        try:
            self._remote(CONFIG).fetch()
            EitherFile(tuple(map(self._remote, WEIGHTS))).fetch()
        except OSError as error:
            raise DataError(f"{self.model} cannot be downloaded: {error}") from error
        return f"{self.model} for diffusers_vae"

    def smoke(self) -> Self:
        """A small network with random weights."""
        return self.model_copy(update={"weights": "none", "small": True})


def _rae_shape(config: Mapping[str, int], image_size: int) -> LatentShape:
    grid = config["encoder_input_size"] // config["encoder_patch_size"]
    if image_size != (side := config["patch_size"] * grid):
        raise ValueError(
            f"the model is for images of {side} px, but data.image_size is {image_size}"
        )
    return LatentShape(config["encoder_hidden_size"], grid)


def _small(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with few and narrow layers and latents of the same shape."""
    if config["_class_name"] == "AutoencoderRAE":
        decoder = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        decoder["intermediate_size"] = 32
        small = {f"decoder_{key}": value for key, value in decoder.items()}
        return {**config, "encoder_num_hidden_layers": 1, **small}
    levels = len(config["block_out_channels"])
    narrow = {"block_out_channels": [8] * levels, "layers_per_block": 1, "norm_num_groups": 4}
    return {**config, **narrow}
