"""Hashes of code tell whether it was edited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pae_framework.registry import ComponentSpec, Plugin, Registry
from pae_framework.runs.sources import changed_sources, source_hashes


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pae_hashed"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("VALUE = 1\n", encoding="utf-8")
    (folder / "inner" / "deep.py").write_text("VALUE = 2\n", encoding="utf-8")
    (folder / "data.txt").write_text("data", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def hashes() -> dict[str, str]:
    registry = Registry()
    registry.plugins.append(Plugin("hashed", "pae_hashed.inner", "pae-hashed", "1.0"))
    registry.plugins.append(Plugin("lost", "pae_no_such_package", "lost", "1.0"))
    return source_hashes(registry)


def test_the_framework_and_the_packages_of_plugins_are_hashed(package: Path) -> None:
    assert hashes().keys() == {"pae_framework", "pae_hashed"}
    assert hashes() == hashes()


@pytest.mark.parametrize("edited", ["target", "config"])
def test_components_outside_of_their_plugin_s_package_are_hashed_too(
    package: Path, edited: str
) -> None:
    for name in ("pae_target", "pae_config"):
        package.with_name(f"{name}.py").touch()
    plugin = Plugin("hashed", "pae_hashed", "pae-hashed", "1.0")
    registry = Registry()
    registry.plugins.append(plugin)
    spec = ComponentSpec("dataset", "mine", "pae_target:Data", "pae_config:Config", "", plugin)
    registry.add(spec)
    before = source_hashes(registry)
    package.with_name(f"pae_{edited}.py").write_text("VALUE = 1\n")
    assert changed_sources(before, source_hashes(registry)) == [f"pae_{edited}"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda folder: (folder / "inner" / "deep.py").write_text("VALUE = 3\n"),
        lambda folder: (folder / "inner" / "deep.py").rename(folder / "inner" / "renamed.py"),
        lambda folder: (folder / "new.py").touch(),
        lambda folder: (folder / "inner" / "deep.py").unlink(),
    ],
    ids=["edited", "renamed", "added", "removed"],
)
def test_an_edit_of_one_package_changes_its_hash_alone(
    package: Path, edit: Callable[[Path], object]
) -> None:
    before = hashes()
    edit(package)
    assert changed_sources(before, hashes()) == ["pae_hashed"]


def test_files_that_are_no_code_and_times_do_not_count(package: Path) -> None:
    before = hashes()
    (package / "data.txt").write_text("other", encoding="utf-8")
    (package / "__init__.py").write_text("VALUE = 1\n", encoding="utf-8")
    assert changed_sources(before, hashes()) == []


def test_a_package_that_came_or_went_has_changed() -> None:
    assert changed_sources({"a": "1", "b": "1"}, {"b": "1", "c": "1"}) == ["a", "c"]
