"""Packages of others, kept here as they were written, still work with the framework of this tree.

`make test-plugins` builds them as wheels and tests them in a fresh virtual environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pae_framework.plugins import load_registry

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted(path.parent for path in Path(__file__).parent.glob("*/pyproject.toml"))

RECIPE = """\
pae: 1
extends: quickstart
name: samples
data:
  train: {use: stripes, count: 200}
  test: {use: stripes, first: 200, count: 100}
tokenizer:
  encoder: {use: texture, train: null}
  reconstruction: {perceptual: {layers: [0]}}
  modulator: {use: gain}
  regularizers: {contrast: {weight: 0.1}}
generator: {use: pointwise}
evaluate: {sharpness: {}, manifold: {ssc: false}}
"""


def test_they_load_from_their_sources_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    points = []
    for sample in SAMPLES:
        monkeypatch.syspath_prepend(str(sample / "src"))
        project = tomllib.loads((sample / "pyproject.toml").read_text())["project"]
        for name, module in project["entry-points"]["pae_framework"].items():
            points.append(EntryPoint(name, module, "pae_framework"))
    registry = load_registry(points)
    assert {plugin.name: plugin.state for plugin in registry.plugins} == {
        "acme": "ok",
        "texture": "ok",
    }
    assert {spec.reference for spec in registry.specs()} == {
        *("encoder:texture", "regularizer:contrast", "evaluator:sharpness"),
        *("dataset:stripes", "modulator:gain", "generator:pointwise"),
    }


# --- in a fresh environment -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a virtual environment with wheels of the framework and the samples.

    The other packages, such as torch, are those of this Python.
    """
    folder = tmp_path_factory.mktemp("samples")
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheels")]
    pip(*build, str(ROOT), *map(str, SAMPLES))
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    wheels = sorted(map(str, (folder / "wheels").glob("*.whl")))
    pip(
        "--python", str(python), "install", "--no-deps", "--no-index", "--ignore-installed", *wheels
    )
    return python


def pip(*words: str) -> None:
    succeed([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words], ROOT)


def succeed(command: list[str], folder: Path) -> None:
    """Run a command without the import path of this process."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_their_own_tests_pass(sample: Path, python: Path, tmp_path: Path) -> None:
    shutil.copytree(sample / "tests", tmp_path / "tests")
    succeed([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"], tmp_path)


@pytest.mark.slow
def test_a_recipe_uses_all_their_components(python: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.yaml").write_text(RECIPE, encoding="utf-8")
    words = ("run", "samples.yaml", "--smoke", "--run-dir", "run")
    succeed([str(python), "-m", "pae_framework", *words], tmp_path)
    results = (tmp_path / "run" / "evaluate" / "results.json").read_text(encoding="utf-8")
    assert "sharpness/ratio" in results
    followed = (tmp_path / "run" / "acme_stages.txt").read_text(encoding="utf-8")
    assert {"tokenizer", "generator", "evaluate"} <= set(followed.split())
