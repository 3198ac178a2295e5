"""The recipe that `pae evaluate --tokenizer` runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from torchscript_fakes import CHANNELS, PATCH, write_torchscript

from pae_framework.errors import PaeError, RecipeError, UsageError
from pae_framework.launch.start import RunOptions, run_recipe
from pae_framework.launch.tokenizer_evaluation import TokenizerEvaluation, tokenizer_evaluation
from pae_framework.plugins import load_registry
from pae_framework.preflight.image_checks import unusable_images
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


def test_a_tokenizer_that_does_not_encode_is_refused(tmp_path: Path) -> None:
    write_torchscript(tmp_path)
    with pytest.raises(PaeError, match="encode"):
        evaluation(json.dumps(section(tmp_path, encode=None)))


def test_a_recipe_trained_on_other_classes_is_evaluated_on_photos(
    tmp_path: Path, photos: Path
) -> None:
    write_torchscript(tmp_path)
    data = {"image_size": 8, "train": {"use": "digits"}, "test": {"use": "digits"}}
    recipe = {"pae": 1, "name": "mine", "data": data, "tokenizer": section(tmp_path)}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe))
    found = evaluation(str(tmp_path / "mine.yaml"), str(photos))
    assert found.loaded.recipe.data.train.use == "digits"
    assert unusable_images([found.loaded]) == []


def test_it_runs_and_a_run_is_evaluated_with_its_own_stage(tmp_path: Path, photos: Path) -> None:
    write_torchscript(tmp_path)
    found = evaluation(json.dumps(section(tmp_path, lpips=None)), images=8)  # LPIPS is slow
    first = run_recipe(found.loaded, RunOptions(tmp_path / "first"))
    names = {str(metric["name"]) for metric in read_metrics(first) or []}
    assert {"reconstruction/psnr", "manifold/ssc", "manifold/ssc_pixels"} <= names
    assert not {"manifold/ssc_encoder", "manifold/lpc", "reconstruction/lpips"} & names
    assert read_verdict(first) is not None
    again = evaluation(str(tmp_path / "first"), str(photos))
    second = run_recipe(again.loaded, RunOptions(tmp_path / "second", again.store))
    assert second.plan["tokenizer"].fingerprint == first.plan["tokenizer"].fingerprint
    assert len(list((tmp_path / "first" / "stages").glob("tokenizer-*"))) == 1
