"""The contract of data sources."""

from __future__ import annotations

import pickle
from collections.abc import Mapping

import torch
from torch import Tensor

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.promises import class_names_problem, item_problem
from pae_framework.testing.expect import (
    expect,
    expect_none,
    expect_tensor,
    global_randomness_untouched,
)
from pae_framework.testing.hostile import in_another_process

INTERVALS = 12
"""Between the images that are read; these are spread evenly over the source."""


def check_data_source(source: DataSource) -> None:
    """Check a data source, on some of its images.

    Class names are unique. ``labels()`` and the names its config knows agree with the images. Items
    have the right shape and range, and an index always gives the same item. There are masks if its
    config says so. A pickled copy, as worker processes get it, gives the same
    items.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    expect(isinstance(source, DataSource), f"{source!r} is no contracts.DataSource")
    expect(
        isinstance(source.config, DataSourceConfig),
        "source.config must be a DataSourceConfig; call super().__init__(config, image_size)",
    )
    expect(len(source) > 0, "the source holds no image; raise a DataError instead")
    _check_count(source)
    expect_none(class_names_problem(source.class_names, source.config.class_count()))
    last = len(source) - 1
    indices = sorted({round(i * last / INTERVALS) for i in range(INTERVALS + 1)})
    with global_randomness_untouched("reading an image"):
        items = {index: source[index] for index in indices}
    for index, item in items.items():
        classes = len(source.class_names)
        expect_none(item_problem(item, source.image_size, classes, f"source[{index}]"))
        _check_mask(source, index)
    _check_labels(source, items)
    names = source.config.known_class_names()
    expect(
        names is None or list(names) == list(source.class_names),
        f"config.known_class_names() is {names}, but class_names is {list(source.class_names)}",
    )
    for index in reversed(indices):
        _expect_same(items[index], source[index], f"image {index}, read a second time,")
    _expect_same(items[indices[0]], _pickled(source)[indices[0]], "an image of a pickled copy")


def _pickled(source: DataSource) -> DataSource:
    try:
        copied: DataSource = pickle.loads(pickle.dumps(source))
    except Exception as error:
        raise AssertionError(
            f"the source cannot be pickled, so worker processes cannot get it: {error}"
        ) from error
    return copied


def _check_count(source: DataSource) -> None:
    promised = source.config.image_count()
    agree = promised in (None, len(source))
    expect(agree, f"config.image_count() is {promised}, but there are {len(source)} images")


def _check_labels(source: DataSource, items: Mapping[int, LabeledImage]) -> None:
    if (labels := source.labels()) is None:
        return
    expect(len(labels) == len(source), f"labels() has {len(labels)} of {len(source)} labels")
    for index, item in items.items():
        expect(
            labels[index] == item.label,
            f"labels()[{index}] is {labels[index]}, but the label of source[{index}] is "
            f"{item.label}",
        )


def _check_mask(source: DataSource, index: int) -> None:
    mask, promised = source.mask(index), source.config.has_masks()
    expect(
        (mask is not None) == promised,
        f"{type(source.config).__name__}.has_masks() is {promised}, but mask({index}) is "
        f"{'None' if mask is None else 'a mask'}; recipes are checked against the config",
    )
    if mask is not None:
        size = source.image_size
        expect_tensor(mask, (size, size), f"mask({index})", torch.int64)


def _expect_same(first: LabeledImage, again: LabeledImage, what: str) -> None:
    same = torch.equal(first.image, again.image) and first.label == again.label
    expect(same, f"{what} differs; an index must always give the same item")


def expect_same_items_elsewhere(source: DataSource) -> None:
    """Another process, which gets the source by pickle, reads the same first image."""
    image, label = in_another_process(_first_item, source)
    _expect_same(source[0], LabeledImage(image, label), "an image read in another process")


def _first_item(source: DataSource) -> tuple[Tensor, int]:
    item = source[0]
    return item.image, item.label
