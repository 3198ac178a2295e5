"""Damaged files of weights, statistics and latents give one named error, or what was saved."""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from pae_framework.data.latent_dataset import LatentDataset, shard_name, write_shard
from pae_framework.data.statistics import load_statistics
from pae_framework.errors import CheckpointError, DataError
from pae_framework.tensor_files import load_tensors
from pae_framework.weight_files import read_weights

MEMORY = 1 << 30
"""Bytes that reading a small file must not need."""
TENSORS = {
    "blocks.0.weight": torch.linspace(1, 2, 24).view(4, 6),
    "blocks.0.bias": torch.linspace(3, 4, 4).bfloat16(),
    "count": torch.tensor(7),
}
STATISTICS = {"mean": torch.ones(1, 3, 1, 1), "std": torch.full((1, 3, 1, 1), 2.0)}
BESIDE = {"args": argparse.Namespace(lr=1e-4), "opt": {"state": {0: {"step": 3}}}}


def torch_file(content: Any, path: Path) -> None:
    torch.save(content, path)


def legacy_file(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def weights(path: Path) -> dict[str, Tensor]:
    return read_weights(path, "average").tensors


def statistics(path: Path) -> dict[str, Tensor]:
    found = load_statistics(path)
    return {"mean": found.mean, "std": found.std}


def latents(path: Path) -> dict[str, Tensor]:
    found, labels = LatentDataset(path.parent).batch(torch.arange(2))
    return {"latents": found, "labels": labels}


def shard(content: dict[str, Tensor], path: Path) -> None:
    write_shard(path, content["latents"], content["latents"], content["labels"])


LATENTS = {"latents": torch.linspace(0, 1, 24).view(2, 3, 2, 2), "labels": torch.tensor([1, 0])}

Write = Callable[[Any, Path], None]
Read = Callable[[Path], dict[str, Tensor]]
CASES: dict[str, tuple[str, Any, dict[str, Tensor], Write, Read]] = {
    "safetensors": ("a.safetensors", TENSORS, TENSORS, save_file, weights),
    "own safetensors": ("a.safetensors", TENSORS, TENSORS, save_file, load_tensors),
    "torch": ("a.pt", {"ema": TENSORS, **BESIDE}, TENSORS, torch_file, weights),
    "legacy torch": ("a.pt", {"ema": TENSORS, **BESIDE}, TENSORS, legacy_file, weights),
    "statistics": ("latents_stats.pt", STATISTICS, STATISTICS, torch_file, statistics),
    "statistics, legacy": ("latents_stats.pt", STATISTICS, STATISTICS, legacy_file, statistics),
    "statistics, safetensors": ("s.safetensors", STATISTICS, STATISTICS, save_file, statistics),
    "latents": (shard_name(0, 0), LATENTS, LATENTS, shard, latents),
}
CHECKED = ("torch", "statistics")
"""Cases whose format has a checksum of the numbers."""


KINDS = ("flip", "byte", "cut", "insert", "zero", "swap", "repeat", "number")


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A function that damages the content of a file."""
    kind = draw(
        st.sampled_from(("flip", "byte", "cut", "insert", "zero", "swap", "repeat", "number"))
    )
    # Headers are short: damage them as often as the rest.
    place = draw(st.one_of(st.floats(0, 1), st.floats(0, 0.1), st.floats(0.9, 1)))
    more = draw(st.binary(min_size=1, max_size=12))
    length = draw(st.integers(1, 400))

    def damage(content: bytes) -> bytes:
        at = min(int(place * len(content)), len(content) - 1)
        changed = bytearray(content)
        if kind == "flip":
            changed[at] ^= 1 << (more[0] % 8)
        elif kind == "byte":
            changed[at : at + len(more)] = more[: len(content) - at]
        elif kind == "cut":
            del changed[at : at + length if more[0] % 2 else None]
        elif kind == "insert":
            changed[at:at] = more
        elif kind == "zero":
            changed[at : at + length] = bytes(min(length, len(content) - at))
        elif kind == "swap":
            middle = content[at : at + 2 * length]
            half = len(middle) // 2
            changed[at : at + 2 * half] = middle[half : 2 * half] + middle[:half]
        elif kind == "repeat":
            changed[at:at] = content[at : at + length]
        else:  # a length or an offset that is far too large
            changed[at : at + 8] = (1 << (more[0] % 64)).to_bytes(8, "little")
        return bytes(changed)

    return damage


@pytest.fixture
def limited_memory() -> Iterator[None]:
    """Allow the process only :data:`MEMORY` more than it has."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used * resource.getpagesize() + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def check(name: str, folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file, content, tensors, write, read = CASES[name]
    folder.mkdir(exist_ok=True)
    path = folder / file
    path.unlink(missing_ok=True)
    write(content, path)
    path.write_bytes(damage(path.read_bytes()))
    found, message = {}, None
    try:
        found = read(path)
    except (CheckpointError, DataError) as error:
        message = str(error)
    if message is not None:
        assert file in message or str(folder) in message
        assert len(message) < 2000
        return
    # No format but torch's has a checksum: other names, types and numbers cannot be noticed. But
    # what is read is plain, and no larger than the file.
    assert all(isinstance(name, str) for name in found)
    assert sum(value.nbytes for value in found.values()) <= 2 * path.stat().st_size
    if name in CHECKED:
        assert found.keys() == tensors.keys()
        for key, value in found.items():
            assert value.dtype == tensors[key].dtype
            assert torch.equal(value, tensors[key])


QUICK = settings(max_examples=100, suppress_health_check=list(HealthCheck))
SLOW = settings(max_examples=1000, suppress_health_check=list(HealthCheck))


@QUICK
@given(name=st.sampled_from(sorted(CASES)), damage=damages())
@pytest.mark.usefixtures("limited_memory")
def test_damaged_files(name: str, damage: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    check(name, tmp_path_factory.getbasetemp() / "damaged", damage)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@SLOW
@given(damage=damages())
@pytest.mark.usefixtures("limited_memory")
def test_many_damaged_files(name: str, damage: Any, tmp_path: Path) -> None:
    check(name, tmp_path / "damaged", damage)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("limited_memory")
def test_cut_files(name: str, tmp_path: Path) -> None:
    """Cut off at 24 places, of which one is the whole file."""
    for tenths in range(24):
        check(name, tmp_path / "cut", lambda content, n=tenths: content[: len(content) * n // 23])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("other", CASES)
def test_the_content_of_another_file(name: str, other: str, tmp_path: Path) -> None:
    _, content, _, write, _ = CASES[other]
    write(content, tmp_path / "other.safetensors")
    beside = (tmp_path / "other.safetensors").read_bytes()
    try:
        check(name, tmp_path / "damaged", lambda _: beside)
    except AssertionError:
        assert name in CHECKED  # a valid file, but with other tensors


@pytest.mark.parametrize("name", CASES)
def test_undamaged_files_are_read(name: str, tmp_path: Path) -> None:
    file, content, tensors, write, read = CASES[name]
    write(content, tmp_path / file)
    found = read(tmp_path / file)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
