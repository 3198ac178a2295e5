"""What is wrong with the images of a recipe: refused, or worth a warning."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pae_framework.data.copies import copies
from pae_framework.data.image_survey import Survey, survey
from pae_framework.data.latent_dataset import shard_name, write_shard
from pae_framework.plugins import load_registry
from pae_framework.preflight.image_checks import doubtful_images, found_images, unusable_images
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.testing.pytest import Pae

REGISTRY = load_registry()
ENOUGH = 70
"""Images of a class: two classes have more than the quickstart's extractor has features."""


def png(comment: str = "") -> bytes:
    file, facts = io.BytesIO(), PngInfo()
    facts.add_text("comment", comment)
    Image.new("L", (8, 8)).save(file, "png", pnginfo=facts)
    return file.getvalue()


def fill(folder: Path, count: int = ENOUGH) -> None:
    """Equal images whose files differ."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        file = folder / f"{n}.png"
        file.write_bytes(png(str(file)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in "ab":
            fill(tmp_path / "data" / split / name)
    return tmp_path / "data"


def recipe(data: Path, train: str = "split: train", test: str = "split: val", *more: str):
    sources = (
        f"data.{name}={{use: image_folder, folder: {data}, {settings}}}"
        for name, settings in (("train", train), ("test", test))
    )
    overrides = (*sources, "evaluate.manifold.ssc=false", "sample.count=140", *more)
    return load_recipe("quickstart", overrides, REGISTRY)


def refused(loaded: LoadedRecipe) -> list[str]:
    return [problem.path for problem in unusable_images([loaded])]


def doubted(loaded: LoadedRecipe) -> list[str]:
    return [problem.path for problem in doubtful_images([loaded])]


def test_good_images_are_neither_refused_nor_doubted(data):
    assert refused(recipe(data)) == doubted(recipe(data)) == []
    quickstart = load_recipe("quickstart", (), REGISTRY)
    assert refused(quickstart) == doubted(quickstart) == []


def test_what_was_found_is_told(data):
    train, test = found_images([recipe(data)])
    assert (train.split, train.images, train.classes) == ("train", 2 * ENOUGH, ("a", "b"))
    assert (test.split, test.images) == ("test", 2 * ENOUGH)
    assert "140 images, 2 classes: a, b" in str(train)


def test_images_that_are_missing_are_not_told(data):
    (only,) = found_images([recipe(data, test="split: nothing")])
    assert only.split == "train"


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "TEST"), ("train", "val", "test")])
def test_classes_named_like_splits_are_refused(tmp_path, names):
    for name in names:
        fill(tmp_path / name)
    loaded = recipe(tmp_path, "holdout: 0.5", "holdout: 0.5, part: test")
    assert refused(loaded) == ["data.train", "data.test"]
    assert "data.train.split=" in unusable_images([loaded])[0].hint


def test_one_class_named_like_a_split_among_others_is_a_class(tmp_path):
    for name in ("train", "bus"):
        fill(tmp_path / name, 140)
    assert refused(recipe(tmp_path, "holdout: 0.5", "holdout: 0.5, part: test")) == []


def test_more_neighbors_than_training_images_are_refused(data):
    def interpolating(neighbors: int) -> LoadedRecipe:
        asked = f"evaluate.interpolation={{neighbors: {neighbors}}}"
        return recipe(data, "split: train", "split: val", asked)

    assert refused(interpolating(2 * ENOUGH)) == []
    (problem,) = unusable_images([interpolating(2 * ENOUGH + 1)])
    assert problem.path == "evaluate.interpolation"
    assert "141" in problem.message
    assert "140 training images" in problem.message


def latents(folder: Path, sizes: list[int]) -> None:
    folder.mkdir()
    for shard, count in enumerate(sizes):
        rows = torch.zeros(count, 4, 2, 2)
        write_shard(folder / shard_name(0, shard), rows, rows, torch.zeros(count))


@pytest.mark.parametrize(("neighbors", "paths"), [(7, []), (8, ["evaluate.interpolation"])])
def test_more_neighbors_than_latents_of_a_folder_are_refused(tmp_path, neighbors, paths):
    latents(tmp_path / "latents", [4, 3])
    asked = f"evaluate.interpolation={{neighbors: {neighbors}}}"
    loaded = load_recipe("quickstart", [f"latents.folder={tmp_path}/latents", asked], REGISTRY)
    assert refused(loaded) == paths


@pytest.mark.parametrize("damage", [b"", b"no shard", b"\xff" * 20])
def test_latents_that_cannot_be_counted_are_left_to_the_stage_that_reads_them(tmp_path, damage):
    latents(tmp_path / "latents", [4, 3])
    (tmp_path / "latents" / shard_name(0, 1)).write_bytes(damage)
    asked = "evaluate.interpolation={neighbors: 8}"
    loaded = load_recipe("quickstart", [f"latents.folder={tmp_path}/latents", asked], REGISTRY)
    assert refused(loaded) == []


DAMAGE: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("no image"),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "flipped bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
}


def flipped(content: bytes) -> bytes:
    place = content.index(b"IDAT") + 6
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("split", "refusals", "doubts"), [("val", ["data.test"], []), ("train", [], ["data.train"])]
)
def test_unreadable_images_are_found_before_anything_runs(data, damage, split, refusals, doubts):
    DAMAGE[damage](data / split / "b" / "7.png")
    loaded = recipe(data)
    assert refused(loaded) == refusals
    assert doubted(loaded) == doubts
    (problem,) = [*unusable_images([loaded]), *doubtful_images([loaded])]
    assert "b/7.png" in problem.message


def test_excluded_and_tolerated_images_may_be_unreadable(data):
    for split in ("train", "val"):
        DAMAGE["cut"](data / split / "b" / "7.png")
    exclude = "exclude: [b/7.png]"
    loaded = recipe(data, "split: train", f"split: val, {exclude}", "data.max_damaged=1")
    assert refused(loaded) == doubted(loaded) == []
    loaded = recipe(data, f"split: train, {exclude}", f"split: val, {exclude}")
    assert refused(loaded) == doubted(loaded) == []


def test_half_a_photo_is_unreadable(data):
    photo = data / "val" / "a" / "photo.jpg"
    Image.effect_noise((200, 200), 80).save(photo)
    assert refused(recipe(data)) == []
    content = photo.read_bytes()
    photo.write_bytes(content[: len(content) // 2])
    assert refused(recipe(data)) == ["data.test"]


def link_one(data: Path) -> None:
    (data / "val" / "a" / "0.png").unlink()
    (data / "val" / "a" / "0.png").symlink_to(data / "train" / "a" / "1.png")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("split: train", "split: train"),
        ("split: train", "split: train/../train"),
        ("split: train, holdout: 0.5", "split: train, holdout: 0.6, part: test"),
        ("split: train", "split: train, background: black"),
    ],
)
def test_test_images_among_the_training_images_are_doubted(data, train, test):
    assert "data.test" in doubted(recipe(data, train, test))


def link_class(data: Path) -> None:
    shutil.rmtree(data / "val" / "a")
    (data / "val" / "a").symlink_to(data / "train" / "a")


@pytest.mark.parametrize("link", [link_one, link_class])
def test_a_link_to_a_training_image_is_that_image(data, link):
    link(data)
    assert doubted(recipe(data)) == ["data.test"]


def copy_one(data: Path) -> list[Path]:
    one, other = data / "train" / "a" / "1.png", data / "val" / "b" / "new.png"
    shutil.copyfile(one, other)
    return [one, other]


def copy_class(data: Path) -> list[Path]:
    shutil.copytree(data / "train" / "a", data / "val" / "a", dirs_exist_ok=True)
    return [data / "train" / "a" / "0.png", data / "val" / "a" / "0.png"]


def link_and_copy(data: Path) -> list[Path]:
    link_one(data)
    copy_one(data)
    return [data / "val" / "a" / "0.png"]


@pytest.mark.parametrize(
    ("copy", "count"), [(copy_one, "1 of 141"), (copy_class, "70 of 140"), (link_and_copy, "2 of")]
)
def test_a_copy_of_a_training_image_is_that_image(data, copy, count):
    named = copy(data)
    (problem,) = doubtful_images([recipe(data)])
    assert problem.path == "data.test"
    assert count in problem.message
    assert [path for path in named if str(path) not in problem.message] == []


def test_of_very_many_images_a_sample_is_compared(data, monkeypatch):
    for name in "ab":
        shutil.copytree(data / "train" / name, data / "val" / name, dirs_exist_ok=True)
    monkeypatch.setattr("pae_framework.preflight.image_checks._COMPARED_ALL", 279)
    monkeypatch.setattr("pae_framework.preflight.image_checks._READ", 50)
    (problem,) = doubtful_images([recipe(data)])
    assert "50 of 50 test images, a sample of 140" in problem.message


@pytest.mark.parametrize("place", [0, 25_000, 49_999])
def test_files_that_differ_in_a_byte_are_no_copies(tmp_path, place):
    one, other, third = (tmp_path / name for name in ("one", "other", "third"))
    content = bytes(50_000)
    for file in (other, third):
        file.write_bytes(content)
    one.write_bytes(content[:place] + b"?" + content[place + 1 :])
    assert copies([one], [other, third]) == {}
    assert copies([third, one], [one, other, third]) == {third: other}


def test_empty_and_missing_files_are_no_copies(tmp_path):
    empty, also, gone = (tmp_path / name for name in ("empty", "also", "gone"))
    empty.touch()
    also.touch()
    assert copies([empty, gone], [also, gone]) == {}


def test_only_files_that_look_alike_are_read_as_a_whole(tmp_path, monkeypatch):
    files = [tmp_path / str(n) for n in range(100)]
    for n, file in enumerate(files):
        file.write_bytes(bytes(5000 + n % 2) + bytes([n // 2]))
    monkeypatch.setattr("pae_framework.data.copies.file_digest", None)
    assert copies(files[:50], files[50:]) == {}
    assert copies(files, files) == {}


def test_links_between_the_parts_of_a_folder_are_named(data):
    settings = "split: train, holdout: 0.5"
    loaded = recipe(data, settings, f"{settings}, part: test")
    train, test = (
        next(iter(source.config.image_files().values()))
        for source in (loaded.recipe.data.train, loaded.recipe.data.test)
    )
    test.unlink()
    test.symlink_to(train)
    (problem,) = doubtful_images([loaded])
    assert str(train) in problem.message
    assert str(test) in problem.message
    assert "0.15" not in problem.hint
    assert "exclude" in problem.hint


def test_without_links_no_path_of_an_image_is_resolved(data, monkeypatch):
    loaded, resolved, resolve = recipe(data), list[object](), os.path.realpath

    def noted(path: str, *, strict: bool = False) -> str:
        resolved.append(path)
        return resolve(path, strict=strict)

    monkeypatch.setattr("os.path.realpath", noted)
    assert doubted(loaded) == []
    assert not [path for path in resolved if str(path).endswith(".png")]


def test_images_of_many_members_are_read_once(data, monkeypatch):
    read = list[int]()

    def counting(files: dict[str, Path], most: int) -> Survey:
        read.append(len(files))
        return survey(files, most)

    monkeypatch.setattr("pae_framework.preflight.image_checks.survey", counting)
    DAMAGE["cut"](data / "val" / "b" / "7.png")
    members = [recipe(data, "split: train", "split: val", f"seed={seed}") for seed in range(3)]
    assert [problem.path for problem in unusable_images(members)] == ["data.test"]
    assert doubtful_images(members) == []
    assert read == [2 * ENOUGH, 2 * ENOUGH]
    excluding = recipe(data, "split: train", "split: val, exclude: [b/7.png]")
    assert len(unusable_images([excluding, *members])) == 1


def test_both_parts_of_a_folder_are_apart(data):
    parts = ("split: train, holdout: 0.5", "split: train, holdout: 0.5, part: test")
    assert "data.test" not in doubted(recipe(data, *parts))


def test_equal_sources_without_files_are_doubted():
    same = "data.test={use: digits, split: train}"
    assert doubted(load_recipe("quickstart", [same], REGISTRY)) == ["data.test"]


def test_one_class_is_doubted_where_classes_count(tmp_path):
    for split in ("train", "val"):
        fill(tmp_path / split, 2 * ENOUGH)
    assert doubted(recipe(tmp_path)) == ["extractor", "evaluate.manifold"]
    without = ("evaluate.manifold.gsq=false", "extractor={use: tiny_vit, class_weight: 0}")
    train = "extractor.train={steps: 1}"
    assert doubted(recipe(tmp_path, "split: train", "split: val", *without, train)) == []


@pytest.mark.parametrize(("test_images", "samples"), [(64, 140), (140, 64), (65, 65)])
def test_frechet_distances_of_fewer_images_than_features_are_doubted(data, test_images, samples):
    more = (f"data.test_images={test_images}", f"sample.count={samples}")
    few = {"evaluate.generation", "evaluate.few_steps"} if min(test_images, samples) < 65 else set()
    if test_images < 65:
        few |= {"evaluate.reconstruction"}
    assert set(doubted(recipe(data, "split: train", "split: val", *more))) == few


def test_the_command_prints_and_refuses(pae: Pae, data, tmp_path):
    DAMAGE["cut"](data / "val" / "b" / "7.png")
    link_one(data)
    sources = [
        f"data.train={{use: image_folder, folder: {data}, split: train}}",
        f"data.test={{use: image_folder, folder: {data}, split: val}}",
        "evaluate.manifold.ssc=false",
    ]
    checked = pae("check", "quickstart", *sources).fails(2)
    assert "140 images, 2 classes: a, b" in checked.out
    assert "b/7.png" in checked.err
    assert "training images" in checked.out
    assert ": valid" not in checked.out
    answer = pae("check", "quickstart", *sources, "--json").fails(2).json
    assert not answer["valid"]
    assert [one["images"] for one in answer["images"]] == [140, 140]
    assert [problem["path"] for problem in answer["problems"]] == ["data.test"]
    assert answer["missing"] == []
    assert "data.test" in [problem["path"] for problem in answer["doubtful"]]
    assert "b/7.png" in pae("run", "quickstart", *sources).fails(2).err
    assert not (tmp_path / "runs").exists()


def test_a_contact_sheet_shows_what_is_read_and_replaces_nothing(pae: Pae, tmp_path):
    pae("check", "quickstart", "--pictures", "sheet.png").ok()
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 8 * 128
    content = (tmp_path / "sheet.png").read_bytes()
    pae("check", "quickstart", "--pictures", "sheet.png").fails(2)
    pae("check", "quickstart", "--pictures", "sheet.txt").fails(2)
    assert (tmp_path / "sheet.png").read_bytes() == content


@pytest.mark.parametrize("use", ["webdataset", "parquet"])
@pytest.mark.parametrize("stated", [True, False])
def test_an_unknown_number_of_training_images_is_told_where_it_counts(tmp_path, use, stated):
    (tmp_path / "train.tar").touch()
    (tmp_path / "train.parquet").touch()
    images = ", images: 50" if stated else ""
    overrides = (
        f"data.train={{use: {use}, folder: {tmp_path}, pattern: 'train*'{images}}}",
        "data.test={use: shapes, count: 200}",
        "evaluate={interpolation: {neighbors: 5}, reconstruction: {}}",
        "tokenizer.encoder.class_weight=0",
    )
    loaded = load_recipe("quickstart", overrides, REGISTRY)
    found = [problem for problem in doubtful_images([loaded]) if "images" in problem.hint]
    assert [p.path for p in found] == ([] if stated else ["evaluate.interpolation"])
    assert all("data.train.images" in problem.hint for problem in found)
