"""Rules for classes: none is empty, and test images have those of the training images."""

import pytest

from pae_framework.data.classes import class_difference, empty_classes


@pytest.mark.parametrize(
    ("labels", "names", "facts"),
    [
        ([0, 2], "abc", ["1 of 3", "b"]),
        ([], "ab", ["2 of 2", "a, b"]),
        ([9], [str(label) for label in range(10)], ["9 of 10", "0, 1, 2, 3, 4 and 4 more"]),
    ],
)
def test_classes_without_images_are_named(labels, names, facts):
    problem = str(empty_classes(labels, names))
    assert all(fact in problem for fact in facts)


@pytest.mark.parametrize("labels", [[0, 1], [1, 0, 1]])
def test_classes_with_images_are_fine(labels):
    assert empty_classes(labels, "ab") is None


@pytest.mark.parametrize(
    ("train", "test", "facts"),
    [
        ("abc", "bcd", ["only in data.train: a", "only in data.test: d"]),
        ("abc", "ab", ["only in data.train: c"]),
        ("ab", "abc", ["only in data.test: c"]),
        ("ab", "ba", ["order"]),
    ],
)
def test_other_classes_are_named(train, test, facts):
    problem = str(class_difference(train, test))
    assert all(fact in problem for fact in facts)
    assert "only in data.train" in problem or set(train) <= set(test)


def test_the_same_classes_are_fine():
    assert class_difference("abc", ("a", "b", "c")) is None
