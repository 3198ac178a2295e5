"""Reading YAML: scalars of YAML 1.2, positions, unique keys."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pae_framework.errors import RecipeError
from pae_framework.recipe.yaml_source import parse, read_file, yaml_reason


def plain(text: str) -> Any:
    node, problems = parse(text, lambda line, column: f"{line}:{column}")
    assert problems == []
    assert node is not None
    return node.plain()


def problems_of(text: str) -> list[str]:
    """The problems of a text."""
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


def test_every_key_and_value_has_a_position() -> None:
    node, _ = parse("a: 1\nb:\n  c: [x, {d: 2}]\n", lambda line, column: f"{line}:{column}")
    assert node is not None
    positions = {
        path: (found.key_where, found.where)
        for path in [("a",), ("b",), ("b", "c"), ("b", "c", 0), ("b", "c", 1, "d")]
        if (found := node.find(path)) is not None
    }
    assert positions == {
        ("a",): ("1:1", "1:4"),
        ("b",): ("2:1", "3:3"),
        ("b", "c"): ("3:3", "3:6"),
        ("b", "c", 0): ("3:7", "3:7"),
        ("b", "c", 1, "d"): ("3:11", "3:14"),
    }


def test_a_duplicate_key_is_reported_with_both_positions() -> None:
    first, second = problems_of("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert first.startswith("2:11: b.c: duplicate")
    assert first.endswith(" 2:5")
    assert second.startswith("3:1: a: duplicate")
    assert second.endswith(" 1:1")


@pytest.mark.parametrize("key", ["1", "null", "true", "1.5", "[a]", "{a: b}", "? [a, b]\n"])
def test_a_key_must_be_a_string(key: str) -> None:
    (problem,) = problems_of(f"{key}: 1")
    assert "key" in problem
    assert "quotes" in problem


def test_a_merge_key_has_no_special_meaning() -> None:
    assert plain("<<: {a: 1}\n") == {"<<": {"a": 1}}


def test_aliases_repeat_a_value() -> None:
    assert plain("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1", "1:6: is not YAML"),
        ("a: 1\n b: 2", "2:3: is not YAML"),
        ("a: *missing", "'missing'"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        ("a: \x00", "U+0000"),
        ("a: !!python/object:os.system x", "1:4: a: the tag"),
        ("a: !mine {b: 1}", "1:4: a: the tag '!mine'"),
        ("a: !!int x", "1:4: a: 'x' is not a number"),
        (f"a: {'9' * 5000}", "is not a number"),
        ("a: &x [*x]", "alias"),
        ("a: " + "[" * 500, "nested too deeply"),
    ],
)
def test_invalid_yaml_is_reported_with_its_position(text: str, expected: str) -> None:
    (problem,) = problems_of(text)
    assert expected in problem


def test_aliases_that_expand_exponentially_are_rejected() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    (problem,) = problems_of(bomb)
    assert "10000" in problem


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "bad.yaml:1:1: is empty"),
        (b"# only a comment\n", "bad.yaml:1:1: is empty"),
        (b"null\n", "bad.yaml:1:1: is empty"),
        (b"- a\n- b\n", "bad.yaml:1:1: expected a map"),
        (b"just text\n", "bad.yaml:1:1: expected a map"),
        (b"\xff\xfe\x00a", "bad.yaml:1:1: is not UTF-8 text"),
        ("ä: 1\nb: ü".encode() + b"\xff", "bad.yaml:2:5: is not UTF-8 text"),
        (b"a: 1\n" * 250_000, "bad.yaml:1:1: is too large"),
        (b"a" * 999_999 + "ä".encode(), "bad.yaml:1:1: is too large"),
    ],
)
def test_a_file_must_hold_a_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_file(path)
    assert str(caught.value).startswith(expected)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"absent\.yaml"):
        read_file(tmp_path / "absent.yaml")


@pytest.mark.parametrize("text", ["{a: [1, 2", "{a: 'b", "a: b: c", "\0"])
def test_a_reason_is_one_line_without_the_text(text: str) -> None:
    with pytest.raises(yaml.YAMLError) as caught:
        yaml.safe_load(text)
    reason = yaml_reason(caught.value)
    assert reason
    assert "\n" not in reason
    assert "^" not in reason
