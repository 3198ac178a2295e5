"""Files of features in caches: a damaged one counts as missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from xxhash import xxh3_128

from pae_framework.tensor_files import save_tensors

_DIGEST = "digest"
"""Key of the metadata: digest of the tensors."""


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """XXH3 digest of the names, types, shapes and values of tensors on the CPU."""
    digest = xxh3_128()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_features(path: Path, features: Mapping[str, Tensor]) -> None:
    """Write features (M, ...) atomically.

    Raises:
        WriteError: the file cannot be written.
    """
    save_tensors(features, path, {_DIGEST: tensors_digest(features)})


def read_features(path: Path) -> dict[str, Tensor] | None:
    """The features in a file; None if it is missing or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            stated = (file.metadata() or {}).get(_DIGEST)
            features = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception:  # damaged files fail in many ways
        return None
    return features if tensors_digest(features) == stated else None
