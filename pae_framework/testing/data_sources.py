"""The contract of data sources."""

from __future__ import annotations

import pickle

import torch

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabelledImage
from pae_framework.testing.expect import expect, expect_tensor, global_randomness_untouched

LOOKED_AT = 12
"""Images that are read."""


def check_data_source(source: DataSource) -> None:
    """Check a data source, on some of its images.

    A fixed, ordered set: class names that differ, items of the right shape and range, the same item
    for the same index, masks where its config says ``provides_masks``, and a copy of it (which
    worker processes get) that reads the same.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    expect(isinstance(source, DataSource), f"{source!r} is no pae_framework.contracts.DataSource")
    expect(
        isinstance(source.config, DataSourceConfig),
        "the source keeps no DataSourceConfig; call super().__init__(config, image_size)",
    )
    expect(len(source) > 0, "the source holds no image; raise DataError instead")
    _check_class_names(source)
    indices = sorted({round(i * (len(source) - 1) / LOOKED_AT) for i in range(LOOKED_AT + 1)})
    with global_randomness_untouched("reading an image"):
        items = {index: source[index] for index in indices}
    for index, item in items.items():
        _check_item(source, index, item)
        _check_mask(source, index)
    for index in reversed(indices):
        _expect_same(items[index], source[index], f"image {index}, read again after others,")
    _expect_same(items[indices[0]], _pickled(source)[indices[0]], "an image of a pickled copy")


def _pickled(source: DataSource) -> DataSource:
    try:
        copied: DataSource = pickle.loads(pickle.dumps(source))
    except Exception as error:
        raise AssertionError(
            f"the source cannot be pickled, which is how worker processes get it: {error}"
        ) from error
    return copied


def _check_class_names(source: DataSource) -> None:
    names = list(source.class_names)
    told = source.config.class_count()
    expect(
        told in (None, len(names)),
        f"the config's class_count() says {told}, and class_names holds {len(names)}",
    )
    expect(
        bool(names) and all(isinstance(name, str) and name for name in names),
        f"class_names is {names!r}, not a sequence of names",
    )
    expect(len(set(names)) == len(names), f"two classes share a name: {names}")


def _check_item(source: DataSource, index: int, item: object) -> None:
    kind = type(item).__name__
    expect(isinstance(item, LabelledImage), f"source[{index}] is a {kind}, not a LabelledImage")
    assert isinstance(item, LabelledImage)
    size = source.image_size
    expect_tensor(item.image, (3, size, size), f"the image of source[{index}]", torch.uint8)
    classes = len(source.class_names)
    expect(
        type(item.label) is int and 0 <= item.label < classes,
        f"the label of source[{index}] is {item.label!r}, not an int from 0 to {classes - 1}",
    )


def _check_mask(source: DataSource, index: int) -> None:
    mask, promised = source.mask(index), type(source.config).provides_masks
    expect(
        (mask is not None) == promised,
        f"{type(source.config).__name__}.provides_masks is {promised}, but mask({index}) is "
        f"{'None' if mask is None else 'a mask'}; recipes are checked by what the config says",
    )
    if mask is not None:
        size = source.image_size
        expect_tensor(mask, (size, size), f"mask({index})", torch.int64)


def _expect_same(first: LabelledImage, again: LabelledImage, what: str) -> None:
    same = torch.equal(first.image, again.image) and first.label == again.label
    expect(same, f"{what} is another one; an index stands for the same image always")
