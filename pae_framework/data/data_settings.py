"""Settings of the latents on disk. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pae_framework.config import Settings

SHARDS = "latents_rank*_shard*.safetensors"
"""File names of latents, as LightningDiT writes them."""

LATENT_FILES = "latents_*"
"""File names of latents (:data:`SHARDS`) and of their statistics."""


class LatentsSettings(Settings):
    """How the latents of the training images are written."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"batch_size", "processes", "workers"})

    shard_size: int = Field(10_000, gt=0, description="images per shard file")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="as stored")
    batch_size: int = Field(128, gt=0, description="images encoded at once")
    processes: int = Field(
        1, gt=0, description="processes that share the shards; the files are those of one process"
    )
    workers: int = Field(
        0, ge=0, description="processes that read images ahead, for each of `processes`; 0: none"
    )
    folder: str | None = Field(
        None,
        description="folder of latents of this tokenizer that LightningDiT or another run wrote: "
        "the generator trains on them as they are; none are written",
    )
    statistics: str | None = Field(
        None,
        description="statistics of the latents that `generator.weights` was trained on "
        "(latents_stats.pt or .safetensors): taken as they are; no latents are written",
    )

    @property
    def written(self) -> bool:
        """Whether the run encodes its training images, as it does where nothing stands for them."""
        return self.folder is None and self.statistics is None

    @model_validator(mode="after")
    def _one_source(self) -> LatentsSettings:
        if self.folder is not None and self.statistics is not None:
            raise ValueError("`folder` has statistics of its own; say `folder` or `statistics`")
        return self


def missing_latents(folder: str) -> str | None:
    """Say that a folder holds no latents; None if it does."""
    path = Path(folder).expanduser()
    if any(path.glob(SHARDS)):
        return None
    return f"no latents in {path}: expected files like latents_rank00_shard000.safetensors"
