"""The recipe that `pae evaluate --tokenizer` runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchscript_fakes import CHANNELS, PATCH, write_torchscript

from pae_framework.data.image_survey import common_side
from pae_framework.data.latent_dataset import shard_name, write_shard
from pae_framework.errors import RecipeError, UsageError
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.launch.tokenizer_evaluation import TokenizerEvaluation, tokenizer_evaluation
from pae_framework.plugins import load_registry
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.run_metrics import read_metrics
from pae_framework.runs.run_verdict import read_verdict


def section(folder: Path, **changes: Any) -> dict[str, Any]:
    files = {"encode": str(folder / "encode.pt"), "decode": str(folder / "decode.pt")}
    sizes = {"channels": CHANNELS, "downsampling": PATCH, "lpips": {"weights": "none"}}
    return {"use": "torchscript", **files, **sizes, **changes}


def evaluation(
    tokenizer: str, data: str = "quickstart:test", images: int = 20, side: int | None = None
) -> TokenizerEvaluation:
    return tokenizer_evaluation(tokenizer, data, images, side, load_registry())


def stages(found: TokenizerEvaluation) -> list[str]:
    return [name for name, stage in STAGES.items() if stage.exists(found.loaded.recipe)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("written", ["yaml", "json"])
def test_a_map_is_evaluated_without_a_generator(tmp_path: Path, written: str) -> None:
    write_torchscript(tmp_path)
    text = json.dumps(section(tmp_path))
    found = evaluation(text if written == "json" else text.replace('"', ""))
    recipe = found.loaded.recipe
    assert stages(found) == ["tokenizer", "evaluate", "report"]
    assert (recipe.data.image_size, recipe.data.test_images) == (32, 20)
    assert recipe.evaluate.keys() == {"reconstruction", "manifold"}
    assert recipe.evaluate["manifold"].config.model_dump()["ssc"]  # digits have masks


def test_a_folder_of_photos_has_no_classes_and_no_masks(tmp_path: Path, photos: Path) -> None:
    write_torchscript(tmp_path)
    recipe = evaluation(json.dumps(section(tmp_path)), str(photos), side=16).loaded.recipe
    manifold = recipe.evaluate["manifold"].config.model_dump()
    assert (recipe.data.image_size, recipe.data.test_images) == (16, None)  # all 6 of them
    assert (manifold["ssc"], manifold["gsq"], manifold["images"]) == (False, False, 6)


def test_a_shipped_recipe_with_a_pretrained_tokenizer() -> None:
    found = evaluation("sd_vae", side=64)
    assert stages(found) == ["tokenizer", "evaluate", "report"]
    assert found.loaded.recipe.tokenizer.model_dump()["use"] == "diffusers_vae"


@pytest.mark.parametrize(
    ("tokenizer", "data", "named"),
    [
        ("quickstart", "quickstart:test", "quickstart"),
        ("no_such_tokenizer", "quickstart:test", "no_such_tokenizer"),
        ("{use: torchscript", "quickstart:test", "--tokenizer"),
        ("{use: unknown}", "quickstart:test", "unknown"),
        ("{use: latents, folder: /nowhere}", "quickstart:test", "/nowhere"),
        ("diffusers_vae", "quickstart:test", "tokenizer.model"),
        ("sd_vae", "/nowhere", "/nowhere"),
        ("sd_vae", "no_such_recipe:test", "no_such_recipe"),
        ("sd_vae", "quickstart:validation", "quickstart:validation"),
    ],
)
def test_one_error_names_what_is_wrong(tokenizer: str, data: str, named: str) -> None:
    with pytest.raises((UsageError, RecipeError)) as caught:
        evaluation(tokenizer, data)
    assert named in str(caught.value)


@pytest.fixture(params=["map", "recipe"])
def named(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    """What names a tokenizer on the command line: the map itself, or a recipe that has it."""
    if request.param == "map":
        return json.dumps

    def recipe(tokenizer: dict[str, Any]) -> str:
        evaluators = {"reconstruction": {"frechet": False}}
        data = {"image_size": 32, "train": {"use": "digits"}, "test": {"use": "digits"}}
        written = {"name": "whole", "data": data, "tokenizer": tokenizer, "evaluate": evaluators}
        file = tmp_path / "whole.yaml"
        file.write_text(json.dumps({"pae": 1, "description": "A recipe.", **written}))
        return str(file)

    return recipe


Named = Callable[[dict[str, Any]], str]


def test_an_encoder_alone_is_measured_by_its_latents(tmp_path: Path, named: Named) -> None:
    write_torchscript(tmp_path)
    one = section(tmp_path)
    del one["decode"]
    assert evaluation(named(one)).loaded.recipe.evaluate.keys() == {"manifold"}


@pytest.mark.parametrize("use", ["torchscript", "latents"])
def test_without_an_encoder_one_error_asks_for_it(tmp_path: Path, named: Named, use: str) -> None:
    write_torchscript(tmp_path)
    write_shard(tmp_path / shard_name(0, 0), *[torch.zeros(2, 4, 8, 8)] * 2, torch.zeros(2).long())
    only = {"use": "latents", "folder": str(tmp_path)}
    text = named(only if use == "latents" else section(tmp_path, encode=None))
    with pytest.raises(UsageError) as caught:
        evaluation(text)
    message = str(caught.value)
    assert "encoder" in message
    assert "evaluate" not in message  # there is no recipe to set it in


@pytest.mark.parametrize(
    ("sizes", "stated", "side"),
    [
        ([(24, 24), (24, 24)], None, 24),
        ([(24, 32), (40, 24)], None, 24),  # the shorter side is 24 px
        ([(24, 24), (24, 20)], None, 256),
        ([(24, 24), (24, 24)], 16, 16),
        ([(600, 600)], None, 256),
        ([(600, 600)], 600, 600),
    ],
)
def test_a_folder_is_measured_as_its_images_are(
    tmp_path: Path, sizes: list[tuple[int, int]], stated: int | None, side: int
) -> None:
    write_torchscript(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(folder / f"{number}.png")
    found = evaluation(json.dumps(section(tmp_path)), str(folder), side=stated)
    assert found.loaded.recipe.data.image_size == side
    assert f"{side} px" in str(found)
    assert "--size" in str(found)


def test_damaged_images_do_not_hide_the_side_of_the_others(photos: Path) -> None:
    (photos / "damaged.png").write_bytes(b"")
    files = {path.name: path for path in photos.iterdir()}
    assert common_side(files) == 24
    assert common_side({"damaged": photos / "damaged.png"}) is None


def test_a_file_of_weights_is_named_in_a_map(tmp_path: Path) -> None:
    write_torchscript(tmp_path)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "state.pth")
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({"weight": 1.5}, protocol=2))
    (tmp_path / "vae").mkdir()
    for name in ("encode.pt", "state.pth", "model.safetensors", "old.pkl", "vae"):
        with pytest.raises(UsageError) as caught:
            evaluation(str(tmp_path / name))
        assert f"{{use: {'diffusers_vae' if name == 'vae' else 'torchscript'}" in str(caught.value)


def test_it_runs_and_a_run_is_evaluated_with_its_own_stage(tmp_path: Path) -> None:
    write_torchscript(tmp_path)
    found = evaluation(json.dumps(section(tmp_path, lpips=None)), images=8)  # LPIPS is slow
    first = run_recipe(found.loaded, RunOptions(tmp_path / "first"))
    names = {str(metric["name"]) for metric in read_metrics(first) or []}
    assert {"reconstruction/psnr", "manifold/ssc", "manifold/ssc_pixels"} <= names
    assert not {"manifold/ssc_encoder", "manifold/lpc", "reconstruction/lpips"} & names
    assert read_verdict(first) is not None
    again = evaluation(str(tmp_path / "first"), images=6)
    second = run_recipe(again.loaded, RunOptions(tmp_path / "second", again.store))
    assert second.plan["tokenizer"].fingerprint == first.plan["tokenizer"].fingerprint
    assert len(list((tmp_path / "first" / "stages").glob("tokenizer-*"))) == 1
