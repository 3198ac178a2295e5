"""Recipes for folders of images: whatever the folder is like, the recipe is valid and fits it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pae_framework.errors import UsageError
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.scaffold.folder_recipe import find_images, recipe_name, recipe_text
from pae_framework.testing.pytest import Pae

REGISTRY = load_registry()


def fill(folder: Path, count: int, side: int = 64, mode: str = "RGB") -> None:
    """Images whose files differ, also from those of other folders."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        file, facts = folder / f"{n:03d}.png", PngInfo()
        facts.add_text("comment", str(file))
        Image.new(mode, (side + n % 3, side)).save(file, pnginfo=facts)


def written(
    tmp_path: Path, folder: Path, side: int | None = None, name: str = "mine"
) -> LoadedRecipe:
    """The recipe for a folder, loaded, which checks it."""
    found = find_images(folder, REGISTRY)
    file = tmp_path / "mine.yaml"
    file.write_text(recipe_text(found, name, side or found.default_side, "mine.yaml"))
    return load_recipe(file, (), REGISTRY)


def counts(loaded: LoadedRecipe) -> list[list[int]]:
    """Images of each class, of training and test images."""
    data = loaded.recipe.data
    sources = (data.train.config, data.test.config)
    return [list((source.image_counts() or {}).values()) for source in sources]


LAYOUTS: dict[str, tuple[Sequence[str], int, int]] = {
    "flat": (["."], 60, 1),
    "by class": (["ant", "bee", "cat"], 60, 3),
    "train and val, by class": (["train/ant", "train/bee", "val/ant", "val/bee"], 30, 2),
    "train and test, flat": (["train", "test"], 40, 1),
    "training and validation": (["training/a b", "validation/a b"], 30, 1),
    "train alone": (["train/ant", "train/bee"], 60, 2),
    "training and dev": (["Train/ant", "Train/bee", "Dev/ant", "Dev/bee"], 30, 2),
    "a class called train": (["train", "car", "bus"], 60, 3),
    "a class called test": (["test", "check"], 60, 2),
    "classes called train and test": (["train", "test", "car"], 60, 3),
    "names that YAML reads otherwise": (["no", "1e3", "#", "a: b"], 60, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_image_is_in_one_part_of_a_valid_recipe(tmp_path, layout):
    folders, each, classes = LAYOUTS[layout]
    for name in folders:
        fill(tmp_path / "my images" / name, each)
    loaded = written(tmp_path, tmp_path / "my images")
    train, test = counts(loaded)
    assert len(train) == len(test) == classes
    assert sum(train) + sum(test) == each * len(folders)
    assert min(train) > 0
    data = loaded.recipe.data
    train_files, test_files = (x.config.image_files() for x in (data.train, data.test))
    assert not set(train_files.values()) & set(test_files.values())


@pytest.mark.parametrize("classes", [1, 2])
def test_labels_are_used_only_where_there_are_classes(tmp_path, classes):
    for n in range(classes):
        fill(tmp_path / "data" / f"class{n}", 60)
    recipe = written(tmp_path, tmp_path / "data").recipe
    assert (recipe.tokenizer.encoder.config.class_weight > 0) == (classes > 1)
    assert recipe.evaluate["manifold"].config.gsq == (classes > 1)
    assert (recipe.sample.guidance.scale > 1) == (classes > 1)
    assert recipe.extractor.use == ("small_cnn" if classes > 1 else "tiny_vit")


@pytest.mark.parametrize(("each", "measured"), [(40, False), (320, True)])
def test_frechet_distances_need_more_images_than_features(tmp_path, each, measured):
    for name in "ab":
        fill(tmp_path / "data" / name, each, side=16)
    recipe = written(tmp_path, tmp_path / "data").recipe
    for label in ("generation", "few_steps"):
        assert (label in recipe.evaluate) == measured
    width = recipe.extractor.config.token_width()
    _, test = counts(load_recipe(tmp_path / "mine.yaml", (), REGISTRY))
    assert (min(sum(test), recipe.sample.count) > width) == measured


def test_there_are_samples_of_every_class(tmp_path):
    for n in range(30):
        fill(tmp_path / "data" / f"{n:02d}", 5, side=16)
    loaded = written(tmp_path, tmp_path / "data")
    assert sum(counts(loaded)[1]) < 30
    assert loaded.recipe.sample.count >= 30


@pytest.mark.parametrize(("side", "expected"), [(500, 64), (64, 64), (50, 48), (20, 16), (8, 16)])
def test_crops_are_not_larger_than_most_images(tmp_path, side, expected):
    fill(tmp_path / "data", 60, side=side)
    assert written(tmp_path, tmp_path / "data").recipe.data.image_size == expected


@pytest.mark.parametrize("side", [16, 48, 64, 112, 128, 256])
def test_any_multiple_of_16_gives_a_valid_recipe(tmp_path, side):
    fill(tmp_path / "data", 60, side=16)
    assert written(tmp_path, tmp_path / "data", side).recipe.data.image_size == side


def test_another_side_is_refused(tmp_path):
    fill(tmp_path / "data", 60)
    with pytest.raises(UsageError, match=r"\b50\b.*\b16\b"):
        written(tmp_path, tmp_path / "data", 50)


@pytest.mark.parametrize("split", [False, True])
def test_unreadable_images_are_named_and_excluded(tmp_path, split):
    places = ["train/a", "val/a"] if split else ["a"]
    broken = ["[1]*?.png", "half.jpg", "text.png"]
    for place in places:
        folder = tmp_path / "data" / place
        fill(folder, 60)
        Image.effect_noise((64, 64), 50).save(folder / "half.jpg")
        half = (folder / "half.jpg").read_bytes()
        (folder / "half.jpg").write_bytes(half[: len(half) // 2])
        (folder / "text.png").write_text("no image")
        (folder / "[1]*?.png").write_bytes((folder / "000.png").read_bytes()[:-20])
    found = find_images(tmp_path / "data", REGISTRY)
    told = "\n".join(found.lines())
    assert all(name in told for name in broken)
    train, test = counts(written(tmp_path, tmp_path / "data"))
    assert sum(train) + sum(test) == 60 * len(places)


@pytest.mark.parametrize("broken", [1, 5, 6, 16])
def test_unreadable_images_that_are_not_named_are_counted(tmp_path, broken):
    fill(tmp_path / "data", 60)
    for n in range(broken):
        (tmp_path / f"data/broken{n:02d}.png").write_text("no image")
    told = list(find_images(tmp_path / "data", REGISTRY).lines())
    shown = sum("/broken" in line for line in told)
    assert shown > 0
    assert any(f"and {broken - shown} more" in line for line in told) == (shown < broken)


@pytest.mark.parametrize("count", [40, 50, 72, 100, 200])
def test_the_share_of_test_images_suffices_and_is_told(tmp_path, count):
    fill(tmp_path / "data", count, side=16)
    found = find_images(tmp_path / "data", REGISTRY)
    share = found.written["test"]["holdout"]
    assert min(found.counts) >= 16
    assert any(f"share: {round(100 * share)}%" in line for line in found.lines())
    smaller = found.test.model_copy(update={"holdout": 0.15})
    assert (share == 0.15) == (sum((smaller.image_counts() or {}).values()) >= 16)


@pytest.mark.parametrize("count", [1, 5, 31, 32])
def test_too_few_images_are_refused_without_settings_that_nobody_wrote(tmp_path, count):
    fill(tmp_path / "data", count, side=16)
    with pytest.raises(UsageError, match=rf"\b{count}\b.*add images") as caught:
        find_images(tmp_path / "data", REGISTRY)
    assert "holdout" not in str(caught.value)


def test_a_class_without_training_images_is_named(tmp_path):
    fill(tmp_path / "data/many", 60, side=16)
    part = REGISTRY.find("dataset", "image_folder").config_class()
    (tmp_path / "data/rare").mkdir()
    for n in range(100):
        only = tmp_path / f"data/rare/{n}.png"
        Image.new("RGB", (16, 16)).save(only)
        config = part(folder=str(tmp_path / "data"), holdout=0.15, part="train")
        if config.missing() is not None:
            break
        only.unlink()
    with pytest.raises(UsageError, match="rare"):
        find_images(tmp_path / "data", REGISTRY)


@pytest.mark.parametrize("places", [("a", "b"), (".", "."), ("train/a", "val/a")])
def test_links_to_other_images_are_told_and_excluded(tmp_path, places):
    data = tmp_path / "data"
    for name in places:
        fill(data / name, 60, side=16)
    for n in range(7):
        (data / places[0] / f"link{n}.png").symlink_to(data / places[1] / f"{n:03d}.png")
    told = "\n".join(find_images(data, REGISTRY).lines())
    assert "excludes: 7" in told
    assert "link0.png" in told
    sources = written(tmp_path, data).recipe.data
    files = [x.config.image_files().values() for x in (sources.train, sources.test)]
    assert len({path.resolve() for part in files for path in part}) == sum(map(len, files))


@pytest.mark.parametrize(
    ("places", "copied", "excluded"),
    [
        (("a", "b"), 7, 7),
        ((".", "."), 7, 7),
        (("train/a", "val/a"), 7, 7),
        (("train/a", "train/a"), 7, 0),  # all are training images
        (("val/a", "val/a"), 7, 0),
    ],
)
def test_copies_of_test_images_are_told_and_excluded(tmp_path, places, copied, excluded):
    data = tmp_path / "data"
    for name in {*places, *(("train/a", "val/a") if "/" in places[0] else ())}:
        fill(data / name, 60, side=16)
    for n in range(copied):
        shutil.copyfile(data / places[1] / f"{n:03d}.png", data / places[0] / f"copy{n}.png")
    told = "\n".join(find_images(data, REGISTRY).lines())
    assert ("copies" in told) == (excluded > 0)
    assert (f"excludes: {excluded}" in told) == (excluded > 0)
    sources = written(tmp_path, data).recipe.data
    train, test = (
        [path.read_bytes() for path in x.config.image_files().values()]
        for x in (sources.train, sources.test)
    )
    assert not set(train) & set(test)
    assert len(train) + len(test) == 60 * len(list(data.rglob("000.png"))) + copied - excluded


def test_more_copies_than_a_recipe_names_are_told_and_stay(tmp_path):
    data = tmp_path / "data"
    fill(data, 140, side=16)
    for n in range(120):
        shutil.copyfile(data / f"{n:03d}.png", data / f"copy{n}.png")
    found = find_images(data, REGISTRY)
    assert sum(found.counts) == 260
    assert "does not exclude: 120" in "\n".join(found.lines())


def test_copies_do_not_count_for_the_fewest_images(tmp_path):
    data = tmp_path / "data"
    fill(data, 20, side=16)
    for n in range(20):
        shutil.copyfile(data / f"{n:03d}.png", data / f"copy{n}.png")
    with pytest.raises(UsageError, match=r"\b20\b.* 20 copies"):
        find_images(data, REGISTRY)


@pytest.mark.parametrize("name", ["a", "."])
def test_one_class_is_told_as_pae_check_tells_it(tmp_path, name):
    fill(tmp_path / "data" / name, 60)
    told = list(find_images(tmp_path / "data", REGISTRY).lines())
    assert any(line.startswith("1 class") for line in told)
    assert not any("no classes" in line for line in told)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda data: None, "data"),
        (lambda data: data.write_text(""), "data"),
        (lambda data: data.mkdir(), "no image"),
        (lambda data: fill(data, 5), "5|images"),
        (lambda data: (fill(data / "a", 60), (data / "b").mkdir()), "data/b"),
        (lambda data: (fill(data / "train/a", 60), fill(data / "val/b", 60)), "a.*b"),
    ],
    ids=["missing", "file", "empty", "few", "empty class", "other classes"],
)
def test_a_folder_that_cannot_be_used_is_refused(tmp_path, make, expected):
    make(tmp_path / "data")
    with pytest.raises(UsageError, match=expected):
        find_images(tmp_path / "data", REGISTRY)


@pytest.mark.parametrize(
    "folder", ["a", "my images", "-x", "...", "日本", "a" * 300, "/", "über.png"]
)
def test_names_of_recipes_are_valid(folder):
    name = recipe_name(Path(folder))
    assert name
    loaded = load_recipe("quickstart", [f"name={name!r}"], REGISTRY)
    assert loaded.recipe.name == name


@pytest.mark.parametrize("name", ["2024", "1e3", "0x1F", "1.5", "null", "True", "no", "2024-01-01"])
def test_a_name_that_yaml_may_read_as_another_type_is_a_name(tmp_path, name):
    fill(tmp_path / "data", 120, side=16)
    assert written(tmp_path, tmp_path / "data", name=name).recipe.name == name


def test_the_command_writes_a_recipe_that_pae_check_accepts(pae: Pae, tmp_path):
    for name in "ab":
        fill(tmp_path / "pets" / name, 60, mode="RGBA")
    told = pae("new-recipe", "pets", "--size", "32").ok().out
    assert "pae check pets.yaml" in told
    assert "pae run pets.yaml" in told
    assert pae("check", "pets.yaml").ok().out.startswith("pets: valid\n")
    text = (tmp_path / "pets.yaml").read_text()
    pae("new-recipe", "pets").fails(2)
    assert (tmp_path / "pets.yaml").read_text() == text
    pae("new-recipe", "pets", "--out", "other.yaml").ok()
    assert load_recipe(tmp_path / "other.yaml", (), REGISTRY).recipe.name == "other"


@pytest.mark.parametrize("here", ["pets", "pets/sub"])
def test_a_contact_sheet_does_not_become_an_image(pae: Pae, tmp_path, monkeypatch, here):
    fill(tmp_path / "pets/sub", 60, side=16)
    monkeypatch.chdir(tmp_path / here)
    told = pae("new-recipe", str(tmp_path / "pets")).ok().out
    (sheet,) = (line.split()[-1] for line in told.splitlines() if "--pictures" in line)
    assert (Path.cwd() / sheet).resolve().parent == tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 2])
def test_a_written_recipe_runs(pae: Pae, tmp_path, classes):
    for n in range(classes):
        fill(tmp_path / "pets" / f"class{n}", 60, side=20)
    pae("new-recipe", "pets").ok()
    pae("run", "pets.yaml", "--smoke", "--run-dir", "run").ok()
    assert (tmp_path / "run" / "report.html").exists()
