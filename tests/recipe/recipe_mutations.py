"""Random changes of recipes: values, types, structure, text, overrides and sweeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from recipe_cases import SMALL

from pae_framework.recipe.library import shipped
from pae_framework.recipe.load import load_recipe
from pae_framework.registry import Registry

SWEEP = """\
sweep:
  seeds: [0, 3]
  variants:
    none: {tokenizer.regularizers: null}
    wide: {tokenizer.decoder.width: 64, tokenizer.train.steps: 20}
"""
EXTREME = (
    *("0", "-1", "1", "2", "3", "5", "7", "-0.0", "0.3", "1.0", "1e3", "1e-300", "1e300", "1e20"),
    *(f"{2**31}", f"{2**53 + 1}", f"{2**63 - 1}", f"{2**63}", f"{2**64}", "1" + "0" * 30),
    *(".nan", ".inf", "-.inf", "0x" + "f" * 9000, "9" * 5000, "true", "false", "null", "~"),
    *(
        "'1'",
        "'true'",
        "''",
        "' '",
        "x",
        "none",
        "default",
        "auto",
        "gpu",
        "x" * 300,
        "é/ü",
        "日本",
    ),
    *("'~nobody-here/x'", "../../x", "/dev/null", "a/b.pt", ".", "..", '"a\\nb"', '"\\0"'),
    *('"\\uD800"', '"\\U00110000"', '"\\x7f"', '"\\e[31m"', "\u202e", "[]", "{}", "[0]", "[1, 1]"),
    *("[true]", "['1']", "[1, [2]]", "{a: 1}", "{use: 1}", "{use: none}", "{'': {}}", "!!int x"),
    *(
        "!x 1",
        "&a [*a]",
        "*b",
        "<<",
        "[" * 60,
        "[" * 1000,
        "{steps: 1}",
        "{epochs: 1}",
        "{weight: 0}",
    ),
    "[" + ", ".join(map(str, range(1, 1200))) + "]",
    "{" + ", ".join(f"k{i}: {i}" for i in range(300)) + "}",
)
PIECES = (
    *EXTREME,
    ": ",
    "- ",
    "{",
    "}",
    "]",
    "'",
    '"',
    "#",
    "\t",
    "\n",
    "\n\n  ",
    "&a ",
    "*a",
    "<<: *a",
)
WORDS = (
    *(
        "ssr",
        "mcr",
        "scr",
        "kl",
        "vf",
        "diffusion",
        "sphere",
        "gaussian",
        "identity",
        "dam",
        "finetune",
        "none",
    ),
    *("tiny_vit", "small_cnn", "dinov2", "dinov3", "mae", "siglip2", "vit", "patchgan", "dino"),
    *("lightningdit", "dit_dh", "digits", "idx", "image_folder", "parquet", "shapes"),
    *("webdataset", "xformers", "sdpa", "diffusion"),
    *("reconstruction", "generation", "few_steps", "manifold", "raw", "refined", "cosine"),
    *("bf16", "cpu", "cuda"),
    *("euler", "heun", "ab2", "euler_maruyama", "sde_heun", "dopri5", "balanced", "uniform"),
)


@dataclass(frozen=True)
class Mutation:
    """A changed recipe file and overrides."""

    text: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Base:
    """A valid recipe to change, all its keys, and the values of those that are no maps."""

    text: str
    keys: tuple[str, ...]
    leaves: dict[str, Any]


def bases(registry: Registry, folder: Any) -> list[Base]:
    """The small recipe with and without a sweep, and every shipped recipe."""
    texts = [SMALL, SMALL + SWEEP, *(path.read_text() for _, path, _ in shipped())]
    found = []
    for text in texts:
        path = folder / "base.yaml"
        path.write_text(text)
        resolved = load_recipe(path, (), registry).resolved()
        values = dict(_values(resolved))
        leaves = {key: value for key, value in values.items() if not isinstance(value, dict)}
        found.append(Base(text, tuple(values), leaves))
    return found


def _values(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        path = f"{prefix}{key}"
        yield path, inner
        if isinstance(inner, dict):
            yield from _values(inner, f"{path}.")


def mutated(base: Base, random: Random) -> Mutation:
    """The recipe with one to three changes."""
    text, overrides = base.text, list[str]()
    for _ in range(random.choice((1, 1, 2, 3))):
        if random.random() < 0.55:
            overrides.append(_override(base, random))
        else:
            text = random.choice(TEXT_CHANGES)(text, base, random)
    return Mutation(text, tuple(overrides))


def nearby(base: Base, random: Random) -> Mutation:
    """The recipe with one or two values that are often valid."""
    keys = random.sample(sorted(base.leaves), random.choice((1, 1, 2)))
    return Mutation(base.text, tuple(f"{key}={_like(base.leaves[key], random)}" for key in keys))


def _like(value: Any, random: Random) -> str:
    """A value of the same type, mostly."""
    if random.random() < 0.1:
        return _plain(random)
    if isinstance(value, bool):
        return json.dumps(not value)
    if isinstance(value, int) and random.random() < 0.5:
        return str(value * 2 ** random.randint(0, 12))
    if isinstance(value, float) and random.random() < 0.5:
        return str(value * 10.0 ** random.randint(-9, 9))
    return random.choice(WORDS) if isinstance(value, str) else _plain(random)


def _plain(random: Random) -> str:
    """A number, word or short list."""
    kind = random.random()
    if kind < 0.2:
        return random.choice(WORDS)
    if kind < 0.6:
        return str(random.choice((1, 1, 3, 5)) * 2 ** random.randint(0, 30))
    if kind < 0.8:
        return f"{10 ** random.uniform(-12, 12):.4g}"
    if kind < 0.9:
        return random.choice(("true", "false", "null", "0", "1", "1.0", "[]"))
    return json.dumps(sorted({random.randint(0, 9) for _ in range(random.randint(0, 4))}))


def _value(random: Random) -> str:
    kind = random.random()
    if kind < 0.4:
        return random.choice(EXTREME)
    if kind < 0.55:
        return random.choice(WORDS)
    if kind < 0.75:
        return str(random.randint(1, 40) * 2 ** random.randint(0, 14))
    if kind < 0.85:
        return f"{random.choice((1, -1, 1, 1)) * 10 ** random.uniform(-12, 12):.4g}"
    if kind < 0.93:
        return json.dumps([random.randint(0, 9) for _ in range(random.randint(0, 4))])
    return json.dumps("".join(chr(random.randint(1, 0x2FFF)) for _ in range(random.randint(0, 9))))


def _override(base: Base, random: Random) -> str:
    key = random.choice(base.keys)
    odd = random.random()
    if odd < 0.04:
        key += "." + random.choice(("x", "use", "weight", "", "a" * 300, ".".join("abc" * 300)))
    elif odd < 0.08:
        key = random.choice(
            ("", ".", "=", "a b", "sweep.variants.a", "sweep.seeds", "extends", "<config>")
        )
    return f"{key}={_value(random)}"


def _insert(text: str, base: Base, random: Random) -> str:
    at = random.randint(0, len(text))
    return text[:at] + random.choice(PIECES) + text[at + random.choice((0, 0, 1, 3, 9)) :]


def _replace_value(text: str, base: Base, random: Random) -> str:
    """Another value for one key of the text."""
    lines = text.splitlines(keepends=True)
    index = random.randrange(len(lines))
    key, colon, _ = lines[index].partition(": ")
    if colon:
        lines[index] = f"{key}: {_value(random)}\n"
    return "".join(lines)


def _repeat_line(text: str, base: Base, random: Random) -> str:
    lines = text.splitlines(keepends=True)
    lines.insert(random.randrange(len(lines)), random.choice(lines))
    return "".join(lines)


def _drop_line(text: str, base: Base, random: Random) -> str:
    lines = text.splitlines(keepends=True)
    del lines[random.randrange(len(lines))]
    return "".join(lines)


def _alias(text: str, base: Base, random: Random) -> str:
    """An anchor on one value and its alias, or a merge key, at another."""
    lines = text.splitlines(keepends=True)
    for index, mark in (
        (random.randrange(len(lines)), "&a "),
        (random.randrange(len(lines)), "*a"),
    ):
        key, colon, value = lines[index].partition(": ")
        if colon:
            lines[index] = f"{key}: {mark}{value if mark[0] == '&' else chr(10)}"
    if random.random() < 0.3:
        lines.append("<<: *a\n")
    return "".join(lines)


def _add_sweep(text: str, base: Base, random: Random) -> str:
    """A sweep of random variants."""
    variants = "".join(
        f"    {random.choice(('a', 'b', 'A', 'x' * 200, '.', 'a/b'))}: "
        f"{{{random.choice(base.keys)}: {_value(random)}}}\n"
        for _ in range(random.randint(1, 3))
    )
    seeds = random.choice(("[0]", _value(random)))
    return f"{text}\nsweep:\n  seeds: {seeds}\n  variants:\n{variants}"


def _grow(text: str, base: Base, random: Random) -> str:
    """Very much of something."""
    filler = random.choice(
        ("# x\n", "k: v\n", "- 1\n", "x", "[", "{a: ", "? ", "'", " ", "\n", "&a *a\n")
    )
    return text + filler * random.choice((50, 3000, 30_000))


TEXT_CHANGES: tuple[Callable[[str, Base, Random], str], ...] = (
    *(_insert, _insert, _replace_value, _replace_value, _replace_value),
    *(_repeat_line, _drop_line, _alias, _add_sweep, _add_sweep, _grow),
)
