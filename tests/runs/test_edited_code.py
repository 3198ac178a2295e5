"""Plugin code that was edited after a stage ran is reported for the stages that depend on it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.stage_table import STAGES
from pae_framework.runs.edited import edit_note, edited_code
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
    assert edited_code("tokenizer", records["tokenizer"], loaded) == ()
    with (package / file).open("a") as opened:
        opened.write("# edited\n")
    assert edited_code("tokenizer", records["tokenizer"], loaded) == ("acme_terms",)
    assert edited_code("encoder", records["encoder"], loaded) == ()


@pytest.mark.parametrize("ran_with", [[], [{}], [{"sources": {}}], [{"sources": {"other": "1"}}]])
def test_a_stage_that_recorded_no_code_is_not_reported(
    tmp_path: Path, loaded: LoadedRecipe, ran_with: list[dict[str, dict[str, str]]]
) -> None:
    record = ran(tmp_path, "tokenizer", {})
    record.update(ran_with=ran_with)
    assert edited_code("tokenizer", record, loaded) == ()


def test_code_of_the_framework_and_of_unused_plugins_does_not_count(
    tmp_path: Path, package: Path
) -> None:
    loaded = load_recipe("quickstart", (), load_registry())
    sources = dict.fromkeys(source_hashes(loaded.registry), "another")
    for stage in STAGES:
        assert edited_code(stage, ran(tmp_path, stage, sources), loaded) == ()


def test_the_note_names_package_and_remedy() -> None:
    note = edit_note("tokenizer", ("acme_terms",))
    assert "acme_terms" in note
    assert "--again tokenizer" in note
