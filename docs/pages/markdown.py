"""Markdown helpers: tables, code, and docstrings as prose."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`~?(?:[\w.]*\.)?(\w+)`")
_SECTION = re.compile(r"(Args|Returns|Raises):")
_ENTRY = re.compile(r"([\w.*]+): (.+)")


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells hold Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def code(text: str) -> str:
    """Text as inline code."""
    return f"`{text}`"


def block(text: str, language: str) -> str:
    """Text as a code block."""
    return f"```{language}\n{text.strip()}\n```"


def inline(text: str) -> str:
    """Docstring text on one line: ``x`` and roles become `x`; ``<`` is escaped."""
    words = _ROLE.sub(r"`\1`", " ".join(text.split())).replace("``", "`")
    parts = words.split("`")
    parts[::2] = [part.replace("<", "\\<") for part in parts[::2]]
    return "`".join(parts)


def prose(docstring: str) -> str:
    """A docstring as Markdown: paragraphs, ``::`` blocks, and sections as sentences."""
    paragraphs = docstring.strip().split("\n\n")
    parts: list[str] = []
    while paragraphs:
        text = paragraphs.pop(0).rstrip()
        parts.append(_paragraph(text.removesuffix(":") if text.endswith("::") else text))
        literal: list[str] = []
        while text.endswith("::") and paragraphs and paragraphs[0].lstrip("\n").startswith("    "):
            literal.append(paragraphs.pop(0))
        if literal:
            parts.append(block(textwrap.dedent("\n\n".join(literal)), "python"))
    return "\n\n".join(parts)


def _paragraph(text: str) -> str:
    heading, _, rest = text.partition("\n")
    section = _SECTION.fullmatch(heading.strip())
    return inline(text) if section is None else _section(section[1], rest)


def _section(name: str, text: str) -> str:
    """A section such as ``Raises:``, each entry as a sentence."""
    if name == "Returns":
        return f"Returns {inline(text)}"
    entries: list[str] = []
    for line in textwrap.dedent(text).split("\n"):
        if line.startswith(" "):
            entries[-1] += f" {line.strip()}"
        else:
            entries.append(line)
    found = [match for entry in entries if (match := _ENTRY.fullmatch(entry)) is not None]
    before = "Raises " if name == "Raises" else ""
    return " ".join(f"{before}{code(match[1])}: {inline(match[2])}" for match in found)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
