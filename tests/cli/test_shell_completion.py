"""Shell completion as bash requests it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pae_framework.cli.shell_completion import complete_recipe


def completions(line: str, words: int) -> list[str]:
    """Completions of the last word of a command line."""
    command = [sys.executable, "-c", "from pae_framework.cli.app import main; main()"]
    env = {**os.environ, "_PAE_COMPLETE": "complete_bash", "COMP_WORDS": line}
    found = subprocess.run(
        command, env={**env, "COMP_CWORD": str(words - 1)}, capture_output=True, text=True
    )
    assert not found.stderr, found.stderr
    return found.stdout.split()


@pytest.mark.parametrize(
    ("line", "words", "expected"),
    [
        ("pae run quicks", 3, ["quickstart"]),
        ("pae run quickstart tokenizer.bott", 4, ["tokenizer.bottleneck."]),
        # bash cuts words at the equals sign
        ("pae run quickstart tokenizer.bottleneck.use = sp", 6, ["sphere"]),
        ("pae run no_such_recipe tokenizer.bott", 4, []),
    ],
)
def test_completions_in_bash(line, words, expected):
    assert completions(line, words) == expected


def test_recipe_files_are_completed_in_any_folder(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    for name in ("mine.yaml", "mine.txt", "other.yaml", "mine/deep.yaml"):
        (tmp_path / name).touch()
    assert complete_recipe(f"{tmp_path}/mi") == [f"{tmp_path}/mine.yaml", f"{tmp_path}/mine/"]
    assert complete_recipe(f"{tmp_path}/mine/") == [f"{tmp_path}/mine/deep.yaml"]
    assert complete_recipe(f"{tmp_path}/nowhere/") == []
    monkeypatch.chdir(tmp_path)
    assert complete_recipe("mi") == ["mine.yaml", "mine/"]
    assert complete_recipe("mine/d") == ["mine/deep.yaml"]
