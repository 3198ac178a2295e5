"""Plugins edited or upgraded after a stage ran are reported for the stages that depend on them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from quickstart_stages import QUICKSTART_STAGES

from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.runs.edited import PluginChanges, plugin_changes
from pae_framework.runs.record import StageRecord
from pae_framework.runs.sources import source_hashes

REGISTRATION = """\
from pae_framework import hookimpl

pae_api = 1


@hookimpl
def pae_register_regularizers(register):
    register(
        "pull",
        target="acme_terms.term:Pull",
        config="acme_terms.config:PullConfig",
        summary="a term",
    )
"""
CONFIG = """\
from pae_framework.config import RegularizerConfig


class PullConfig(RegularizerConfig):
    \"\"\"A term.\"\"\"
"""
TERM = "class Pull: ...\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed distribution with a regularizer, `pull`; its package's folder."""
    site = tmp_path / "site"
    package, info = site / "acme_terms", site / "acme_terms-1.0.dist-info"
    for folder in (package, info):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text(REGISTRATION)
    (package / "config.py").write_text(CONFIG)
    (package / "term.py").write_text(TERM)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-terms\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[pae_framework]\nacme = acme_terms\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    yield package
    for name in [name for name in sys.modules if name.startswith("acme_terms")]:
        del sys.modules[name]


@pytest.fixture
def loaded(package: Path) -> LoadedRecipe:
    return load_recipe("quickstart", ["tokenizer.regularizers.pull=0.1"], load_registry())


def ran(folder: Path, stage: str, sources: dict[str, str]) -> StageRecord:
    record = StageRecord(folder / f"{stage}-0")
    record.path.mkdir()
    record.update(state="done", ran_with=[{"sources": sources}])
    return record


@pytest.mark.parametrize("file", ["term.py", "config.py", "__init__.py", "helper.py"])
def test_an_edit_is_noticed_by_the_stage_that_uses_the_component(
    tmp_path: Path, package: Path, loaded: LoadedRecipe, file: str
) -> None:
    sources = source_hashes(loaded.registry)
    records = {name: ran(tmp_path, name, sources) for name in ("encoder", "tokenizer")}
    assert plugin_changes("tokenizer", records["tokenizer"], loaded) == PluginChanges()
    with (package / file).open("a") as opened:
        opened.write("# edited\n")
    assert plugin_changes("tokenizer", records["tokenizer"], loaded).edited == ("acme_terms",)
    assert plugin_changes("encoder", records["encoder"], loaded) == PluginChanges()


@pytest.mark.parametrize("ran_with", [[], [{}], [{"sources": {}}], [{"sources": {"other": "1"}}]])
def test_a_stage_that_recorded_no_code_is_not_reported(
    tmp_path: Path, loaded: LoadedRecipe, ran_with: list[dict[str, dict[str, str]]]
) -> None:
    record = ran(tmp_path, "tokenizer", {})
    record.update(ran_with=ran_with)
    assert plugin_changes("tokenizer", record, loaded) == PluginChanges()


def test_code_of_the_framework_and_of_unused_plugins_does_not_count(
    tmp_path: Path, package: Path
) -> None:
    loaded = load_recipe("quickstart", (), load_registry())
    sources = dict.fromkeys(source_hashes(loaded.registry), "another")
    for stage in QUICKSTART_STAGES:
        assert plugin_changes(stage, ran(tmp_path, stage, sources), loaded) == PluginChanges()


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recorded", "upgraded"),
    [
        ("acme-terms 0.9", ("acme-terms 0.9 -> 1.0",)),
        ("acme-terms 2.0", ("acme-terms 2.0 -> 1.0",)),
        ("acme-all 0.9", ("acme-all 0.9 -> acme-terms 1.0",)),
        ("acme-terms 1.0", ()),
        (None, ()),
    ],
    ids=["upgraded", "downgraded", "other distribution", "same", "not recorded"],
)
def test_a_version_other_than_that_the_stage_ran_with_is_noticed(
    tmp_path: Path, loaded: LoadedRecipe, recorded: str | None, upgraded: tuple[str, ...]
) -> None:
    sources = source_hashes(loaded.registry)
    plugins = {"unused": "acme-unused 1.0"} | ({"acme": recorded} if recorded else {})
    for stage, expected in (("tokenizer", upgraded), ("encoder", ())):
        record = ran(tmp_path, stage, sources)
        record.update(ran_with=[{"sources": sources, "plugins": plugins}])
        assert plugin_changes(stage, record, loaded) == PluginChanges((), expected)


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        (PluginChanges(("acme_terms",)), ["acme_terms", "--again tokenizer"]),
        (
            PluginChanges(("acme_terms",), ("acme-terms 0.9 -> 1.0",)),
            ["acme_terms", "acme-terms 0.9 -> 1.0", "--again tokenizer"],
        ),
        (PluginChanges((), ("acme-terms 0.9 -> 1.0",)), ["acme-terms 0.9 -> 1.0", "same code"]),
    ],
)
def test_the_note_names_packages_versions_and_remedy(
    changes: PluginChanges, facts: list[str]
) -> None:
    note = changes.note("tokenizer")
    for fact in facts:
        assert fact in note
    assert ("--again" in note) == bool(changes.edited)


def test_there_is_no_note_without_changes() -> None:
    assert PluginChanges().note("tokenizer") == ""
