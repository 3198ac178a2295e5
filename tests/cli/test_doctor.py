"""`pae doctor` names what is wrong with a machine or what is installed, and the remedy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pae_framework import plugins
from pae_framework.launch.description import describe_run
from pae_framework.plugins import load_registry
from pae_framework.preflight import health
from pae_framework.preflight.health import Finding, examine
from pae_framework.preflight.machine import Machine
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import ComponentSpec, Plugin, Registry
from pae_framework.runs.directory import RunDirectory
from pae_framework.runs.environment import describe_environment
from pae_framework.system.console import PlainConsole
from pae_framework.testing.pytest import Pae

NO_GPU = Machine(8 << 30, ())
TOLD = {"version": "2.9", "cuda": "13.0", "hip": None, "available": True, "bf16": True, "gpus": []}


@pytest.fixture(autouse=True)
def torch_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_told_by_torch", lambda: TOLD)


def findings(
    registry: Registry | None = None,
    machine: Machine = NO_GPU,
    recorded: dict[str, Any] | None = None,
) -> dict[str, list[Finding]]:
    """What is not fine, by topic."""
    found: dict[str, list[Finding]] = {}
    for finding in examine(registry or Registry(), machine, recorded):
        if finding.level != "ok":
            found.setdefault(finding.topic, []).append(finding)
    return found


def test_a_machine_that_runs_the_tests_lacks_no_package() -> None:
    assert "packages" not in findings()


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("no-such-package>=1", "no-such-package is not installed"),
        ("pydantic>=99", "pydantic>=99 is needed"),
        ("numpy<1", "numpy<1 is needed"),
    ],
)
def test_a_requirement_that_is_not_met(
    requirement: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = ["pydantic", "absent-extra; extra == 'test'", "absent; python_version < '3'"]
    monkeypatch.setattr(health, "requires", lambda name: [*others, requirement])
    (finding,) = findings()["packages"]
    assert finding.level == "error"
    assert problem in finding.text
    assert finding.remedy == f"pip install '{requirement}'"


def told_error(text: str) -> Callable[[], dict[str, Any]]:
    def fail() -> dict[str, Any]:
        raise subprocess.CalledProcessError(1, "python", stderr=f"Traceback\n  ...\n{text}\n")

    return fail


def test_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_told_by_torch", told_error("ImportError: libcudnn.so.9"))
    (finding,) = findings()["torch"]
    assert (finding.level, finding.text) == (
        "error",
        "torch cannot be imported: ImportError: libcudnn.so.9",
    )


@pytest.mark.parametrize(
    ("told", "level", "words"),
    [
        ({"cuda": None, "available": False}, "error", "install torch with CUDA"),
        ({"available": False}, "error", "driver"),
        ({"gpus": [["Tesla", 16 << 30]], "bf16": False}, "warning", "float32"),
    ],
)
def test_a_gpu_that_torch_cannot_use_well(
    told: dict[str, Any], level: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_told_by_torch", lambda: {**TOLD, **told})
    (finding,) = findings(machine=Machine(8 << 30, (16 << 30,)))["torch"]
    assert finding.level == level
    assert words in finding.remedy


def test_a_full_disk_and_small_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "free_space", lambda folder: 1 << 20)
    found = findings()
    assert {finding.level for finding in found["disk"] + found["caches"]} == {"warning"}
    assert any("--shm-size" in finding.remedy for finding in found["disk"])
    assert any("HF_HOME" in finding.remedy for finding in found["caches"])


def registry_of(*plugins: Plugin, name: str = "mine") -> Registry:
    """Each working plugin registers an encoder of one name."""
    registry = Registry(list(plugins))
    for plugin in plugins:
        if not plugin.error:
            config = "pae_framework.config:EncoderConfig"
            registry.add(ComponentSpec("encoder", name, "no:Encoder", config, "an encoder", plugin))
    return registry


@pytest.mark.parametrize(
    ("plugin", "level", "words"),
    [
        (Plugin("acme", "acme", "acme-kit", "1", error="OSError: no"), "error", "OSError: no"),
        (Plugin("acme", "acme", "acme-kit", "1", heavy=True), "warning", "imports torch"),
        (Plugin("acme", "acme", "acme-kit", "1", seconds=3.0), "warning", "takes 3.0 s"),
    ],
    ids=["broken", "heavy", "slow"],
)
def test_a_plugin_that_is_not_fine(plugin: Plugin, level: str, words: str) -> None:
    found = findings(registry_of(plugin))["plugins"]
    assert any(finding.level == level and words in finding.text for finding in found)
    assert any("acme-kit 1" in finding.text for finding in found)


def test_a_config_that_cannot_be_imported() -> None:
    plugin = Plugin("acme", "acme", "acme-kit", "1")
    registry = Registry([plugin])
    registry.add(ComponentSpec("encoder", "mine", "no:E", "no_such_module:Config", "x", plugin))
    (finding,) = findings(registry)["plugins"]
    assert finding.level == "error"
    assert "no_such_module:Config" in finding.text


def test_plugins_that_share_a_name() -> None:
    one, other = Plugin("acme", "a", "acme-one", "1"), Plugin("acme", "b", "acme-two", "1")
    texts = [f"{f.text} {f.remedy}" for f in findings(registry_of(one, other))["plugins"]]
    assert any("acme-one/mine or acme-two/mine" in text for text in texts)


def test_a_run_of_another_environment() -> None:
    registry = Registry([Plugin("acme", "acme", "acme-kit", "2")])
    now = describe_environment(registry)
    assert "run" not in findings(registry, recorded=now)
    recorded = {
        **now,
        "python": "3.9.0",
        "packages": {**now["packages"], "torch": "1.0", "gone": "3"},
        "plugins": {"acme": "acme-kit 1", "lost": "lost-kit 4"},
    }
    found = {
        finding.text.partition(":")[0]: finding
        for finding in findings(registry, recorded=recorded)["run"]
    }
    assert found.keys() == {"torch", "gone", "acme", "lost", "Python"}
    assert "1.0 in the run" in found["torch"].text
    assert (found["lost"].level, found["lost"].remedy) == ("warning", "install lost-kit 4")
    assert found["acme"].level == "warning"
    assert found["acme"].text == "acme: acme-kit 1 in the run, acme-kit 2 here"


@pytest.fixture
def nothing_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with space everywhere, and no plugins but the built-in ones."""
    monkeypatch.setattr(health, "free_space", lambda folder: 100 << 30)
    for variable in ("HF_HOME", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    built_in = Registry([p for p in load_registry().plugins if p.built_in])
    monkeypatch.setattr(plugins, "load_registry", lambda: built_in)


@pytest.mark.usefixtures("nothing_wrong")
def test_the_command_prints_findings_and_remedies(
    pae: Pae, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = pae("doctor").ok()
    assert "torch: torch 2.9, built for 13.0" in answer.out
    assert pae("doctor", "--json").ok().json["healthy"] is True
    monkeypatch.setattr(health, "_told_by_torch", told_error("ImportError: no"))
    assert pae("doctor").fails(1).out.count("-> install torch again") == 1
    answer = pae("doctor", "--json").fails(1)
    assert answer.json["healthy"] is False
    assert answer.json["schema"] == "doctor/1"
    assert "no run.json" in pae("doctor", Path.cwd()).fails(2).err


def test_torch_is_asked_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    told = health._told_by_torch()
    assert told["version"].split(".")[0].isdigit()
    monkeypatch.setattr(health, "_ASK_TORCH", "import sys; sys.exit('ImportError: broken')")
    with pytest.raises(subprocess.CalledProcessError):
        health._told_by_torch()
    assert Path(sys.executable).is_file()


PLUGIN = """
from pae_framework import hookimpl
pae_api = 1

@hookimpl
def pae_register_regularizers(register):
    pass
"""


@pytest.mark.usefixtures("nothing_wrong")
def test_a_run_with_a_plugin_file(
    pae: Pae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "load_registry", load_registry)
    file, recipe = tmp_path / "own_of_doctor.py", tmp_path / "mine.yaml"
    file.write_text(PLUGIN)
    recipe.write_text(f"pae: 1\nextends: quickstart\nname: mine\nplugins: [{file.name}]\n")
    directory = RunDirectory.at(tmp_path / "run")
    with directory.lock():
        describe_run(load_recipe(recipe), directory, "pae run", PlainConsole(quiet=True))
    assert "edited or moved" not in pae("doctor", "run").ok().out
    file.write_text(PLUGIN + "# edited\n")
    assert "edited or moved" in pae("doctor", "run").ok().out
    file.unlink()
    assert "does not load here" in pae("doctor", "run").fails(1).out
    del sys.modules["own_of_doctor"]
