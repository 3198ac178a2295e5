"""Folders without classes, and two parts of one folder: every image is in one of them, for good."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from pae_datasets.config import ImageFolderConfig
from pae_datasets.image_folder import ImageFolder
from pae_datasets.listing import Part
from pae_framework.data.images import read_images
from pae_framework.errors import DataError

NAMES = st.lists(st.text("ab/é. 0", min_size=1, max_size=12), unique=True)


def save(path: Path, gray: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (gray, gray, gray)).save(path)


def names(folder: Path, **settings: object) -> list[str]:
    listing = ImageFolderConfig(folder=str(folder), **settings).listing()
    assert listing.problem is None
    return list(listing.names())


# --- parts ----------------------------------------------------------------------------------------


@given(names=NAMES, share=st.floats(0.01, 0.99))
def test_every_name_is_in_one_part(names, share):
    train, test = Part(share, is_test=False), Part(share, is_test=True)
    assert all(train.has(name) != test.has(name) for name in names)


@given(names=NAMES, share=st.floats(0.01, 0.99), larger=st.floats(0.01, 0.99))
def test_a_larger_share_keeps_the_test_images(names, share, larger):
    small, large = sorted((share, larger))
    kept = {name for name in names if Part(small, is_test=True).has(name)}
    assert kept <= {name for name in names if Part(large, is_test=True).has(name)}


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5, 0.9])
def test_the_test_part_has_about_the_share(share):
    part = Part(share, is_test=True)
    count = sum(part.has(f"class/{n:05d}.png") for n in range(10_000))
    # five standard deviations of a binomial variable
    assert abs(count - 10_000 * share) < 5 * (10_000 * share * (1 - share)) ** 0.5


def test_parts_are_those_of_earlier_versions():
    """XXH3-64 of the name, below share * 2^64: a change would mix test images into trainings."""
    held_out = [f"a/{n}.png" for n in range(20) if Part(0.25, is_test=True).has(f"a/{n}.png")]
    from xxhash import xxh3_64

    by_hand = [n for n in range(20) if xxh3_64(f"a/{n}.png".encode()).intdigest() >> 62 == 0]
    assert held_out == [f"a/{n}.png" for n in by_hand]


@pytest.mark.parametrize("classes", [("",), ("a", "b", "c")])
def test_added_images_move_no_other(tmp_path, classes):
    for n in range(20):
        for name in classes:
            save(tmp_path / name / f"{n}.png")
    before = {part: set(names(tmp_path, holdout=0.3, part=part)) for part in ("train", "test")}
    assert all(before.values())
    assert before["train"] | before["test"] == set(names(tmp_path))
    for n in range(20, 40):
        save(tmp_path / classes[0] / f"{n}.png")
    for part, earlier in before.items():
        assert earlier <= set(names(tmp_path, holdout=0.3, part=part))


def test_a_moved_folder_has_the_same_parts(tmp_path):
    for n in range(20):
        save(tmp_path / "here" / "a" / f"{n}.png")
    before = names(tmp_path / "here", holdout=0.3, part="test")
    (tmp_path / "here").rename(tmp_path / "there")
    assert names(tmp_path / "there", holdout=0.3, part="test") == before


def test_images_keep_their_labels_in_both_parts(tmp_path):
    for n in range(20):
        save(tmp_path / "a" / f"{n}.png", 10)
        save(tmp_path / "b" / f"{n}.png", 20)
    for part in ("train", "test"):
        source = ImageFolder(ImageFolderConfig(folder=str(tmp_path), holdout=0.3, part=part), 8)
        images, labels = read_images(source)
        assert list(source.class_names) == ["a", "b"]
        assert images[:, 0, 0, 0].tolist() == [10 * (label + 1) for label in labels.tolist()]
        assert len(images) == len(source.labels()) == len(source.config.data_files())


@pytest.mark.parametrize(("part", "share"), [("train", 0.999), ("test", 0.0001)])
def test_a_part_without_images_is_refused(tmp_path, part, share):
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "1.png")
    config = ImageFolderConfig(folder=str(tmp_path), holdout=share, part=part)
    with pytest.raises(DataError, match=f"{share}.*{tmp_path}"):
        ImageFolder(config, 8)
    assert config.missing() is not None


def test_a_test_part_may_lack_a_class(tmp_path):
    for n in range(30):
        save(tmp_path / "a" / f"{n}.png")
    rare = next(n for n in range(99) if Part(0.3, is_test=False).has(f"b/{n}.png"))
    save(tmp_path / "b" / f"{rare}.png")
    config = ImageFolderConfig(folder=str(tmp_path), holdout=0.3, part="test")
    assert config.missing() is None
    assert config.known_class_names() == ("a", "b")


@pytest.mark.parametrize(
    "settings",
    [{"holdout": 0}, {"holdout": 1}, {"holdout": -0.1}, {"holdout": True}, {"part": "test"},
     {"holdout": 0.1, "part": "val"}],
)  # fmt: skip
def test_other_parts_are_refused(settings):
    with pytest.raises(ValidationError):
        ImageFolderConfig(folder="x", **settings)


# --- folders without classes ----------------------------------------------------------------------


def test_images_without_class_folders_are_one_class(tmp_path):
    save(tmp_path / "b.png", 20)
    save(tmp_path / "a.PNG", 10)
    (tmp_path / "notes.txt").touch()
    save(tmp_path / ".hidden.png")
    source = ImageFolder(ImageFolderConfig(folder=str(tmp_path)), 8)
    images, labels = read_images(source)
    assert images[:, 0, 0, 0].tolist() == [10, 20]
    assert labels.tolist() == [0, 0]
    assert len(source.class_names) == 1
    assert source.config.left_out() is not None
    assert source.config.read_before() is None


def test_a_folder_beside_the_images_makes_classes(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "one" / "b.png")
    assert names(tmp_path) == ["one/b.png"]
    assert "1" in str(ImageFolderConfig(folder=str(tmp_path)).left_out())


def test_the_class_does_not_depend_on_the_place_of_the_folder(tmp_path):
    save(tmp_path / "train" / "a.png")
    save(tmp_path / "val" / "b.png")
    train, val = (ImageFolderConfig(folder=str(tmp_path), split=s) for s in ("train", "val"))
    assert train.known_class_names() == val.known_class_names()


def test_an_expected_number_of_classes_is_compared(tmp_path):
    save(tmp_path / "a.png")
    assert ImageFolderConfig(folder=str(tmp_path), classes=1).missing() is None
    assert "2" in str(ImageFolderConfig(folder=str(tmp_path), classes=2).missing())


def test_masks_of_a_flat_folder_are_found(tmp_path):
    save(tmp_path / "images" / "a.jpg")
    save(tmp_path / "masks" / "a.png")
    folders = {"folder": str(tmp_path / "images"), "masks": str(tmp_path / "masks")}
    assert ImageFolderConfig(**folders).missing() is None
