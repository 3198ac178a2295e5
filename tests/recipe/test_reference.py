"""What help says of a component is what its config model says."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pae_framework.config import EncoderConfig, RegularizerConfig, Settings
from pae_framework.recipe.reference import example, parameters
from pae_framework.recipe.yaml_source import parse


class Inner(Settings):
    scale: float = Field(1.0, ge=1, description="how much")


class Config(EncoderConfig):
    trainable: ClassVar[bool] = True

    patch: int = Field(gt=0, description="side, px")
    mode: Literal["a", "b"] = "a"
    layers: tuple[int, ...] | None = None
    interval: tuple[float, float] = Field((0, 1), description="from, to")
    crop: float | None = Field(0.5, gt=0, le=1)
    inner: Inner = Inner()
    name: str | tuple[str, ...] = "x"


class Term(RegularizerConfig):
    on: bool = True


def test_parameters_are_described_in_words() -> None:
    found = [(p.name, p.type, p.required, p.default, p.description) for p in parameters(Config)]
    assert found == [
        ("patch", "integer > 0", True, None, "side, px"),
        ("mode", "'a' or 'b'", False, "a", ""),
        ("layers", "list of integer or null", False, None, ""),
        ("interval", "[number, number]", False, [0, 1], "from, to"),
        ("crop", "number > 0 and <= 1 or null", False, 0.5, ""),
        ("inner.scale", "number >= 1", False, 1.0, "how much"),
        ("name", "text or list of text", False, "x", ""),
    ]


def test_an_example_is_nested_at_the_key_path_of_its_kind() -> None:
    text = example("encoder", "mine", Config)
    assert text.splitlines()[:4] == [
        "tokenizer:",
        "  encoder:",
        "    use: mine",
        "    patch: <integer > 0>",
    ]
    assert "    # crop: 0.5" in text
    assert text.splitlines()[-1].startswith("    train: ")  # it is trained in the run
    assert "train" not in example("regularizer", "mine", Term)


def test_an_example_is_yaml() -> None:
    node, problems = parse(example("regularizer", "mine", Term), lambda line, column: "")
    assert problems == []
    assert node is not None
    assert node.plain() == {"tokenizer": {"regularizers": {"mine": {"use": "mine"}}}}
