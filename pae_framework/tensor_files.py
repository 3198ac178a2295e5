"""Files of tensors that this project writes, and how tensors fit a module."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.system.files import follow_umask, replacing

FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""Number formats of real numbers that can be computed with."""


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; tensors may be on any device, with any strides."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path, tensor_bytes(plain.values())) as unfinished:
        write_safetensors(plain, unfinished, metadata)


def write_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write contiguous CPU tensors to a safetensors file; equal content gives equal bytes.

    Raises:
        OSError: the file cannot be written; it has the number of the system's error.
    """
    with safetensors_system_errors():
        save_file(dict(tensors), path, metadata=dict(metadata) if metadata else None)
    follow_umask(path)
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


@contextmanager
def safetensors_system_errors() -> Iterator[None]:
    """Raise the system's errors, which safetensors hides in its own, as :class:`OSError`."""
    try:
        yield
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)|code: (\d+)", str(error))) is None:
            raise
        code = int(number[1] or number[2])
        raise OSError(code, os.strerror(code)) from error


def save_torch_file(content: Any, path: Path) -> None:
    """Write a torch file atomically; equal content gives equal bytes.

    Raises:
        WriteError: the file cannot be written.
    """
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        output = _Output(file)
        try:
            torch.save(content, cast(BinaryIO, output))
        except RuntimeError:
            if output.error is None:
                raise
            raise output.error from None  # torch reports only that the length is wrong


class _Output:
    """A file that remembers why it could not be written."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Size of the values of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


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


def weights_digest(module: nn.Module) -> str:
    """A digest of all parameters and buffers of a module, with names, dtypes and shapes."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        plain = tensor.detach().cpu().contiguous().flatten()
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
    require_state(module, tensors, source)
    module.load_state_dict(tensors)


def require_state(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """The check of :func:`load_state`, with the same arguments and errors; loads nothing."""
    if problems := differences(module.state_dict(), tensors):
        raise CheckpointError(f"{source} does not fit:\n  " + "\n  ".join(problems))
    # Buffers are not checked: a mask may hold infinities.
    require_finite({name: tensors[name] for name, _ in module.named_parameters()}, source)


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
