"""The wheel alone is enough: recipes, templates and built-in plugins are in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the built wheel was installed, without its dependencies."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True, timeout=600)
    (wheel,) = folder.glob("*.whl")
    install = [*pip, "install", "--no-deps", "--target", folder / "site", wheel]
    subprocess.run(install, check=True, capture_output=True, timeout=600)
    return folder / "site"


def from_elsewhere(site: Path, *command: str) -> str:
    """Output of a Python command run outside the checkout, with the wheel's files first."""
    finished = subprocess.run(
        [sys.executable, *command],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_shipped_recipes_are_found_by_name(site: Path):
    listed = json.loads(from_elsewhere(site, "-m", "pae_framework", "list-recipes", "--json"))
    assert "quickstart" in {recipe["name"] for recipe in listed["recipes"]}
    assert "valid" in from_elsewhere(site, "-m", "pae_framework", "check", "quickstart")
    where = from_elsewhere(
        site, "-c", "from pae_framework.recipe.library import find; print(find('quickstart'))"
    )
    assert str(site) in where


def test_built_in_plugins_come_through_the_wheels_entry_points(site: Path):
    text = from_elsewhere(site, "-m", "pae_framework", "list-plugins", "--json")
    assert "lightningdit" in text
    where = from_elsewhere(site, "-c", "import pae_generators; print(pae_generators.__file__)")
    assert str(site) in where


def test_the_report_finds_its_templates(site: Path):
    page = from_elsewhere(
        site,
        "-c",
        "from pae_framework.report.content import ReportContent\n"
        "from pae_framework.report.html import render\n"
        "print(render(ReportContent(name='from a wheel')))",
    )
    assert "from a wheel" in page
