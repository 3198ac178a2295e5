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
from pae_framework import errors
from pages import wrong
from pages.markdown import block, code

_INTRODUCTION = """\
# Messages

This page shows what the program prints when something is wrong. It has three parts:

- [Recipes](#recipes): errors of wrong recipes;
- [Commands](#commands): errors of wrong command lines;
- [In the source](#in-the-source): the messages that the source spells out, by module. `<name>`
  stands for a value, `(A | B)` for alternatives and `[A]` for text that can be absent. Messages of
  other libraries are not listed.

Every wrong recipe below is this valid one with a change:"""
_ENGINE = Path(pae_framework.__file__).parent
_MESSAGES = (
    *("Error", "Problem", "Inconsistency", "_problem", "refuse", "_stop", "expect"),
    *("warn", "warning", "print", "echo", "notes.append"),
)
"""Endings of the names of classes and functions that take a message."""
_ERRORS = {name for name in vars(errors) if name.endswith("Error")}
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
    """Work in a folder with nothing but the recipes, without colors, 100 columns wide."""
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
    """The messages in a file, in order.

    Raises:
        ValueError: a ``raise`` passes a variable whose texts were not found.
    """
    found: dict[tuple[int, int], str] = {}
    for scope in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(scope, ast.Module | ast.FunctionDef):
            variables = _assigned_texts(scope)
            for node in ast.walk(scope):
                for value in _messages(node, variables):
                    # An inner function comes after the outer one: its variables count.
                    found[value.lineno, value.col_offset] = _text(value, variables)
                if isinstance(node, ast.Raise) and isinstance(scope, ast.FunctionDef):
                    _check_raise(node, scope, variables, path)
    texts = (" ".join(text.split()) for _, text in sorted(found.items()))
    return [text for text in texts if " " in _FILLED.sub("", text).strip()]


_WRITTEN = (ast.JoinedStr, ast.Constant, ast.BinOp, ast.IfExp)
_Texts = dict[str, list[ast.expr]]
"""The texts assigned to each variable of a function."""


def _assigned_texts(scope: ast.AST) -> _Texts:
    texts: _Texts = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            pairs: list[tuple[ast.expr, ast.expr]] = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                # Not strict: there may be a starred expression.
                pairs = list(zip(target.elts, value.elts, strict=False))
            for name, text in pairs:
                if isinstance(name, ast.Name) and isinstance(text, _WRITTEN) and _words(text):
                    texts.setdefault(name.id, []).append(text)
    return texts


def _words(value: ast.expr) -> list[str]:
    return _FILLED.sub("", _text(value, {})).split()


def _messages(node: ast.AST, variables: _Texts) -> Iterator[ast.expr]:
    """The messages that a statement contains."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(_MESSAGES):
        for value in (*node.args, *(word.value for word in node.keywords)):
            if isinstance(value, ast.Name):
                yield from variables.get(value.id, [])
            elif isinstance(value, _WRITTEN):
                yield value
    elif isinstance(node, ast.Return):
        for text in node.value.elts if isinstance(node.value, ast.Tuple) else (node.value,):
            if isinstance(text, ast.JoinedStr | ast.Constant) and len(_words(text)) > 3:
                yield text


def _check_raise(node: ast.Raise, scope: ast.FunctionDef, variables: _Texts, path: Path) -> None:
    """Require that the text of an error of ours is found, or comes from another function."""
    if not isinstance(node.exc, ast.Call) or ast.unparse(node.exc.func) not in _ERRORS:
        return
    arguments = {argument.arg for argument in ast.walk(scope) if isinstance(argument, ast.arg)}
    results = {
        ast.unparse(target)
        for statement in ast.walk(scope)
        if isinstance(statement, ast.Assign | ast.NamedExpr | ast.AnnAssign)
        and not isinstance(statement.value, ast.Constant | ast.JoinedStr)
        for target in (
            statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        )
    }
    for value in node.exc.args:
        if isinstance(value, ast.Name) and value.id not in {*variables, *arguments, *results}:
            raise ValueError(f"{path}:{node.lineno}: found no text for `{ast.unparse(node)}`")


def _text(value: Any, variables: _Texts) -> str:
    """The text of a string in the source, with placeholders for values."""
    if isinstance(value, ast.Constant):
        return value.value if isinstance(value.value, str) else ""
    if isinstance(value, ast.JoinedStr):
        return "".join(_text(part, variables) for part in value.values)
    if isinstance(value, ast.FormattedValue):
        return _text(value.value, variables)
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _text(value.left, variables) + _text(value.right, variables)
    if isinstance(value, ast.IfExp):
        return _alternatives([value.body, value.orelse], variables)
    if isinstance(value, ast.Name) and value.id in variables:
        return _alternatives(variables[value.id], {})
    return f"<{_value_name(value)}>"


def _alternatives(values: list[ast.expr], variables: _Texts) -> str:
    texts = list(dict.fromkeys(_text(value, variables) for value in values))
    if "" in texts:
        return f"[{' | '.join(filter(None, texts))}]"
    return texts[0] if len(texts) == 1 else f"({' | '.join(texts)})"


def _value_name(value: ast.expr) -> str:
    """A name for the value of an expression: its last variable or attribute."""
    match value:
        case ast.Name(id=name) | ast.Attribute(attr=name) if not name.startswith("__"):
            return name.strip("_").replace("_", " ").lower()
        case ast.Call(func=ast.Name(id="len"), args=[argument]):
            return f"number of {_value_name(argument)}"
        case ast.Call(args=[*_, argument]) if not isinstance(argument, ast.Constant):
            return _value_name(argument)
        case ast.Call(func=function):
            return _value_name(function)
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner):
            return _value_name(inner)
        case ast.BinOp(left=inner) | ast.GeneratorExp(elt=inner) | ast.ListComp(elt=inner):
            return _value_name(inner)
    return "value"
