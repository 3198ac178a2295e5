"""``latents.folder``: others' latents are checked, tied to the run, and never touched.

The other side of the exchange is written here from what LightningDiT (commit 2725fed) does: ranks
that take every so-many-th image, safetensors, and statistics in a torch file.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from layouts import tiny_generator as official
from layouts import tiny_tokenizer as helpers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pae_framework.data.latent_dataset import shard_name, write_shard
from pae_framework.data.statistics import LatentStatistics, compute_statistics, load_statistics
from pae_framework.errors import CheckpointError, DataError, RunError
from pae_framework.execution.context import StageContext
from pae_framework.execution.run_latents import run_latents, run_statistics
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.record import StageRecord
from pae_framework.runs.results import StageResults, describe_results
from pae_framework.stages import generator, latents
from pae_framework.system.files import file_identity, read_json, write_json
from pae_framework.world import ONE_PROCESS

IMAGES, RANKS, PER_SHARD = 10, 2, 3
"""Rank 0 has images 0, 2, 4, ..., in shards of 3 and 2."""


def latent(image: int) -> Tensor:
    """(4, 4, 4), told by the image."""
    return torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(image)) + image


def write_as_lightningdit(folder: Path, classes: int = 10) -> None:
    """Shards of every rank, in the strided order of its sampler, and the statistics' file."""
    folder.mkdir()
    for rank in range(RANKS):
        images = list(range(rank, IMAGES, RANKS))
        for shard, first in enumerate(range(0, len(images), PER_SHARD)):
            chosen = images[first : first + PER_SHARD]
            plain = torch.stack([latent(image) for image in chosen])
            tensors = {
                "latents": plain,
                "latents_flip": plain.flip(-1).contiguous(),
                "labels": torch.tensor([image % classes for image in chosen]),
            }
            metadata = {"total_size": str(len(chosen)), "dtype": "torch.float32", "device": "cuda"}
            name = f"latents_rank{rank:02d}_shard{shard:03d}.safetensors"
            save_file(tensors, folder / name, metadata)
    torch.save(official.statistics(), folder / "latents_stats.pt")


class LightningDitReader:
    """A data set as LightningDiT reads it: rows through the sorted files, normalized."""

    def __init__(self, folder: Path):
        self.rows: list[tuple[Path, int]] = []
        for path in sorted(folder.glob("latents_rank*_shard*.safetensors")):
            with safe_open(path, "pt") as file:
                (count,) = file.get_slice("labels").get_shape()
                assert int(file.metadata()["total_size"]) == count
            self.rows += [(path, row) for row in range(count)]
        statistics = torch.load(folder / "latents_stats.pt", weights_only=True)
        self.mean, self.std = statistics["mean"], statistics["std"]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        path, row = self.rows[index]
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            found = {name: file.get_slice(name)[row : row + 1] for name in names}
        for name in ("latents", "latents_flip"):
            found[name] = (found[name] - self.mean) / self.std
        return found


class Context(SimpleNamespace):
    """What the stages are given, less images."""

    recorded: dict[str, Any]
    num_classes = 10
    world = ONE_PROCESS
    class_names = tuple("0123456789")

    @property
    def train_source(self) -> None:
        pytest.fail("a stage asked for images")

    def update_record(self, **values: Any) -> None:
        self.recorded.update(values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Latents of 4 x 4 x 4 and 10 classes that LightningDiT wrote."""
    write_as_lightningdit(tmp_path / "theirs")
    return tmp_path / "theirs"


@pytest.fixture
def context(tmp_path: Path, folder: Path) -> Any:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(official.RECIPE, encoding="utf-8")
    registry = helpers.registry_with_renamed()
    overrides = [f"latents.folder={folder}", f"data.train.images={IMAGES}"]
    recipe_with_folder = load_recipe(recipe, overrides, registry)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.safetensors").write_bytes(b"weights")
    (tmp_path / "out").mkdir()
    folders = {"tokenizer": tmp_path / "tokenizer", "latents": tmp_path / "out"}

    def results(stage: str) -> StageResults:
        return StageResults(folders[stage], None, "run the stage again")

    return Context(
        recipe=recipe_with_folder.recipe,
        registry=registry,
        directory=tmp_path / "out",
        results=results,
        require=lambda stage: results(stage).files(),
        file=lambda stage, name: results(stage).file(name),
        seed=lambda settings: 0,
        recorded={},
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def identity(tmp_path: Path) -> str:
    return file_identity(tmp_path / "tokenizer" / "tokenizer.safetensors")


# --- what is taken --------------------------------------------------------------------------------


def test_the_stage_writes_statistics_and_what_the_folder_was(context: Any, folder: Path) -> None:
    before = contents(folder)
    latents.run(context)
    assert contents(folder) == before
    names = {path.name for path in context.directory.iterdir()}
    assert names == {"statistics", "latents_stats.pt", "latents.json"}
    found = run_statistics(context)
    assert helpers.same_bits({"mean": found.mean, "std": found.std}, official.statistics())
    description = read_json(context.directory / "latents.json")
    shards = {path.name: path.stat().st_size for path in folder.glob("*shard*")}
    assert {name: file["size"] for name, file in description.pop("files").items()} == shards
    assert description == {
        "folder": str(folder),
        "shards": 4,
        "latents": IMAGES,
        "shape": "4 x 4 x 4",
        "statistics": "latents_stats.pt",
    }
    assert context.recorded == {"weights": "theirs"}


def test_the_generator_trains_on_the_rows_as_lightningdit_counts_them(
    context: Any, folder: Path
) -> None:
    latents.run(context)
    dataset, reader = run_latents(context), LightningDitReader(folder)
    assert len(dataset) == len(reader.rows) == IMAGES
    unit = LatentStatistics(reader.mean, reader.std)
    rows = torch.arange(IMAGES)
    plain, labels = dataset.batch(rows)
    mirrored, _ = dataset.batch(rows, torch.ones(IMAGES, dtype=torch.bool))
    for row in range(IMAGES):
        theirs = reader[row]
        assert torch.equal(unit.normalize(plain[row : row + 1]), theirs["latents"])
        assert torch.equal(unit.normalize(mirrored[row : row + 1]), theirs["latents_flip"])
        assert labels[row : row + 1].tolist() == theirs["labels"].tolist()


def test_statistics_that_the_folder_lacks_are_measured_and_kept_with_the_run(
    context: Any, folder: Path
) -> None:
    (folder / "latents_stats.pt").unlink()
    before = contents(folder)
    latents.run(context)
    assert contents(folder) == before
    values = torch.stack([latent(image) for image in range(IMAGES)]).double()
    mean, std = values.mean(dim=(0, 2, 3)), values.transpose(0, 1).flatten(1).std(dim=1)
    found = run_statistics(context)
    torch.testing.assert_close(found.mean.flatten().double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.std.flatten().double(), std, rtol=1e-5, atol=1e-6)
    assert read_json(context.directory / "latents.json")["statistics"] == "measured"


def test_what_we_write_lightningdit_reads(tmp_path: Path) -> None:
    """Names, keys, metadata and both shapes of the statistics, through a reader of its own."""
    values = torch.stack([latent(image) for image in range(IMAGES)])
    for shard, rows in enumerate(torch.arange(IMAGES).split(4)):
        write_shard(tmp_path / shard_name(0, shard), values[rows], -values[rows], rows % 3)
    statistics = compute_statistics(tmp_path)
    statistics.save(tmp_path, "a tokenizer")
    reader = LightningDitReader(tmp_path)
    assert reader.mean.shape == reader.std.shape == (1, 4, 1, 1)
    assert len(reader.rows) == IMAGES
    for row in range(IMAGES):
        found = reader[row]
        assert set(found) == {"latents", "latents_flip", "labels"}
        plain = values[row : row + 1]
        assert torch.equal(found["latents"], statistics.normalize(plain))
        assert torch.equal(found["latents_flip"], statistics.normalize(-plain))
        assert found["labels"].tolist() == [row % 3]


# --- what is refused ------------------------------------------------------------------------------


def test_a_folder_without_latents(context: Any, folder: Path) -> None:
    for path in folder.glob("*shard*"):
        path.unlink()
    with pytest.raises(DataError, match="theirs"):
        latents.run(context)


def test_a_damaged_shard_is_named(context: Any, folder: Path) -> None:
    path = folder / "latents_rank01_shard001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"rank01_shard001\.safetensors"):
        latents.run(context)


@pytest.mark.parametrize("shape", [(8, 4, 4), (4, 8, 8)], ids=["channels", "side"])
def test_latents_of_another_shape(context: Any, folder: Path, shape: tuple[int, ...]) -> None:
    for path in folder.glob("*shard*"):
        count = len(load_file(path)["labels"])
        write_shard(path, *(torch.randn(count, *shape),) * 2, torch.zeros(count))
    found = " x ".join(map(str, shape))
    with pytest.raises(DataError, match=rf"rank00_shard000.*{found}.*4 x 4 x 4"):
        latents.run(context)
    assert not list(context.directory.iterdir())


@pytest.mark.parametrize("label", [10, -1])
def test_labels_beyond_the_classes_are_named_with_their_file(
    context: Any, folder: Path, label: int
) -> None:
    path = folder / "latents_rank01_shard000.safetensors"
    tensors = load_file(path)
    tensors["labels"][1:] = label
    save_file(tensors, path)
    message = rf"rank01_shard000.*label {label}\b.* 10 classes.* \(2 "
    with pytest.raises(DataError, match=message):
        latents.run(cast(StageContext, context))


def test_labels_of_the_runs_own_latents_are_checked_before_training(
    context: Any, folder: Path
) -> None:
    """Another data source may have been shuffled in, or the recipe may state too few classes."""
    named = {"latents": context.recipe.latents.model_copy(update={"folder": None})}
    context.recipe = context.recipe.model_copy(update=named)
    for path in folder.iterdir():
        path.rename(context.directory / path.name)
    assert len(run_latents(context)) == IMAGES
    context.num_classes = 9
    with pytest.raises(DataError, match=r"label 9\b.* 9 classes"):
        generator.run(context)


def test_a_generator_without_labels_does_not_mind_them(context: Any) -> None:
    config = context.recipe.generator.config
    unconditional = SimpleNamespace(conditional=False, weights=None)
    assert config.conditional
    context.num_classes = 1
    network = context.recipe.generator.model_copy(update={"config": unconditional})
    context.recipe = context.recipe.model_copy(update={"generator": network})
    latents.run(context)
    assert len(run_latents(context)) == IMAGES


def test_a_folder_that_lacks_a_shard(context: Any, folder: Path) -> None:
    """Whichever is gone: the last ones of a rank leave no gap in the numbers."""
    for path in sorted(folder.glob("*shard*")):
        path.rename(folder / "kept")
        with pytest.raises(DataError, match=re.escape(str(folder))):
            latents.run(context)
        (folder / "kept").rename(path)
    latents.run(context)


def test_a_folder_with_a_shard_too_many(context: Any, folder: Path) -> None:
    values = torch.stack([latent(image) for image in range(2)])
    write_shard(folder / shard_name(2, 0), values, values, torch.zeros(2))
    with pytest.raises(DataError, match=re.escape(str(folder))):
        latents.run(context)


@pytest.mark.parametrize("images", [IMAGES - 1, IMAGES + 1])
def test_a_folder_of_other_images(context: Any, folder: Path, images: int) -> None:
    """One more latent than images is what the sampler of two ranks adds; one less is a loss."""
    train = context.recipe.data.train
    config = train.config.model_copy(update={"images": images})
    data = context.recipe.data.model_copy(
        update={"train": train.model_copy(update={"config": config})}
    )
    context.recipe = context.recipe.model_copy(update={"data": data})
    if images < IMAGES:
        latents.run(context)
    else:
        with pytest.raises(DataError, match=rf"{IMAGES} latents.* {images} images"):
            latents.run(context)


def test_a_shard_that_states_another_number_of_latents(context: Any, folder: Path) -> None:
    path = folder / shard_name(1, 0)
    save_file(load_file(path), path, {"total_size": "7"})
    with pytest.raises(DataError, match=rf"{path.name} states 7 latents, but has 3"):
        latents.run(context)


@pytest.mark.parametrize("change", ["gone", "added", "flipped", "cut"])
def test_a_folder_that_changed_after_the_stage(context: Any, folder: Path, change: str) -> None:
    latents.run(context)
    path = folder / shard_name(1, 0)
    content = path.read_bytes()
    if change == "gone":
        path.unlink()
    elif change == "added":
        path = path.rename(folder / shard_name(3, 0))
        (folder / shard_name(1, 0)).write_bytes(content)
    else:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        if change == "cut":
            path.write_bytes(content[:-1])
    with pytest.raises(RunError, match=path.name):
        run_latents(context)


def test_a_runs_folder_that_was_copied_in_part(context: Any, folder: Path) -> None:
    """The record that was copied along lists what the run wrote."""
    StageRecord(folder).update(state="done", results=describe_results(folder))
    latents.run(context)
    (folder / "latents_stats.pt").unlink()
    with pytest.raises(RunError, match=r"latents_stats\.pt is missing"):
        latents.run(context)


def test_latents_of_another_tokenizer(context: Any, folder: Path, tmp_path: Path) -> None:
    theirs = load_statistics(folder)
    theirs.save(folder, "of another tokenizer")
    with pytest.raises(CheckpointError, match=r"another tokenizer.*latents\.folder="):
        latents.run(context)
    theirs.save(folder, identity(tmp_path))
    latents.run(context)


def test_statistics_in_the_folder_that_do_not_fit_its_latents(context: Any, folder: Path) -> None:
    bad = {"mean": torch.zeros(1, 4, 1, 1), "std": torch.full((1, 4, 1, 1), float("nan"))}
    torch.save(bad, folder / "latents_stats.pt")
    with pytest.raises(DataError, match=r"latents_stats\.pt"):
        latents.run(context)
    torch.save({"mean": torch.zeros(1, 8, 1, 1), "std": torch.ones(1, 8, 1, 1)}, folder / "x.pt")
    (folder / "x.pt").rename(folder / "latents_stats.pt")
    with pytest.raises(DataError, match=r"latents_stats\.pt: .* 8 channels"):
        latents.run(context)


def test_latents_that_a_run_is_still_writing(context: Any, folder: Path) -> None:
    write_json(folder / "stage.json", {"state": "failed"})
    with pytest.raises(DataError, match=r"theirs.*\(failed\)"):
        latents.run(context)
    write_json(folder / "stage.json", {"state": "done"})
    latents.run(context)


def test_statistics_of_other_channels_stop_whatever_reads_them(
    context: Any, tmp_path: Path
) -> None:
    """Were they broadcast instead, one channel would normalize all."""
    one = LatentStatistics(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    one.save(context.directory, identity(tmp_path))
    with pytest.raises(DataError, match=r"1 channels.* 4 x 4 x 4"):
        run_statistics(context)
