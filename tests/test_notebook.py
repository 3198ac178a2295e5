"""What a notebook does with a run is what the commands do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pae_framework as pae
from pae_framework.errors import PaeError, UsageError
from pae_framework.testing.pytest import run_process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Path:
    """A folder with the tiny recipe."""
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> pae.Run:
    """The tiny recipe's run, made by a call."""
    return pae.run(folder / "tiny.yaml", ["seed=1"], run_dir=folder / "run")


def test_a_call_runs_what_the_command_runs(run: pae.Run) -> None:
    assert (run.path / "evaluate" / "results.json").is_file()
    assert run.recipe.seed == 1
    assert run.metrics() == pae.open_run(run.path).metrics()
    assert {"name", "value", "protocol"} <= run.metrics()[0].keys()


def test_latents_and_images_have_the_recipes_shapes(run: pae.Run) -> None:
    side = run.recipe.data.image_size
    images = torch.randint(256, (3, 3, side, side), dtype=torch.uint8)
    latents = run.tokenizer.encode(images)
    assert latents.shape[0] == 3
    assert latents.dtype == torch.float32
    assert torch.equal(run.tokenizer.encode(images.float() / 255), latents)
    decoded = run.tokenizer.decode(latents)
    assert (decoded.shape, decoded.dtype) == (images.shape, torch.uint8)
    # As the latents stage: images of a batch do not influence each other.
    assert torch.allclose(run.tokenizer.encode(images[:1]), latents[:1], atol=1e-5)


def test_samples_are_those_of_the_command(run: pae.Run, tmp_path: Path) -> None:
    command = ["-m", "pae_framework", "sample", run.path, "--labels", "#3,#7", "--seed", "5"]
    run_process(*command, "--out", "drawn", cwd=tmp_path, timeout=600).ok()
    drawn = [read_png(tmp_path / "drawn" / f"00000{index}.png") for index in range(2)]
    assert torch.equal(run.sample(labels=[3, 7], seed=5), torch.stack(drawn))


def test_a_recipe_that_would_be_submitted_is_refused(folder: Path) -> None:
    launch = "launch={executor: local}"
    with pytest.raises(UsageError, match="launch=null"):
        pae.run(folder / "tiny.yaml", [launch], run_dir=folder / "submitted")
    assert not (folder / "submitted").exists()


def read_png(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)


def test_wrong_input_says_what_would_be_right(run: pae.Run, folder: Path) -> None:
    for wrong in (-1, 10, "3", 1.0, None):
        with pytest.raises(UsageError, match="numbers from 0 to 9"):
            run.sample(labels=[wrong])
    with pytest.raises(UsageError, match=r"it has .*solver"):
        run.sample(labels=[0], stepps=3)
    with pytest.raises(UsageError, match="steps"):
        run.sample(labels=[0], steps=0)
    with pytest.raises(UsageError, match=r"not \(B, 3,"):
        run.tokenizer.encode(torch.zeros(3, 8, 8))
    side = run.recipe.data.image_size
    with pytest.raises(UsageError, match=r"\[0, 255\], not in \[0, 1\]"):
        run.tokenizer.encode(torch.linspace(0, 255, 3 * side * side).view(1, 3, side, side))
    with pytest.raises(UsageError, match=r"not \(B, "):
        run.tokenizer.decode(torch.zeros(1, 99, 1, 1))
    with pytest.raises(UsageError, match="it has run_dir"):
        pae.run(folder / "tiny.yaml", run_directory="x")
    with pytest.raises(UsageError, match="is a sweep"):
        pae.run("fashion_mnist_ablation")
    with pytest.raises(PaeError, match=str(folder)):
        pae.open_run(folder)


def test_importing_the_package_stays_light() -> None:
    probe = (
        "import sys, pae_framework as pae; before = len(sys.modules); dir(pae); "
        "assert 'pydantic' not in sys.modules; pae.open_run; assert 'torch' not in sys.modules; "
        "\ntry: pae.no_such\nexcept AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert "no_such" in done.stdout
