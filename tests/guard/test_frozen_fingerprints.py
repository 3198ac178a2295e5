"""Fingerprints do not change, so that finished stages are not trained again.

If a test fails, read freeze.py.
"""

from __future__ import annotations

from pathlib import Path

from collected import (
    IGNORED,
    frozen,
    shipped_fingerprints,
    small_files,
    stages,
    variant_fingerprints,
)


def test_fingerprints_of_shipped_recipes():
    assert shipped_fingerprints() == frozen("fingerprints")["shipped"]


def test_fingerprints_of_variants(tmp_path: Path):
    assert variant_fingerprints(small_files(tmp_path)) == frozen("fingerprints")["variants"]


def test_settings_without_effect_do_not_change_fingerprints():
    assert stages("quickstart", *IGNORED) == stages("quickstart")


def test_fingerprints_depend_on_contents_of_files_and_not_on_paths(tmp_path: Path):
    first, second = (small_files(tmp_path / name) for name in ("first", "second"))
    assert variant_fingerprints(first) == variant_fingerprints(second)
