"""Fixtures for all tests: few threads, and a recipe whose stages take seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests share the cores

from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["pae_framework.testing.pytest"]

# No deadline: CI machines may be busy.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

TINY = """\
pae: 1
extends: quickstart
name: tiny
data: {image_size: 16, test_images: 60}
runtime: {threads: 1, device: cpu}
extractor: {width: 8, train: {steps: 6, batch_size: 16, checkpoint_every: 2, log_every: 1}}
tokenizer:
  encoder:
    width: 48
    depth: 2
    train: {steps: 6, batch_size: 16, warmup_steps: 1, checkpoint_every: 2, log_every: 1}
  bottleneck: {channels: 4}
  decoder: {width: 48, depth: 1}
  refinement: {train: {steps: 6, batch_size: 16, checkpoint_every: 2, log_every: 1}}
  train: {steps: 6, batch_size: 16, warmup_steps: 1, checkpoint_every: 2, log_every: 1}
latents: {shard_size: 500}
generator:
  width: 32
  depth: 1
  heads: 2
  train:
    steps: 6
    batch_size: 16
    warmup_steps: 1
    checkpoint_every: 2
    log_every: 1
    keep_steps: [3]
sample: {count: 20, steps: 4, batch_size: 8, at_steps: [3], few_steps: [2]}
evaluate: {manifold: {images: 20}}
"""


@pytest.fixture(autouse=True)
def _plugin_files_of_this_test_only() -> Iterator[None]:
    """A plugin of one file keeps its module; the next test may have another file of that name."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if hasattr(sys.modules[name], "__pae_file__"):
            del sys.modules[name]


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """The quickstart recipe with smaller models and fewer steps."""
    return TINY


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_text: str) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny_text, encoding="utf-8")
    return path


@pytest.fixture
def empty_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports without their plots, which take most of the time of a small run."""
    monkeypatch.setattr("pae_framework.report.plots._svg", lambda figure: "<svg/>")


LONG = {"slow", "slurm", "gpu", "network"}
"""Marks of tests with a limit of ten minutes."""
WHOLE_RUNS = {"guard", "launch"}
"""Folders of tests that run whole chains of stages in other processes: three minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not LONG.isdisjoint(mark.name for mark in item.iter_markers()):
            item.add_marker(pytest.mark.timeout(600))
        elif item.path.parent.name in WHOLE_RUNS:
            item.add_marker(pytest.mark.timeout(180))
