"""What a terminal shows of text that users chose: itself, and nothing that controls it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from pae_framework.cli.output import print_error, print_json, print_table, warn
from pae_framework.errors import DataError, Problem, RecipeError
from pae_framework.system.console import PlainConsole
from pae_framework.system.printing import print_line, printable
from pae_framework.training.progress import ProgressLine

ROOT = Path(__file__).parents[1]
RUFF = ("-m", "ruff", "check", "--select", "T20,TID251")
HOSTILE = {
    "brackets": "runs/a[red]b",
    "closing": "runs/[/x]",
    "link": "[link=https://example.org]x[/link]",
    "emoji": ":smiley:",
    "backslash": "a\\[b]\\",
    "color": "a\x1b[31mb",
    "title": "\x1b]0;title\x07",
    "8-bit": "\x9b2J",
    "return": "good\rbad",
    "backspace": "ab\x08\x08",
    "direction": "a\u202eb",
    "not UTF-8": os.fsdecode(b"a\xffb"),
    "html": "<script>alert(1)</script>",
}
SHOWN = {
    **HOSTILE,
    "color": "a\\x1b[31mb",
    "title": "\\x1b]0;title\\x07",
    "8-bit": "\\x9b2J",
    "return": "good\\rbad",
    "backspace": "ab\\x08\\x08",
    "direction": "a\\u202eb",
    "not UTF-8": "a\\xffb",
}


@pytest.fixture(params=HOSTILE)
def name(request: pytest.FixtureRequest) -> str:
    """A name that a terminal or rich would not show as it is."""
    return HOSTILE[request.param]


@pytest.fixture
def shown(request: pytest.FixtureRequest, name: str) -> str:
    return SHOWN[next(key for key, value in HOSTILE.items() if value == name)]


def console(**options) -> PlainConsole:
    return PlainConsole(file=io.StringIO(), width=80, **options)


def printed(shown_on: PlainConsole) -> str:
    return shown_on.file.getvalue()


def test_known_names(name: str, shown: str):
    assert printable(name) == shown


@given(st.text(st.characters()))
def test_printable_text_can_be_encoded_and_controls_nothing(text: str):
    result = printable(text)
    result.encode()
    assert {unicodedata.category(c) for c in result} & {"Cc", "Cf", "Cs", "Zl", "Zp"} <= {"Cc"}
    assert {c for c in result if unicodedata.category(c) == "Cc"} <= {"\n", "\t"}
    assert printable(result) == result
    if text.isprintable():
        assert result == text


@pytest.mark.parametrize("width", [20, 80])
def test_a_line_on_a_console_is_one_line(name: str, shown: str, width: int):
    log = PlainConsole(file=io.StringIO(), width=width)
    long = "a word and a path/" * 10
    log.print(f"{long} {name}")
    assert printed(log) == f"{long} {shown}\n"


def test_styled_text_and_headings(name: str, shown: str):
    log = console()
    log.print(Text.assemble((printable(name), "bold"), printable(f" failed: {name}")))
    log.rule(name)
    assert printed(log).splitlines() == [f"{shown} failed: {shown}", shown]
    terminal = console(force_terminal=True)
    terminal.rule(name)
    assert shown in printed(terminal)


@pytest.mark.parametrize("as_text", [False, True])
def test_cells_and_titles_of_tables(name: str, shown: str, as_text: bool):
    log, table = console(), Table(title=name)
    table.add_column(name)
    table.add_column("second")
    table.add_row(Text(printable(name)) if as_text else name, "end")
    log.print(table)
    title, _, heading, _, cells, _ = printed(log).splitlines()
    assert shown in title
    assert shown in heading
    assert shown in cells
    assert len(heading) == len(cells)  # the columns are aligned


def test_progress_on_a_terminal_and_in_a_log(name: str, shown: str):
    terminal, log = console(force_terminal=True), console()
    for place in (terminal, log):
        with ProgressLine(name, total=2, console=place) as progress:
            progress.update(1, name)
            progress.update(2, name)
    assert printed(terminal).count(shown) >= 2
    assert f"{shown} 2/2  {shown}" in printed(log)


def test_a_terminal_is_controlled_by_this_project_only():
    log = console(force_terminal=True)
    log.print(Text("\x1b[2Jname", style="bold"))
    with Progress(console=log):
        pass
    assert "\x1b[1m\\x1b[2Jname" in printed(log)
    assert "\x1b[2J" not in printed(log)
    assert "\x1b[?25h" in printed(log)  # the progress bar shows the cursor again


def test_plain_lines_errors_and_warnings(name: str, shown: str, capsys: pytest.CaptureFixture):
    print_line(name)
    warn(name)
    print_error(DataError(f"{name}: damaged"))
    print_error(RecipeError([Problem(f"no folder {name}", path="data.train")]))
    print_table((name, "second"), [(name, "end")])
    out, err = capsys.readouterr()
    assert out.startswith(f"{shown}\n")
    assert out.count(shown) == 3
    assert err.splitlines() == [
        f"warning: {shown}",
        f"error: {shown}: damaged",
        "error: 1 problem with the recipe",
        f"  data.train: no folder {shown}",
    ]


def test_json_is_printable_and_keeps_every_character(name: str, capsys: pytest.CaptureFixture):
    values = {name: [name, "é", "\U000e0001", "line\nbreak"]}
    print_json(values)
    out = capsys.readouterr().out
    assert json.loads(out) == values
    assert "é" in out
    assert all(character.isprintable() for character in out.replace("\n", ""))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "UTF8", "utf-16"])
def test_json_is_valid_in_any_encoding(
    encoding: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding, "backslashreplace"))
    values = {name: ["é", "\u20ac", "\U0001f600", "\U000e0001", "line\nbreak"]}
    print_json(values)
    text = output.getvalue().decode(encoding)
    assert json.loads(text) == values
    assert ("é" in text) is (encoding in ("utf-8", "UTF8"))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_command_names_a_folder_in_any_encoding(tmp_path: Path, encoding: str):
    folder = os.fsencode(tmp_path) + "/é[red]x\x1b[31m".encode() + b"\xff"
    done = subprocess.run(
        [sys.executable, "-m", "pae_framework", "copy", "quickstart", folder + b".yaml"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    accent = {"utf-8": "é", "ascii": "\\xe9"}[encoding]
    assert f"/{accent}[red]x\\x1b[31m\\xff.yaml: copied" in done.stdout.decode(encoding)


@pytest.mark.parametrize(
    "line",
    [
        "print('a path')",
        "import typer\ntyper.echo('a path')",
        "from rich.console import Console",
        "from rich import print as shown",
        "from rich.markup import escape",
    ],
)
def test_ruff_rejects_other_ways_to_print(line: str):
    for folder in ("pae_framework/cli", "plugins/pae_datasets"):
        done = subprocess.run(
            [sys.executable, *RUFF, "--stdin-filename", f"{folder}/new.py", "-"],
            cwd=ROOT,
            input=f"{line}\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stderr
