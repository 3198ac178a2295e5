"""Parameters of the tokenizers `torchscript` and `latents`. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile, ZipFile

from pydantic import Field, model_validator
from safetensors import SafetensorError, safe_open

from pae_framework.config import LatentShape, Magnitude, PathText, Side, TokenizerConfig, Width
from pae_framework.data.data_settings import SHARDS, missing_latents
from pae_framework.system.files import file_problem

_SAVE = "write it with torch.jit.script(network).save(FILE)"


class TorchScriptConfig(TokenizerConfig):
    """An encoder and a decoder in TorchScript files; one of them may be left out.

    The encoder turns images (B, 3, S, S) into latents (B, C, h, w), the decoder does the reverse.
    The latents of this tokenizer are ``scale * (z - shift)`` of those of the files.
    """

    encode: PathText | None = Field(None, description="file of the encoder; null: none")
    decode: PathText | None = Field(None, description="file of the decoder; null: none")
    channels: Width = Field(description="channels of the latents")
    downsampling: Side = Field(description="side of the images over that of the latents")
    images: Literal["unit", "signed"] = Field(
        "signed", description="range of the files' images; unit: [0, 1], signed: [-1, 1]"
    )
    scale: Magnitude = Field(1.0, description="factor of the latents")
    shift: float = Field(0.0, description="subtracted from the latents before they are scaled")

    @model_validator(mode="after")
    def _has_a_file(self) -> TorchScriptConfig:
        if self.encode is None and self.decode is None:
            raise ValueError("set `encode`, `decode` or both to a TorchScript file")
        return self

    @property
    def encodes(self) -> bool:
        """Whether there is an encoder."""
        return self.encode is not None

    @property
    def decodes(self) -> bool:
        """Whether there is a decoder."""
        return self.decode is not None

    def latent_shape(self, image_size: int) -> LatentShape:
        """The stated channels, and one position for every ``downsampling`` px."""
        if image_size % self.downsampling:
            raise ValueError(
                f"images of {image_size} px are not divisible by the downsampling of "
                f"{self.downsampling}"
            )
        return LatentShape(self.channels, image_size // self.downsampling)

    def files(self) -> Mapping[str, Path]:
        """The encoder and the decoder."""
        stated = {"encode": self.encode, "decode": self.decode}
        return {key: Path(file).expanduser() for key, file in stated.items() if file is not None}

    def missing(self) -> str | None:
        """Files that do not exist, or are no TorchScript."""
        return next(filter(None, map(torchscript_problem, self.files().values())), None)


def torchscript_problem(path: Path) -> str | None:
    """Why a file is not one that ``torch.jit.save`` wrote; None if it looks like one."""
    if problem := file_problem(path):
        return problem
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PK\x03\x04":
            with ZipFile(path) as archive:
                names = archive.namelist()
        else:
            names = []
    except BadZipFile:
        return f"{path} is not a TorchScript file: it is damaged or cut off"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if any(name.endswith("/constants.pkl") for name in names):
        return None
    if any(name.endswith("/data.pkl") for name in names) or start[:1] == b"\x80":
        kind = "it holds a state_dict or a pickled module, without the network's code"
        return f"{path} is not a TorchScript file: {kind}; {_SAVE}"
    kind = "it is damaged or of another format" if start else "it is empty"
    return f"{path} is not a TorchScript file: {kind}; {_SAVE}"


class LatentsConfig(TokenizerConfig):
    """A folder of latents of the training images, in LightningDiT's layout or of another run.

    There is no encoder and no decoder: a generator can be trained, but images cannot be sampled.
    """

    folder: PathText = Field(description="folder of the shards and their statistics")

    @property
    def encodes(self) -> bool:
        """It has no encoder."""
        return False

    @property
    def decodes(self) -> bool:
        """It has no decoder."""
        return False

    def latents_folder(self) -> str:
        """The folder."""
        return self.folder

    def latent_shape(self, image_size: int) -> LatentShape:
        """The shape of the latents in the first shard, whatever the image size."""
        if (problem := missing_latents(self.folder)) is not None:
            raise ValueError(problem)
        shard = min(Path(self.folder).expanduser().glob(SHARDS))
        try:
            with safe_open(shard, framework="numpy") as tensors:
                shape = tensors.get_slice("latents").get_shape()
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{shard} is no shard of latents: {error}") from error
        if len(shape) != 4 or shape[2] != shape[3]:
            raise ValueError(f"the latents in {shard} are {shape}, expected [N, C, h, h]")
        return LatentShape(shape[1], shape[2])
