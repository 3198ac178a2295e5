"""Files of tensors that this project writes, and how tensors fit a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.files import replacing

FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""Number formats of real numbers that can be computed with."""


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; tensors may be on any device, with any strides."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as unfinished:
        save_file(plain, unfinished, metadata=dict(metadata) if metadata else None)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return load_file(path)
    except Exception as error:  # an unknown number format is a KeyError
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path} cannot be read: {reason}") from error


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
        CheckpointError: lists the tensors that are missing, unexpected, of another shape or type,
            or the parameters that are not finite.
    """
    if problems := differences(module.state_dict(), tensors):
        raise CheckpointError(f"{source} does not fit:\n  " + "\n  ".join(problems))
    # Buffers are not checked: a mask may hold infinities.
    require_finite({name: tensors[name] for name, _ in module.named_parameters()}, source)
    module.load_state_dict(tensors)


def cast_like(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Tensors in the dtypes of a state dict, which has the same names.

    Raises:
        CheckpointError: a tensor is not finite in that dtype.
    """
    cast = {name: tensors[name].to(value.dtype) for name, value in expected.items()}
    require_finite(cast, source)
    return cast


def require_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Reject tensors with NaN or infinity.

    Raises:
        CheckpointError: names them.
    """
    broken = [name for name, value in tensors.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"{source} contains weights that are not finite: {_some(broken)}")


def differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """How ``found`` differs from ``expected`` in names, shapes and types: one line per kind.

    Types differ if only one of two is a real floating-point number, an integer, or bool.
    """
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shapes = [
        f"{name} is {_shape(found[name])}, not {_shape(expected[name])}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    types = [
        f"{name} is {found[name].dtype}, not {expected[name].dtype}"
        for name in expected
        if name in found and _kind(found[name].dtype) != _kind(expected[name].dtype)
    ]
    kinds = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", shapes),
        ("of another type", types),
    )
    return [f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names]


def _kind(dtype: torch.dtype) -> str:
    """The numbers of a dtype; an unusual one is a kind of its own."""
    if dtype in FLOATS:
        return "float"
    if dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        return "integer"
    return str(dtype)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _some(names: Sequence[str], most: int = 6) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
