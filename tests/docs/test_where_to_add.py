"""The pages for contributors: each symbol is defined in the file that the page names for it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from doc_blocks import ROOT

PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
SYMBOL = r"`([A-Za-z_]\w*)`"
NAMED = re.compile(rf"{SYMBOL}(?:(?:, {SYMBOL})? or {SYMBOL})? in `([\w/]+\.py)`")


def named_symbols(page: str) -> set[tuple[str, str]]:
    """Pairs of symbol and file from phrases such as ``A`, `B` or `C` in `file.py``."""
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    return {
        (symbol, match.group(4))
        for match in NAMED.finditer(text)
        for symbol in match.groups()[:3]
        if symbol
    }


def defined_in(file: Path) -> set[str]:
    """Names of classes, functions, methods and module-level variables."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


CASES = sorted({pair for page in PAGES for pair in named_symbols(page)})


ADDED = {
    "loss term (regularizer)": "pae_register_regularizers",
    "reconstruction term": "TERMS",
    "encoder": "pae_register_encoders",
    "metric": "_LABELS",
    "solver": "SOLVERS",
    "stage": "_ROWS",
    "launcher": "choose_launcher",
    "command": "_add",
}


@pytest.mark.parametrize(("thing", "symbol"), ADDED.items())
def test_the_table_says_where_each_thing_is_registered(thing: str, symbol: str) -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith(f"| {thing} |"))
    assert f"`{symbol}`" in row


@pytest.mark.parametrize(("symbol", "file"), CASES)
def test_a_named_symbol_is_in_the_named_file(symbol: str, file: str) -> None:
    assert symbol in defined_in(ROOT / file)
