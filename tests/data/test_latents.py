"""Latent shards: LightningDiT's layout, atomic writes, rows in any order."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pae_framework.config import LatentShape
from pae_framework.data.latent_dataset import (
    LatentDataset,
    is_complete_shard,
    shard_name,
    write_shard,
)
from pae_framework.errors import DataError, RunError

SIZES = (4, 3, 5)
SHAPE = LatentShape(channels=2, side=3)


def rows(first, count, dtype=torch.float32):
    """Latents that say who they are: row i is all i, its mirror image all -i; label i mod 10."""
    numbers = torch.arange(first, first + count)
    plain = numbers.view(-1, 1, 1, 1).expand(count, 2, 3, 3).to(dtype)
    return plain, -plain, numbers % 10


@pytest.fixture
def directory(tmp_path):
    first = 0
    for shard, size in enumerate(SIZES):
        write_shard(tmp_path / shard_name(0, shard), *rows(first, size))
        first += size
    return tmp_path


# --- the file ---------------------------------------------------------------------------------


def test_a_shard_is_what_lightningdit_reads(tmp_path):
    path = tmp_path / "latents_rank03_shard012.safetensors"
    assert shard_name(3, 12) == path.name
    plain, mirrored, labels = rows(1, 4)
    write_shard(path, plain, mirrored, labels)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == {"latents", "latents_flip", "labels"}
        assert file.metadata() == {"total_size": "4", "dtype": "torch.float32", "device": "cpu"}
        # How its data set reads one row.
        assert torch.equal(file.get_slice("latents")[2:3], plain[2:3])
        assert torch.equal(file.get_slice("latents_flip")[2:3], mirrored[2:3])
        assert file.get_slice("labels").get_shape() == [4]
    assert load_file(path)["labels"].dtype == torch.int64


def test_bfloat16_is_kept_on_disk_and_read_as_float32(tmp_path):
    values = torch.tensor([1.0, 1.0078125, -3.140625]).view(3, 1, 1, 1)  # exact in bfloat16
    path = tmp_path / shard_name(0, 0)
    write_shard(path, values.bfloat16(), values.bfloat16(), torch.zeros(3))
    with safe_open(path, "pt") as file:
        assert file.get_tensor("latents").dtype == torch.bfloat16
        assert file.metadata()["dtype"] == "torch.bfloat16"
    read, _ = LatentDataset(tmp_path).batch(torch.arange(3))
    assert read.dtype == torch.float32
    assert torch.equal(read, values)


def test_a_failed_write_keeps_the_old_shard(tmp_path, monkeypatch):
    path = tmp_path / shard_name(0, 0)
    write_shard(path, *rows(0, 4))
    before = path.read_bytes()

    def half_written(tensors, target, metadata):
        Path(target).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "serialize_file", half_written)
    with pytest.raises(OSError, match="disk full"):
        write_shard(path, *rows(7, 4))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_written_shard_is_verified(tmp_path, monkeypatch):
    def forgetful(tensors, target, metadata):
        serialize_file(tensors, target, metadata=metadata)
        content = Path(target).read_bytes()
        Path(target).write_bytes(content[:-4] + bytes(4))  # no value of rows(1, 4) is 0

    serialize_file = safetensors.torch.serialize_file
    monkeypatch.setattr(safetensors.torch, "serialize_file", forgetful)
    with pytest.raises(RunError, match=r"latents_rank00_shard000\.safetensors"):
        write_shard(tmp_path / shard_name(0, 0), *rows(1, 4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_are_not_written(tmp_path, bad):
    plain, mirrored, labels = rows(0, 4)
    mirrored = mirrored.clone()
    mirrored[1, 0, 0, 0] = bad
    with pytest.raises(RunError, match=r"shard000.* latents_flip\b"):
        write_shard(tmp_path / shard_name(0, 0), plain, mirrored, labels)
    assert list(tmp_path.iterdir()) == []


def test_missing_short_and_truncated_shards_are_not_complete(tmp_path):
    path = tmp_path / shard_name(0, 0)
    assert not is_complete_shard(path, 4)
    write_shard(path, *rows(0, 4))
    assert is_complete_shard(path, 4)
    assert not is_complete_shard(path, 5)
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_complete_shard(path, 4)


# --- the data set -----------------------------------------------------------------------------


def test_rows_are_numbered_through_the_shards_in_order_of_their_names(directory):
    dataset = LatentDataset(directory)
    assert len(dataset) == 12
    assert dataset.shape == SHAPE
    latents, labels = dataset.batch(torch.arange(12))
    for index in range(12):
        assert torch.equal(latents[index], torch.full((2, 3, 3), float(index)))
        assert labels[index] == index % 10


def test_shards_are_ordered_by_rank(tmp_path):
    """Written by LightningDiT's own means: save_file, one set of shards per rank."""
    for rank, first in ((1, 5), (0, 0)):
        plain, mirrored, labels = rows(first, 5)
        tensors = {"latents": plain, "latents_flip": mirrored, "labels": labels}
        metadata = {"total_size": "5", "dtype": "torch.float32", "device": "cuda:0"}
        save_file(
            {key: tensor.contiguous() for key, tensor in tensors.items()},
            tmp_path / f"latents_rank{rank:02d}_shard000.safetensors",
            metadata,
        )
    latents, _ = LatentDataset(tmp_path).batch(torch.arange(10))
    assert latents[:, 0, 0, 0].tolist() == list(range(10))


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=20))
def test_a_batch_contains_the_given_rows_plain_or_mirrored(directory, wanted):
    indices = torch.tensor([index for index, _ in wanted], dtype=torch.int64)
    flips = torch.tensor([flip for _, flip in wanted], dtype=torch.bool)
    latents, labels = LatentDataset(directory).batch(indices, flips)
    assert latents.shape == (len(wanted), 2, 3, 3)
    assert labels.tolist() == [index % 10 for index, _ in wanted]
    for latent, (index, flip) in zip(latents, wanted, strict=True):
        assert (latent == (-index if flip else index)).all()


# --- bad directories --------------------------------------------------------------------------


def test_a_directory_without_shards(tmp_path):
    with pytest.raises(DataError, match=r"no latents.*latents_rank00_shard000\.safetensors"):
        LatentDataset(tmp_path)


def test_a_damaged_shard_is_named(directory):
    path = directory / shard_name(0, 1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"shard001\.safetensors"):
        LatentDataset(directory)


def tensors_with(**changes):
    plain, mirrored, labels = rows(0, 4)
    tensors = {"latents": plain, "latents_flip": mirrored, "labels": labels, **changes}
    return {key: value.contiguous() for key, value in tensors.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents_flip": None}, r"\blatents_flip\b"),
        ({"latents_flip": torch.zeros(3, 2, 3, 3)}, r"latents_flip \(3, 2, 3, 3\)"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"labels .*\(5,\).*\(4,\)"),
        ({"labels": torch.zeros(4)}, r"torch\.float32.*\(4,\) torch\.int64"),
        ({"latents": torch.zeros(4, 18)}, r"latents .*\(4, 18\).*\(n, C, h, h\)"),
        ({"latents": torch.tensor(0.0)}, r"latents .*\(\)"),
        ({"latents": torch.zeros(4, 2, 3, 2)}, r"latents .*\(4, 2, 3, 2\)"),
    ],
)
def test_a_shard_with_inconsistent_tensors_is_rejected(tmp_path, changes, message):
    save_file(tensors_with(**changes), tmp_path / shard_name(0, 0))
    with pytest.raises(DataError, match=message):
        LatentDataset(tmp_path)


def test_the_same_tensor_may_be_written_as_plain_and_mirrored(tmp_path):
    plain, _, labels = rows(0, 4)
    plain = plain.contiguous()
    write_shard(tmp_path / shard_name(0, 0), plain, plain, labels)
    mirrored, _ = LatentDataset(tmp_path).batch(torch.arange(4), torch.ones(4, dtype=torch.bool))
    assert torch.equal(mirrored, plain)


def test_shards_with_different_shapes_are_rejected(directory):
    write_shard(directory / shard_name(0, 3), *(torch.zeros(4, 8, 3, 3),) * 2, torch.zeros(4))
    with pytest.raises(DataError, match=r"shard003.*\(8, 3, 3\).*shard000.*\(2, 3, 3\)"):
        LatentDataset(directory)


def test_shards_with_different_types_are_rejected(directory):
    write_shard(directory / shard_name(0, 3), *rows(12, 4, torch.bfloat16))
    with pytest.raises(DataError, match=r"shard003.*bfloat16.*float32"):
        LatentDataset(directory)
