"""Files of tensors: our safetensors, and checkpoints of other programs, read without unpickling."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.files import replacing

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile add to the names of weights."""


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; tensors may be on any device, with any strides."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as unfinished:
        write_tensors(plain, unfinished, metadata)


def write_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write contiguous tensors on the CPU as safetensors; equal contents give equal bytes."""
    save_file(dict(tensors), path, metadata=dict(metadata) if metadata else None)
    if metadata and len(metadata) > 1:
        _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file, which safetensors writes in a random order."""
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        sorted_header = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(sorted_header) <= size
        file.seek(8)
        file.write(sorted_header.ljust(size))


def save_torch(content: Any, path: Path) -> None:
    """Write a torch file atomically; equal contents give equal bytes.

    Torch names the archive in the file after the file's path, unless it gets an open file.
    """
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        torch.save(content, file)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a module's weights from a safetensors file of this project.

    Raises:
        CheckpointError: the file is missing or damaged, or names or shapes differ; lists the
            differences.
    """
    load_state(module, load_tensors(path), str(path))


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load a module's weights; names and shapes must be those of its state dict.

    Args:
        module: the module to load.
        tensors: its weights by name.
        source: where they come from, for the error message.

    Raises:
        CheckpointError: lists the tensors that are missing, unexpected or of another shape.
    """
    if problems := differences(module.state_dict(), tensors):
        raise CheckpointError(f"{source} does not fit:\n  " + "\n  ".join(problems))
    module.load_state_dict(tensors)


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """How ``found`` differs from ``expected`` in names and shapes: one line per kind."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shapes = [
        f"{name} is {_shape(found[name])}, not {_shape(expected[name])}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]


def nonfinite_names(tensors: Mapping[str, Tensor]) -> str:
    """Names of the tensors with NaN or infinity, for a message; empty if all are finite."""
    return _some([name for name, value in tensors.items() if not bool(value.isfinite().all())])


def read_checkpoint(path: Path, entries: Sequence[str] = ("model",)) -> dict[str, Tensor]:
    """Read the weights in a file of another program: safetensors, or a torch file.

    The weights are the first of ``entries`` that a torch file has, else the file itself. Wrapper
    prefixes of names (:data:`WRAPPERS`) are removed.

    Raises:
        CheckpointError: the file is missing or damaged, would have to be unpickled, or contains no
            weights in these places.
    """
    return read_entry(path, entries)[1]


def read_entry(path: Path, entries: Sequence[str]) -> tuple[str | None, dict[str, Tensor]]:
    """Like :func:`read_checkpoint`; also returns which entry held the weights, None: the file."""
    if path.suffix == ".safetensors":
        return None, _without_wrappers(load_tensors(path))
    entry, tensors = _weights(load_torch_file(path), path, entries)
    return entry, _without_wrappers(tensors)


def load_torch_file(path: Path) -> Any:
    """Read a torch file of tensors and plain values with torch's restricted unpickler.

    Raises:
        CheckpointError: the file is missing or damaged, or would have to be unpickled.
    """
    try:
        # Mapped, so that averages and optimizers beside the weights are never read.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} cannot be read: it is damaged or contains more than tensors and plain values, "
            "and unpickling those could run any code; save only the tensors, as safetensors"
        ) from error
    except Exception as error:  # a damaged pickle fails in more ways than can be listed
        raise CheckpointError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def _without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    plain = {}
    for name, value in tensors.items():
        while name.startswith(WRAPPERS):
            name = name.partition(".")[2]
        plain[name] = value
    return plain


def _weights(
    content: Any, path: Path, entries: Sequence[str]
) -> tuple[str | None, dict[str, Tensor]]:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} contains a {type(content).__name__}, not a state dict")
    entry = next((name for name in entries if isinstance(content.get(name), Mapping)), None)
    content = content if entry is None else content[entry]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(content):
        known = ", ".join(map(str, list(content)[:8]))
        wanted = " or ".join(map(repr, entries))
        raise CheckpointError(
            f"{path} contains no weights: expected a state dict, alone or as entry {wanted}; found "
            f"the keys {known}"
        )
    return entry, tensors


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
