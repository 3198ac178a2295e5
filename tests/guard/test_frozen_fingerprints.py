"""Fingerprints never change: a stage that is done stays done. Why, and how to change: freeze.py."""

from __future__ import annotations

from pathlib import Path

from observe import (
    IGNORED,
    frozen,
    shipped_fingerprints,
    small_files,
    stages,
    variant_fingerprints,
)


def test_of_every_shipped_recipe():
    assert shipped_fingerprints() == frozen("fingerprints")["shipped"]


def test_of_every_branch(tmp_path: Path):
    assert variant_fingerprints(small_files(tmp_path)) == frozen("fingerprints")["variants"]


def test_settings_without_effect_do_not_count():
    assert stages("quickstart", *IGNORED) == stages("quickstart")


def test_files_count_by_their_contents_wherever_they_lie(tmp_path: Path):
    here, there = (small_files(tmp_path / name) for name in ("here", "there"))
    assert variant_fingerprints(here) == variant_fingerprints(there)
