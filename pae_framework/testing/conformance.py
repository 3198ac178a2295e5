"""Runs the conformance suite on an installed plugin or a file; ``pae check-plugin`` starts it.

It runs in a process of its own, so that a plugin that ends the process or changes it is only a
failure: ``python -m pae_framework.testing.conformance TARGET [KIND:NAME.key=value ...] [--json]``.
"""

from __future__ import annotations

import json
import sys
import unittest
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pae_framework.errors import PaeError, PluginError, UsageError
from pae_framework.plugins import load_registry, with_files
from pae_framework.registry import ComponentSpec, Plugin, Registry, normalized
from pae_framework.system.printing import print_line
from pae_framework.testing.kind_contracts import contract_of
from pae_framework.testing.registration import Weight, check_registration, weigh

Values = Mapping[str, Mapping[str, Any]]
"""Parameters by component (``kind:name``) and key."""


@dataclass(frozen=True)
class Outcome:
    """What one test found."""

    test: str
    state: str
    """``ok``, ``failed`` or ``skipped``."""
    message: str = ""


@dataclass
class Report:
    """What was found about a plugin."""

    plugin: Plugin
    weight: Weight | None = None
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    """Of registration, and of each component by ``kind:name``."""

    @property
    def failed(self) -> list[Outcome]:
        """The tests that failed."""
        return [o for found in self.outcomes.values() for o in found if o.state == "failed"]


def main() -> int:
    """Check the plugin on the command line; returns the exit code."""
    words = [word for word in sys.argv[1:] if word != "--json"]
    as_json = len(words) < len(sys.argv) - 1
    try:
        registry, plugins = _chosen(words[0])
        reports = [_examine(plugin, registry, _values(words[1:])) for plugin in plugins]
    except PaeError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    if as_json:
        print_line(json.dumps([_plain(report) for report in reports], indent=2))
    else:
        for report in reports:
            _print(report)
    return PluginError.exit_code if any(report.failed for report in reports) else 0


def _chosen(target: str) -> tuple[Registry, list[Plugin]]:
    path = Path(target)
    if path.suffix == ".py" or path.is_file():
        if not path.is_file():
            raise UsageError(f"no such file: {path}")
        registry = with_files(Registry(), [path])
        return registry, registry.plugins
    registry = load_registry()
    wanted = normalized(target)
    found = [p for p in registry.plugins if wanted in (normalized(p.distribution), p.name)]
    if not found:
        names = sorted({plugin.distribution for plugin in registry.plugins})
        raise UsageError(
            f"no installed distribution {target!r} has plugins, and there is no such file; "
            f"distributions with plugins: {', '.join(names)}"
        )
    return registry, found


def _values(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {}
    for word in words:
        path, equals, text = word.partition("=")
        reference, dot, key = path.rpartition(".")
        if not (equals and dot and ":" in reference):
            raise UsageError(f"{word!r} is not KIND:NAME.key=value")
        try:
            values.setdefault(reference, {})[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{word!r}: the value is no YAML: {error}") from error
    return values


def _examine(plugin: Plugin, registry: Registry, values: Values) -> Report:
    report = Report(plugin)
    if plugin.error:
        report.outcomes["registration"] = [Outcome("registration", "failed", plugin.error)]
        return report
    specs = [spec for spec in registry.specs() if spec.plugin == plugin]
    unknown = values.keys() - {spec.reference for spec in specs}
    if unknown and not plugin.built_in:
        known = ", ".join(spec.reference for spec in specs) or "nothing"
        raise UsageError(f"{plugin.name} has no {sorted(unknown)[0]}; it registers {known}")
    report.weight = weigh(plugin)
    if not plugin.file:
        report.outcomes["registration"] = [
            _outcome("registration", lambda: check_registration(plugin.module))
        ]
    for spec in specs:
        report.outcomes[spec.reference] = list(_tests(spec, values.get(spec.reference, {})))
    return report


def _tests(spec: ComponentSpec, values: Mapping[str, Any]) -> Iterator[Outcome]:
    try:
        component, config_class = spec.component_class(), spec.config_class()
        config = config_class.model_validate(values)
        contract = contract_of(spec.kind, component, config if values else config.smoke())
    except ValidationError as error:
        advice = "; ".join(
            f"{spec.reference}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
        )
        message = f"the config cannot be made: {advice}. Give values as KIND:NAME.key=value"
        yield Outcome("config", "failed", message)
        return
    except Exception as error:
        yield Outcome("import", "failed", str(error))
        return
    for name in contract.names_of_tests():
        yield _outcome(name.removeprefix("test_"), getattr(contract, name))


def _outcome(name: str, test: Any) -> Outcome:
    try:
        test()
    except unittest.SkipTest as reason:
        return Outcome(name, "skipped", str(reason))
    except AssertionError as error:
        return Outcome(name, "failed", str(error))
    except Exception as error:
        return Outcome(name, "failed", f"{type(error).__name__}: {error}")
    return Outcome(name, "ok")


def _plain(report: Report) -> dict[str, Any]:
    return {
        "plugin": asdict(report.plugin),
        "registration": None if report.weight is None else asdict(report.weight),
        "tests": {
            subject: [asdict(outcome) for outcome in found]
            for subject, found in report.outcomes.items()
        },
        "failed": len(report.failed),
    }


def _print(report: Report) -> None:
    print_line(f"{report.plugin.name} ({report.plugin.source})")
    if report.weight is not None:
        print_line(f"  registers in {report.weight}")
    for subject, found in report.outcomes.items():
        print_line(f"{subject}")
        for outcome in found:
            text = f": {outcome.message}" if outcome.message else ""
            print_line(f"  {outcome.state:<7} {outcome.test}{text}")
    count = sum(len(found) for found in report.outcomes.values())
    print_line(f"{len(report.failed)} of {count} tests failed" if report.failed else "all passed")


if __name__ == "__main__":
    sys.exit(main())
