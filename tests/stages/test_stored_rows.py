"""Rows that come in batches: one tensor in the end, in memory or in a file that leaves no trace."""

from __future__ import annotations

import re
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from benchmarks.evaluation_memory import peak_in_new_process
from pae_framework.errors import WriteError
from pae_framework.evaluation import stored_rows
from pae_framework.evaluation.stored_rows import StoredRows
from pae_framework.system import file_errors

TYPES = (torch.uint8, torch.float32, torch.float64, torch.int64)


def collected(batches: list[torch.Tensor], folder: Path) -> torch.Tensor:
    rows = StoredRows(sum(map(len, batches)), lambda: folder)
    for batch in batches:
        rows.append(batch)
    return rows.tensor()


@pytest.fixture(params=["in memory", "in a file"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in a file":
        monkeypatch.setattr(stored_rows, "IN_MEMORY", 0)


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("sizes", [[1], [3, 3, 2], [5, 0, 1], [7, 1, 1]], ids=str)
def test_the_rows_in_order_whatever_the_batches(
    tmp_path: Path, dtype: torch.dtype, sizes: list[int]
) -> None:
    whole = torch.arange(6 * sum(sizes)).view(-1, 2, 3).to(dtype)
    found = collected(list(whole.split(sizes)), tmp_path)
    assert found.dtype == dtype
    assert torch.equal(found, whole)


@pytest.mark.usefixtures("limit")
def test_transposed_rows_keep_their_places(tmp_path: Path) -> None:
    whole = torch.arange(24).view(4, 2, 3).transpose(1, 2)
    assert torch.equal(collected(list(whole.split(3)), tmp_path), whole)


@pytest.mark.usefixtures("limit")
def test_no_rows(tmp_path: Path) -> None:
    assert collected([torch.empty(0, 3, 4, 4, dtype=torch.uint8)], tmp_path).shape == (0, 3, 4, 4)


def test_few_rows_touch_no_folder() -> None:
    def nowhere() -> Path:
        raise AssertionError("asked for a folder")

    rows = StoredRows(2, nowhere)
    rows.append(torch.zeros(2, 3))
    assert rows.tensor().shape == (2, 3)


def test_a_large_tensor_leaves_no_file_and_outlives_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_rows, "IN_MEMORY", 0)
    found = collected([torch.ones(3, 2), torch.zeros(1, 2)], tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    found[0] = 5  # an evaluator may
    assert found.sum() == 10 + 4


def test_too_little_space_is_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(stored_rows, "IN_MEMORY", 0)
    monkeypatch.setattr(file_errors.shutil, "disk_usage", lambda path: usage(1 << 20))
    rows = StoredRows(1 << 20, lambda: tmp_path / "rows")
    with pytest.raises(WriteError) as caught:
        rows.append(torch.zeros(250, 3, dtype=torch.uint8))
    assert re.search(r"1\.0 MiB free .* 3\.0 MiB", str(caught.value))
    assert str(tmp_path / "rows") in str(caught.value)


def test_memory_of_an_evaluation_does_not_grow_with_the_images() -> None:
    """Of 12 000 images of 32 px, pixels, latents and reconstructions have 221 MB."""
    few, many = peak_in_new_process(1000), peak_in_new_process(12_000)
    assert many - few < 100e6
