"""Files of tensors: safetensors of our own, and checkpoints that others wrote. Never unpickles."""

from __future__ import annotations

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
"""What DistributedDataParallel and torch.compile put before the names of weights."""


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, on the CPU, contiguous, atomically."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as aside:
        save_file(plain, aside, metadata=dict(metadata) if metadata else None)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a module's weights from a safetensors file of this project.

    Raises:
        CheckpointError: the file is damaged, or names or shapes differ; lists what does.
    """
    load_state(module, load_tensors(path), str(path))


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load a module's weights; every name must be there, with its shape.

    Args:
        module: takes them.
        tensors: by the names of the module's state dict.
        source: where they come from, for the message.

    Raises:
        CheckpointError: lists what is missing, unexpected or of another shape.
    """
    if problems := differences(module.state_dict(), tensors):
        raise CheckpointError(f"{source} does not fit:\n  " + "\n  ".join(problems))
    module.load_state_dict(tensors)


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """What keeps ``found`` from being loaded as ``expected``: a line for each kind of fault."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shapes = [
        f"{name} is {_shape(found[name])}, not {_shape(expected[name])}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Names of tensors that hold NaN or infinity, for a message; empty: none does."""
    return _some([name for name, value in tensors.items() if not bool(value.isfinite().all())])


def read_checkpoint(path: Path, entries: Sequence[str] = ("model",)) -> dict[str, Tensor]:
    """The weights in a file that another program wrote: safetensors, or a torch file.

    Torch files are read with the restricted unpickler (``weights_only``). The weights are the file
    itself, or the first of ``entries`` that it has; wrapper prefixes of names are taken off.

    Raises:
        CheckpointError: the file is missing, damaged, needs unrestricted unpickling, or holds no
            weights where they were looked for.
    """
    return read_entry(path, entries)[1]


def read_entry(path: Path, entries: Sequence[str]) -> tuple[str | None, dict[str, Tensor]]:
    """The same, and under which of ``entries`` they were; None: the file is the weights."""
    if path.suffix == ".safetensors":
        return None, without_wrappers(load_tensors(path))
    try:
        # Mapped, so that averages and optimisers beside the weights are never read.
        mapped = is_zipfile(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, and is not read: unpickling it "
            "could run any code. Save its state dict alone, best as safetensors"
        ) from error
    except Exception as error:  # a damaged pickle fails in more ways than can be listed
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} cannot be read: {reason}") from error
    entry, tensors = _weights(content, path, entries)
    return entry, without_wrappers(tensors)


def without_wrappers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, their names without leading ``module.`` and ``_orig_mod.``."""
    plain = {}
    for name, value in tensors.items():
        while name.startswith(WRAPPERS):
            name = name.removeprefix("module.").removeprefix("_orig_mod.")
        plain[name] = value
    return plain


def _weights(
    content: Any, path: Path, entries: Sequence[str]
) -> tuple[str | None, dict[str, Tensor]]:
    """The state dict in what was read, and which of ``entries`` it was."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not named weights")
    found = next((entry for entry in entries if isinstance(content.get(entry), Mapping)), None)
    content = content if found is None else content[found]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(content):
        known = ", ".join(map(str, list(content)[:8]))
        wanted = " or ".join(repr(entry) for entry in entries)
        raise CheckpointError(
            f"{path} holds no weights: expected a state dict, alone or under {wanted}; found the "
            f"keys {known}"
        )
    return found, tensors


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
