"""Plugins of strangers: whatever is wrong with one is said, and stops no other."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distributions, entry_points
from pathlib import Path

import pytest

from pae_framework.errors import PluginError
from pae_framework.plugins import load_registry
from pae_framework.registry import ComponentSpec, Plugin, Registry, UnknownComponentError
from pae_framework.testing.pytest import run_process

Install = Callable[..., list[EntryPoint]]

GOOD = """
from pae_framework import hookimpl
from pae_framework.config import EncoderConfig

pae_api = 1

class Config(EncoderConfig):
    size: int = 3

    def token_grid(self, image_size):
        return image_size // 4

    def token_width(self):
        return 8

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
        "dataset": {"digits", "idx", "image_folder", "parquet", "shapes", "webdataset"},
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
        ("x = 1", "does not set `pae_api`"),
        ("pae_api = 99", "was written for plugin API 99"),
        ("pae_api = 0", "was written for plugin API 0"),
        ("pae_api = '1'", "sets `pae_api` to '1'"),
        ("pae_api = True", "sets `pae_api` to True"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise StopIteration('x')", "StopIteration: x"),
        ("class E(Exception):\n def __str__(self): 1 / 0\nraise E", "E: <exception str() failed>"),
        ("raise ValueError('\\n\\nfirst\\nsecond')", "ValueError: first"),
        (good("x", "acme_bad").replace("@hookimpl", ""), "implements no hook"),
        (
            good("fine", "acme_bad").replace("_encoders(", "_encodrs("),
            "implements the hook",
        ),
        (good("x", "acme_bad") + AGAIN, "registers encoder 'x' twice"),
        (good("Bad Name", "acme_bad"), "registers encoder 'Bad Name'"),
        (good("a/b", "acme_bad"), "registers encoder 'a/b'"),
        (
            good("x", "acme_bad").replace("acme_bad:Encoder", "Encoder"),
            "the target of encoder 'x' is 'Encoder', not 'package.module:Class'",
        ),
        (good("x", "acme_bad").replace(', summary="good"', ""), "calls register"),
        *(
            (good("x", "acme_bad").replace(before, after), f"{reason} {after}")
            for before, after, reason in (
                ('"x"', "None", "registers encoder"),
                ('"x"', "3", "registers encoder"),
                ('"acme_bad:Encoder"', "['a:B']", "the target of encoder 'x' is"),
                ('"acme_bad:Config"', "None", "the config of encoder 'x' is"),
                ('"good"', "None", "the summary of encoder 'x' is"),
                ('"good"', "' '", "the summary of encoder 'x' is"),
                ('"good"', "7", "the summary of encoder 'x' is"),
                ('"good"', r"'a\nb'", "the summary of encoder 'x' is"),
                ('"good"', "b'good'", "the summary of encoder 'x' is"),
            )
        ),
        (
            good("x", "acme_bad").replace("(register):", "(registry):"),
            "the hook pae_register_encoders has no argument 'registry'; did you mean register?",
        ),
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
        ("acme_x:Plain", "acme_x:Plain, is not a pae_framework.config.EncoderConfig"),
        ("acme_x:number", "is not a pae_framework.config.EncoderConfig"),
        ("pae_framework.config:RegularizerConfig", "is not a pae_framework.config.EncoderConfig"),
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


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        ("x: 'Absent' = 1", ["Absent"]),
        ("x: 'list[Absent.Inner]' = []", ["Absent"]),
        ("x: object = object()", ["default of x", "object object"]),
        ("x: object = int", ["default of x", "class 'int'"]),
        ("x: list[object] = [print]", ["default of x", "print"]),
        ("x: object = Field(default_factory=lambda: iter)", ["default of x", "iter"]),
        ("x: float = float('inf')", ["default of x", "inf"]),
        ("x: list[float] = [float('nan')]", ["default of x", "nan"]),
        ("x: bytes = b'\\xff'", ["default of x", "xff"]),
        ("x: int = Field(default_factory=lambda: 1 / 0)", ["ZeroDivisionError"]),
        ("x: int = Field(default_factory=lambda: sys.exit(0))", ["SystemExit"]),
        ("token_grid = EncoderConfig.token_grid", ["token_grid", "EncoderConfig"]),
        ("token_width = EncoderConfig.token_width", ["token_width", "EncoderConfig"]),
    ],
)
def test_a_config_that_no_recipe_could_hold_is_rejected(
    install: Install, body: str, facts: list[str]
) -> None:
    source = (
        good("x", "acme_x")
        + f"""
import sys
from pydantic import Field
class Bad(Config):
    {body}
"""
    )
    source = source.replace("acme_x:Config", "acme_x:Bad")
    spec = load_registry(install("acme", source, "acme_x")).find("encoder", "x")
    with pytest.raises(PluginError) as caught:
        spec.config_class()
    message = str(caught.value)
    for fact in ("plugin acme_x (acme)", "encoder:x", "acme_x:Bad", *facts):
        assert fact in message
    assert "\n" not in message


def test_defaults_of_all_types_that_a_recipe_can_hold_pass(install: Install) -> None:
    source = (
        good("x", "acme_x")
        + """
from pathlib import Path
from pydantic import Field
class Rich(Config):
    needed: int
    path: Path = Path("a")
    pair: tuple[int, int] = (1, 2)
    names: frozenset[str] = frozenset()
    table: dict[int, str] = {1: "a"}
    nothing: float | None = None
    made: list[int] = Field(default_factory=lambda: [1])
"""
    )
    source = source.replace("acme_x:Config", "acme_x:Rich")
    spec = load_registry(install("acme", source, "acme_x")).find("encoder", "x")
    assert spec.config_class().__name__ == "Rich"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("acme_x:number", "encoder:x, acme_x:number, is not a pae_framework.contracts.Encoder"),
        ("acme_x:Plain", "encoder:x, acme_x:Plain, is not a pae_framework.contracts.Encoder"),
        ("acme_x:Absent", "the target of encoder:x, acme_x:Absent, does not import"),
    ],
)
def test_the_error_for_an_invalid_component_names_it(
    install: Install, target: str, message: str
) -> None:
    spec = registry_with(install, "acme_x:Config", target).find("encoder", "x")
    with pytest.raises(PluginError, match=message):
        spec.component_class()


# --- installed distributions ----------------------------------------------------------------------

METADATA = "Metadata-Version: 2.1\nName: acme-kit\nVersion: 1.0\n"
POINTS = "[pae_framework]\nacme = acme_plugin\n"


def dist_info(folder: Path, name: str, metadata: str | None, points: str | bytes | None) -> None:
    """A distribution as an installer leaves it in a folder."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    if metadata is not None:
        (info / "METADATA").write_text(metadata)
    if points is not None:
        (info / "entry_points.txt").write_bytes(
            points if isinstance(points, bytes) else points.encode()
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on ``sys.path`` that holds the module of a plugin."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_plugin", raising=False)
    (tmp_path / "acme_plugin.py").write_text(good("fine", "acme_plugin"))
    return tmp_path


def test_an_installed_plugin_is_found(site: Path) -> None:
    dist_info(site, "acme_kit", METADATA, POINTS)
    registry = load_registry()
    assert registry.find("encoder", "fine").plugin.distribution == "acme-kit"
    assert registry.broken == []


@pytest.mark.parametrize(
    ("metadata", "points"),
    [
        (METADATA, "no section and no equals sign"),
        (METADATA, f"{POINTS}this line means nothing\n"),
        (METADATA, b"\0" * 64),
        (METADATA, b"\xff\xfe[pae_framework]"),
        (None, POINTS),
        ("Metadata-Version: 2.1\n", POINTS),
        ("Metadata-Version: 2.1\nName: acme-kit\n", POINTS),
        ("", POINTS),
    ],
)
def test_damaged_metadata_of_a_distribution_break_only_itself(
    site: Path, metadata: str | None, points: str | bytes
) -> None:
    before = {spec.reference for spec in load_registry().specs()}
    dist_info(site, "acme_kit", metadata, points)
    registry = load_registry()
    assert {spec.reference for spec in registry.specs()} == before
    (broken,) = registry.broken
    assert broken.distribution == "acme-kit"
    assert "install it again" in str(broken.error)


@pytest.mark.parametrize("points", [b"\xff\xfe", b"[torch.backends]\nno equals sign\n"])
def test_damaged_metadata_break_no_library_that_reads_them(tmp_path: Path, points: bytes) -> None:
    """pydantic and torch read the metadata of all distributions, too."""
    dist_info(tmp_path, "other", METADATA, points)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    code = "import pae_framework.cli, pae_framework.build\n"
    code += "from pae_framework.plugins import load_registry\n"
    code += "print([plugin.distribution for plugin in load_registry().broken])"
    result = run_process("-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    assert result.ok().out == "['other']\n"


@pytest.mark.parametrize("metadata", [None, "", METADATA])
def test_metadata_of_distributions_without_plugins_do_not_matter(
    site: Path, metadata: str | None
) -> None:
    dist_info(site, "other", metadata, None)
    dist_info(site, "scripts", metadata, "[console_scripts]\na = b:c\n")
    assert load_registry().broken == []


def test_the_first_of_two_distributions_of_one_name_counts(
    site: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    dist_info(site, "acme_kit", METADATA, POINTS)
    first = tmp_path_factory.mktemp("first")
    dist_info(first, "Acme.Kit", METADATA, POINTS.replace("acme =", "newer ="))
    monkeypatch.syspath_prepend(str(first))
    found = [plugin.name for plugin in load_registry().plugins if "acme" in plugin.distribution]
    assert found == ["newer"]


def test_what_an_interrupted_pip_left_is_no_second_plugin(site: Path) -> None:
    dist_info(site, "acme_kit", METADATA, POINTS)
    dist_info(site, "~cme_kit", METADATA, POINTS)
    assert load_registry().find("encoder", "fine").plugin.name == "acme"


def test_an_entry_point_given_twice_is_one_plugin(site: Path) -> None:
    dist_info(site, "acme_kit", METADATA, f"{POINTS}acme = acme_plugin\n")
    assert load_registry().find("encoder", "fine").plugin.name == "acme"


@pytest.mark.parametrize("value", ["", "not a module", "a:b:c", "../etc", "acme_plugin:Absent"])
def test_an_entry_point_that_names_no_module_is_broken(site: Path, value: str) -> None:
    dist_info(site, "acme_kit", METADATA, f"[pae_framework]\nacme = {value}\n")
    (broken,) = load_registry().broken
    assert broken.name == "acme"
    assert "NoneType" not in str(broken.error)
