"""`pae export generator --format diffusers`: a run's generator as a folder that Diffusers loads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from layouts import tiny_generator as official
from layouts import tiny_tokenizer as helpers
from safetensors.torch import load_file

from pae_framework.testing.pytest import Pae, Result


@pytest.fixture
def pae(pae: Pae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pae:
    """Run one command in a folder with a run of the golden generator; shifts are those of RAE."""
    helpers.install(tmp_path / "site", monkeypatch)
    recipe = official.RECIPE.replace("steps: 2, batch_size: 4, at", "shift_base: 4, steps: 2, at")
    Path("small.yaml").write_text(recipe, encoding="utf-8")
    official.write_tokenizer(Path("small.yaml"), Path("tokenizer.pt"))
    official.write(official.weights(), Path("0100000.pt"))
    torch.save(official.statistics(), "latents_stats.pt")

    pae("import", "pae", "tokenizer.pt", "--recipe", "small.yaml", "--run-dir", "run")
    statistics = ("--statistics", "latents_stats.pt")
    pae("import", "generator", "0100000.pt", "run", *statistics).ok()
    return pae


def exported(pae: Pae, *more: str) -> Result:
    return pae("export", "generator", "run", "folder", "--format", "diffusers", *more)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_exported_pipeline_can_be_imported(pae: Pae) -> None:
    answer = exported(pae).ok()
    assert "warning" not in answer.err
    assert answer.out.startswith("folder: a Diffusers pipeline, ")
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert names(Path("folder")) == {
        *("model_index.json", "scheduler/scheduler_config.json", "transformer/config.json"),
        *(weights, "statistics/latents_stats.safetensors", "latents_stats.pt"),
    }
    assert helpers.same_bits(load_file(f"folder/{weights}"), official.weights())
    assert helpers.same_bits(
        load_file("folder/statistics/latents_stats.safetensors"), official.statistics()
    )
    back = ("--statistics", "folder/statistics/latents_stats.safetensors")
    assert pae("import", "generator", f"folder/{weights}", "run", *back).ok()
    assert helpers.same_bits(load_file("run/generator/weights.safetensors"), official.weights())


def test_pipeline_samples_the_same_images_as_the_run(pae: Pae) -> None:
    """4 x 4 x 4 latents have 64 values: our shift is sqrt(4 / 64) = 1/4, that of Diffusers 4."""
    from pae_framework.execution.context import StageContext
    from pae_framework.flow.sampling import SampleNoise, sample_latents
    from pae_framework.runs.opened import open_run
    from pae_framework.sampling.sampler import Sampler
    from pae_framework.system.console import PlainConsole
    from pae_generators.diffusers_pipeline import LatentFlowPipeline

    exported(pae)
    pipeline = LatentFlowPipeline.from_pretrained("folder")
    assert pipeline.scheduler.config.shift == 4
    opened = open_run(Path("run"), helpers.registry_with_renamed())
    context = StageContext.of_finished_run(opened, "generator", PlainConsole(stderr=True))
    run, latent = Sampler.of(context), Sampler.of(context).tokenizer.latent
    labels, indices, settings = torch.tensor([2, 7]), torch.arange(2), context.recipe.sample
    assert settings is not None
    ours = sample_latents(run.model, labels, indices, settings, 0, latent)
    noise = SampleNoise(indices, 0, latent).draw()
    theirs = pipeline([2, 7], num_inference_steps=settings.steps, latents=noise).latents
    mean = torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)
    torch.testing.assert_close(theirs, 0.5 * ours + mean, rtol=0, atol=1e-4)


def test_only_a_pipeline_is_replaced_and_only_with_force(pae: Pae) -> None:
    Path("folder").mkdir()
    exported(pae).ok()  # an empty folder is no loss
    Path("folder/later.txt").write_text("mine", encoding="utf-8")
    assert re.search("folder exists.*--force", exported(pae).fails(2).err)
    before = names(Path("folder"))
    exported(pae, "--force").ok()
    assert before - names(Path("folder")) == {"later.txt"}
    Path("folder/model_index.json").unlink()
    assert "Diffusers pipeline" in exported(pae, "--force").fails(2).err
    assert [path.name for path in Path().iterdir() if path.name.startswith(".folder")] == []


def test_a_failure_keeps_the_existing_folder(pae: Pae, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(pae)
    before = {name: Path("folder", name).read_bytes() for name in names(Path("folder"))}
    for name in list(sys.modules):
        if name.startswith("pae_generators.diffusers_"):
            monkeypatch.delitem(sys.modules, name)
        if name.partition(".")[0] == "diffusers":
            monkeypatch.setitem(sys.modules, name, None)
    assert "pae-framework[diffusers]" in exported(pae, "--force").fails(2).err
    assert before == {name: Path("folder", name).read_bytes() for name in names(Path("folder"))}
    assert [path.name for path in Path().iterdir() if path.name.startswith(".folder")] == []


def test_format_of_a_file_follows_from_its_name(pae: Pae) -> None:
    export = ("export", "generator", "run")
    assert ".safetensors or .pt" in pae(*export, "generator").fails(2).err
    pae(*export, "generator.pt", "--format", "pt").ok()
    answer = pae(*export, "other.pt", "--format", "safetensors").fails(2)
    assert "--format" in answer.err


def test_help_loads_neither_torch_nor_diffusers() -> None:
    code = "import sys; from pae_framework.cli.commands import export_generator as _;"
    code += "print({name.partition('.')[0] for name in sys.modules} & {'torch', 'diffusers'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
