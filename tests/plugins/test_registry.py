"""Plugins of strangers: whatever is wrong with one is said, and stops no other."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path

import pytest

from pae_framework.config import EncoderConfig, RegularizerConfig
from pae_framework.errors import PluginError
from pae_framework.plugins import load_registry
from pae_framework.registry import ComponentSpec, Plugin, Registry, UnknownComponentError

Install = Callable[..., list[EntryPoint]]

GOOD = """
from pae_framework import hookimpl
from pae_framework.config import EncoderConfig

pae_api = 1

class Config(EncoderConfig):
    size: int = 3

class Encoder:
    pass

@hookimpl
def pae_register_encoders(register):
    register("{name}", target="{module}:Encoder", config="{module}:Config", summary="good")
"""

AGAIN = "    register('x', target='a:B', config='a:B', summary='')"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Put a distribution with one plugin module on the import path; gives its entry points."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(
        distribution: str, source: str, module: str, version: str = "1.0"
    ) -> list[EntryPoint]:
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        points = info / "entry_points.txt"
        text = points.read_text() if points.exists() else "[pae_framework]\n"
        points.write_text(f"{text}{module} = {module}\n")
        return [
            point
            for found in distributions(path=[str(tmp_path)])
            for point in found.entry_points.select(group="pae_framework")
        ]

    yield install
    for name in set(sys.modules) - before:
        if (
            getattr(sys.modules[name], "__file__", None)
            and str(tmp_path) in sys.modules[name].__file__
        ):
            del sys.modules[name]


def good(name: str, module: str) -> str:
    return GOOD.format(name=name, module=module)


def bottleneck(name: str, module: str) -> str:
    """The same for a bottleneck."""
    return good(name, module).replace("pae_register_encoders", "pae_register_bottlenecks")


def broken_by(install: Install, source: str) -> Plugin:
    """The one plugin that breaks, beside a good one that still brings its encoder."""
    install("acme-bad", source, "acme_bad")
    registry = load_registry(install("acme-good", good("fine", "acme_good"), "acme_good"))
    assert registry.find("encoder", "fine").config_class().__name__ == "Config"
    (broken,) = registry.broken
    assert (broken.name, broken.distribution, broken.state) == ("acme_bad", "acme-bad", "broken")
    assert [spec.plugin.name for spec in registry.specs("encoder")] == ["acme_good"]
    return broken


# --- what comes with the framework ----------------------------------------------------------------


def test_built_in_components_are_registered_through_entry_points() -> None:
    registry = load_registry()
    built_in = [p for p in registry.plugins if p.distribution == "pae-framework"]
    assert {plugin.state for plugin in built_in} <= {"ok", "heavy"}
    assert {plugin.module for plugin in built_in} == {
        point.value
        for point in entry_points(group="pae_framework")
        if point.module.startswith("pae_")
    }
    expected = {
        "dataset": {"digits", "idx", "image_folder", "shapes"},
        "encoder": {"tiny_vit", "small_cnn"},
        "modulator": {"dam", "none"},
        "bottleneck": {"sphere", "gaussian", "identity"},
        "decoder": {"vit"},
        "regularizer": {"ssr", "mcr", "scr", "kl"},
        "generator": {"lightningdit", "dit_dh"},
        "evaluator": {"reconstruction", "generation", "few_steps", "manifold"},
    }
    for kind, names in expected.items():
        assert names <= {spec.name for spec in registry.specs(kind)}


@pytest.mark.parametrize(
    "spec",
    [spec for spec in load_registry().specs() if spec.plugin.distribution == "pae-framework"],
    ids=lambda spec: spec.reference,
)
def test_every_built_in_component_is_described(spec: ComponentSpec) -> None:
    model = spec.config_class()
    assert model.__doc__
    undescribed = [key for key, field in model.model_fields.items() if not field.description]
    assert undescribed == []
    assert re.fullmatch(r".{10,100}", spec.summary)


# --- plugins that are broken ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import absent_package", "ModuleNotFoundError: No module named 'absent_package'"),
        ("def broken(:", "SyntaxError: "),
        ("import sys\nsys.exit('no license')", "SystemExit: no license"),
        ("x = 1", "PluginError: does not set `pae_api`"),
        ("pae_api = 99", "PluginError: was written for plugin API 99"),
        (good("fine", "acme_bad").replace("_encoders(", "_encodrs("), "PluginValidationError: "),
        (good("x", "acme_bad") + AGAIN, "PluginError: registers encoder 'x' twice"),
        (good("Bad Name", "acme_bad"), "PluginError: registers encoder 'Bad Name'"),
        (good("a/b", "acme_bad"), "PluginError: registers encoder 'a/b'"),
        (
            good("x", "acme_bad").replace("acme_bad:Encoder", "Encoder"),
            "PluginError: the target of encoder 'x' is 'Encoder', not 'package.module:Class'",
        ),
        (good("x", "acme_bad").replace(', summary="good"', ""), "TypeError: "),
        (good("x", "acme_bad").replace("(register):", "(registry):"), "PluginValidationError: "),
    ],
)
def test_a_plugin_that_fails_to_load_is_broken_with_the_reason(
    install: Install, source: str, reason: str
) -> None:
    broken = broken_by(install, source)
    assert broken.error is not None
    assert broken.error.startswith(reason)
    assert "\n" not in broken.error
    assert "Traceback" in broken.detail


def test_a_plugin_that_fails_half_way_registers_nothing(install: Install) -> None:
    source = good("half", "acme_half") + "    raise RuntimeError('half way')"
    registry = load_registry(install("acme", source, "acme_half"))
    assert [plugin.error for plugin in registry.broken] == ["RuntimeError: half way"]
    assert registry.specs("encoder") == []


def test_without_plugins_there_is_no_component() -> None:
    registry = load_registry([])
    assert (registry.specs(), registry.plugins) == ([], [])


def test_a_plugin_that_imports_torch_to_register_is_marked(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # restores whatever was there
    del sys.modules["torch"]
    (tmp_path / "torch.py").write_text("")
    install("acme-light", good("light", "acme_light"), "acme_light")
    points = install("acme-heavy", "import torch\n" + good("heavy", "acme_heavy"), "acme_heavy")
    assert {plugin.name: plugin.state for plugin in load_registry(points).plugins} == {
        "acme_light": "ok",
        "acme_heavy": "heavy",
    }


# --- names ----------------------------------------------------------------------------------------


def test_a_shared_name_is_selected_by_distribution(install: Install) -> None:
    install("acme-one", good("shared", "acme_one"), "acme_one")
    registry = load_registry(install("acme-two", good("shared", "acme_two"), "acme_two", "2.5"))
    with pytest.raises(UnknownComponentError) as caught:
        registry.find("encoder", "shared")
    for fact in ("encoder 'shared'", "acme-one/shared", "acme-two/shared"):
        assert fact in str(caught.value)
    found = registry.find("encoder", "acme-two/shared")
    assert (found.plugin.distribution, found.plugin.version) == ("acme-two", "2.5")
    assert registry.find("encoder", "Acme_Two/shared") is found
    assert registry.use_name(found) == "acme-two/shared"
    with pytest.raises(UnknownComponentError, match="'acme-three/shared'"):
        registry.find("encoder", "acme-three/shared")


def test_a_short_name_means_the_built_in_component(install: Install) -> None:
    install("pae-framework", good("shared", "own"), "own")
    install("acme-one", good("shared", "acme_one"), "acme_one")
    registry = load_registry(install("acme-two", good("shared", "acme_two"), "acme_two"))
    found = registry.find("encoder", "shared")
    assert found.plugin.distribution == "pae-framework"
    assert registry.find("encoder", "pae-framework/shared") is found
    assert registry.find("encoder", "acme-one/shared").plugin.distribution == "acme-one"
    names = {registry.use_name(spec): registry.hidden(spec) for spec in registry.specs("encoder")}
    assert names == {"shared": False, "acme-one/shared": True, "acme-two/shared": True}


def test_a_name_registered_twice_by_one_distribution_is_ambiguous(install: Install) -> None:
    install("acme", good("shared", "acme_first"), "acme_first")
    registry = load_registry(install("acme", good("shared", "acme_second"), "acme_second"))
    for name in ("shared", "acme/shared"):
        with pytest.raises(UnknownComponentError, match="acme_first and acme_second"):
            registry.find("encoder", name)


def test_a_unique_name_may_be_given_with_its_distribution(install: Install) -> None:
    registry = load_registry(install("acme", good("mine", "acme_mine"), "acme_mine"))
    found = registry.find("encoder", "mine")
    assert registry.find("encoder", "acme/mine") is found
    assert registry.use_name(found) == "mine"


def test_one_name_may_be_used_by_components_of_two_kinds(install: Install) -> None:
    install("acme-two", bottleneck("sphere", "acme_two"), "acme_two")
    registry = load_registry(install("acme", good("sphere", "acme_sphere"), "acme_sphere"))
    assert registry.find("encoder", "sphere").plugin.distribution == "acme"
    assert registry.find("bottleneck", "sphere").plugin.distribution == "acme-two"


def test_the_error_for_an_unknown_name_lists_the_known_ones(install: Install) -> None:
    install("acme-bad", "1 / 0", "acme_bad")
    install("acme-two", bottleneck("sphere", "acme_two"), "acme_two")
    registry = load_registry(install("acme", good("big_vit", "acme_vit"), "acme_vit"))
    messages = {}
    for name in ("big_vti", "sphere", "zzz"):
        with pytest.raises(UnknownComponentError) as caught:
            registry.find("encoder", name)
        messages[name] = str(caught.value)
    assert "did you mean 'big_vit'?" in messages["big_vti"]
    assert "registered as bottleneck" in messages["sphere"]
    assert "plugin" in messages["zzz"].partition(" Installed:")[0]
    for name, message in messages.items():
        assert message.startswith(f"unknown encoder {name!r}")
        assert "Installed: big_vit." in message
        assert "failed to load: acme_bad (see `pae list-plugins --broken`)" in message


# --- config and component classes -----------------------------------------------------------------


def registry_with(install: Install, config: str, target: str = "acme_x:Encoder") -> Registry:
    source = good("x", "acme_x").replace("acme_x:Config", config).replace("acme_x:Encoder", target)
    return load_registry(install("acme", source + "\nnumber = 3\nclass Plain: pass\n", "acme_x"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("acme_x:Plain", "acme_x:Plain, is not a pae_framework.config.ComponentConfig"),
        ("acme_x:number", "is not a pae_framework.config.ComponentConfig"),
        ("acme_x:Absent", "does not import: AttributeError"),
        ("acme_absent:Config", "does not import: ModuleNotFoundError"),
    ],
)
def test_the_error_for_an_invalid_config_names_the_plugin(
    install: Install, config: str, message: str
) -> None:
    spec = registry_with(install, config).find("encoder", "x")
    with pytest.raises(PluginError, match=re.escape(message)) as caught:
        spec.config_class()
    assert str(caught.value).startswith("plugin acme_x (acme): the config of encoder:x")
    assert caught.value.exit_code == 3


def test_a_config_of_another_kind_is_rejected(install: Install) -> None:
    registry = registry_with(install, "acme_x:Config")
    assert issubclass(registry.config_class("encoder", "x", EncoderConfig), EncoderConfig)
    with pytest.raises(PluginError, match=r"encoder:x.*RegularizerConfig"):
        registry.config_class("encoder", "x", RegularizerConfig)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("acme_x:number", "encoder:x is not a class: acme_x:number"),
        ("acme_x:Absent", "the target of encoder:x, acme_x:Absent, does not import"),
    ],
)
def test_the_error_for_an_invalid_component_names_it(
    install: Install, target: str, message: str
) -> None:
    spec = registry_with(install, "acme_x:Config", target).find("encoder", "x")
    with pytest.raises(PluginError, match=message):
        spec.component_class()
