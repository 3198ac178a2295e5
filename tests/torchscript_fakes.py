"""Small networks in TorchScript files."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

CHANNELS, PATCH = 6, 4


def write_torchscript(folder: Path) -> tuple[nn.Conv2d, nn.ConvTranspose2d]:
    """Write encode.pt and decode.pt, linear in patches, and return the same networks."""
    torch.manual_seed(0)
    encoder = nn.Conv2d(3, CHANNELS, PATCH, PATCH)
    decoder = nn.ConvTranspose2d(CHANNELS, 3, PATCH, PATCH)
    save_torchscript(encoder, folder / "encode.pt")
    save_torchscript(decoder, folder / "decode.pt")
    return encoder, decoder


def save_torchscript(network: nn.Module, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        torch.jit.script(network).save(file)
