"""The tokenizer `torchscript`: networks of other projects, without their code."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pae_framework.contracts import Posterior, Tokenizer
from pae_framework.errors import CheckpointError, DataError, UsageError
from pae_framework.system.files import file_problem
from pae_tokenizers.config import TorchScriptConfig


class TorchScriptTokenizer(Tokenizer):
    """An encoder and a decoder in TorchScript; the files also have the code of the networks."""

    def __init__(self, config: TorchScriptConfig, image_size: int):
        super().__init__()
        self.config = config
        self.latent = config.latent_shape(image_size)
        files = config.files()
        self.encoder = _load(files["encode"]) if "encode" in files else None
        self.decoder = _load(files["decode"]) if "decode" in files else None

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Posterior:
        """Latents (B, C, h, w) of images (B, 3, S, S) in [0, 1], always the same."""
        if self.encoder is None:
            raise UsageError("the tokenizer does not encode: `encode` names no file")
        found: Tensor = self.encoder(2 * images - 1 if self._signed else images)
        return Posterior((found - self.config.shift) * self.config.scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) of latents (B, C, h, w)."""
        if self.decoder is None:
            raise UsageError("the tokenizer does not decode: `decode` names no file")
        found: Tensor = self.decoder(latents / self.config.scale + self.config.shift)
        return ((found + 1) / 2 if self._signed else found).float()

    @property
    def _signed(self) -> bool:
        return self.config.images == "signed"


def _load(file: Path) -> nn.Module:
    if problem := file_problem(file):
        raise DataError(problem)
    try:
        with warnings.catch_warnings():  # new versions of torch advise against writing such files
            warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
            network: nn.Module = torch.jit.load(str(file), map_location="cpu")
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{file} is not a TorchScript file: {reason}") from error
    return network
