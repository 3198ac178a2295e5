"""Images of a data source: by index, by step, with workers; subsets; image files."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pae_framework.build import build_source
from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.data import image_files
from pae_framework.data.image_files import reduce_jpeg
from pae_framework.data.images import (
    ImageBatches,
    decode_image,
    random_subset,
    read_image,
    read_images,
    read_masks,
)
from pae_framework.data.pixels import psnr
from pae_framework.data.read_ahead import read_steps
from pae_framework.data.stream import CountStream, positions_of
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

    def __getitem__(self, index: int) -> LabeledImage:
        image = torch.zeros(3, self.image_size, self.image_size, dtype=torch.uint8)
        image[:, :, 0] = index
        return LabeledImage(image, index % 3)

    def mask(self, index: int):
        return self[index].image[0].long() if self.masks else None


@pytest.fixture
def source() -> Columns:
    return Columns(DataSourceConfig(), 4)


def test_images_are_in_the_order_of_the_indices(source):
    images, labels = read_images(source, torch.tensor([7, 0, 7]))

    assert images.shape == (3, 3, 4, 4)
    assert images[:, 0, 0, 0].tolist() == [7, 0, 7]
    assert labels.tolist() == [1, 0, 1]


def test_a_batch_holds_floats_from_0_to_1(source):
    stream = CountStream(length=10, batch_size=4, seed=0, shuffle=False)
    ((images, labels),) = ImageBatches(source, stream, flip=False)(1, 2)

    assert images.shape == (4, 3, 4, 4)
    assert images.dtype == torch.float32
    assert torch.equal(images[:, 0, 0, 0] * 255, torch.tensor([4.0, 5.0, 6.0, 7.0]))
    assert labels.tolist() == [1, 2, 0, 1]


def test_only_the_images_marked_by_flips_are_mirrored(source):
    images, _ = read_images(source, [5, 5], flips=torch.tensor([True, False]))

    assert images[0, 0, 0].tolist() == [0, 0, 0, 5]
    assert images[1, 0, 0].tolist() == [5, 0, 0, 0]


@pytest.mark.parametrize("flip", [False, True])
def test_batches_of_steps_follow_the_stream(source, flip):
    stream = CountStream(length=10, batch_size=4, seed=3)
    batches = list(ImageBatches(source, stream, flip)(2, 6))

    assert len(batches) == 4
    for step, (images, labels) in zip(range(2, 6), batches, strict=True):
        expected = read_images(source, stream.batch(step), stream.flips(step) if flip else None)
        assert torch.equal(images, expected[0].float() / 255)
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


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_reads_only_its_rows_of_each_batch(source, workers):
    whole = list(ImageBatches(source, CountStream(10, 6, seed=3), flip=True)(2, 6))
    positions = positions_of(1, 2, batch_size=6, accumulate=2)
    stream = CountStream(10, 6, seed=3, positions=positions)
    own = list(ImageBatches(source, stream, flip=True, workers=workers)(2, 6))
    for (images, labels), batch in zip(own, whole, strict=True):
        assert torch.equal(images, batch[0][positions])
        assert torch.equal(labels, batch[1][positions])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_crop_is_the_square_at_the_offsets_of_the_stream(workers):
    """The images are 6 px with a left column of their own value, so a crop at 0 shows it."""
    source = Columns(DataSourceConfig(), 6)
    stream = CountStream(length=10, batch_size=8, seed=3)
    batches = ImageBatches(source, stream, flip=False, workers=workers, crop_to=4)
    for step, (images, _) in zip(range(1, 5), batches(1, 5), strict=True):
        columns = stream.offsets(step, 3)[:, 1]
        shown = torch.where(columns == 0, stream.batch(step), 0)
        assert images.shape == (8, 3, 4, 4)
        assert torch.equal((images[:, 1, 2, 0] * 255).round().long(), shown)
        assert not images[..., 1:].any()


def test_a_crop_without_room_is_the_image(source):
    stream = CountStream(length=10, batch_size=4, seed=3)
    whole, cropped = (
        list(ImageBatches(source, stream, flip=True, crop_to=side)(0, 3)) for side in (None, 4)
    )
    for one, two in zip(whole, cropped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_workers_send_images_as_uint8(source, monkeypatch):
    sent = []

    def recorded(*arguments):
        for batch in read_steps(*arguments):
            sent.append(batch)
            yield batch

    monkeypatch.setattr("pae_framework.data.images.read_steps", recorded)
    stream = CountStream(length=10, batch_size=4, seed=3)
    batches = list(ImageBatches(source, stream, flip=True, workers=2)(0, 3))

    assert [images.dtype for images, _ in sent] == [torch.uint8] * 3
    for (images, _), (bytes_, _) in zip(batches, sent, strict=True):
        assert torch.equal(images, bytes_.float() / 255)


@pytest.mark.gpu
def test_images_from_workers_are_in_pinned_memory_if_there_is_a_gpu(source):
    stream = CountStream(length=10, batch_size=4, seed=3)
    ((images, labels),) = ImageBatches(source, stream, flip=True, workers=1)(0, 1)

    assert images.dtype == torch.float32
    assert images.is_pinned()
    assert labels.is_pinned()


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 99))
def test_a_random_subset_is_sorted_and_distinct_and_contains_smaller_ones(n, count, seed):
    chosen = random_subset(n, count, seed)

    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(n))
    assert len(chosen) == min(count, n)
    assert set(random_subset(n, count - 1, seed)) < set(chosen) or count > n
    assert random_subset(n, None, seed) == list(range(n))


def test_a_random_subset_covers_the_classes_and_depends_on_the_seed():
    # ImageNet's validation set: 50 images of each class.
    chosen = random_subset(50_000, 5000, seed=0)
    classes = torch.tensor(chosen) // 50

    # 5 of 50 are expected of each class; none of a class happens with probability 0.9^50 = 0.005.
    assert len(classes.unique()) > 980
    assert classes.double().mean() == pytest.approx(499.5, abs=20)  # five standard errors
    assert random_subset(50_000, 5000, seed=0) == chosen
    assert random_subset(50_000, 5000, seed=1) != chosen


def test_read_images_returns_uint8_of_all_images_or_of_the_indices(source):
    images, labels = read_images(source)
    some, their_labels = read_images(source, [1, 5, 6])

    assert images.dtype == some.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == list(range(10))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert some[:, 0, 0, 0].tolist() == [1, 5, 6]
    assert their_labels.tolist() == [1, 2, 0]


def test_read_masks_returns_none_if_the_source_has_no_masks(source):
    masks, some = read_masks(source), read_masks(source, [1, 5, 6])

    assert masks is not None
    assert some is not None
    assert masks.shape == (10, 4, 4)
    assert some[:, 0, 0].tolist() == [1, 5, 6]
    assert read_masks(Columns(DataSourceConfig(), 4, masks=False), [1, 5]) is None


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


def test_read_image_converts_gray_to_rgb_of_the_given_size(tmp_path):
    Image.fromarray(np.full((20, 30), 77, np.uint8)).save(tmp_path / "gray.png")

    image = read_image(tmp_path / "gray.png", 16)

    assert image.shape == (3, 16, 16)
    assert image.unique().tolist() == [77]


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_read_image_names_the_file_it_cannot_read(tmp_path, content):
    path = tmp_path / "broken.png"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(DataError, match=r"broken\.png"):
        read_image(path, 16)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    levels = np.array([[0, 255, 256], [32768, 65280, 65535], [511, 512, 1024]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    image = read_image(tmp_path / "deep.png", 3)
    assert image[0].tolist() == [[0, 0, 1], [128, 255, 255], [1, 2, 4]]


def test_modes_without_a_fixed_range_are_rejected(tmp_path):
    Image.fromarray(np.zeros((3, 3), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(DataError, match=r"float\.tiff.* mode F\b"):
        read_image(tmp_path / "float.tiff", 3)


# --- JPEG files at a reduced size -----------------------------------------------------------------


def wave(width: int, height: int) -> Image.Image:
    """A smooth picture: what averaging pixels and dropping frequencies hardly change."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    pixels = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1)
    return Image.fromarray((127 + 120 * pixels).astype(np.uint8))


@given(st.integers(40, 300), st.integers(40, 300), st.sampled_from([16, 20, 32, 40]))
def test_a_jpeg_is_reduced_as_often_as_the_crop_would_halve_it(width, height, size):
    file = io.BytesIO()
    wave(width, height).save(file, "JPEG")
    image = Image.open(file)
    reduce_jpeg(image, size)
    factor = max(x for x in (1, 2, 4, 8) if min(width, height) // x >= size)
    assert image.size == (-(-width // factor), -(-height // factor))
    image.load()
    reduce_jpeg(image, 1)  # a second time it stays
    assert image.size == (-(-width // factor), -(-height // factor))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_reduced_jpeg_is_about_the_same_picture(tmp_path, progressive):
    wave(300, 200).save(tmp_path / "a.jpg", quality=95, progressive=progressive)
    exact, reduced = (read_image(tmp_path / "a.jpg", 32, how) for how in (False, True))
    assert not torch.equal(exact, reduced)
    assert psnr(exact[None], reduced[None]) > 40
    assert torch.equal(decode_image((tmp_path / "a.jpg").read_bytes(), "a", 32, True), reduced)


@pytest.mark.parametrize(
    ("name", "size"),
    [("a.png", (300, 200)), ("a.webp", (300, 200)), ("a.jpg", (300, 63)), ("a.jpg", (63, 63))],
)
def test_other_formats_and_small_files_keep_their_bits(tmp_path, name, size):
    wave(*size).save(tmp_path / name)
    assert torch.equal(read_image(tmp_path / name, 32), read_image(tmp_path / name, 32, True))


def test_a_jpeg_beyond_the_limit_is_reduced_once(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MOST_PIXELS", 200 * 299)
    wave(300, 200).save(tmp_path / "a.jpg", quality=95)
    half = read_image(tmp_path / "a.jpg", 32)
    assert torch.equal(read_image(tmp_path / "a.jpg", 32, True), half)
