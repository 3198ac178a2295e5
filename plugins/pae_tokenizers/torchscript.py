"""The tokenizer `torchscript`: networks of other projects, without their code."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from pae_framework.contracts import Posterior, Tokenizer
from pae_framework.errors import CheckpointError, DataError, UsageError
from pae_tokenizers.config import TorchScriptConfig, torchscript_problem

_RAISED = "RuntimeError: "
"""How the line with the cause begins in an error of TorchScript."""


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
        """Latents (B, C, h, w) of images (B, 3, S, S) in [0, 1], always the same.

        Raises:
            UsageError: there is no encoder.
            CheckpointError: the network fails, or returns no tensor of floating-point numbers.
        """
        if self.encoder is None:
            raise UsageError("the tokenizer does not encode: `encode` names no file")
        found = self._output("encode", self.encoder, 2 * images - 1 if self._signed else images)
        return Posterior((found - self.config.shift) * self.config.scale)

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, S, S) of latents (B, C, h, w). Raises as :meth:`encode` does."""
        if self.decoder is None:
            raise UsageError("the tokenizer does not decode: `decode` names no file")
        z = latents / self.config.scale + self.config.shift
        found = self._output("decode", self.decoder, z)
        return ((found + 1) / 2 if self._signed else found).float()

    @property
    def _signed(self) -> bool:
        return self.config.images == "signed"

    def _output(self, key: str, network: nn.Module, given: Tensor) -> Tensor:
        file = self.config.files()[key]
        try:
            found = network(given)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, torch.jit.Error) as error:
            what = f"a tensor {tuple(given.shape)} of {given.dtype}"
            reason = f"{file} fails with {what}: {_cause(error)}"
            raise CheckpointError(f"{reason}{_other_numbers(network, given.dtype)}") from error
        if not isinstance(found, Tensor):
            kind = type(found).__name__
            raise CheckpointError(
                f"{file} returns a {kind}, not a tensor; save a network that does"
            )
        if not found.is_floating_point():
            raise CheckpointError(f"{file} returns {found.dtype}, not floating-point numbers")
        return found


def _cause(error: Exception) -> str:
    """The cause alone; TorchScript puts a traceback before it."""
    lines = str(error).strip().splitlines() or ["unknown error"]
    causes = [line for line in lines if line.startswith(_RAISED)]
    return (causes[-1] if causes else lines[0]).removeprefix(_RAISED)


def _other_numbers(network: nn.Module, expected: torch.dtype) -> str:
    """A hint if the network has weights of another floating-point format."""
    formats = {x.dtype for x in network.parameters() if x.is_floating_point()} - {expected}
    if not formats:
        return ""
    listed = ", ".join(sorted(map(str, formats)))
    return f". Its weights are {listed}: save network.float()"


def _load(file: Path) -> nn.Module:
    if problem := torchscript_problem(file):
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
