"""Statistics of latents: formula, files, errors."""

import pickle
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pae_framework.data.latent_dataset import shard_name, write_shard
from pae_framework.data.statistics import (
    SAFE_NAME,
    LatentStatistics,
    compute_statistics,
    load_standardization,
    load_statistics,
    recorded_tokenizer,
)
from pae_framework.errors import DataError


def write(directory, *shards):
    """Shards of these latents; the mirrored ones differ by 1000 and must not count."""
    for number, latents in enumerate(shards):
        labels = torch.zeros(len(latents))
        write_shard(directory / shard_name(0, number), latents, latents + 1000, labels)


@pytest.fixture
def latents():
    random = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 5.0, 0.01]).view(1, 3, 1, 1)
    return 7 + scale * torch.randn(60, 3, 4, 4, generator=random)


def test_by_hand(tmp_path):
    """One channel with the values 0 and 2: mean 1, unbiased variance (1 + 1) / 1 = 2."""
    write(tmp_path, torch.tensor([0.0]).view(1, 1, 1, 1), torch.tensor([2.0]).view(1, 1, 1, 1))
    statistics = compute_statistics(tmp_path)
    assert statistics.mean.shape == statistics.std.shape == (1, 1, 1, 1)
    assert statistics.mean.item() == 1
    assert statistics.std.item() == pytest.approx(2**0.5)


def test_statistics_are_per_channel_over_rows_and_positions(tmp_path, latents):
    write(tmp_path, latents[:25], latents[25:])
    statistics = compute_statistics(tmp_path)
    array = latents.double().numpy()
    mean, std = array.mean(axis=(0, 2, 3)), array.std(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(statistics.mean.flatten(), mean, rtol=1e-6)
    np.testing.assert_allclose(statistics.std.flatten(), std, rtol=1e-5)


# --- RAE's files --------------------------------------------------------------------------------


VAR = torch.tensor([[[1.0, 4.0], [0.0, 9.0]], [[0.25, 1.0], [1.0, 1.0]]])
MEAN = torch.arange(8.0).view(2, 2, 2)


@pytest.mark.parametrize(
    "content",
    [
        {"mean": MEAN, "var": VAR},
        {"mean": MEAN, "var": VAR.double()},
        {"mean": MEAN.half(), "var": VAR},
        {"mean": None, "var": VAR},
        {"mean": MEAN, "var": None},
        {"mean": None, "var": None},
    ],
    ids=["both", "double variance", "half mean", "no mean", "no variance", "neither"],
)
def test_raes_statistics_are_read_in_float32(tmp_path, content):
    path = tmp_path / "stat.pt"
    torch.save(content, path)
    for found, key, exact in zip(
        load_standardization(path), ("mean", "var"), (MEAN, VAR), strict=True
    ):
        if content[key] is None:
            assert found is None
        else:
            assert found is not None
            assert found.dtype == torch.float32
            assert torch.equal(found, exact)


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        ({"mean": None, "var": VAR.flatten()}, "8,"),
        ({"mean": MEAN[:1], "var": VAR}, "1, 2, 2"),
        ({"mean": None, "var": -VAR}, "negative"),
        ({"mean": None, "var": VAR / 0}, "NaN"),
        ({"mean": MEAN / 0, "var": VAR}, "mean"),
        ({"mean": MEAN.double() * 1e300, "var": VAR}, "mean"),
        ({"mean": None, "var": VAR.long()}, "int64"),
        ({"mean": None, "var": 3.0}, "var"),
        ({"mean": MEAN[:, :1], "var": VAR[:, :1]}, "2, 1, 2"),
        ({"mean": MEAN}, "`var`"),
        ([VAR], "`var`"),
    ],
)
def test_other_contents_than_raes_are_rejected(tmp_path, content, fact):
    path = tmp_path / "stat.pt"
    torch.save(content, path)
    with pytest.raises(DataError) as error:
        load_standardization(path)
    assert str(path) in str(error.value)
    assert fact in str(error.value)


def test_raes_statistics_are_not_those_of_a_generator(tmp_path):
    torch.save({"mean": None, "var": VAR}, tmp_path / "stat.pt")
    with pytest.raises(DataError, match=r"tokenizer\.bottleneck\.statistics"):
        load_statistics(tmp_path / "stat.pt")


def test_the_seed_chooses_at_most_the_given_number_of_rows(tmp_path, latents):
    write(tmp_path, latents)
    some = compute_statistics(tmp_path, seed=0, rows=10)
    again = compute_statistics(tmp_path, seed=0, rows=10)
    other = compute_statistics(tmp_path, seed=1, rows=10)
    assert torch.equal(some.mean, again.mean)
    assert not torch.equal(some.mean, other.mean)
    # All rows are the same set whatever the seed.
    everything = [compute_statistics(tmp_path, seed=seed).mean for seed in (0, 1)]
    assert torch.equal(*everything)


def test_denormalize_inverts_normalize(tmp_path, latents):
    write(tmp_path, latents)
    statistics = compute_statistics(tmp_path)
    z = statistics.normalize(latents)
    torch.testing.assert_close(z.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(z.std(dim=(0, 2, 3)), torch.ones(3), rtol=1e-3, atol=0)
    torch.testing.assert_close(statistics.denormalize(z), latents)


def test_saved_for_us_and_for_lightningdit(tmp_path, latents):
    write(tmp_path, latents)
    statistics = compute_statistics(tmp_path)
    statistics.save(tmp_path)
    theirs = torch.load(tmp_path / "latents_stats.pt", weights_only=True)
    assert set(theirs) == {"mean", "std"}
    assert torch.equal(theirs["std"], statistics.std)
    assert torch.equal(load_file(tmp_path / SAFE_NAME)["mean"], statistics.mean)
    for path in (tmp_path, tmp_path / SAFE_NAME, tmp_path / "latents_stats.pt"):
        read = load_statistics(path)
        assert torch.equal(read.mean, statistics.mean)
        assert torch.equal(read.std, statistics.std)


def test_a_directory_with_only_lightningdits_file(tmp_path):
    mean, std = torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1)
    torch.save({"mean": mean, "std": std}, tmp_path / "latents_stats.pt")
    assert torch.equal(load_statistics(tmp_path).std, std)


# --- errors ---------------------------------------------------------------------------------


def test_a_constant_channel_is_named(tmp_path, latents):
    latents[:, 1] = 3
    write(tmp_path, latents)
    with pytest.raises(DataError, match=r"channels \[1\]"):
        compute_statistics(tmp_path)


def test_a_single_value_is_rejected_as_constant(tmp_path):
    write(tmp_path, torch.ones(1, 1, 1, 1))
    with pytest.raises(DataError, match=r"channels \[0\]"):
        compute_statistics(tmp_path)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.0, float("nan")], [1.0, 1.0], "NaN or infinity"),
        ([0.0, 0.0], [1.0, float("inf")], "NaN or infinity"),
        ([0.0, 0.0], [1.0, 0.0], r"channels \[1\]"),
        ([0.0, 0.0], [-1.0, 1.0], r"channels \[0\]"),
        ([0.0, 0.0], [1.0], r"expected \(1, C, 1, 1\)"),
    ],
)
def test_invalid_statistics_are_rejected(tmp_path, mean, std, message):
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    LatentStatistics(mean, std).save(tmp_path)
    with pytest.raises(DataError, match=message):
        load_statistics(tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"statistics/latents_stats\.safetensors .*latents_stats\.pt"
    ):
        load_statistics(tmp_path)
    with pytest.raises(DataError, match=r"gone\.safetensors"):
        load_statistics(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("name", ["latents_stats.pt", "latents_stats.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a file of tensors"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=re.escape(name)):
        load_statistics(tmp_path / name)


def test_a_file_without_mean_or_std_is_rejected(tmp_path):
    save_file({"mean": torch.zeros(1, 2, 1, 1)}, tmp_path / "latents_stats.safetensors")
    with pytest.raises(DataError, match="`mean` and `std`"):
        load_statistics(tmp_path)


class Touch:
    """Unpickling this would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def plain_pickle(value, path):
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize("save", [torch.save, plain_pickle])
def test_code_in_a_pickle_is_not_executed(tmp_path, save):
    path, trace = tmp_path / "latents_stats.pt", tmp_path / "trace"
    save({"mean": Touch(trace), "std": torch.ones(1)}, path)
    with pytest.raises(DataError, match=r"latents_stats\.pt"):
        load_statistics(path)
    assert not trace.exists()


def test_statistics_record_their_tokenizer(tmp_path):
    statistics = LatentStatistics(torch.zeros(1, 2, 1, 1), torch.ones(1, 2, 1, 1))
    assert recorded_tokenizer(tmp_path) is None
    statistics.save(tmp_path)
    assert recorded_tokenizer(tmp_path) is None
    statistics.save(tmp_path, tokenizer="4af1")
    assert recorded_tokenizer(tmp_path) == "4af1"
    assert torch.equal(load_statistics(tmp_path).std, statistics.std)


def test_only_shards_are_safetensors_files_beside_the_shards(tmp_path):
    """LightningDiT's data set opens them all (`*.safetensors`) and asks each for its labels."""
    write(tmp_path, torch.randn(4, 2, 3, 3))
    compute_statistics(tmp_path).save(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        assert "labels" in load_file(path)
    assert (tmp_path / "latents_stats.pt").is_file()
