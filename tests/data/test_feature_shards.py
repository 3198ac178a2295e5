"""Cached tokens on disk: the tokens of an image, in their own type, whatever is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pae_framework.data.feature_shards import (
    FeatureRows,
    feature_shard_name,
    is_complete_features,
    write_features,
)
from pae_framework.errors import DataError, RunError

SIZES = (3, 3, 1)


def tokens(first: int, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Tokens (count, 2, 4) that say whose they are: all of image i are i."""
    return torch.arange(first, first + count).view(-1, 1, 1).expand(count, 2, 4).to(dtype)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def paths(tmp_path: Path, request: pytest.FixtureRequest) -> list[Path]:
    """Seven images in three shards; the tokens of the mirror image of image i are -i."""
    found, first = [], 0
    for shard, size in enumerate(SIZES):
        found.append(tmp_path / feature_shard_name(shard))
        rows = tokens(first, size, request.param)
        write_features(found[-1], rows, -rows)
        first += size
    return found


def test_a_batch_has_the_tokens_of_its_images_in_their_order_and_type(paths: list[Path]) -> None:
    rows = FeatureRows(paths, flip=True)
    assert len(rows) == 7
    indices, flips = torch.tensor([6, 0, 3, 2, 2]), torch.tensor([1, 0, 1, 0, 1]).bool()
    assert rows.batch(indices)[:, 0, 0].tolist() == [6, 0, 3, 2, 2]
    found = rows.batch(indices, flips)
    assert found.shape == (5, 2, 4)
    assert found[:, 1, 3].tolist() == [-6, 0, -3, 2, -2]
    assert found.dtype == rows.batch(indices[:1]).dtype
    assert found.dtype in (torch.float32, torch.bfloat16)


def test_without_mirroring_one_tensor_is_stored(tmp_path: Path) -> None:
    path = tmp_path / feature_shard_name(0)
    write_features(path, tokens(0, 3), None)
    assert FeatureRows([path], flip=False).batch(torch.tensor([1]))[0, 0, 0] == 1
    assert is_complete_features(path, 3, flip=False)
    assert not is_complete_features(path, 3, flip=True)
    with pytest.raises(DataError, match=path.name):
        FeatureRows([path], flip=True)


def test_missing_short_and_truncated_shards_are_not_complete(tmp_path: Path) -> None:
    path = tmp_path / feature_shard_name(0)
    assert not is_complete_features(path, 3, flip=False)
    write_features(path, tokens(0, 3), None)
    assert not is_complete_features(path, 4, flip=False)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_complete_features(path, 3, flip=False)


@pytest.mark.parametrize(
    "replaced",
    [
        {"tokens": torch.zeros(3, 2, 5)},
        {"tokens": torch.zeros(3, 2, 4, dtype=torch.float64)},
        {"tokens": torch.zeros(3, 8)},
        {"tokens": torch.zeros(3, 2, 4, dtype=torch.int64)},
        {"latents": torch.zeros(3, 2, 4)},
    ],
    ids=["shape", "type", "dimensions", "integers", "name"],
)
def test_a_shard_that_does_not_fit_is_named(tmp_path: Path, replaced: dict[str, Tensor]) -> None:
    paths = [tmp_path / feature_shard_name(shard) for shard in range(2)]
    for path in paths:
        write_features(path, tokens(0, 3), None)
    save_file(replaced, paths[1])
    with pytest.raises(DataError, match=paths[1].name):
        FeatureRows(paths, flip=False)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_tokens_that_are_not_finite_are_not_written(tmp_path: Path, bad: float) -> None:
    rows = tokens(0, 3).clone()
    rows[1, 0, 2] = bad
    with pytest.raises(RunError, match=r"shard000.* tokens_flip\b"):
        write_features(tmp_path / feature_shard_name(0), tokens(0, 3), rows)
    assert list(tmp_path.iterdir()) == []
