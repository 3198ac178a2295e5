"""Runs the conformance suite on an installed plugin or a file; ``pae check-plugin`` starts it.

It runs in a process of its own, so that a plugin that ends the process or changes it is only a
failure: ``python -m pae_framework.testing.conformance TARGET [KIND:NAME.key=value ...] [--json]
[--image-size N] [--grid N]``.
Standard output holds the report alone, or what is wrong with the command; what the plugin prints
goes to stderr.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import unittest
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pae_framework.errors import PaeError, PluginError, UsageError
from pae_framework.plugins import load_registry, module_of, with_files
from pae_framework.recipe.yaml_source import yaml_reason
from pae_framework.registry import ComponentSpec, Plugin, Registry, normalized
from pae_framework.system.contained import end_process, lasting_threads
from pae_framework.system.printing import printable
from pae_framework.testing.expect import expect_none
from pae_framework.testing.kind_contracts import contract_of
from pae_framework.testing.registration import Weight, check_light, check_specs, weigh
from pae_framework.testing.trackers import check_follower

SCHEMA = "check-plugin/1"

Values = Mapping[str, Mapping[str, Any]]
"""Parameters by component (``kind:name``) and key."""
Sizes = Mapping[str, Sequence[int]]
"""Sizes to test at, by the attribute of the contracts that they replace."""
SIZES = {"--image-size": "image_sizes", "--grid": "grids"}
"""Attributes of the contracts by the option that sets them."""


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
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        try:
            reports, as_json = _reports(sys.argv[1:])
        except UsageError as error:
            answer.write(printable(str(error)))
            return error.exit_code
        answer.write(_as_json(reports) if as_json else printable("".join(map(_text, reports))))
    return PluginError.exit_code if any(report.failed for report in reports) else 0


def _reports(arguments: Sequence[str]) -> tuple[list[Report], bool]:
    """What is reported, and whether as JSON."""
    parser = ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("values", nargs="*")
    parser.add_argument("--json", action="store_true")
    for option, attribute in SIZES.items():
        parser.add_argument(option, dest=attribute, type=int, action="append")
    chosen = parser.parse_args(arguments)
    sizes = {name: found for name in SIZES.values() if (found := getattr(chosen, name))}
    registry, plugins = _chosen(chosen.target)
    values = _values(chosen.values)
    components = {plugin: _specs(plugin, registry) for plugin in plugins}
    _require_known(values, chosen.target, components)
    reports = [_examine(plugin, specs, values, sizes) for plugin, specs in components.items()]
    return reports, chosen.json


def _specs(plugin: Plugin, registry: Registry) -> list[ComponentSpec]:
    return [spec for spec in registry.specs() if spec.plugin == plugin]


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
        if (path / "pyproject.toml").is_file():
            raise UsageError(
                f"no installed distribution {target!r} has plugins; install the one in this "
                f"folder first: pip install -e {shlex.quote(target)}"
            )
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
            raise UsageError(f"{word!r}: the value is no YAML: {yaml_reason(error)}") from error
    return values


def _require_known(
    values: Values, target: str, components: Mapping[Plugin, Sequence[ComponentSpec]]
) -> None:
    """Values are for components that load; those of a broken plugin are not known."""
    known = [spec.reference for specs in components.values() for spec in specs]
    unknown = sorted(values.keys() - set(known))
    if unknown and not any(plugin.error for plugin in components):
        raise UsageError(
            f"{target} has no {unknown[0]}; it registers {', '.join(known) or 'nothing'}"
        )


def _examine(
    plugin: Plugin, specs: Sequence[ComponentSpec], values: Values, sizes: Sizes
) -> Report:
    report = Report(plugin)
    report.outcomes["registration"] = _with_threads(_registration_tests(report, specs))
    if plugin.follows:
        report.outcomes["life-cycle hooks"] = _with_threads(_follower_tests(plugin))
    for spec in specs:
        tests = _tests(spec, values.get(spec.reference, {}), sizes)
        report.outcomes[spec.reference] = _with_threads(tests)
    return report


def _with_threads(tests: Iterator[Outcome]) -> list[Outcome]:
    """Run tests, and add a failure for each thread that they leave and that Python waits for."""
    before = set(threading.enumerate())
    try:
        outcomes = list(tests)
    finally:
        faults = lasting_threads(before)
    return [*outcomes, *(Outcome("threads", "failed", fault) for fault in faults)]


def _check_registration(report: Report, specs: Sequence[ComponentSpec]) -> str:
    """Check what a plugin registers, and weigh it; returns what to say about a plugin that passes.

    One file that holds its components may import torch.
    """
    plugin = report.plugin
    expect_none(plugin.error)
    report.weight = weigh(plugin)
    report.plugin = replace(plugin, heavy=report.weight.torch is not None)
    check_specs(plugin, specs)
    if not plugin.file:
        check_light(plugin, report.weight)
    elif report.weight.torch is not None:
        return (
            f"heavy: {report.weight.torch} imports torch, which makes every command that takes "
            "the file slow; a package with its configs in modules without torch is not"
        )
    return ""


def _registration_tests(report: Report, specs: Sequence[ComponentSpec]) -> Iterator[Outcome]:
    yield _outcome("registration", lambda: _check_registration(report, specs))


def _follower_tests(plugin: Plugin) -> Iterator[Outcome]:
    yield _outcome("contract", lambda: check_follower(lambda: module_of(plugin)))


def _tests(spec: ComponentSpec, values: Mapping[str, Any], sizes: Sizes) -> Iterator[Outcome]:
    try:
        component, config_class = spec.component_class(), spec.config_class()
        config = config_class.model_validate(values)
        contract = contract_of(spec.kind, component, config if values else config.smoke(), sizes)
    except ValidationError as error:
        advice = "; ".join(
            f"{spec.reference}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()
        )
        message = f"the config cannot be made: {advice}. Give values as KIND:NAME.key=value"
        yield Outcome("config", "failed", message)
        return
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
        yield Outcome("import", "failed", _described(error))
        return
    for name in contract.names_of_tests():
        yield _outcome(name.removeprefix("test_"), getattr(contract, name))


def _outcome(name: str, test: Callable[[], str | None]) -> Outcome:
    """What a test found; it may return what to say about success."""
    try:
        note = test()
    except unittest.SkipTest as reason:
        return Outcome(name, "skipped", str(reason))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, too
        return Outcome(name, "failed", _described(error))
    return Outcome(name, "ok", note or "")


def _described(error: BaseException) -> str:
    if isinstance(error, AssertionError | PaeError) and str(error):
        return str(error)
    if isinstance(error, SystemExit):
        return f"it ends the process, by SystemExit({error.code!r}); raise an error that says why"
    return f"{type(error).__name__}: {error}"


def _as_json(reports: Sequence[Report]) -> str:
    found = {"schema": SCHEMA, "plugins": [_plain(report) for report in reports]}
    return json.dumps(found, indent=2) + "\n"


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


def _text(report: Report) -> str:
    lines = [f"{report.plugin.name} ({report.plugin.source})"]
    if report.weight is not None:
        lines.append(f"  registers in {report.weight}")
    for subject, found in report.outcomes.items():
        lines.append(subject)
        for outcome in found:
            text = f": {outcome.message}" if outcome.message else ""
            lines.append(f"  {outcome.state:<7} {outcome.test}{text}")
    count = sum(len(found) for found in report.outcomes.values())
    lines.append(f"{len(report.failed)} of {count} tests failed" if report.failed else "all passed")
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    try:
        end_process(main())
    except KeyboardInterrupt:  # raised by a component, too; `pae check-plugin` says so
        end_process(128 + signal.SIGINT)
