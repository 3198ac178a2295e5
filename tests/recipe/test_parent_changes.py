"""The difference of a recipe to what it extends."""

import pytest

from pae_framework.errors import RecipeError
from pae_framework.plugins import load_registry
from pae_framework.recipe.parent_changes import changes_to_parent

PARENT = """
pae: 1
name: parent
seed: 0
tokenizer:
  encoder: tiny_vit
  regularizers: {ssr: {weight: 0.2}, mcr: {weight: 0.1}}
generator: {use: lightningdit, width: 96}
"""


@pytest.fixture(scope="module")
def registry():
    return load_registry()


@pytest.fixture
def changes(tmp_path, registry):
    def write(child, *overrides, parent=PARENT):
        (tmp_path / "parent.yaml").write_text(parent, encoding="utf-8")
        path = tmp_path / "child.yaml"
        path.write_text(child, encoding="utf-8")
        return changes_to_parent(path, overrides, registry)

    return write


def test_changed_added_and_removed_keys(changes):
    found = changes("extends: parent.yaml\ntokenizer: {regularizers: {ssr: null}}\nseed: 1\n")
    assert found == [
        ("seed", "0", "1"),
        ("tokenizer.regularizers.ssr.weight", "0.2", ""),
    ]
    added = changes("extends: parent.yaml\ngenerator: {depth: 3}\n")
    assert added == [("generator.depth", "", "3")]


def test_overrides_count_as_the_recipes_own(changes):
    child = "extends: parent.yaml\nseed: 1\n"
    assert changes(child, "seed=2") == [("seed", "0", "2")]
    assert changes(child, "seed=0") == []


def test_what_is_written_again_or_in_another_form_is_no_change(changes):
    assert changes("extends: parent.yaml\nseed: 0\ntokenizer: {encoder: {use: tiny_vit}}\n") == []


def test_another_component_drops_the_parameters_of_the_earlier_one(changes):
    assert changes("extends: parent.yaml\ngenerator: dit_dh\n") == [
        ("generator.use", "lightningdit", "dit_dh"),
        ("generator.width", "96", ""),
    ]


def test_the_parent_has_its_own_parent(changes, tmp_path):
    (tmp_path / "first.yaml").write_text("seed: 5\nname: first\n", encoding="utf-8")
    found = changes("extends: parent.yaml\nseed: 5\n", parent="extends: first.yaml\nseed: 6\n")
    assert found == [("seed", "6", "5")]


def test_a_recipe_that_extends_nothing_has_no_changes(changes):
    assert changes(PARENT, "seed=3") == []


def test_a_parent_that_is_gone(changes):
    with pytest.raises(RecipeError, match="nowhere"):
        changes("extends: nowhere.yaml\n")


def test_several_parents_count_as_one(changes, tmp_path):
    (tmp_path / "other.yaml").write_text("seed: 3\n", encoding="utf-8")
    assert changes("extends: [parent.yaml, other.yaml]\nseed: 3\n") == []
    assert changes("extends: [parent.yaml, other.yaml]\nseed: 0\n") == [("seed", "3", "0")]
