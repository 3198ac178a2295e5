"""Features come in chunks from a cache that an interruption fills and no change makes stale."""

import subprocess
import sys
import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from stand_in import ColorNetwork, colors

from pae_framework.data.npz import NpzImages
from pae_framework.errors import DataError, WriteError
from pae_framework.metrics import feature_extraction
from pae_framework.metrics.feature_extraction import extract
from pae_framework.metrics.features import collect
from pae_framework.system import file_errors


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(feature_extraction, "CHUNK", 10)


@pytest.fixture
def images(tmp_path):
    np.savez(tmp_path / "images.npz", colors(35))
    return NpzImages(tmp_path / "images.npz")


def run(images, network, tmp_path, batch_size=4, show=lambda done, cached: None, identity=None):
    digest = identity or images.identity()
    return list(extract(images, digest, network, tmp_path / "cache", batch_size, show))


def joined(parts):
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def test_all_images_in_order_once_and_the_second_time_from_the_cache(tmp_path, images):
    network, shown = ColorNetwork(), []
    parts = run(images, network, tmp_path, show=lambda *numbers: shown.append(numbers))
    direct = ColorNetwork()(images.read(range(35)))
    assert [len(part.pool) for part in parts] == [10, 10, 10, 5]
    assert all(torch.equal(a, b) for a, b in zip(joined(parts), direct, strict=True))
    assert network.seen == 35
    assert network.largest_batch == 4
    assert shown[-1] == (35, 0)

    shown.clear()
    again = run(images, network, tmp_path, show=lambda *numbers: shown.append(numbers))
    assert network.seen == 35
    assert shown == [(10, 10), (20, 20), (30, 30), (35, 35)]
    assert all(torch.equal(a, b) for a, b in zip(joined(again), joined(parts), strict=True))


def test_an_interruption_loses_at_most_a_chunk(tmp_path, images):
    def stop(done, cached):
        if done > 24:
            raise KeyboardInterrupt

    network = ColorNetwork()
    with pytest.raises(KeyboardInterrupt):
        run(images, network, tmp_path, show=stop)
    before = network.seen
    run(images, network, tmp_path)
    assert network.seen - before == 35 - 20


@pytest.mark.parametrize("change", ["one image", "order", "weights"])
def test_nothing_that_features_depend_on_leaves_the_cache_valid(tmp_path, images, change):
    run(images, ColorNetwork(), tmp_path)
    stored, network = colors(35), ColorNetwork()
    if change == "one image":
        stored[7] = 255 - stored[7]
    elif change == "order":
        stored = stored[::-1].copy()
    else:
        network = ColorNetwork("0123456789")
    np.savez(tmp_path / "images.npz", stored)
    found = joined(run(NpzImages(tmp_path / "images.npz"), network, tmp_path))
    assert network.seen == 35
    expected = stored.mean((1, 2)) / 255
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_the_batch_size_changes_nothing(tmp_path, images, size):
    parts = run(images, ColorNetwork(), tmp_path, batch_size=size)
    assert torch.equal(joined(parts)[0], ColorNetwork()(images.read(range(35))).pool)


@pytest.mark.parametrize("damage", [b"", b"not safetensors", "half", "one bit"])
def test_a_damaged_chunk_is_computed_again(tmp_path, images, damage):
    parts = run(images, ColorNetwork(), tmp_path)
    (file,) = (tmp_path / "cache").glob("*/00000010.safetensors")
    whole = file.read_bytes()
    damaged = {"half": whole[: len(whole) // 2], "one bit": whole[:-1] + bytes([whole[-1] ^ 1])}
    file.write_bytes(damaged.get(damage, damage))
    network = ColorNetwork()
    again = run(images, network, tmp_path)
    assert network.seen == 10
    assert torch.equal(joined(again)[0], joined(parts)[0])
    assert file.read_bytes() == whole


def test_too_little_space_is_found_before_anything_is_computed(tmp_path, images, monkeypatch):
    """An image has 3 + 2 features of 4 bytes; only those that are missing need space."""
    usage = namedtuple("usage", "free")
    network = ColorNetwork()
    monkeypatch.setattr(file_errors.shutil, "disk_usage", lambda path: usage(35 * 20 - 1))
    with pytest.raises(WriteError, match="cache"):
        run(images, network, tmp_path)
    assert network.seen == 0
    monkeypatch.setattr(file_errors.shutil, "disk_usage", lambda path: usage(35 * 20))
    run(images, network, tmp_path)
    monkeypatch.setattr(file_errors.shutil, "disk_usage", lambda path: usage(0))
    run(images, network, tmp_path)
    assert network.seen == 35


def test_collected_features_are_those_of_all_images(tmp_path, images):
    found = collect(run(images, ColorNetwork(), tmp_path), len(images))
    pool = colors(35).mean((1, 2)) / 255
    np.testing.assert_allclose(found.rows.numpy(), pool, rtol=1e-5)
    np.testing.assert_allclose(found.pool.mean, pool.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.pool.covariance, np.cov(pool, rowvar=False), atol=1e-7)
    assert found.spatial.count == 35
    assert found.spatial.width == 2


def test_no_images_have_no_features():
    with pytest.raises(DataError, match="no images"):
        collect([], 0)


MEMORY = """
import resource, torch
from pae_framework.metrics.features import InceptionFeatures, collect

def parts(count):
    for start in range(0, count, 500):
        yield InceptionFeatures(torch.full((500, 512), start + 0.5), torch.ones(500, 512))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

collect(parts(1000), 1000, keep_rows=False)
before = peak()
assert collect(parts(20_000), 20_000, keep_rows=False).pool.count == 20_000
print(peak() - before)
before = peak()
assert len(collect(parts(20_000), 20_000).rows) == 20_000
print(peak() - before)
"""


def test_memory_of_statistics_does_not_grow_with_the_images_and_rows_are_held_once():
    """In a process of its own, whose peak nothing else has raised."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    without, with_rows = map(int, done.stdout.split())
    assert without < 10e6  # either kind of features of all images takes 41 MB
    assert with_rows < 60e6  # the rows once


def test_a_thread_reads_the_next_batch_while_the_network_works(tmp_path, images):
    """The network waits until the batch after its own was asked for."""
    asked = {start: threading.Event() for start in (0, 4, 8, 10, 14, 18, 20)}

    class Watched(NpzImages):
        def read(self, indices):
            asked.get(indices[0], threading.Event()).set()
            return super().read(indices)

    class Waiting(ColorNetwork):
        def __call__(self, some):
            following = {4: 8, 14: 18}.get(self.seen)
            if following is not None:
                assert asked[following].wait(timeout=20)
            return super().__call__(some)

    found = run(Watched(images.path), Waiting(), tmp_path)
    direct = ColorNetwork()(images.read(range(35)))
    assert all(torch.equal(a, b) for a, b in zip(joined(found), direct, strict=True))
