"""The paper's tokenizer at its real size, with random weights, on a CPU: one step and one image."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest
import torch

from pae_framework.execution.artifacts import trained_tokenizer
from pae_framework.execution.context import StageContext
from pae_framework.launch.local import LocalLauncher
from pae_framework.metrics_file import read_log
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.opened import open_run
from pae_framework.system.console import PlainConsole

OVERRIDES = [
    "runtime={device: cpu, threads: 2}",
    "data.train={use: shapes, count: 8}",
    "data.test={use: shapes, count: 2, split: test}",
    "tokenizer.encoder.weights=none",
    "tokenizer.reconstruction.lpips.weights=none",
    "tokenizer.adversarial.discriminator.weights=none",
    "tokenizer.refinement.train={steps: 1, batch_size: 2}",
    "tokenizer.train={steps: 1, batch_size: 2, log_every: 1}",
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_siglip2_takes_a_step_with_all_three_terms_and_reconstructs(tmp_path: Path) -> None:
    loaded = load_recipe("siglip2_full", OVERRIDES, load_registry())
    run = RunDirectory.at(tmp_path / "run")
    LocalLauncher(PlainConsole(quiet=True)).run(loaded, run, "test", until="tokenizer")

    (step,) = read_log(run.path / "tokenizer" / "metrics.jsonl")
    terms = ("l1", "lpips", "ssr", "mcr", "scr")
    assert all(math.isfinite(step[name]) for name in terms)
    assert step["loss"] == pytest.approx(sum(step[name] for name in terms), rel=1e-4)

    opened = open_run(run.path, load_registry())
    tokenizer = trained_tokenizer(
        StageContext.of_finished_run(opened, "tokenizer", PlainConsole(quiet=True))
    )
    with torch.no_grad():
        latents = tokenizer.encode(torch.rand(2, 3, 256, 256)).latents
        images = tokenizer.decode(latents)
    assert latents.shape == (2, 32, 16, 16)
    assert latents.square().sum(dim=1).allclose(torch.tensor(32.0), atol=0.01)
    assert images.shape == (2, 3, 256, 256)
    assert images.isfinite().all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"peak memory {peak:.1f} GiB, {1 / step['images_per_s'] * 2:.0f} s for the step of 2 images"
    )
