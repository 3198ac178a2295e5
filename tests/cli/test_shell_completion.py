"""Shell completion as bash requests it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer import _completion_shared

from pae_framework.cli.app import app
from pae_framework.cli.shell_completion import (
    complete_recipe,
    complete_run,
    without_trailing_blank,
)
from pae_framework.testing.pytest import Pae, run_process


def request(line: str, words: int) -> dict[str, str]:
    """The environment in which bash asks for completions of the last word of a command line."""
    return {"_PAE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(words - 1)}


@pytest.mark.parametrize(
    ("line", "words", "expected"),
    [
        ("pae run quicks", 3, ["quickstart"]),
        ("pae run quickstart tokenizer.bott", 4, ["tokenizer.bottleneck."]),
        # bash cuts words at the equals sign
        ("pae run quickstart tokenizer.bottleneck.use = sp", 6, ["sphere"]),
        ("pae run no_such_recipe tokenizer.bott", 4, []),
        ("pae sample runs/a --solver eu", 5, ["euler", "euler_maruyama"]),
        ("pae run quickstart --again gen", 5, ["generator"]),
        ("pae show-plugin encoder:tiny", 3, ["encoder:tiny_vit"]),
        ("pae show-plugin tiny", 3, ["tiny_vit"]),
        ("pae list-plugins reg", 3, ["regularizer"]),
    ],
)
def test_completions_in_bash(pae: Pae, monkeypatch, line, words, expected):
    for name, value in request(line, words).items():
        monkeypatch.setenv(name, value)
    answer = pae().ok()
    assert (answer.out.split(), answer.err) == (expected, "")


def test_completions_in_a_process_of_their_own():
    command = [sys.executable, "-c", "from pae_framework.cli.app import main; main()"]
    env = {**os.environ, **request("pae run quickstart tokenizer.bott", 4)}
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert (found.stdout.split(), found.stderr) == (["tokenizer.bottleneck."], "")


def test_runs_are_completed_from_runs_and_from_any_folder(tmp_path, monkeypatch):
    for name in ("runs/alpha", "runs/beta", "elsewhere/alpha2", "runs/no_run"):
        (tmp_path / name).mkdir(parents=True)
        if name != "runs/no_run":
            (tmp_path / name / "run.json").touch()
    monkeypatch.chdir(tmp_path)
    assert complete_run("") == ["runs/alpha", "runs/beta"]
    assert complete_run("runs/al") == ["runs/alpha"]
    assert complete_run("elsewhere/") == ["elsewhere/alpha2"]


def test_bash_adds_no_blank_to_a_word_that_is_to_be_continued():
    script = without_trailing_blank(_completion_shared.COMPLETION_SCRIPT_BASH)
    assert app.pretty_exceptions_enable is False  # the commands are imported
    assert _completion_shared._completion_scripts["bash"] == script
    condition = next(line for line in script.splitlines() if "nospace" in line)
    test, _, _ = condition.partition("&&")
    for word, continues in (("data.", 1), ("seed=", 1), ("runs/", 1), ("a:", 1), ("quickstart", 0)):
        script = f"COMPREPLY=({word}); {test} && echo 1 || echo 0"
        found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert int(found.stdout) == continues


@pytest.mark.parametrize(
    "change",
    [
        "del _completion_shared._completion_scripts",
        "_completion_shared._completion_scripts = {}",
        "_completion_shared._completion_scripts = {'bash': None}",
        "_completion_shared._completion_scripts = None",
        "import sys, typer; del typer._completion_shared\n"
        "sys.modules['typer._completion_shared'] = None",
    ],
)
def test_other_versions_of_typer_break_no_command(change, tmp_path):
    code = f"from typer import _completion_shared\n{change}\nimport pae_framework.cli.app"
    assert run_process("-c", code, cwd=tmp_path).ok().err == ""


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
