"""Written recipes read back as what was written, one line for each value."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.recipe.emit import lines, to_yaml
from pae_framework.recipe.yaml_source import parse

_words = st.sampled_from(
    ["on", "yes", "1e4", "0o17", "012", "~", "", "null", "12:30:00", "- a", "a: b"]
)
_allowed = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff")
_texts = _words | st.text(_allowed | st.sampled_from("\n\t\x85"), max_size=12)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=10,
)
_recipes = st.dictionaries(_texts, _values, min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(_recipes)
def test_written_yaml_reads_back_the_same(data: dict[str, Any]) -> None:
    node, problems = parse(to_yaml(data), lambda line, column: "")
    assert problems == []
    assert node is not None
    assert node.plain() == data


def leaves(data: Any) -> int:
    """Values that are no map, and empty maps."""
    if isinstance(data, dict) and data:
        return sum(leaves(value) for value in data.values())
    return 1


@settings(max_examples=50, deadline=None)
@given(_recipes)
def test_each_value_has_one_line_with_its_key_path(data: dict[str, Any]) -> None:
    written = list(lines(data))
    assert all(len(line.splitlines()) == 1 for line, _ in written)
    paths = [path for _, path in written if path is not None]
    assert len(paths) == len(set(paths)) == sum(leaves(value) for value in data.values())


def test_strings_that_yaml_reads_as_another_type_are_quoted() -> None:
    assert to_yaml({"a": {"b": "1e4", "c": 1e4, "d": "on"}, "e": [1, "x"], "f": {}}) == (
        "a:\n  b: '1e4'\n  c: 10000.0\n  d: on\ne: [1, x]\nf: {}\n"
    )
