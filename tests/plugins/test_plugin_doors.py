"""What `pae check` and `pae list-plugins` say of a plugin before it is used; API versions."""

from __future__ import annotations

import os
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pae_framework import hookspecs
from pae_framework.plugins import load_registry
from pae_framework.testing.pytest import Result, run_process

SOURCE = '''
from pae_framework import hookimpl
from pae_framework.config import RegularizerConfig

pae_api = 1

class Config(RegularizerConfig):
    """Nothing."""

class Term:
    pass

@hookimpl
def pae_register_regularizers(register):
    register("acme", target="TARGET", config="acme_door:Config", summary="a term")
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with one installed distribution, ``acme-door``."""
    info = tmp_path / "acme_door-1.0.dist-info"
    info.mkdir()
    metadata = "Metadata-Version: 2.1\nName: acme-door\nVersion: 1.0\n"
    (info / "METADATA").write_text(f"{metadata}Requires-Dist: pae-framework (>=0.1)\n")
    (info / "entry_points.txt").write_text("[pae_framework]\nacme = acme_door\n")
    (tmp_path / "acme_door.py").write_text(SOURCE.replace("TARGET", "acme_door:Term"))
    return tmp_path


def pae(site: Path, *words: str) -> Result:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    return run_process("-m", "pae_framework", *words, cwd=site, env=env)


USE = ("check", "quickstart", "tokenizer.regularizers.acme.weight=1")


@pytest.mark.parametrize("target", ["acme_door:Trem", "acme_door.part:Term", "no_such_door:Term"])
def test_check_finds_a_target_that_does_not_exist(target: str, site: Path) -> None:
    (site / "acme_door.py").write_text(SOURCE.replace("TARGET", target))
    failed = pae(site, *USE).fails(3)
    for fact in ("acme-door", "regularizer:acme", target):
        assert fact in failed.err
    pae(site, *USE[:2], "tokenizer.regularizers.acme.weight=0").ok()  # a term that is off


def test_check_finds_it_in_variants_of_a_sweep_and_imports_no_torch(site: Path) -> None:
    (site / "acme_door.py").write_text(SOURCE.replace("TARGET", "acme_door:Trem"))
    variants = "sweep: {variants: {a: {tokenizer.regularizers.acme: {weight: 1}}}}\n"
    (site / "mine.yaml").write_text(f"pae: 1\nextends: quickstart\nname: mine\n{variants}")
    (site / "torch.py").write_text("raise SystemExit('torch was imported')")
    assert "'Trem'" in pae(site, "check", "mine.yaml").fails(3).err


def test_a_target_that_exists_is_fine(site: Path) -> None:
    pae(site, *USE).ok()


# --- plugins that register nothing ----------------------------------------------------------------


def test_a_plugin_whose_hook_registers_nothing_is_listed_as_such(site: Path) -> None:
    source = SOURCE.partition("    register(")[0] + "    pass\n"
    (site / "acme_door.py").write_text(source)
    assert re.search(
        r"acme .*empty .*registers nothing", pae(site, "list-plugins", "--long").ok().out
    )
    assert "registers nothing" in pae(site, "list-plugins").ok().err
    assert "registers nothing" in pae(site, "list-plugins", "--broken").ok().out
    listed = pae(site, "list-plugins", "--json").ok().json["plugins"]
    assert [p["state"] for p in listed if p["name"] == "acme"] == ["empty"]


def test_a_distribution_without_an_entry_point_is_listed_as_such(site: Path) -> None:
    (site / "acme_door-1.0.dist-info" / "entry_points.txt").unlink()
    shown = pae(site, "list-plugins", "--broken").ok().out
    assert "acme-door: requires pae-framework but registers nothing" in shown


@pytest.mark.parametrize(
    ("hook", "meant"),
    [
        ("pae_register_regularizer", "pae_register_regularizers"),
        ("pae_register_regularisers", "pae_register_regularizers"),
        ("pae_add_terms", "pae_register_encoders"),  # like none: all are listed
    ],
)
def test_a_misspelt_hook_is_named_with_the_one_that_is_meant(hook, meant, site):
    text = (site / "acme_door.py").read_text().replace("pae_register_regularizers", hook)
    (site / "acme_door.py").write_text(text)
    shown = pae(site, "list-plugins", "--broken").ok().out
    assert hook in shown
    assert meant in shown


@pytest.mark.parametrize(
    ("specname", "state"),
    [("pae_register_regularizers", "ok"), ("pae_register_regularisers", "broken")],
)
@pytest.mark.parametrize("function", ["terms", "pae_register_encoders"])
def test_a_hook_may_have_a_name_of_its_own(specname, state, function, site, monkeypatch):
    """pluggy's `specname` says which hook it implements."""
    text = SOURCE.replace("TARGET", "acme_door:Term").replace("pae_register_regularizers", function)
    text = text.replace("@hookimpl", f"@hookimpl(specname={specname!r})")
    (site / "acme_door.py").write_text(text)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "acme_door", raising=False)
    registry = load_registry([EntryPoint("acme", "acme_door", "pae_framework")])
    assert [plugin.state for plugin in registry.plugins] == [state]
    found = [spec.reference for spec in registry.specs()]
    assert found == (["regularizer:acme"] if state == "ok" else [])


# --- API versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("api", "state"), [(1, "broken"), (2, "ok"), (3, "ok"), (4, "ok"), (5, "broken")]
)
def test_a_window_of_versions_is_accepted(api, state, site, monkeypatch):
    monkeypatch.setattr(hookspecs, "OLDEST_API", 2)
    monkeypatch.setattr(hookspecs, "PAE_API", 4)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(__import__("sys").modules, "acme_door", raising=False)
    text = (site / "acme_door.py").read_text().replace("pae_api = 1", f"pae_api = {api}")
    (site / "acme_door.py").write_text(text)
    (found,) = [plugin for plugin in load_registry().plugins if plugin.name == "acme"]
    monkeypatch.delitem(__import__("sys").modules, "acme_door")
    assert found.state == state
    if found.error:
        assert f"API {api}" in found.error
        assert "2 to 4" in found.error
        assert ("update the plugin" in found.error) == (api < 2)


def test_the_window_holds_the_current_version() -> None:
    assert 1 <= hookspecs.OLDEST_API <= hookspecs.PAE_API


def test_a_hook_may_take_fewer_arguments_than_there_are(site, monkeypatch):
    """So a hook can gain an argument without breaking the plugins that do not know it."""
    text = (site / "acme_door.py").read_text().partition("@hookimpl")[0]
    text += "@hookimpl\ndef pae_register_regularizers():\n    pass\n"
    (site / "acme_door.py").write_text(text)
    shown = pae(site, "list-plugins", "--json").ok().json["plugins"]
    assert [p["state"] for p in shown if p["name"] == "acme"] == ["empty"]
