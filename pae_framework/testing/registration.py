"""The contract of registration modules, which entry points name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import ClassVar

from pae_framework.config import ComponentConfig
from pae_framework.errors import PluginError
from pae_framework.hookspecs import PROJECT
from pae_framework.plugins import load_registry
from pae_framework.registry import ComponentSpec, Plugin
from pae_framework.testing.expect import expect

_PROBE = """
import json, os, sys, time
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the plugin prints is no answer
from importlib.metadata import EntryPoint
from pathlib import Path
from pae_framework.plugins import load_registry, with_files
module, file = sys.argv[1:]
def first_to_import_torch():
    if "torch" in sys.modules:
        return "registering"
    for spec in registry.specs():
        spec.config_class()
        if "torch" in sys.modules:
            return "the config " + spec.config
before, start = set(sys.modules), time.perf_counter()
if file:
    from pae_framework.registry import Registry
    registry = with_files(Registry(), [Path(file)])
else:
    registry = load_registry([EntryPoint(module, module, "pae_framework")])
seconds, modules = time.perf_counter() - start, len(set(sys.modules) - before)
found = {"seconds": seconds, "modules": modules, "torch": first_to_import_torch()}
answer.write(json.dumps(found))
answer.close()
"""


@dataclass(frozen=True)
class Weight:
    """What registration costs every command: seconds, and modules that it imports."""

    seconds: float
    modules: int
    torch: str | None
    """What imports torch; None: nothing does."""

    def __str__(self) -> str:
        torch = "no torch" if self.torch is None else f"torch, by {self.torch}"
        return f"{self.seconds:.2f} s, with {self.modules} modules, {torch}"


def weigh(plugin: Plugin) -> Weight:
    """Measure the registration of a plugin in a new Python process.

    Raises:
        AssertionError: it does not load there.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-c", _PROBE, plugin.module, plugin.file]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    expect(
        done.returncode == 0 and bool(done.stdout),
        f"{plugin.module} does not load in a new Python process, which ends with exit code "
        f"{done.returncode}:\n{done.stderr}",
    )
    return Weight(**json.loads(done.stdout))


class RegistrationContract:
    """The contract of the module that an entry point names."""

    plugin: ClassVar[ModuleType | str]
    """The registration module, or its import name."""

    def test_registration(self) -> None:
        """It loads, registers something, imports no torch, and every parameter is described."""
        check_registration(self.plugin)


def check_registration(module: ModuleType | str) -> None:
    """Check a registration module, by itself or by its import name.

    It loads as a plugin of this API version, and registers something or implements a life-cycle
    hook. Neither it nor its config
    models import torch (checked in a new Python process). Each config model has a docstring,
    forbids unknown keys and describes every field. Each import string names a class of its kind.

    Raises:
        AssertionError: the component breaks the contract; the message says how.
    """
    name = module if isinstance(module, str) else module.__name__
    registry = load_registry([EntryPoint(name, name, PROJECT)])
    for plugin in registry.broken:
        raise AssertionError(f"{name} does not load as a plugin: {plugin.error}\n{plugin.detail}")
    (plugin,) = registry.plugins
    check_specs(plugin, registry.specs())
    check_light(plugin, weigh(plugin))


def check_specs(plugin: Plugin, specs: Sequence[ComponentSpec]) -> None:
    """Check what a plugin registers: something, and classes and configs that can be imported.

    Raises:
        AssertionError: it registers nothing and has no life-cycle hook, or a component breaks the
            contract.
    """
    expect(not plugin.empty, f"{plugin.name} registers nothing")
    for spec in specs:
        try:
            config, _ = spec.config_class(), spec.component_class()
        except PluginError as error:
            raise AssertionError(str(error)) from error
        check_config(config)


def check_config(config: type[ComponentConfig]) -> None:
    """Check that a config model has a docstring, forbids unknown keys and describes every field.

    Raises:
        AssertionError: it does not; the message says what is missing.
    """
    name = config.__name__
    expect(bool((config.__dict__.get("__doc__") or "").strip()), f"{name} has no docstring")
    expect(config.model_config.get("extra") == "forbid", f"{name} does not forbid unknown keys")
    for field, info in config.model_fields.items():
        expect(
            bool((info.description or "").strip()),
            f"{name}.{field} has no description; `pae show-plugin` prints it, with units",
        )
    config.model_json_schema()


def check_light(plugin: Plugin, weight: Weight) -> None:
    """Check that nothing of a registration imports torch.

    Raises:
        AssertionError: something does; the message names it.
    """
    expect(
        weight.torch is None,
        f"{plugin.module}: {weight.torch} imports torch, which makes every command slow; keep "
        "configs and hooks in modules without torch, and name components by import string",
    )
