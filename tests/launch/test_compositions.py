"""Baselines are recipes: other data, bottlenecks and terms go through the same chain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from pae_framework.execution.artifacts import trained_generator
from pae_framework.execution.context import StageContext
from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.opened import open_run
from pae_framework.stages import report
from pae_framework.system.console import PlainConsole

SHORT = (
    "evaluate.few_steps=null",
    "sample.few_steps=[]",
    "sample.at_steps=[]",
    "extractor.train.steps=2",
    "tokenizer.encoder.train.steps=2",
    "tokenizer.train.steps=2",
    "generator.train.steps=2",
    "generator.train.keep_steps=[]",
)


def run_chain(recipe: Path, folder: Path, *overrides: str) -> RunDirectory:
    loaded = load_recipe(recipe, (*SHORT, *overrides), load_registry())
    directory = RunDirectory.at(folder / "run")
    LocalLauncher(PlainConsole(quiet=True)).run(loaded, directory, "pae run")
    return directory


def metrics(run: RunDirectory) -> dict[str, float]:
    found = json.loads((run.path / "evaluate" / "results.json").read_text(encoding="utf-8"))
    return {metric["name"]: metric["value"] for metric in found}


def test_rae_raw_features_standardized_and_no_projection(tmp_path: Path, tiny_recipe: Path):
    run = run_chain(
        tiny_recipe,
        tmp_path,
        "tokenizer.modulator={use: none}",
        "tokenizer.bottleneck={use: identity, statistics_images: 200}",
        "tokenizer.regularizers=null",
        "tokenizer.refinement=null",
    )
    assert not (run.path / "refine").exists()
    shard = load_file(run.path / "latents" / "latents_rank00_shard000.safetensors")
    assert shard["latents"].shape[1:] == (48, 4, 4)  # as wide as the encoder
    # standardized by the statistics of training images: about mean 0, deviation 1
    assert abs(shard["latents"].mean()) < 0.2
    assert 0.7 < shard["latents"].std() < 1.3
    assert np.isfinite(list(metrics(run).values())).all()


def test_kl_vae_gaussian_bottleneck_with_kl(tmp_path: Path, tiny_recipe: Path):
    run = run_chain(
        tiny_recipe,
        tmp_path,
        "tokenizer.modulator={use: none}",
        "tokenizer.bottleneck={use: gaussian, channels: 4}",
        "tokenizer.regularizers={kl: {weight: 1e-4}}",
        "tokenizer.refinement=null",
    )
    last = (run.path / "tokenizer" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["kl"] > 0
    assert np.isfinite(list(metrics(run).values())).all()


def test_generated_shapes_with_exact_masks(tmp_path: Path, tiny_recipe: Path):
    run = run_chain(
        tiny_recipe,
        tmp_path,
        "data.train={use: shapes, count: 64}",
        "data.test={use: shapes, split: test, count: 60}",
        "data.flip=true",
    )
    assert 0 <= metrics(run)["manifold/ssc"] <= 1
    shard = load_file(run.path / "latents" / "latents_rank00_shard000.safetensors")
    assert not (shard["latents"] == shard["latents_flip"]).all()  # flipped images have their own


def test_folders_of_images(tmp_path: Path, tiny_recipe: Path):
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for kind in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / kind
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    source = f"use: image_folder, folder: {tmp_path / 'pictures'}"
    run = run_chain(
        tiny_recipe,
        tmp_path,
        f"data.train={{{source}, split: train}}",
        f"data.test={{{source}, split: val}}",
        "evaluate.manifold.ssc=false",  # no masks
    )
    assert "manifold/gsq" in metrics(run)

    # A finished run needs its images no more: not for its classes, samples and report.
    (tmp_path / "pictures").rename(tmp_path / "away")
    page = (run.path / "report.html").read_bytes()
    opened = open_run(run.path, load_registry())
    context = StageContext.of_finished_run(opened, "report", PlainConsole(quiet=True))
    assert list(context.class_names) == ["cat", "dog"]
    assert trained_generator(context).num_classes == 2
    report.run(context)
    assert (run.path / "report.html").read_bytes() == page


def test_bf16_training(tmp_path: Path, tiny_recipe: Path):
    run = run_chain(
        tiny_recipe, tmp_path, "tokenizer.train.precision=bf16", "generator.train.precision=bf16"
    )
    assert np.isfinite(list(metrics(run).values())).all()
