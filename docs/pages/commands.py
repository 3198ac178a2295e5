"""docs/reference/commands.md: every command, generated from its function."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from pae_framework.cli import app as application
from pae_framework.errors import EXIT_CODES
from pages.markdown import block, code, inline, prose, table

_WORDS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", str: "TEXT", Path: "PATH"}
_EXAMPLES = re.compile(r"\n\s*Examples?:\n(.*)", re.DOTALL)
Function = Callable[..., Any]


def page() -> str:
    """The page."""
    commands = _commands()
    overall = application.app.registered_callback
    assert overall is not None
    assert overall.callback is not None
    rows = [
        (f"[`pae {name}`](#pae-{name.replace(' ', '-')})", _summary(call))
        for name, call in commands.items()
    ]
    return "\n\n".join(
        [
            "# Commands",
            _summary(overall.callback),
            "`pae COMMAND --help` prints the same text.",
            table(("command", ""), rows),
            "Options that go before the command:",
            _options(overall.callback, None),
            "## Exit codes",
            table(("code", ""), ((code(str(number)), text) for number, text in EXIT_CODES.items())),
            "A run that is stopped can be resumed: the message names the command. A reader of the "
            "output that goes away, as in `pae show RECIPE | head`, changes nothing.",
            *(_command(name, call) for name, call in commands.items()),
        ]
    )


def _commands() -> dict[str, Function]:
    """Every command by the words after `pae`; commands of a group have two."""
    found = {info.name: info.callback for info in application.app.registered_commands}
    for group in application.app.registered_groups:
        assert group.typer_instance is not None
        for info in group.typer_instance.registered_commands:
            found[f"{group.name} {info.name}"] = info.callback
    return {name: call for name, call in found.items() if name and call}


def _command(name: str, function: Function) -> str:
    text = inspect.getdoc(function) or ""
    examples = _EXAMPLES.search(text)
    arguments = [found for found in _parameters(function) if isinstance(found.info, ArgumentInfo)]
    usage = " ".join([f"pae {name} [OPTIONS]", *(found.usage for found in arguments)])
    parts = [f"## pae {name}", block(usage, "text")]
    parts.append(prose(text[: examples.start()] if examples else text))
    if arguments:
        rows = [(code(found.metavar), inline(found.info.help or "")) for found in arguments]
        parts.append(table(("argument", ""), rows))
    if options := _options(function, name):
        parts.append(options)
    if examples:
        lines = [line.strip() for line in examples[1].splitlines() if line.strip()]
        parts.append(block("\n".join(lines), "sh"))
    return "\n\n".join(parts)


class _Parameter:
    """One parameter of a command's function: its name, type, default and typer info."""

    def __init__(self, name: str, hint: Any, default: Any, info: ArgumentInfo | OptionInfo):
        self.name, self.default, self.info = name, default, info
        kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
        # `list[str] | None` and `list[str]` take several values; `str | None` takes one.
        several = [kind for kind in (hint, *kinds) if get_origin(kind) is list]
        self.several = bool(several)
        self.type = get_args(several[0])[0] if several else kinds[0]

    @property
    def metavar(self) -> str:
        """The placeholder of an argument."""
        return self.info.metavar or self.name.upper()

    @property
    def usage(self) -> str:
        """An argument in the usage line."""
        required = self.default is inspect.Parameter.empty
        word = self.metavar if required else f"[{self.metavar}]"
        return f"{word}..." if self.several else word


def _parameters(function: Function) -> list[_Parameter]:
    defaults = inspect.signature(function).parameters
    return [
        _Parameter(name, get_args(hint)[0], defaults[name].default, info)
        for name, hint in get_type_hints(function, include_extras=True).items()
        for info in get_args(hint)[1:]
        if isinstance(info, ArgumentInfo | OptionInfo)
    ]


def _options(function: Function, command: str | None) -> str:
    """A table of a command's options, or of those before the command."""
    parsed: Any = typer.main.get_command(application.app)
    for word in (command or "").split():
        parsed = parsed.commands[word]
    spelled = {parameter.name: ", ".join(parameter.opts) for parameter in parsed.params}
    rows = []
    for found in _parameters(function):
        if isinstance(found.info, OptionInfo):
            word = found.info.metavar or ("" if found.type is bool else _word(found.type))
            value = f" {word}" if word else ""
            default = "" if found.default in (None, False) else code(str(found.default))
            if found.default is inspect.Parameter.empty:
                default = "required"
            rows.append((code(spelled[found.name] + value), default, inline(found.info.help or "")))
    return table(("option", "default", ""), rows) if rows else ""


def _word(kind: Any) -> str:
    """The placeholder of an option's value: a word, or its choices."""
    return _WORDS[kind] if kind in _WORDS else "|".join(choice.value for choice in kind)


def _summary(function: Function) -> str:
    return inline((inspect.getdoc(function) or "").partition("\n")[0])
