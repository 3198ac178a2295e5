"""Digits: split, pixels and masks against scikit-learn's own arrays."""

import pytest
import torch
from sklearn.datasets import load_digits

from pae_datasets.config import DigitsConfig
from pae_datasets.digits import Digits, is_test
from pae_framework.data.images import read_images, read_masks


@pytest.fixture(scope="module")
def train() -> Digits:
    return Digits(DigitsConfig(), 8)


@pytest.fixture(scope="module")
def test_split() -> Digits:
    return Digits(DigitsConfig(split="test"), 8)


def test_every_fifth_of_each_class_is_a_test_image():
    #                       0  0  1  0  1  0  0  1  1  1  1
    labels = torch.tensor([0, 0, 1, 0, 1, 0, 0, 1, 1, 1, 1])
    # The fifth 0 stands at place 6, the fifth 1 at place 9.
    assert is_test(labels).nonzero()[:, 0].tolist() == [6, 9]


def test_the_splits_partition_the_images_and_balance_the_classes(train, test_split):
    counts = [(load_digits().target == digit).sum() for digit in range(10)]

    train_counts = read_images(train)[1].bincount(minlength=10).tolist()
    test_counts = read_images(test_split)[1].bincount(minlength=10).tolist()

    assert test_counts == [count // 5 for count in counts]
    assert train_counts == [count - count // 5 for count in counts]
    assert len(test_split) == 355


def test_at_8_px_the_pixels_equal_scikit_learns(train):
    images, labels = read_images(train)
    bunch = load_digits()
    # The first digit of the file is the first of its class, so a training image.
    assert labels[0] == bunch.target[0]
    expected = (torch.from_numpy(bunch.images[0]) * 255 / 16).round()

    assert images.dtype == torch.uint8
    assert all(torch.equal(channel.double(), expected) for channel in images[0])


def test_enlarged_digits_keep_their_mean_gray(train):
    large = read_images(Digits(DigitsConfig(), 32))[0]

    assert large.shape[1:] == (3, 32, 32)
    # Bilinear weights of 4 x 4 new pixels per old one sum evenly away from the rim.
    small = read_images(train)[0]
    difference = large.double().mean((1, 2, 3)) - small.double().mean((1, 2, 3))
    assert difference.abs().mean() < 2


def test_masks_are_the_pixels_above_the_threshold():
    source = Digits(DigitsConfig(mask_threshold=0.5), 16)
    masks, images = read_masks(source, range(20)), read_images(source, range(20))[0]

    assert masks.dtype == torch.int64
    assert torch.equal(masks == 1, images[:, 0].float() / 255 > 0.5)
    assert set(masks.unique().tolist()) == {0, 1}
