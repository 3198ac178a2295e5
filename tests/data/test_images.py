"""Batches: by index, by step, with workers; all that only relies on a data source's contract."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pae_framework.build import build_source
from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, Item
from pae_framework.data.images import (
    ImageBatches,
    all_images,
    all_masks,
    read_batch,
    read_image,
    subset,
)
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.stream import CountStream
from pae_framework.errors import DataError


class Columns(DataSource):
    """Image i has value i in its left column and 0 elsewhere; its label is i modulo 3."""

    def __init__(self, config: DataSourceConfig, image_size: int, masks: bool = True):
        super().__init__(config, image_size)
        self.masks = masks

    @property
    def class_names(self):
        return ["a", "b", "c"]

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Item:
        image = torch.zeros(3, self.image_size, self.image_size, dtype=torch.uint8)
        image[:, :, 0] = index
        return Item(image, index % 3)

    def mask(self, index: int):
        return self[index].image[0].long() if self.masks else None


@pytest.fixture
def source() -> Columns:
    return Columns(DataSourceConfig(), 4)


def test_a_batch_holds_floats_in_the_order_of_the_indices(source):
    images, labels = read_batch(source, torch.tensor([7, 0, 7]))

    assert images.shape == (3, 3, 4, 4)
    assert images.dtype == torch.float32
    assert torch.equal(images[:, 0, 0, 0] * 255, torch.tensor([7.0, 0.0, 7.0]))
    assert labels.tolist() == [1, 0, 1]


def test_flips_mirror_only_the_images_they_name(source):
    images, _ = read_batch(source, [5, 5], flips=torch.tensor([True, False]))

    assert (images[0, 0, 0] * 255).round().tolist() == [0, 0, 0, 5]
    assert (images[1, 0, 0] * 255).round().tolist() == [5, 0, 0, 0]


@pytest.mark.parametrize("flip", [False, True])
def test_batches_of_steps_are_the_streams_indices_and_flips(source, flip):
    stream = CountStream(length=10, batch_size=4, seed=3)
    batches = list(ImageBatches(source, stream, flip)(2, 6))

    assert len(batches) == 4
    for step, (images, labels) in zip(range(2, 6), batches, strict=True):
        expected = read_batch(source, stream.batch(step), stream.flips(step) if flip else None)
        assert torch.equal(images, expected[0])
        assert torch.equal(labels, expected[1])


def test_batches_are_the_same_with_two_workers_and_from_the_middle(source):
    def batches(workers: int, start: int):
        stream = CountStream(length=10, batch_size=4, seed=3)
        return list(ImageBatches(source, stream, flip=True, workers=workers)(start, 7))

    here, apart, later = batches(0, 0), batches(2, 0), batches(2, 3)

    assert len(apart) == 7
    for one, two in zip(here, apart, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    for one, two in zip(here[3:], later, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_processes_hand_images_over_as_bytes(source, monkeypatch):
    handed = []

    def watched(*arguments):
        for batch in read_steps(*arguments):
            handed.append(batch)
            yield batch

    monkeypatch.setattr("pae_framework.data.images.read_steps", watched)
    stream = CountStream(length=10, batch_size=4, seed=3)
    batches = list(ImageBatches(source, stream, flip=True, workers=2)(0, 3))

    assert [images.dtype for images, _ in handed] == [torch.uint8] * 3
    for (images, _), (bytes_, _) in zip(batches, handed, strict=True):
        assert torch.equal(images, bytes_.float() / 255)


@pytest.mark.gpu
def test_what_processes_read_lies_in_pinned_memory_where_there_is_a_gpu(source):
    stream = CountStream(length=10, batch_size=4, seed=3)
    ((images, labels),) = ImageBatches(source, stream, flip=True, workers=1)(0, 1)

    assert images.dtype == torch.float32
    assert images.is_pinned()
    assert labels.is_pinned()


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 99))
def test_a_subset_holds_distinct_indices_in_order_and_smaller_ones_are_part_of_it(n, count, seed):
    chosen = subset(n, count, seed)

    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(n))
    assert len(chosen) == min(count, n)
    assert set(subset(n, count - 1, seed)) < set(chosen) or count > n
    assert subset(n, None, seed) == list(range(n))


def test_a_subset_is_spread_over_a_source_sorted_by_class_and_fixed_by_the_seed():
    chosen = subset(50_000, 5000, seed=0)  # ImageNet's validation set: 50 images of each class
    classes = torch.tensor(chosen) // 50

    # 5 of 50 are expected of each class; none of a class happens with probability 0.9^50 = 0.005.
    assert len(classes.unique()) > 980
    assert classes.double().mean() == pytest.approx(499.5, abs=20)  # five standard errors
    assert subset(50_000, 5000, seed=0) == chosen
    assert subset(50_000, 5000, seed=1) != chosen


def test_all_images_are_uint8_in_the_order_of_the_source_or_of_the_indices(source):
    images, labels = all_images(source)
    some, their_labels = all_images(source, [1, 5, 6])

    assert images.dtype == some.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == list(range(10))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert some[:, 0, 0, 0].tolist() == [1, 5, 6]
    assert their_labels.tolist() == [1, 2, 0]


def test_all_masks_or_none_where_the_source_has_none(source):
    masks, some = all_masks(source), all_masks(source, [1, 5, 6])

    assert masks is not None
    assert some is not None
    assert masks.shape == (10, 4, 4)
    assert some[:, 0, 0].tolist() == [1, 5, 6]
    assert all_masks(Columns(DataSourceConfig(), 4, masks=False), [1, 5]) is None


def test_build_source_passes_config_and_size_to_the_registered_class():
    spec = SimpleNamespace(component_class=lambda: Columns)
    registry = SimpleNamespace(
        find=lambda kind, name: spec if (kind, name) == ("dataset", "c") else 1
    )
    config = DataSourceConfig()

    source = build_source(SimpleNamespace(kind="dataset", use="c", config=config), 8, registry)

    assert isinstance(source, Columns)
    assert source.config is config
    assert source.image_size == 8


def test_read_image_gives_rgb_of_the_size_even_from_grey(tmp_path):
    Image.fromarray(np.full((20, 30), 77, np.uint8)).save(tmp_path / "grey.png")

    image = read_image(tmp_path / "grey.png", 16)

    assert image.shape == (3, 16, 16)
    assert image.unique().tolist() == [77]


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_read_image_names_the_file_it_cannot_read(tmp_path, content):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError, match=r"broken\.png: cannot be read as an image"):
        read_image(path, 16)


def test_sixteen_bits_become_eight_and_are_not_cut_off(tmp_path):
    levels = np.array([[0, 255, 256], [32768, 65280, 65535], [511, 512, 1024]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    image = read_image(tmp_path / "deep.png", 3)
    assert image[0].tolist() == [[0, 0, 1], [128, 255, 255], [1, 2, 4]]


def test_values_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff: .* mode F has no fixed range"):
        read_image(tmp_path / "float.tiff", 3)
