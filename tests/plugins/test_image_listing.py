"""Which files of an image folder are images: one rule, compared with a slow independent listing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pae_datasets.config import ImageFolderConfig
from pae_datasets.image_folder import ImageFolder
from pae_datasets.listing import list_images
from pae_framework.data.image_names import IMAGE_SUFFIXES
from pae_framework.data.images import read_images
from pae_framework.errors import DataError

PICTURES = ("png", "JPG", "tif", "ppm", "gif", "webp")
OTHERS = ("txt", "csv", "mp4", "", "ico")


def save(path: Path, gray: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (gray,) * 3).save(path)
    return path


def names_in(root: Path) -> list[str]:
    listing = list_images(root)
    assert listing.problem is None
    return [name for names in listing.classes.values() for name in names]


# --- random trees ---------------------------------------------------------------------------------

entries = st.one_of(
    st.tuples(st.just("file"), st.sampled_from((*PICTURES, *OTHERS))),
    st.tuples(st.just("pipe"), st.sampled_from(("png", "txt"))),
    st.tuples(st.just("broken"), st.sampled_from(("png", "txt"))),
    st.tuples(st.just("link to file"), st.sampled_from(("png", "txt"))),
    st.tuples(st.just("link to folder"), st.just("")),
    st.tuples(st.just("loop"), st.integers(0, 2)),
    st.tuples(st.just("folder"), st.just("")),
)
trees = st.lists(
    st.tuples(st.lists(st.booleans(), max_size=3), st.booleans(), entries), max_size=12
)
"""For each entry: which of its parent folders are hidden, whether it is hidden, and what it is."""


def build(root: Path, outside: Path, tree: list) -> set[str]:
    """Make the tree in class ``c``; returns the names that a user would call its images."""
    (outside / "folder").mkdir(parents=True)
    for name in ("picture.png", "text.txt", "folder/inner.png", "folder/.inner.png"):
        (outside / name).touch()
    (root / "c").mkdir(parents=True)
    (root / "c" / "always.png").touch()
    images = {"c/always.png"}
    for number, (parents, hidden, (kind, detail)) in enumerate(tree):
        above = "/".join(["c", *(f"{'.' if dot else ''}d{dot:d}" for dot in parents)])
        (root / above).mkdir(parents=True, exist_ok=True)
        stem = f"{'.' if hidden else ''}e{number}"
        suffix = f".{detail}" if isinstance(detail, str) and detail else ""
        name = f"{above}/{stem}{suffix}"
        path = root / name
        seen = not hidden and not any(parents)
        picture = isinstance(detail, str) and detail in PICTURES
        if kind == "file":
            path.touch()
            images |= {name} if seen and picture else set()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "broken":
            path.symlink_to(root / "nothing")
        elif kind == "link to file":
            path.symlink_to(outside / ("picture.png" if detail == "png" else "text.txt"))
            images |= {name} if seen and picture else set()
        elif kind == "link to folder":
            path.symlink_to(outside / "folder")
            images |= {f"{name}/inner.png"} if seen else set()
        elif kind == "loop":
            path.symlink_to((path.parent, root / "c", root.parent)[detail])
        else:
            path.mkdir()
    return images


@given(trees)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_images_are_those_that_a_user_sees(tmp_path_factory: pytest.TempPathFactory, tree):
    folder = tmp_path_factory.mktemp("tree")
    expected = build(folder / "root", folder / "outside", tree)

    assert set(names_in(folder / "root")) == expected
    assert names_in(folder / "root") == sorted(expected, key=lambda name: name.split("/"))


@given(trees)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_not_read_is_counted(tmp_path_factory: pytest.TempPathFactory, tree):
    """Every entry of a class without links is read, a folder that is searched, or counted."""
    folder = tmp_path_factory.mktemp("tree")
    tree = [entry for entry in tree if entry[2][0] in ("file", "pipe", "broken", "folder")]
    build(folder / "root", folder / "outside", tree)
    read, folders, inside_hidden = 0, 0, 0
    for place, subfolders, files in os.walk(folder / "root" / "c"):
        hidden = "/." in place.removeprefix(str(folder))
        inside_hidden += len(subfolders + files) if hidden else 0
        folders += 0 if hidden else sum(not name.startswith(".") for name in subfolders)
        read += 0 if hidden else len(subfolders + files)

    listing = list_images(folder / "root")

    assert listing.images + sum(listing.left_out.values()) == read - folders


# --- single rules ---------------------------------------------------------------------------------


def test_every_suffix_is_one_that_pillow_opens():
    Image.init()
    readable = {x for x, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert readable >= IMAGE_SUFFIXES


@pytest.mark.parametrize("suffix", ["tif", "tiff", "ppm", "pgm", "gif", "bmp", "webp", "jp2"])
def test_other_formats_are_read(tmp_path: Path, suffix: str):
    save(tmp_path / f"c/picture.{suffix}", gray=100)
    images, _ = read_images(ImageFolder(ImageFolderConfig(folder=str(tmp_path)), 8))
    assert images.float().mean() == pytest.approx(100, abs=2)


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path):
    (tmp_path / "c").mkdir()
    first, second = (Image.new("RGB", (8, 8), (gray,) * 3) for gray in (40, 200))
    first.save(tmp_path / "c/moving.gif", save_all=True, append_images=[second])
    images, _ = read_images(ImageFolder(ImageFolderConfig(folder=str(tmp_path)), 8))
    assert images.unique().tolist() == [40]


def test_a_linked_class_folder_is_a_class(tmp_path: Path):
    save(tmp_path / "disk/cats/0.png")
    save(tmp_path / "root/dog/0.png")
    (tmp_path / "root/cat").symlink_to(tmp_path / "disk/cats")
    assert names_in(tmp_path / "root") == ["cat/0.png", "dog/0.png"]


LINKS: dict[str, Callable[[Path], str]] = {
    "the root": lambda root: ".",
    "a folder above the root": lambda root: "..",
    "another class": lambda root: "dog",
    "a folder in another class": lambda root: "dog/puppy",
    "the root by its path": lambda root: str(root),
}


@pytest.mark.parametrize("target", LINKS)
def test_a_link_in_place_of_a_class_must_not_count_images_again(tmp_path: Path, target: str):
    root = tmp_path / "root"
    save(root / "dog/0.png")
    save(root / "dog/puppy/1.png")
    (root / "linked").symlink_to(LINKS[target](root))

    config = ImageFolderConfig(folder=str(root))

    assert str(root / "linked") in str(config.missing())
    with pytest.raises(DataError, match="linked"):
        ImageFolder(config, 8)


def test_loops_over_two_links_end(tmp_path: Path):
    save(tmp_path / "root/a/0.png")
    save(tmp_path / "disk/1.png")
    (tmp_path / "root/a/more").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "root/a")
    assert names_in(tmp_path / "root") == ["a/0.png", "a/more/1.png"]


def test_special_files_are_left_out_with_their_number(tmp_path: Path, monkeypatch):
    save(tmp_path / "c/0.png")
    os.mkfifo(tmp_path / "c/pipe.png")
    monkeypatch.chdir(tmp_path / "c")  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket.png")
        (tmp_path / "c/zero.png").symlink_to("/dev/zero")
        assert names_in(tmp_path) == ["c/0.png"]
        assert list_images(tmp_path).summary == "pipes, sockets and devices: 3"


def test_counts_of_what_is_left_out_name_the_suffixes(tmp_path: Path):
    save(tmp_path / "c/0.png")
    save(tmp_path / "beside.png")
    for name in ("c/a.txt", "c/b.txt", "c/movie.mp4", "c/.DS_Store", "readme.md"):
        (tmp_path / name).touch()
    text = str(ImageFolderConfig(folder=str(tmp_path)).left_out())
    for fact in (
        "beside the class folders: 1",
        "hidden: 1",
        "other types: 4",
        ".txt",
        ".mp4",
        ".md",
    ):
        assert fact in text


def test_nothing_left_out_says_nothing(tmp_path: Path):
    save(tmp_path / "c/0.png")
    assert ImageFolderConfig(folder=str(tmp_path)).left_out() is None


@pytest.mark.parametrize(
    "only", [".hidden.png", ".checkpoints/0.png", "notes.txt", "pipe.png", "broken.png", "sub/x.md"]
)
def test_a_class_without_images_is_refused(tmp_path: Path, only: str):
    save(tmp_path / "full/0.png")
    path = tmp_path / "hollow" / only
    path.parent.mkdir(parents=True)
    if only == "pipe.png":
        os.mkfifo(path)
    elif only == "broken.png":
        path.symlink_to("nowhere.png")
    else:
        path.touch()
    with pytest.raises(DataError, match="hollow"):
        ImageFolder(ImageFolderConfig(folder=str(tmp_path)), 8)


RUNS = [
    "runs/pets/run.json",
    "runs/group/pets/run.json",
    "pets/run.json",
    "shared/encoder-0123/stage.json",
    "c/runs/pets/run.json",
]


@pytest.mark.parametrize("record", RUNS)
@pytest.mark.parametrize("layout", ["c/0.png", "c/sub/0.png", "0.png"])
def test_directories_of_runs_are_no_classes(tmp_path: Path, record: str, layout: str):
    save(tmp_path / layout)
    save((tmp_path / record).with_name("pictures") / "preview.png")
    (tmp_path / record).touch()
    assert names_in(tmp_path) == [layout]
    left_out = ImageFolderConfig(folder=str(tmp_path), classes=1).left_out()
    assert left_out is not None
    assert "runs: 1" in left_out


def test_a_folder_of_runs_alone_holds_no_images(tmp_path: Path):
    save(tmp_path / "runs/pets/preview.png")
    (tmp_path / "runs/pets/run.json").touch()
    assert "no image" in (list_images(tmp_path).problem or "")


def test_a_class_name_that_is_no_text_is_refused(tmp_path: Path):
    save(tmp_path / "c/0.png")
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")  # noqa: PTH102
    with pytest.raises(DataError, match="UTF-8"):
        ImageFolder(ImageFolderConfig(folder=str(tmp_path)), 8)


# --- listing again --------------------------------------------------------------------------------


def age(root: Path) -> None:
    """Make every folder look as if it had not changed for an hour."""
    for folder, _, _ in os.walk(root):
        hour_ago = Path(folder).stat().st_mtime - 3600
        os.utime(folder, (hour_ago, hour_ago))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/inner/2.png", "b/3.png"):
        save(tmp_path / name)
    age(tmp_path)
    list_images(tmp_path)
    return tmp_path


def test_an_unchanged_folder_is_not_listed_again(tree: Path, monkeypatch: pytest.MonkeyPatch):
    expected = names_in(tree)
    monkeypatch.setattr(os, "scandir", None)
    assert names_in(tree) == expected == ["a/1.png", "a/inner/2.png", "b/3.png"]


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda root: save(root / "a" / "inner" / "4.png"),
    "deleted": lambda root: (root / "a" / "1.png").unlink(),
    "new class": lambda root: save(root / "c" / "5.png"),
    "renamed": lambda root: (root / "b" / "3.png").rename(root / "b" / "6.png"),
    "moved below": lambda root: (root / "a" / "1.png").rename(root / "a" / "inner" / "1.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_listed_again(tree: Path, change: str):
    CHANGES[change](tree)
    found = {str(path.relative_to(tree)) for path in tree.rglob("*.png")}
    assert set(names_in(tree)) == found != {"a/1.png", "a/inner/2.png", "b/3.png"}


def test_two_changes_with_one_time_stamp_are_seen(tmp_path: Path):
    """Some file systems have time stamps of a second or two."""
    save(tmp_path / "a" / "1.png")
    stamp = (tmp_path / "a").stat().st_mtime_ns
    list_images(tmp_path)
    save(tmp_path / "a" / "2.png")
    os.utime(tmp_path / "a", ns=(stamp, stamp))
    assert names_in(tmp_path) == ["a/1.png", "a/2.png"]
