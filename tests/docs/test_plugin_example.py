"""The plugins shown in the documentation, built from its blocks and used as a reader would.

No pip run: a distribution is a folder on the import path with metadata that names its entry points.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from doc_blocks import ROOT, Block, blocks, build_plugin, edited, new_plugin, write_metadata

from pae_framework.testing.pytest import Result, run_process

TERM = "tokenizer.regularizers.neighbors"


@pytest.fixture(params=["README.md", "docs/plugins.md"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return build_plugin(ROOT / request.param, tmp_path)


def python(site: Path, *arguments: str) -> Result:
    """A Python that has the plugin installed, working in its folder."""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    return run_process(*arguments, cwd=site, env=env, timeout=600)


def pae(site: Path, *arguments: str) -> Result:
    return python(site, "-m", "pae_framework", *arguments)


def test_it_is_listed_and_recipes_may_use_it(site: Path) -> None:
    listed = pae(site, "list-plugins", "regularizer", "--json").ok().json
    (found,) = [entry for entry in listed["components"] if entry["name"] == "neighbors"]
    assert (found["distribution"], found["version"]) == ("pae-neighbors", "0.1.0")
    assert found["state"] == "ok"  # light: registering imports no torch
    checked = pae(site, "check", "quickstart", f"{TERM}.weight=0.1").ok()
    assert checked.out.startswith("quickstart: valid\n")
    refused = pae(site, "check", "quickstart", f"{TERM}.reach=0", "--json").fails(2)
    (problem,) = refused.json["problems"]
    assert (problem["path"], problem["where"]) == (f"{TERM}.reach", "command line")


IN_THE_OBJECTIVE = """
import torch
from pae_framework.build import build_objective, build_tokenizer
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe

alone = ["data.image_size=16", "tokenizer.refinement=null"]
alone.append("tokenizer.regularizers={neighbors: {weight: 0.25, reach: 2}}")
registry = load_registry()
section = load_recipe("quickstart", alone, registry).recipe.tokenizer
torch.manual_seed(0)
encoder = registry.find("encoder", "tiny_vit").component_class()(section.encoder.config, 16)
tokenizer = build_tokenizer(section, 16, registry, encoder)
objective = build_objective(tokenizer, section, registry)
terms = objective.loss(torch.rand(2, 3, 16, 16), torch.Generator().manual_seed(0))
assert set(terms) == {"l1", "perceptual", "neighbors", "loss"}, terms
assert 0 < terms["neighbors"] < 2 * 0.25, terms
assert torch.allclose(terms["loss"], sum(terms[name] for name in terms if name != "loss"))
terms["neighbors"].backward()
assert tokenizer.latent_compressor[1].weight.grad.any()
"""


def test_its_term_is_part_of_the_loss_and_reaches_the_weights(site: Path) -> None:
    python(site, "-c", IN_THE_OBJECTIVE).ok()


@pytest.mark.timeout(600)
def test_recipe_and_tests_of_the_plugins_page_work(tmp_path: Path) -> None:
    site = build_plugin(ROOT / "docs" / "plugins.md", tmp_path)
    assert pae(site, "check", "neighbors.yaml").ok().out.startswith("neighbors: valid\n")
    answer = python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_neighbors.py")
    assert " passed" in answer.ok().out


# --- the tutorial: an encoder plugin --------------------------------------------------------------

PLUGINS = ROOT / "docs" / "plugins.md"
INSTALL = 'pip install --editable ".[test]"'


def steps() -> list[Block]:
    return [block for block in blocks(PLUGINS) if block.role in ("tutorial", "edit")]


def tutorial_commands() -> list[str]:
    return [line for block in steps() if block.role == "tutorial" for line in lines_of(block)]


def lines_of(block: Block) -> list[str]:
    return [line for line in block.text.splitlines() if line]


def test_the_edit_of_the_tutorial_fits_what_new_plugin_writes() -> None:
    files = new_plugin(tutorial_commands()[0])
    (change,) = [block for block in steps() if block.role == "edit"]
    before = files[change.name]
    after = edited(before, change.text)
    compile(after, change.name, "exec")
    added = set(after.splitlines()) - set(before.splitlines())
    assert len(added) == 2


def test_the_tutorial_installs_tests_lists_and_runs() -> None:
    found = tutorial_commands()
    assert found[:2] == ["pae new-plugin my-encoder --kind encoder", "cd my-encoder"]
    assert INSTALL in found
    for command in ("pytest", "pae list-plugins", "pae check-plugin", "pae run my_encoder.yaml"):
        assert any(line.startswith(command) for line in found)


@pytest.mark.slow
def test_the_tutorial_works_word_for_word(tmp_path: Path) -> None:
    """Only the installation needs the network; metadata on the import path take its place."""
    folder, env = tmp_path, dict(os.environ)
    for step in steps():
        if step.role == "edit":
            path = folder / step.name
            path.write_text(edited(path.read_text(), step.text))
            continue
        for line in lines_of(step):
            program, *words = shlex.split(line)
            if program == "cd":
                folder = folder / words[0]
            elif line == INSTALL:
                write_metadata((folder / "pyproject.toml").read_text(), folder)
                path = filter(None, [str(folder), env.get("PYTHONPATH")])
                env["PYTHONPATH"] = os.pathsep.join(path)
            else:
                module = {"pae": "pae_framework", "pytest": "pytest"}[program]
                done = run_process("-m", module, *words, cwd=folder, env=env, timeout=600)
                assert done.code == 0, f"{line}\n{done.out[-3000:]}{done.err[-3000:]}"
                assert not line.startswith("pae list") or "my_encoder" in done.out


def test_the_plugin_of_one_file_passes(tmp_path: Path) -> None:
    (block,) = [found for found in blocks(PLUGINS) if found.name == "my_term.py"]
    (tmp_path / block.name).write_text(block.text)
    words = ("tokenizer.regularizers.small.weight=1", "--plugin", block.name)
    answer = pae(tmp_path, "check", "quickstart", *words)
    assert answer.ok().out.startswith("quickstart: valid\n")
