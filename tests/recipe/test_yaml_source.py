"""YAML as recipes are written in it: YAML 1.2 scalars, positions, one key once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.errors import RecipeError
from pae_framework.recipe.yaml_source import parse, read_file


def plain(text: str) -> Any:
    node, problems = parse(text, lambda line, column: f"{line}:{column}")
    assert problems == []
    assert node is not None
    return node.plain()


def refused(text: str) -> list[str]:
    """What is wrong with a text, as lines."""
    try:
        return [str(problem) for problem in parse(text, lambda line, col: f"{line}:{col}")[1]]
    except RecipeError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        # YAML 1.2.2, section 10.3.2, and where YAML 1.1 reads the same text otherwise
        ("1e-4", 1e-4),
        ("1e4", 10000.0),
        ("1.5E+3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-2.5", -2.5),
        ("012", 12),
        ("0o17", 15),
        ("0xFf", 255),
        ("+7", 7),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("Off", "Off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("tRUE", "tRUE"),
        ("12:30:00", "12:30:00"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1e", "1e"),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!float 1", 1.0),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_the_core_schema(written: str, value: object) -> None:
    read = plain(f"key: {written}")["key"]
    assert read == value
    assert type(read) is type(value)


def test_not_a_number_is_a_float() -> None:
    assert math.isnan(plain("key: .nan")["key"])


_texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(_texts, _json, max_size=4))
def test_json_reads_as_json_does(data: dict[str, Any]) -> None:
    text = json.dumps(data)
    assert plain(text) == json.loads(text)


def test_every_key_and_value_knows_its_place() -> None:
    node, _ = parse("a: 1\nb:\n  c: [x, {d: 2}]\n", lambda line, column: f"{line}:{column}")
    assert node is not None
    places = {
        path: (found.key_where, found.where)
        for path in [("a",), ("b",), ("b", "c"), ("b", "c", 0), ("b", "c", 1, "d")]
        if (found := node.find(path)) is not None
    }
    assert places == {
        ("a",): ("1:1", "1:4"),
        ("b",): ("2:1", "3:3"),
        ("b", "c"): ("3:3", "3:6"),
        ("b", "c", 0): ("3:7", "3:7"),
        ("b", "c", 1, "d"): ("3:11", "3:14"),
    }


def test_a_duplicate_key_is_refused_with_both_places() -> None:
    assert refused("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        "2:11: b.c: duplicate key; first written at 2:5",
        "3:1: a: duplicate key; first written at 1:1",
    ]


@pytest.mark.parametrize("key", ["1", "null", "true", "1.5", "[a]", "{a: b}", "? [a, b]\n"])
def test_a_key_is_text(key: str) -> None:
    (problem,) = refused(f"{key}: 1")
    assert "a key must be" in problem


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert plain("<<: {a: 1}\n") == {"<<": {"a": 1}}


def test_aliases_repeat_a_value() -> None:
    assert plain("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "1:6: is not YAML: while parsing a flow sequence"),
        ("a: 1\n b: 2", "2:3: is not YAML: mapping values are not allowed here"),
        ("a: *missing", "1:4: is not YAML: found undefined alias 'missing'"),
        ("a: 1\n---\nb: 2", "is not YAML: expected a single document"),
        ("a: \x00", "1:1: is not YAML: the character U+0000 is not allowed"),
        ("a: !!python/object:os.system x", "1:4: a: the tag"),
        ("a: !mine {b: 1}", "1:4: a: the tag '!mine'"),
        ("a: !!int x", "1:4: a: 'x' is not a number"),
        (f"a: {'9' * 5000}", "is not a number"),
        ("a: &x [*x]", "an alias that contains itself"),
        ("a: " + "[" * 500, "nested too deeply"),
    ],
)
def test_what_is_not_a_recipe_is_refused_with_its_place(text: str, expected: str) -> None:
    (problem,) = refused(text)
    assert expected in problem


def test_aliases_that_multiply_themselves_are_stopped() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    (problem,) = refused(bomb)
    assert "more than 10000 values" in problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "bad.yaml: is empty"),
        (b"# only a comment\n", "bad.yaml: is empty"),
        (b"null\n", "bad.yaml: is empty"),
        (b"- a\n- b\n", "bad.yaml:1:1: expected a map of `key: value` at the top, found a list"),
        (
            b"just text\n",
            "bad.yaml:1:1: expected a map of `key: value` at the top, found 'just text'",
        ),
        (b"\xff\xfe\x00a", "bad.yaml: is not UTF-8 text"),
    ],
)
def test_a_file_that_holds_no_map_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_file(path)
    assert str(caught.value).startswith(expected)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_file(tmp_path / "absent.yaml")
