"""The plugins of docs/how_to.md, one of each kind, keep their contracts and run."""

from __future__ import annotations

import json
import shlex
import unittest
from pathlib import Path

import numpy as np
import pytest
from doc_blocks import ROOT, blocks, commands

from pae_framework.kinds import KINDS
from pae_framework.plugins import with_files
from pae_framework.registry import ComponentSpec, Registry
from pae_framework.testing.contract import ComponentContract
from pae_framework.testing.kind_contracts import contract_of
from pae_framework.testing.pytest import run_process

PAGE = ROOT / "docs" / "how_to.md"
EXAMPLES = {
    "dataset": "npz_images.py",
    "tokenizer": "wavelet.py",
    "modulator": "edges.py",
    "bottleneck": "rounded.py",
    "decoder": "upsampling.py",
    "discriminator": "two_scales.py",
    "regularizer": "noise_robust.py",
    "generator": "mixer.py",
    "evaluator": "error_by_class.py",
}
OTHERS = {"encoder", "tokenizer", "tracker"}
"""Kinds that other pages show."""
LONG = {"test_compile", "test_other_process"}
"""Tests of seconds: they start processes or compile."""

each_kind = pytest.mark.parametrize("kind", EXAMPLES)


def spec_of(kind: str) -> ComponentSpec:
    """What the file of a kind registers: one component of this kind."""
    (spec,) = with_files(Registry(), [ROOT / "docs" / "examples" / EXAMPLES[kind]]).specs()
    assert (spec.kind, spec.name) == (kind, EXAMPLES[kind].removesuffix(".py"))
    return spec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the data of the data source, and the documentation."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 120), ("test", 60)):
        images = generator.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.arange(count) % 3)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (recipe,) = [block for block in blocks(PAGE) if block.name == "npz.yaml"]
    (tmp_path / recipe.name).write_text(recipe.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands_of(kind: str) -> list[list[str]]:
    """The words of both commands of a kind: the page has the kinds in this order."""
    at = 2 * list(EXAMPLES).index(kind)
    return [shlex.split(line)[1:] for line in list(commands(PAGE))[at : at + 2]]


def contract(kind: str) -> ComponentContract:
    """The contract, with what the page's command gives to `pae check-plugin`."""
    spec, values = spec_of(kind), {}
    for word in commands_of(kind)[0]:
        path, equals, value = word.partition("=")
        if equals:
            assert path.rpartition(".")[0] == spec.reference
            values[path.rpartition(".")[2]] = value
    config = spec.config_class().model_validate(values)
    return contract_of(kind, spec.component_class(), config)


def test_every_kind_has_a_file_and_both_commands() -> None:
    assert EXAMPLES.keys() | OTHERS == KINDS.keys()
    for kind, file in EXAMPLES.items():
        check, run = commands_of(kind)
        assert check[:2] == ["check-plugin", f"docs/examples/{file}"]
        assert run[0] == "run"
        assert f"](examples/{file})" in PAGE.read_text(encoding="utf-8")
    assert len(list(commands(PAGE))) == 2 * len(EXAMPLES)


@each_kind
@pytest.mark.usefixtures("folder")
def test_it_keeps_its_contract(kind: str) -> None:
    checked = contract(kind)
    for name in set(checked.names_of_tests()) - LONG:
        try:
            getattr(checked, name)()
        except unittest.SkipTest:
            assert name == "test_gpu"


@pytest.mark.slow
def test_one_run_uses_all_of_them(folder: Path) -> None:
    """With the overrides and plugins of the commands; `make test-plugins` runs this test."""
    together = [kind for kind in EXAMPLES if kind != "tokenizer"]  # in place of its parts
    _, *runs = [commands_of(kind)[1] for kind in together]
    others = [word for words in runs for word in words[2:] if word != "--smoke"]
    words = ["run", "npz.yaml", "--smoke", "--run-dir", "run", *others]
    run_process("-m", "pae_framework", *words, cwd=folder, timeout=600).ok()
    names = {EXAMPLES[kind].removesuffix(".py") for kind in together}
    recorded = json.loads((folder / "run" / "environment.json").read_text(encoding="utf-8"))
    assert names <= recorded["plugins"].keys()
    assert (folder / "run" / "evaluate" / "error_by_class" / "classes.csv").is_file()


@pytest.mark.slow
@each_kind
def test_the_commands_of_the_page_work(kind: str, folder: Path) -> None:
    for words in commands_of(kind):
        run_process("-m", "pae_framework", *words, cwd=folder, timeout=600).ok()
