"""Rules for the classes of a recipe's images. No torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("val", "valid", "validation", "dev", "test", "testing", "eval")
_SHOWN = 5


def are_parts(folders: Collection[str]) -> bool:
    """Whether folders are named like parts of a data set: a class may be called ``train``, too."""
    return all(name.lower() in (*TRAIN_NAMES, *TEST_NAMES) for name in folders)


def empty_classes(labels: Sequence[int], class_names: Sequence[str]) -> str | None:
    """A message if a class has no image; else None."""
    found = set(labels)
    empty = [name for label, name in enumerate(class_names) if label not in found]
    if not empty:
        return None
    return f"{len(empty)} of {len(class_names)} classes have no image: {some_names(empty)}"


def class_difference(train: Sequence[str], test: Sequence[str]) -> str | None:
    """A message if the classes of the test images are not those of the training images."""
    if list(train) == list(test):
        return None
    known, found = set(train), set(test)
    missing = [name for name in train if name not in found]
    unknown = [name for name in test if name not in known]
    lists = (("only in data.train", missing), ("only in data.test", unknown))
    parts = [f"{where}: {some_names(names)}" for where, names in lists if names]
    return f"its classes are not those of data.train ({'; '.join(parts) or 'another order'})"


def some_names(names: Sequence[str]) -> str:
    """The first of some names."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
