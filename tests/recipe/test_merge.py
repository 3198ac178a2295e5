"""Layers of a recipe: maps merge, the rest is replaced, null removes, components start anew."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pae_framework.recipe.merge import merge, override, resolve_removals
from pae_framework.recipe.nodes import Node
from pae_framework.recipe.yaml_source import parse
from pae_framework.registry import Registry


def tree(text: str) -> Node:
    node, problems = parse(text, lambda line, column: f"{line}:{column}")
    assert node is not None
    assert not problems
    return node


def merged(registry: Registry, *layers: str) -> Any:
    root = tree(layers[0])
    for layer in layers[1:]:
        root = merge(root, tree(layer))
    return resolve_removals(root, registry).plain()


@pytest.mark.parametrize(
    ("parent", "child", "result"),
    [
        ("{name: a, seed: 1}", "{name: b}", {"name": "b", "seed": 1}),
        (
            "{sample: {steps: 5, count: 2}}",
            "{sample: {count: 3}}",
            {"sample": {"steps": 5, "count": 3}},
        ),
        (
            "{sample: {few_steps: [1, 2]}}",
            "{sample: {few_steps: [3]}}",
            {"sample": {"few_steps": [3]}},
        ),
        ("{sample: {count: 2}}", "{sample: 3}", {"sample": 3}),
        # null removes a key that was there ...
        ("{seed: 1, name: a}", "{seed: null}", {"name": "a"}),
        (
            "{tokenizer: {regularizers: {ssr: {weight: 1}, scr: }}}",
            "{tokenizer: {regularizers: {scr: null}}}",
            {"tokenizer": {"regularizers": {"ssr": {"weight": 1}}}},
        ),
        # ... and is a value where none was: a component with its defaults
        (
            "{tokenizer: {regularizers: {ssr: {weight: 1}}}}",
            "{tokenizer: {regularizers: {scr: }}}",
            {"tokenizer": {"regularizers": {"ssr": {"weight": 1}, "scr": None}}},
        ),
        # null stays where the setting itself can be null: no clipping, not the default clipping
        (
            "{tokenizer: {train: {clip: 1}}}",
            "{tokenizer: {train: {clip: null}}}",
            {"tokenizer": {"train": {"clip": None}}},
        ),
        # a key no model knows is not silently dropped
        ("{oops: 1}", "{oops: null}", {"oops": None}),
    ],
)
def test_a_layer_is_merged_into_another(
    registry: Registry, parent: str, child: str, result: object
) -> None:
    assert merged(registry, parent, child) == result


@pytest.mark.parametrize(
    ("parent", "child", "result"),
    [
        # the same component keeps its parameters, a new one does not
        ("{use: dam, depth: 2}", "{heads: 4}", {"use": "dam", "depth": 2, "heads": 4}),
        ("{use: dam, depth: 2}", "{use: dam, heads: 4}", {"use": "dam", "depth": 2, "heads": 4}),
        ("{use: dam, depth: 2}", "{use: none}", {"use": "none"}),
        # the short form is the same as `use`
        ("{use: dam, depth: 2}", "none", {"use": "none"}),
        ("dam", "{depth: 2}", {"use": "dam", "depth": 2}),
        ("none", "{use: dam, depth: 2}", {"use": "dam", "depth": 2}),
    ],
)
def test_changing_use_drops_the_other_component_s_parameters(
    registry: Registry, parent: str, child: str, result: object
) -> None:
    layers = [f"{{tokenizer: {{modulator: {text}}}}}" for text in (parent, child)]
    assert merged(registry, *layers) == {"tokenizer": {"modulator": result}}


def test_keys_of_the_engine_survive_a_change_of_component(registry: Registry) -> None:
    parent = (
        "{generator: {use: lightningdit, depth: 3, objective: {label_drop: 0}, train: {steps: 5}}}"
    )
    assert merged(registry, parent, "{generator: {use: other, size: 1}}") == {
        "generator": {
            "use": "other",
            "size": 1,
            "objective": {"label_drop": 0},
            "train": {"steps": 5},
        }
    }


def test_a_label_names_the_component_unless_use_does(registry: Registry) -> None:
    parent = "{tokenizer: {regularizers: {ssr: {weight: 2}}}}"
    same = "{tokenizer: {regularizers: {ssr: {use: ssr, reduction: sum}}}}"
    other = "{tokenizer: {regularizers: {ssr: {use: kl}}}}"
    assert merged(registry, parent, same)["tokenizer"]["regularizers"] == {
        "ssr": {"use": "ssr", "weight": 2, "reduction": "sum"}
    }
    assert merged(registry, parent, other)["tokenizer"]["regularizers"] == {"ssr": {"use": "kl"}}


def test_other_maps_with_a_key_use_are_merged_as_maps(registry: Registry) -> None:
    assert merged(registry, "{sample: {use: a, steps: 1}}", "{sample: {use: b}}") == {
        "sample": {"use": "b", "steps": 1}
    }


def test_a_child_can_restore_a_key_that_its_parent_removed(registry: Registry) -> None:
    grandparent = "{tokenizer: {regularizers: {ssr: {weight: 2}}}}"
    parent = "{tokenizer: {regularizers: {ssr: null}}}"
    child = "{tokenizer: {regularizers: {ssr: {reduction: sum}}}}"
    assert merged(registry, grandparent, parent, child) == {
        "tokenizer": {"regularizers": {"ssr": {"reduction": "sum"}}}
    }


def test_null_overrides_remove_present_and_missing_keys(
    registry: Registry,
) -> None:
    null = Node(None, "here", "here")
    root = tree("{name: a, tokenizer: {regularizers: {scr: }}}")
    for path in ("tokenizer.regularizers.ssr", "tokenizer.regularizers.scr"):
        root = merge(root, override(path, null))
    assert resolve_removals(root, registry).plain() == {
        "name": "a",
        "tokenizer": {"regularizers": {}},
    }


def test_a_map_in_an_override_replaces_the_earlier_map(
    registry: Registry,
) -> None:
    root = tree("{sample: {steps: 1, guidance: {scale: 2}}, tokenizer: {regularizers: {ssr: }}}")
    for path, value in (
        ("sample.guidance", "{channels: all}"),
        ("tokenizer.regularizers", "{scr: }"),
        ("sample.count", "3"),
    ):
        root = merge(root, override(path, tree(value)))
    assert resolve_removals(root, registry).plain() == {
        "sample": {"steps": 1, "guidance": {"channels": "all"}, "count": 3},
        "tokenizer": {"regularizers": {"scr": None}},
    }


def test_an_override_of_use_alone_changes_the_component_and_keeps_its_training(
    registry: Registry,
) -> None:
    root = tree("{tokenizer: {encoder: {use: tiny_vit, depth: 2, train: {steps: 5}}}}")
    changed = merge(root, override("tokenizer.encoder.use", tree("small_cnn")))
    assert resolve_removals(changed, registry).plain() == {
        "tokenizer": {"encoder": {"use": "small_cnn", "train": {"steps": 5}}}
    }


@pytest.mark.parametrize("path", ["", "a..b", ".a", "a."])
def test_a_key_path_must_not_have_empty_keys(path: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(path))):
        override(path, Node(1, "here", "here"))


def test_merged_values_keep_their_positions(registry: Registry) -> None:
    root = merge(tree("name: a\nsample:\n  steps: 1\n"), tree("\n\n\nsample: {count: 2}\n"))
    steps, count = root.find(("sample", "steps")), root.find(("sample", "count"))
    assert steps is not None
    assert count is not None
    assert (steps.where, count.where) == ("3:10", "4:17")
