"""Settings of the latents on disk. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pae_framework.config import Settings

SHARDS = "latents_rank*_shard*.safetensors"
"""Pattern of shard names, as LightningDiT writes them."""

LATENT_FILES = "latents_*"
"""Pattern of the names of shards and of ``latents_stats.pt``."""


class LatentsSettings(Settings):
    """How the latents of the training images are written."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"batch_size", "processes", "workers"})

    shard_size: int = Field(10_000, gt=0, description="images per shard file")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="type of stored latents")
    batch_size: int = Field(128, gt=0, description="images encoded at once")
    processes: int = Field(
        1, gt=0, description="processes that write shards; the files do not depend on it"
    )
    workers: int = Field(
        0, ge=0, description="worker processes that read images, for each of `processes`; 0: none"
    )
    folder: str | None = Field(
        None,
        description="folder of latents of this tokenizer, written by LightningDiT or another run; "
        "the generator trains on them, and the run writes none",
    )
    statistics: str | None = Field(
        None,
        description="file with the statistics of the latents that `generator.weights` was trained "
        "on (latents_stats.pt or .safetensors); the run writes no latents",
    )

    @property
    def written(self) -> bool:
        """Whether the run encodes its training images; not with ``folder`` or ``statistics``."""
        return self.folder is None and self.statistics is None

    @model_validator(mode="after")
    def _one_source(self) -> LatentsSettings:
        if self.folder is not None and self.statistics is not None:
            raise ValueError("`folder` contains statistics; set either `folder` or `statistics`")
        return self


def missing_latents(folder: str) -> str | None:
    """A message if the folder contains no latents, else None."""
    path = Path(folder).expanduser()
    if any(path.glob(SHARDS)):
        return None
    return f"no latents in {path}: expected files like latents_rank00_shard000.safetensors"
