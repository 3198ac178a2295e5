"""The contract of registration modules: what a plugin's entry point names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

from pae_framework.config import ComponentConfig
from pae_framework.hookspecs import PROJECT
from pae_framework.kinds import KINDS
from pae_framework.plugins import load_registry
from pae_framework.registry import ComponentSpec
from pae_framework.testing.expect import expect

_PROBE = """
import json, sys
from importlib.metadata import EntryPoint
from pae_framework.kinds import KINDS
from pae_framework.plugins import load_registry
def torch_came_with(what):
    if "torch" in sys.modules:
        print(json.dumps(what))
        sys.exit()
registry = load_registry([EntryPoint(sys.argv[1], sys.argv[1], "pae_framework")])
torch_came_with("registering")
for spec in registry.specs():
    spec.config_class()
    torch_came_with("the config " + spec.config)
print("null")
"""


def check_registration(module: ModuleType | str) -> None:
    """Check a registration module, by itself or by its import name.

    It loads as a plugin of this API version and registers something; neither it nor its config
    models import torch (tried in a new Python); each config model has a docstring, forbids unknown
    keys and describes every field; each import string leads to a class of its kind.

    Raises:
        AssertionError: says what the contract is and what was found.
    """
    name = module if isinstance(module, str) else module.__name__
    registry = load_registry([EntryPoint(name, name, PROJECT)])
    for plugin in registry.broken:
        raise AssertionError(f"{name} does not load as a plugin: {plugin.error}\n{plugin.detail}")
    specs = [spec for spec in registry.specs() if spec.plugin.name == name]
    expect(bool(specs), f"{name} registers nothing: are its hooks marked with @hookimpl?")
    for spec in specs:
        _check_strings(spec)
        _check_config(spec.config_class())
    _check_light(name)


def _check_strings(spec: ComponentSpec) -> None:
    kind = KINDS[spec.kind]
    config_base, component_base = kind.config_class(), kind.contract_class()
    one_line = bool(spec.summary.strip()) and "\n" not in spec.summary
    expect(one_line, f"the summary of {spec.reference} is {spec.summary!r}, not one line")
    config, component = spec.config_class(), spec.component_class()
    found, wanted = spec.config, config_base.__name__
    expect(issubclass(config, config_base), f"{spec.reference}: {found} is no {wanted}")
    found, wanted = spec.target, component_base.__name__
    expect(issubclass(component, component_base), f"{spec.reference}: {found} is no {wanted}")


def _check_config(config: type[ComponentConfig]) -> None:
    name = config.__name__
    expect(bool((config.__dict__.get("__doc__") or "").strip()), f"{name} has no docstring")
    expect(config.model_config.get("extra") == "forbid", f"{name} does not forbid unknown keys")
    for field, info in config.model_fields.items():
        expect(
            bool((info.description or "").strip()),
            f"{name}.{field} has no description; `pae show-plugin` prints it, units belong in it",
        )
    config.model_json_schema()


def _check_light(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _PROBE, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"in a new Python, {name} does not load:\n{done.stderr}")
    culprit = json.loads(done.stdout)
    expect(
        culprit is None,
        f"{name}: {culprit} imports torch. Commands that only look at plugins must answer at once: "
        "keep configs and hooks in modules without torch and name components by import string",
    )
