"""Settings of images and of latents on disk. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from annotated_types import Ge, Le
from pydantic import Field, model_validator

from pae_framework.config import (
    BatchSize,
    Count,
    PathText,
    Precision,
    Processes,
    Settings,
    Side,
    Workers,
)

Channel = Annotated[int, Ge(0), Le(255)]
STORED: Final = "stored"
Background = Literal["white", "black", "stored"] | tuple[Channel, Channel, Channel]
"""What transparent pixels are composited over: a color, by name or as red, green and blue; or
``stored``: their own colors are read as if they were opaque."""

SHARDS = "latents_rank*_shard*.safetensors"
"""File names of latents, as in LightningDiT."""

STATISTICS = ("statistics/latents_stats.safetensors", "latents_stats.pt")
"""Files of their statistics."""

LATENT_FILES = "latents_*"
"""File names of latents (:data:`SHARDS`) and their statistics."""


class ResizeSettings(Settings):
    """How images are resized for a network."""

    side: Side = Field(description="side of the result, px")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = Field(
        True, description="average the pixels that a pixel of a smaller result covers"
    )


class LatentsSettings(Settings):
    """Latents of the training images."""

    without_effect: ClassVar[frozenset[str]] = frozenset({"batch_size", "processes", "workers"})

    shard_size: Count = Field(10_000, description="images per shard file")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="number format in the files"
    )
    precision: Precision = Field(
        "float32", description="bf16: encoded under autocast; weights stay float32"
    )
    batch_size: BatchSize = Field(128, description="images encoded at once")
    processes: Processes = Field(
        1, description="deprecated, without effect: use `pae run --processes`"
    )
    workers: Workers = Field(
        0, description="processes that load images, for each process of the run; 0: none"
    )
    stored: bool = Field(
        True,
        description="false: no latents are written, only their statistics; the generator encodes "
        "the training images as it trains",
    )
    normalize: bool = Field(
        True,
        description="scale the generator's data to mean 0 and deviation 1 per channel; false: it "
        "trains on latents as they are, for tokenizers that standardize them (RAE)",
    )
    folder: PathText | None = Field(
        None,
        description="folder of existing latents of this tokenizer, from LightningDiT or another "
        "run; the generator trains on them, and no latents are written",
    )
    statistics: PathText | None = Field(
        None,
        description="file with statistics of the latents that `generator.weights` was trained on, "
        "or is trained on if `stored` is false (latents_stats.pt or .safetensors); no latents are "
        "written",
    )

    @property
    def encoded(self) -> bool:
        """Whether the stage encodes training images."""
        given = self.folder is not None or self.statistics is not None
        return not given and (self.stored or self.normalize)

    @property
    def written(self) -> bool:
        """Whether the run stores latents of its training images."""
        return self.stored and self.encoded

    @model_validator(mode="after")
    def _one_source(self) -> LatentsSettings:
        if self.folder is not None and self.statistics is not None:
            raise ValueError(
                "`folder` includes statistics; set only one of `folder` and `statistics`"
            )
        if self.folder is not None and not self.stored:
            raise ValueError("`folder` names stored latents; set stored=true or folder=null")
        if not self.normalize and (self.folder is not None or self.statistics is not None):
            raise ValueError(
                "`folder` and `statistics` come with statistics, which normalize=false does not "
                "use; set normalize=true"
            )
        return self


def missing_latents(folder: str) -> str | None:
    """A message if a folder holds no latents; else None."""
    path = Path(folder).expanduser()
    if any(path.glob(SHARDS)):
        return None
    return f"no latents in {path}: expected files like latents_rank00_shard000.safetensors"
