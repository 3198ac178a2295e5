"""Files of tensors that someone else wrote: read without running code, as plain dense tensors.

A file is recognized by its first bytes, not by its name. What is read never takes much more memory
than the file has bytes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pae_framework.errors import CheckpointError
from pae_framework.system.files import file_problem

COPIES = 1 << 26
"""Bytes that copies of shared or expanded tensors may take even if the file is smaller."""

NUMBERS = frozenset(
    {torch.float64, torch.float32, torch.float16, torch.bfloat16}
    | {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}
)
"""Number formats of plain tensors."""

_OTHER_FORMATS = {
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"version https://": "a pointer of Git LFS, not the file itself (run `git lfs pull`)",
    b"<": "a web page, not the file it should link to",
}

_SETTINGS = (
    *("argparse.Namespace", "types.SimpleNamespace", "typing.Any"),
    *("builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str"),
    *(f"pathlib.{kind}" for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
    *(f"pathlib._local.{kind}" for kind in ("Path", "PosixPath", "WindowsPath")),
    *("numpy.dtype", "numpy.ndarray"),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
    *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    *("datetime.datetime", "datetime.timedelta", "datetime.date"),
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Float", "Integer", "String")),
)
"""Classes of settings and figures that training programs keep beside the weights."""


class _Unread:
    """Stands for a value of a class in :data:`_SETTINGS`; it ignores what the value holds."""

    def __new__(cls, *_: Any, **__: Any) -> _Unread:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*_: Any) -> dict[Any, Any]:
    """Stands for ``collections.defaultdict``, whose entries are read into it."""
    return {}


# The names lead to our own classes, so neither these modules nor their code are ever used.
_STAND_INS: list[Any] = [
    *((type(name.rpartition(".")[2], (_Unread,), {}), name) for name in _SETTINGS),
    (_plain_dict, "collections.defaultdict"),
]


def read_untrusted(path: Path) -> Any:
    """What a safetensors or torch file holds.

    Torch files are read with torch's restricted unpickler. Values of a few classes that only hold
    settings (:data:`_SETTINGS`) are skipped; every other class is refused.

    Raises:
        CheckpointError: the file is missing, damaged or of another format, or would have to be
            unpickled.
    """
    if problem := file_problem(path):
        raise CheckpointError(problem)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if start.startswith(b"PK\x03\x04"):
        _check_archive(path)
        return _load_torch(path, mapped=True)
    if start[8:9] == b"{":
        return _load_safetensors(path)
    if start.startswith(b"\x80"):
        return _load_torch(path, mapped=False)
    kind = next((kind for magic, kind in _OTHER_FORMATS.items() if start.startswith(magic)), None)
    kind = kind or ("damaged or of another format" if start else "empty")
    raise CheckpointError(f"{path} is neither a safetensors nor a torch file: it is {kind}")


def plain_tensors(tensors: Mapping[Any, Any], source: str, size: int) -> dict[str, Tensor]:
    """Tensors of a file as dense tensors on the CPU, contiguous, none sharing memory with another.

    Args:
        tensors: what :func:`read_untrusted` returned, or a part of it.
        source: the file, and the key in it, for messages.
        size: bytes of the file.

    Raises:
        CheckpointError: a name is no text, a value is no tensor of real numbers with all its
            elements, or the file claims more elements than it has bytes for; names it.
    """
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{source}: the key {key_text(name)} is no text; rename it")
        if problem := _problem(value):
            raise CheckpointError(f"{source}: {key_text(name)} is {problem}")
    stored = copied = 0
    storages: set[int] = set()
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        storage = value.untyped_storage()
        shared = value.numel() > 0 and storage.data_ptr() in storages
        if not shared:
            storages.add(storage.data_ptr())
            stored += storage.nbytes()
        copy = shared or not value.is_contiguous() or value.is_neg()
        copied += copy * value.numel() * value.element_size()
        if stored > size or copied > max(size, COPIES):
            raise CheckpointError(
                f"{source}: {key_text(name)} and the tensors before it claim more than the file's "
                f"{size} bytes: it is damaged, or they are expanded; save with tensor.clone()"
            )
        dense = value.detach().resolve_neg().contiguous()
        plain[name] = dense.clone() if shared and dense.data_ptr() == value.data_ptr() else dense
    return plain


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # an unknown number format is a KeyError
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error


def _load_torch(path: Path, mapped: bool) -> Any:
    # Mapped, so that averages and optimizers beside the weights take no memory. Torch maps only
    # names, and takes those with this suffix for safetensors whatever they hold.
    mapped = mapped and path.suffix != ".safetensors"
    try:
        with (
            path.open("rb") as file,
            warnings.catch_warnings(),
            torch.serialization.safe_globals(_STAND_INS),
        ):
            warnings.simplefilter("ignore")
            source = path if mapped else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        asked = re.search(r"GLOBAL (\S{1,200}) (?:was not|whose)", str(error))
        what = f"a {asked[1]}" if asked else "more than tensors and plain values"
        raise CheckpointError(
            f"{path} cannot be read: it is damaged, or contains {what}, which could run any code; "
            "save only the tensors, as safetensors"
        ) from error
    except Exception as error:  # a damaged pickle fails in more ways than can be listed
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error


def _check_archive(path: Path) -> None:
    """Reject an archive that is not one of torch's, is compressed, or does not match its checksums.

    Torch checks none of these.
    """
    try:
        with ZipFile(path) as archive:
            records = archive.infolist()
            problem = _archive_problem(path, [record.filename for record in records])
            if any(record.compress_type != ZIP_STORED for record in records) or (
                sum(record.file_size for record in records) > path.stat().st_size
            ):
                problem = problem or "its records are compressed or overlap; save it with torch"
            # A checksum of 0: torch was told to write none.
            for record in records if not problem else ():
                if record.CRC and not _matches_checksum(archive, record.filename):
                    problem = f"it is damaged: the checksum of {key_text(record.filename)} differs"
    except Exception as error:  # a damaged archive fails in more ways than can be listed
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error
    if problem:
        raise CheckpointError(f"{path} cannot be read: {problem}")


def _archive_problem(path: Path, names: list[str]) -> str | None:
    if any(name.endswith("/constants.pkl") for name in names):
        return "it is a TorchScript program; save its state_dict()"
    if not any(name.endswith("/data.pkl") for name in names):
        kind = "NumPy's" if any(name.endswith(".npy") for name in names) else "another program's"
        return f"it is an archive of {kind}, not of torch"
    return None


def _matches_checksum(archive: ZipFile, name: str) -> bool:
    with archive.open(name) as record:
        try:
            while record.read(1 << 20):
                pass
        except Exception:  # the checksum, or the record's own header
            return False
    return True


def _problem(value: Any) -> str | None:
    """What is wrong with a value that should be a plain tensor; None if nothing is."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}, not a tensor"
    if value.is_quantized:
        return f"quantized ({value.dtype}); save tensor.dequantize()"
    if value.is_nested:
        return "a nested tensor; save one tensor for each of its parts"
    if value.layout != torch.strided:
        return f"sparse ({value.layout}); save tensor.to_dense()"
    if value.device.type != "cpu":
        return f"on the {value.device.type} device, without values; save it from a filled network"
    if value.dtype.is_complex:
        return f"complex ({value.dtype}); weights are real: save torch.view_as_real(tensor)"
    if value.dtype not in NUMBERS:
        return f"of type {value.dtype}; save tensor.bfloat16(), with its scales applied"
    if type(value) not in (Tensor, nn.Parameter):
        return f"a {type(value).__name__}, not a plain tensor"
    return None


def key_text(value: Any) -> str:
    """A key for a message: short, printable, and not the text of an object of unknown depth."""
    if isinstance(value, str | bytes | int | float):
        return repr(value[:100] if isinstance(value, str | bytes) else value).strip("'")
    return f"of type {type(value).__name__}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
