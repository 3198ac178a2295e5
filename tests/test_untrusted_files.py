"""Files of tensors that someone else wrote: unusual content, other formats, and code in pickles."""

from __future__ import annotations

import argparse
import collections
import datetime
import pickle
import shutil
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pae_framework.data.statistics import load_statistics
from pae_framework.errors import CheckpointError, DataError
from pae_framework.tensor_files import load_state, save_tensors
from pae_framework.weight_files import read_weights

BITS = torch.arange(16, dtype=torch.uint8).view(4, 4) % 4


def write_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def write_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def quiet(make: Callable[[], Tensor]) -> Tensor:
    """What a function returns; torch warns of formats that are new or old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


UNUSUAL: dict[str, tuple[Callable[[], Tensor], str]] = {
    "complex64": (lambda: torch.ones(4, 4, dtype=torch.complex64), "complex"),
    "complex32": (lambda: torch.ones(4, 4).to(torch.complex32), "complex"),
    "float8_e4m3fn": (lambda: BITS.view(torch.float8_e4m3fn), "bfloat16"),
    "float8_e5m2": (lambda: BITS.view(torch.float8_e5m2), "bfloat16"),
    "bits": (lambda: BITS.view(torch.bits8), "bits8"),
    "uint16": (lambda: torch.ones(4, 4).to(torch.uint16), "uint16"),
    "coo": (lambda: torch.eye(4).to_sparse(), "to_dense"),
    "csr": (lambda: torch.eye(4).to_sparse_csr(), "to_dense"),
    "csc": (lambda: torch.eye(4).to_sparse_csc(), "to_dense"),
    "bsr": (lambda: torch.eye(4).to_sparse_bsr((2, 2)), "to_dense"),
    "quantized": (
        lambda: torch.quantize_per_tensor(torch.eye(4), 0.1, 0, torch.qint8),
        "dequantize",
    ),
    "per channel": (
        lambda: torch.quantize_per_channel(
            torch.eye(4), torch.ones(4), torch.zeros(4), 0, torch.quint8
        ),
        "dequantize",
    ),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
    "meta": (lambda: torch.empty(4, 4, device="meta"), "meta"),
}
SAFETENSORS = ("complex64", "float8_e4m3fn", "float8_e5m2", "uint16")


def assert_named(path: Path, name: str, remedy: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    for word in (path.name, name, remedy):
        assert word in str(caught.value)


@pytest.mark.parametrize("kind", UNUSUAL)
@pytest.mark.parametrize("entry", [None, "model"])
def test_unusual_tensors_are_named_with_a_remedy(
    kind: str, entry: str | None, tmp_path: Path
) -> None:
    make, remedy = UNUSUAL[kind]
    state = {"first": torch.ones(2), "odd.one": quiet(make)}
    quiet(lambda: write_zip(state if entry is None else {entry: state}, tmp_path / "a.pt"))  # type: ignore[arg-type, return-value]
    assert_named(tmp_path / "a.pt", "odd.one", remedy)


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_unusual_tensors_in_safetensors(kind: str, tmp_path: Path) -> None:
    make, remedy = UNUSUAL[kind]
    save_file({"first": torch.ones(2), "odd.one": make()}, tmp_path / "a.safetensors")
    assert_named(tmp_path / "a.safetensors", "odd.one", remedy)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_statistics(kind: str, tmp_path: Path) -> None:
    tensors = {"mean": torch.zeros(1, 2, 1, 1), "std": quiet(UNUSUAL[kind][0])}
    quiet(lambda: write_zip(tensors, tmp_path / "latents_stats.pt"))  # type: ignore[arg-type, return-value]
    with pytest.raises(DataError, match=r"latents_stats\.pt.* std"):
        load_statistics(tmp_path / "latents_stats.pt")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8])
@pytest.mark.parametrize("key", ["mean", "std"])
def test_statistics_that_are_no_floats(dtype: torch.dtype, key: str, tmp_path: Path) -> None:
    tensors = {name: torch.ones(1, 2, 1, 1) for name in ("mean", "std")}
    tensors[key] = tensors[key].to(dtype)
    torch.save(tensors, tmp_path / "latents_stats.pt")
    with pytest.raises(DataError, match=rf"latents_stats\.pt.*{key}"):
        load_statistics(tmp_path / "latents_stats.pt")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int64, torch.complex64])
def test_weights_that_are_no_floats_do_not_fit(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(2, 2)
    state = {**layer.state_dict(), "weight": torch.ones(2, 2).to(dtype)}
    with pytest.raises(CheckpointError, match=f"a file.*\n.*weight is {dtype}"):
        load_state(layer, state, "a file")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_precision_fit(dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(2, 2)
    ones = {name: torch.ones_like(x, dtype=dtype) for name, x in layer.state_dict().items()}
    load_state(layer, ones, "a file")
    assert layer.weight.dtype == torch.float32
    assert layer.weight.eq(1).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    layer = torch.nn.Linear(2, 2)
    state = {**layer.state_dict(), "bias": torch.tensor([0.0, value])}
    with pytest.raises(CheckpointError, match=r"a file.*bias"):
        load_state(layer, state, "a file")


@pytest.mark.parametrize("key", [0, 1.5, b"weight", ("a", "b"), None, True, torch.float32])
def test_keys_that_are_no_text(key: Any, tmp_path: Path) -> None:
    torch.save({key: torch.ones(1), "x": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt.*key"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("value", [np.ones(2), [1.0, 2.0], 0.5, "text", None, {"a": 1}])
def test_values_that_are_no_tensors(value: Any, tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.ones(1), "odd": value}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt.*odd is a \w+"):
        read_weights(tmp_path / "a.pt")


# --- views and claims -----------------------------------------------------------------------------

BASE = torch.arange(12.0).view(3, 4)
VIEWS = {
    "expanded": BASE[:1].expand(5, 4),
    "scalar expanded": torch.tensor(2.0).expand(3, 3),
    "transposed": BASE.t(),
    "slice": BASE[1:, ::2],
    "overlapping": BASE.flatten().unfold(0, 4, 1),
    "offset": BASE[2],
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(3.0),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "half": BASE.bfloat16(),
    "negative": torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_views_become_plain_tensors_of_their_own(
    write: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    views = {name: view for name, view in VIEWS.items() if not view.is_neg()}
    write({**views, "again": BASE, "and again": BASE}, tmp_path / "a.pt")
    found = read_weights(tmp_path / "a.pt").tensors
    for name, view in {**views, "again": BASE, "and again": BASE}.items():
        assert torch.equal(found[name], view)
        assert found[name].dtype == view.dtype
        assert (found[name].is_contiguous(), type(found[name])) == (True, Tensor)
        assert not found[name].requires_grad
    save_tensors(found, tmp_path / "copy.safetensors")  # refuses shared memory
    assert load_file(tmp_path / "copy.safetensors").keys() == found.keys()


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("shape", [(1 << 30,), (1 << 20, 1 << 20), (1 << 60,)])
def test_a_small_file_cannot_claim_a_large_tensor(
    write: Callable[[Any, Path], None], shape: tuple[int, ...], tmp_path: Path
) -> None:
    write({"x": torch.ones(1).expand(shape)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt.*x"):
        read_weights(tmp_path / "a.pt")


def test_a_small_file_cannot_claim_many_copies(tmp_path: Path) -> None:
    one = torch.ones(1 << 20)  # 4 MB; a thousand names for it
    torch.save({f"x{number}": one for number in range(1000)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_weights(tmp_path / "a.pt")


@pytest.mark.parametrize("kind", ["torch", "numpy", "program"])
def test_compressed_and_other_archives(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    if kind == "numpy":
        np.savez(tmp_path / "a.npz", x=np.ones(2))
        (tmp_path / "a.npz").rename(path)
    elif kind == "program":
        quiet(lambda: torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(path)))  # type: ignore[no-untyped-call, return-value, arg-type]
    else:
        torch.save({"x": torch.zeros(1 << 20)}, tmp_path / "plain.pt")
        with (
            zipfile.ZipFile(tmp_path / "plain.pt") as plain,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for name in plain.namelist():
                packed.writestr(name, plain.read(name))
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_weights(path)


@pytest.mark.parametrize(
    ("start", "word"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"not a file of weights", "a.pt"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_other_formats_are_named(start: bytes, word: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.pt{suffix}"
    path.write_bytes(start + b"\0" * 100 * bool(start))
    with pytest.raises(CheckpointError, match=r"a\.pt") as caught:
        read_weights(path)
    assert word in str(caught.value)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.ckpt", "a.bin", "a"])
def test_formats_are_told_by_content(name: str, tmp_path: Path) -> None:
    for write in (write_zip, write_legacy, save_file):
        write({"x": torch.ones(2)}, tmp_path / name)
        assert read_weights(tmp_path / name).tensors["x"].tolist() == [1, 1]


def test_a_checksum_that_was_not_written_is_not_missed(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"x": torch.arange(9.0)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_weights(tmp_path / "a.pt").tensors["x"].tolist() == list(range(9))


def test_damaged_numbers_are_found_by_their_checksum(tmp_path: Path) -> None:
    """A hole in the middle, as an interrupted copy leaves it; torch itself would read zeros."""
    path = tmp_path / "a.pt"
    torch.save({"x": torch.full((4096,), 7.0)}, path)
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)
    assert not torch.load(path, weights_only=True)["x"].all()
    with pytest.raises(CheckpointError, match=r"a\.pt.*data/0"):
        read_weights(path)


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt"):
        read_weights(tmp_path / "gone.pt")


# --- pickles --------------------------------------------------------------------------------------


class Settings(argparse.Namespace):
    """A class of the program that wrote the file."""


class Touch:
    """Unpickling this would create a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


SKIPPED = {
    "Namespace": argparse.Namespace(lr=1e-4, inner=argparse.Namespace(path=Path("data"))),
    "SimpleNamespace": types.SimpleNamespace(a=1),
    "path": Path("/data"),
    "NumPy scalar": np.float64(3.5),
    "NumPy integer": np.int64(3),
    "NumPy array": np.ones((2, 3)),
    "NumPy type": np.dtype("float32"),
    "random state": ("MT19937", np.arange(4, dtype=np.uint32), 0),
    "defaultdict": collections.defaultdict(list, a=[1]),
    "OrderedDict": collections.OrderedDict(a=1),
    "Counter": collections.Counter("aab"),
    "size": torch.Size([2, 3]),
    "type": torch.bfloat16,
    "device": torch.device("cpu"),
    "set": {1, 2},
    "date": datetime.datetime(2025, 1, 1),
}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("kind", SKIPPED)
def test_settings_beside_the_weights_are_skipped(
    write: Callable[[Any, Path], None], kind: str, tmp_path: Path
) -> None:
    write({"model": {"x": torch.ones(2)}, "kept": SKIPPED[kind], "step": 3}, tmp_path / "a.pt")
    found = read_weights(tmp_path / "a.pt")
    assert found.tensors["x"].tolist() == [1, 1]
    assert set(found.left) == {"kept", "step"}


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Settings(lr=1), "test_untrusted_files.Settings"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (shutil.rmtree, "shutil.rmtree"),
        (sys.exit, "sys.exit"),
    ],
    ids=["class", "module", "function", "sys"],
)
def test_any_other_class_is_named(
    write: Callable[[Any, Path], None], value: Any, name: str, tmp_path: Path
) -> None:
    write({"model": {"x": torch.ones(2)}, "kept": value}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt") as caught:
        read_weights(tmp_path / "a.pt")
    assert name in str(caught.value)


def touch(trace: Path) -> bytes:
    """The opcodes of :class:`Touch`."""
    return pickle.dumps(Touch(trace), protocol=2)[2:-1]


def state_of_a_namespace(state: bytes) -> bytes:
    """A pickle that gives a Namespace this state (opcodes)."""
    return b"\x80\x02cargparse\nNamespace\n)\x81" + state + b"b."


@pytest.mark.parametrize(
    "content",
    [
        lambda trace: pickle.dumps({"x": Touch(trace)}, protocol=2),
        lambda trace: pickle.dumps({"x": Touch(trace)}, protocol=4),
        lambda trace: pickle.dumps({Touch(trace): 1}, protocol=2),
        lambda trace: state_of_a_namespace(touch(trace)),
        lambda trace: b"\x80\x02cargparse\nNamespace\n" + touch(trace) + b"\x85R.",
        lambda _: b"\x80\x02cposix\nsystem\nX\x00\x00\x00\x00\x85R.",
    ],
)
def test_no_code_is_executed(content: Callable[[Path], bytes], tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "a.pt"
    bare = content(trace)
    torch.save({"x": torch.ones(1)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w") as changed:
        for name in plain.namelist():
            changed.writestr(name, bare if name.endswith("data.pkl") else plain.read(name))
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_weights(path)
    path.write_bytes(bare)
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_weights(path)
    assert not trace.exists()


def test_a_stand_in_ignores_its_state(tmp_path: Path) -> None:
    """State that would replace the class's methods, or that is no mapping at all."""
    for state in (b"}U\x09__class__cargparse\nNamespace\ns", b"K\x01", b"]", b"N"):
        path = tmp_path / "a.pt"
        path.write_bytes(state_of_a_namespace(state))
        with pytest.raises(CheckpointError, match=r"a\.pt"):
            read_weights(path)
