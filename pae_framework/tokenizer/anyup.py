"""AnyUp, a learned upsampler of any encoder's features, from a checkout the user has.

AnyUp (Wimmer et al., 2025; repository wimmerth/anyup) is another project's code, run as it is.
Inferred from its description, not checked against its code: its ``hubconf.py`` has an entry
``anyup`` that takes ``pretrained``; the network takes images (B, 3, U, U), standardized as for
ImageNet, and features (B, D, g, g), and gives features (B, D, U, U).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pae_framework.errors import DataError
from pae_framework.layers import imagenet_standardize
from pae_framework.tensor_files import load_state, read_checkpoint
from pae_framework.tokenizer.tokenizer_settings import AnyUpSettings


def load_anyup(settings: AnyUpSettings) -> nn.Module:
    """Build the network from its checkout, which is code that is run, and load its weights.

    The checkout is asked for an untrained network (``pretrained=False``), so that it downloads
    none; the weights come from the file.

    Raises:
        DataError: checkout or weights are not there, or the checkout does not give a network.
        CheckpointError: the weights do not fit.
    """
    if (problem := settings.missing()) is not None:
        raise DataError(problem)
    checkout, weights = Path(settings.checkout).expanduser(), Path(settings.weights).expanduser()
    try:
        network = torch.hub.load(str(checkout), "anyup", source="local", pretrained=False)
    except Exception as error:  # another project's code: whatever it raises
        raise DataError(
            f"{checkout}: its hubconf.py gives no `anyup(pretrained=False)` "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(network, nn.Module):
        raise DataError(f"{checkout}: its `anyup` is of type {type(network).__name__}, no network")
    load_state(network, read_checkpoint(weights, ("model", "state_dict")), str(weights))
    return network


def imagenet_normalised(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, S, S) in [0, 1], resized to ``size`` px and standardized as for ImageNet."""
    if images.shape[-1] != size:
        images = F.interpolate(images, size, mode="bilinear", antialias=True)
    return imagenet_standardize(images)
