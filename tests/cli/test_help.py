"""Help of every command at 80 columns: no line is longer, none is broken twice."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

from pae_framework.cli.app import GROUPS, app
from pae_framework.testing.pytest import Pae


def commands() -> list[tuple[str, ...]]:
    """The words of every command and group."""
    root: Any = typer.main.get_command(app)
    found: list[tuple[str, ...]] = [()]
    for name, command in root.commands.items():
        found.append((name,))
        found.extend((name, inner) for inner in getattr(command, "commands", ()))
    return found


COMMANDS = commands()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(("pae", *words)))
def test_help_is_plain_text_of_80_columns(
    pae: Pae, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = pae(*words, "--help").ok().out
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"[\u2500-\u257f\x1b]", shown)  # boxes and colors
    assert "..." not in re.sub(r"\S\.\.\.|\]\.\.\.", "", shown)  # a summary that is cut
    if "\n  Example" in shown:
        assert re.search(rf"^ +pae {' '.join(words)}\b", shown, re.MULTILINE)


def test_every_command_is_in_exactly_one_group() -> None:
    root: Any = typer.main.get_command(app)
    named = [
        x if isinstance(x, str) else x.__name__.replace("_", "-")
        for commands in GROUPS.values()
        for x in commands
    ]
    assert sorted(named) == sorted(root.commands)


METAVARS = {
    "recipe": {"RECIPE"},
    "run": {"RUN"},
    "stage": {"STAGE"},
    "again": {"STAGE", None},
    "run_dir": {"FOLDER"},
    "processes": {"N|auto"},
    "seed": {"N"},
    "steps": {"N"},
    "plugin": {"FILE", "DIST|FILE"},
    "overrides": {"KEY.PATH=VALUE"},
}


@pytest.mark.parametrize("words", [w for w in COMMANDS if w], ids=" ".join)
def test_the_same_word_stands_for_the_same_kind_of_value(words: tuple[str, ...]) -> None:
    command: Any = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    for parameter in command.params:
        assert parameter.metavar in METAVARS.get(parameter.name, {parameter.metavar})
