"""Distributions of others, installed together: what the commands say of each of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from pae_framework.plugins import load_registry
from pae_framework.testing.pytest import Result, run_process

HEAD = '''
from pae_framework import hookimpl
from pae_framework.config import RegularizerConfig

pae_api = 1

class Config(RegularizerConfig):
    """Nothing."""

class Term:
    pass
'''
HOOK = """
@hookimpl
def pae_register_regularizers(register):
    register("NAME", target="MODULE:Term", config="MODULE:Config", summary="a term")
"""
PRINTS = """
import atexit, ctypes, os, sys, threading, time
def speak():
    print("noise")
    sys.__stdout__.write("noise")
    os.write(1, b"noise")
    ctypes.CDLL(None).printf(b"noise")
def speak_on():
    while True:
        time.sleep(0.001)
        speak()
class Config(RegularizerConfig):
    def model_post_init(self, context):
        speak()
        threading.Thread(target=lambda: (time.sleep(0.2), speak())).start()
speak()
atexit.register(speak)
threading.Thread(target=speak_on, daemon=True).start()
"""

BROKEN = {
    "raises": ("raise RuntimeError('inside')", HOOK, ["RuntimeError: inside"]),
    "exits": ("raise SystemExit(0)", HOOK, ["SystemExit: 0"]),
    "ends": ("import os; os._exit(0)", HOOK, ["os._exit"]),
    "aborts": ("import os; os.abort()", HOOK, ["os.abort"]),
    "replaces": ("import os; os.execlp('true', 'true')", HOOK, ["os.exec"]),
    "lacks": ("import package_of_nobody", HOOK, ["ModuleNotFoundError", "package_of_nobody"]),
    "syntax": ("def", HOOK, ["SyntaxError"]),
    "twice": (
        "",
        f"{HOOK}    register('NAME', target='a:B', config='a:B', summary='x')",
        ["twice"],
    ),
    "newer": ("pae_api = 99", HOOK, ["plugin API 99", "update pae-framework"]),
    "older": ("pae_api = 0", HOOK, ["plugin API 0", "update the plugin"]),
    "hook": (
        "",
        HOOK.replace("regularizers(", "regularisers("),
        ["pae_register_regularisers", "pae_register_regularizers"],
    ),
    "hook_argument": ("", HOOK.replace("(register)", "(registr)"), ["'registr'", "register?"]),
    "wrapper": ("", HOOK.replace("hookimpl", "hookimpl(wrapper=True)"), ["generator"]),
    "argument": ("", HOOK.replace("summary=", "sumary="), ["calls register", "'summary'"]),
    "more": ("", HOOK.replace("summary=", "extra=1, summary="), ["calls register", "'extra'"]),
    "position": ("", HOOK.replace("target=", ""), ["calls register", "positional"]),
}
"""Plugins that do not load: their code, their hook, and what is said of them."""
GOOD = {
    "fine": ("", HOOK),
    "torch": ("import torch", HOOK),
    "one": ("", HOOK.replace("NAME", "shared")),
    "two": ("", HOOK.replace("NAME", "shared")),
    "no_config": ("", HOOK.replace("MODULE:Config", "MODULE:Term")),
    "no_target": ("", HOOK.replace("MODULE:Term", "MODULE:Trem")),
}


def install(site: Path, name: str, code: str, hook: str, version: str = "1.0") -> None:
    """What an installer leaves of the distribution ``acme-NAME``."""
    module = f"acme_{name}"
    info = site / f"{module}-{version}.dist-info"
    info.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[pae_framework]\n{module} = {module}\n")
    source = f"{HEAD}{code}\n{hook}".replace("MODULE", module).replace("NAME", name)
    (site / f"{module}.py").write_text(source)


def environment(site: Path) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": paths}


Command = Callable[..., Result]


def commands_in(site: Path) -> Command:
    env = environment(site)
    return lambda *words: run_process("-m", "pae_framework", *words, cwd=site, env=env)


@pytest.fixture(scope="module")
def pae(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Commands in an environment with all these plugins, and an empty torch."""
    site = tmp_path_factory.mktemp("site")
    for name, (code, hook, *_) in {**BROKEN, **GOOD}.items():
        install(site, name, code, hook)
    (site / "torch.py").write_text("")
    return commands_in(site)


@pytest.fixture(scope="module")
def listed(pae: Command) -> dict[str, dict[str, str]]:
    """What `pae list-plugins --json` says of each of these plugins."""
    plugins = pae("list-plugins", "--json").ok().json["plugins"]
    found = {plugin["distribution"].removeprefix("acme-"): plugin for plugin in plugins}
    return {name.replace("-", "_"): plugin for name, plugin in found.items()}


@pytest.fixture(scope="module")
def broken(pae: Command) -> dict[str, str]:
    """What `pae list-plugins --broken` says of each of these plugins: its first line."""
    lines = pae("list-plugins", "--broken").out.splitlines()
    said = [line.partition("acme_")[2] for line in lines if line.startswith("acme_")]
    return {line.partition(" ")[0]: line for line in said}


@pytest.mark.parametrize(("name", "facts"), [(name, found[2]) for name, found in BROKEN.items()])
def test_a_plugin_that_does_not_load_is_listed_with_the_reason(name, facts, listed, broken):
    assert listed[name]["state"] == "broken"
    for fact in facts:
        assert fact in listed[name]["error"]
        assert fact in broken[name]
    assert f"acme-{name.replace('_', '-')} 1.0" in broken[name]


@pytest.mark.parametrize("name", GOOD)
def test_the_others_are_usable_beside_them(name, listed, broken):
    assert listed[name]["state"] == ("heavy" if name == "torch" else "ok")
    assert name not in broken


TERM = "tokenizer.regularizers.{}.weight=1"


def test_check_uses_a_plugin_beside_the_broken_ones_and_names_these_once(pae):
    checked = pae("check", "quickstart", TERM.format("fine")).ok()
    assert checked.out.startswith("quickstart: valid\n")
    for name in BROKEN:
        assert checked.err.count(f"plugin acme_{name} (") == 1


def test_check_says_what_is_wrong_with_the_plugins_that_a_recipe_uses(pae):
    names = ("raises", "shared", "no_config", "no_target")
    failed = pae("check", "quickstart", *map(TERM.format, names)).fails(2).err
    said = failed.partition("error: ")[2]
    for fact in ("'raises'", "acme-one/shared", "acme_no_config:Term"):
        assert fact in said


# --- output ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("list-plugins", "--json"),
        ("check", "quickstart", TERM.format("prints"), "--json"),
        pytest.param(("run", "quickstart", "--dry-run", "--json"), marks=pytest.mark.slow),
        ("schema",),
        ("show-plugin", "regularizer:prints", "--json"),
    ],
    ids=lambda words: words[0],
)
def test_json_stays_json_whatever_a_plugin_prints(words, tmp_path):
    install(tmp_path, "prints", PRINTS, HOOK)
    done = commands_in(tmp_path)(*words).ok()
    assert "noise" in done.err
    assert isinstance(done.json, dict)


# --- work -----------------------------------------------------------------------------------------


def test_the_metadata_of_each_plugin_are_parsed_once_and_it_is_imported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"counted_{number}" for number in range(20)]
    for name in names:
        install(
            tmp_path, name, "import pae_framework; pae_framework.counted.append(__name__)", HOOK
        )
    imported: list[str] = []
    parsed: Counter[str] = Counter()
    plain = Distribution.metadata.fget  # type: ignore[attr-defined]

    def counting(self: Distribution) -> Any:
        found = plain(self)
        parsed[found["Name"]] += 1
        return found

    monkeypatch.setattr("pae_framework.counted", imported, raising=False)
    monkeypatch.setattr(Distribution, "metadata", property(counting))
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = load_registry()
    assert sorted(imported) == sorted(f"acme_{name}" for name in names)
    assert {parsed[f"acme-{name.replace('_', '-')}"] for name in names} == {1}
    assert {registry.find("regularizer", name).plugin.version for name in names} == {"1.0"}
    for module in imported:
        del sys.modules[module]


# --- code that hangs or crashes -------------------------------------------------------------------

IMPATIENT = """
import sys
import pae_framework.plugin_code as plugin_code
plugin_code.NOTICE_SECONDS = 0.1
plugin_code.GRACE_SECONDS = 0.3
from pae_framework.cli.app import main
main()
"""
HANGS = {
    "sleeps": "import time; time.sleep(600)",
    "catches": (
        "import time\nwhile True:\n    try: time.sleep(600)\n    except BaseException: pass"
    ),
}


@pytest.mark.parametrize("code", HANGS.values(), ids=HANGS)
def test_a_plugin_that_hangs_is_named_and_ctrl_c_ends_it(code: str, tmp_path: Path) -> None:
    install(tmp_path, "hangs", code, HOOK)
    command = [sys.executable, "-c", IMPATIENT, "list-plugins", "--json"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        notice = process.stderr.readline()
        assert "waiting for plugin acme_hangs (acme-hangs)" in notice
        assert "up to 20 s" in notice
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=150)
    assert (process.returncode, out) == (130, "")
    assert "stopped in plugin acme_hangs (acme-hangs)" in err
    assert "Traceback" not in err


def test_a_crash_shows_the_code_of_the_plugin(tmp_path: Path) -> None:
    install(tmp_path, "crashes", "import ctypes; ctypes.string_at(0)", HOOK)
    words = ("-m", "pae_framework", "list-plugins")
    done = run_process(*words, cwd=tmp_path, env=environment(tmp_path))
    assert done.code == -signal.SIGSEGV
    assert "acme_crashes.py" in done.err
