"""docs/reference/messages.md: every message, so that a change of wording shows in one diff."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pae_framework
from pages import wrong
from pages.markdown import block, code

_INTRODUCTION = """\
# Messages

This page shows what the program prints when something is wrong. It has three parts:

- [Recipes](#recipes): errors of wrong recipes;
- [Commands](#commands): errors of wrong command lines;
- [In the source](#in-the-source): the text of every error, warning and note, by module. `<...>`
  stands for a value.

Every wrong recipe below is this valid one with a change:"""
_ENGINE = Path(pae_framework.__file__).parent
_MESSAGES = (
    *("Error", "Problem", "Inconsistency", "_problem", "refuse", "_stop", "expect"),
    *("warn", "warning", "print", "echo", "notes.append"),
)
"""Endings of the names of classes and functions that take a message."""
_TEXTS = ("message", "hint", "fault", "why", "remedy", "advice")
"""Names of variables that hold a message or part of one."""
_FILLED = re.compile(r"<[^<>]*>")


def page() -> str:
    """The page."""
    blocks = [_INTRODUCTION, block(wrong.RECIPE, "yaml"), "## Recipes"]
    with _folder():
        for subject, cases in wrong.OVERRIDES.items():
            blocks.append(f"### {subject}")
            blocks.append(_session(["check", "small.yaml", *overrides] for overrides in cases))
        blocks.append("### Files")
        for name, text in wrong.TEXTS.items():
            Path("wrong.yaml").write_text(text, encoding="utf-8")
            blocks.append(f"A recipe that {name}:\n\n{_session([['check', 'wrong.yaml']])}")
        blocks.append("## Commands")
        for command, lines in wrong.COMMANDS.items():
            blocks += [f"### {command}", _session(lines)]
    return "\n\n".join([*blocks, "## In the source", *_source()])


@contextmanager
def _folder() -> Iterator[None]:
    """Work in a folder with nothing but the recipes, without colours, 100 columns wide."""
    before = Path.cwd()
    environment = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, environment):
        os.chdir(folder)
        try:
            prepare()
            yield
        finally:
            os.chdir(before)


def prepare() -> None:
    """Write the files that the command lines name."""
    sweep = "extends: small.yaml\nname: sweep\nsweep: {variants: {one: {data.flip: true}}}\n"
    Path("small.yaml").write_text(wrong.RECIPE, encoding="utf-8")
    Path("sweep.yaml").write_text(sweep, encoding="utf-8")
    for folder in ("folder", "other"):
        Path(folder).mkdir()
    Path("folder/notes.txt").touch()
    Path("other/run.json").write_text('{"name": "other", "plan": []}', encoding="utf-8")


def _session(lines: Iterable[list[str]]) -> str:
    """Command lines, each with its output."""
    return block("\n\n".join(map(_output, lines)), "text")


def _output(arguments: list[str]) -> str:
    from pae_framework.cli.app import main

    out = io.StringIO()
    with (
        patch.object(sys, "argv", ["pae", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        contextlib.suppress(SystemExit),
    ):
        main()
    words = " ".join(f"'{word}'" if set(word) & set(" {}[]") else word for word in arguments)
    printed = "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())
    return f"$ pae {words}\n{printed}"


# --- from the source ------------------------------------------------------------------------------


def _source() -> Iterator[str]:
    """Every message, by module."""
    plugins = [_ENGINE.parent / "plugins", _ENGINE.parent]
    root = next(folder for folder in plugins if (folder / "pae_datasets").is_dir())
    for package in (_ENGINE, *sorted(root.glob("pae_*"))):
        if package == _ENGINE or package.name != _ENGINE.name:
            for path in sorted(package.rglob("*.py")):
                if texts := _texts(path):
                    name = path.relative_to(package.parent).as_posix()
                    lines = "\n".join(dict.fromkeys(texts))
                    yield f"### {code(name)}\n\n{block(lines, 'text')}"


def _texts(path: Path) -> list[str]:
    """The messages in a file, in order."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    messages = [
        (value.lineno, value.col_offset, " ".join(_text(value).split()))
        for node in ast.walk(tree)
        for value in _messages(node)
    ]
    return [text for _, _, text in sorted(messages) if " " in _FILLED.sub("", text).strip()]


def _messages(node: ast.AST) -> Iterator[ast.expr]:
    """The messages that a statement contains."""
    if isinstance(node, ast.Call) and _name(node.func).endswith(_MESSAGES):
        values = [*node.args, *(word.value for word in node.keywords)]
        yield from (value for value in values if isinstance(value, _WRITTEN))
    elif isinstance(node, ast.Assign) and isinstance(node.value, _WRITTEN):
        if isinstance(node.targets[0], ast.Name) and node.targets[0].id in _TEXTS:
            yield node.value
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr | ast.Constant):
        words = _FILLED.sub("", _text(node.value)).split()
        yield from [node.value] if len(words) > 3 else []


_WRITTEN = (ast.JoinedStr, ast.Constant, ast.BinOp, ast.IfExp)


def _name(function: ast.expr) -> str:
    return ast.unparse(function)


def _text(value: Any) -> str:
    """The text of a string in the source; <...> stands for a value."""
    if isinstance(value, ast.Constant):
        return value.value if isinstance(value.value, str) else ""
    if isinstance(value, ast.JoinedStr):
        return "".join(map(_text, value.values))
    if isinstance(value, ast.FormattedValue):
        return f"<{ast.unparse(value.value)}>"
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _text(value.left) + _text(value.right)
    if isinstance(value, ast.IfExp):
        return f"{_text(value.body)} | {_text(value.orelse)}"
    return f"<{ast.unparse(value)}>"
