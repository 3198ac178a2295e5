"""Whether values of a metric are comparable: by their protocols alone. No torch.

A protocol is a mapping as in :class:`pae_framework.contracts.Metric`. Values are comparable if
their protocols are equal, apart from seeds, and from what a digest beside it identifies: two paths
to the same reference are the same reference. The seed that chooses the test images is not apart:
another one is another reference.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pae_framework.report.metrics import flat

NOT_STATED = "not stated"
"""In place of a value that a protocol lacks."""
_DIGESTS = ("_digest", "_sha256")
_SEED = "_seed"
_CHOICE = "test_images_seed"
"""The seed that chooses the test images; also inside of a ``reference_protocol``."""

Protocol = Mapping[str, Any] | None
"""None: of an earlier version, which states nothing."""

Basis = tuple[tuple[str, str], ...]
"""What must be equal, as sorted pairs of text: a dictionary key."""


def basis(protocol: Protocol) -> Basis:
    """What of a protocol must be equal for two values to be comparable; empty: nothing is known."""
    return _pairs({key: x for key, x in (protocol or {}).items() if not _is_seed(key)})


def basis_over_seeds(protocol: Protocol) -> Basis:
    """The same for runs that differ only by their seeds.

    Each has networks that it has trained, and test images that it has chosen.
    """
    stated = protocol or {}
    trained = [key.removesuffix(_SEED) for key in stated if key.endswith(_SEED)]
    own = {f"{part}{digest}" for part in trained for digest in _DIGESTS}
    pairs = basis({key: x for key, x in stated.items() if key not in own})
    return tuple((key, text) for key, text in pairs if key.rpartition(".")[2] != _CHOICE)


def are_comparable(first: Protocol, second: Protocol) -> bool:
    """Whether two values with these protocols are comparable; not if one states nothing."""
    return bool(basis(first)) and basis(first) == basis(second)


Key = TypeVar("Key", bound=Hashable)
Measured = TypeVar("Measured")


def comparable_groups(
    columns: Mapping[Key, Sequence[Measured]], protocol_of: Callable[[Measured], Protocol]
) -> list[dict[Key, list[Measured]]]:
    """Values that are comparable, by column.

    The values of a column are of runs that differ only by their seeds. A value without a protocol
    is alone.

    Args:
        columns: the values of each column.
        protocol_of: the protocol of a value.
    """
    groups: dict[Any, dict[Key, list[Measured]]] = {}
    for key, values in columns.items():
        parts: dict[Any, list[Measured]] = {}
        for value in values:
            parts.setdefault(basis_over_seeds(protocol_of(value)) or id(value), []).append(value)
        for same, part in parts.items():
            exact = frozenset(basis(protocol_of(value)) for value in part)
            groups.setdefault(same if isinstance(same, int) else exact, {})[key] = part
    return list(groups.values())


def own_networks(columns: Sequence[Sequence[Protocol]]) -> list[str]:
    """Networks that the runs trained themselves and that differ between columns: ``extractor``."""
    stated = [protocol or {} for column in columns for protocol in column]
    trained = [
        key.removesuffix(_SEED)
        for key in (stated[0] if stated else {})
        if key.endswith(_SEED) and all(key in protocol for protocol in stated)
    ]
    differing = differences(columns)
    return [part for part in trained if any(f"{part}{x}" in differing for x in _DIGESTS)]


def why_not(columns: Sequence[Sequence[Protocol]]) -> tuple[list[str], dict[str, list[str]]]:
    """Why values do not share a column: in words where there are, and the other keys that differ.

    Args:
        columns: the protocols of the values of each column.
    """
    own, keys = own_networks(columns), differences(columns)
    words = [
        f"each run trained its own {part}; these "
        f"{'Frechet distances' if part == 'extractor' else 'values'} do not compare"
        for part in own
    ]
    told = {f"{part}{digest}" for part in own for digest in _DIGESTS}
    return words, {key: texts for key, texts in keys.items() if key not in told}


def in_words(columns: Sequence[Sequence[Protocol]]) -> str:
    """Why values do not share a column, on one line, with a number for each column."""
    words, keys = why_not(columns)
    if not words and not keys:
        keys = {"protocol": [NOT_STATED] * len(columns)}
    told = (
        f"{key} {', '.join(f'[{i}] {text}' for i, text in enumerate(texts, 1))}"
        for key, texts in keys.items()
    )
    return "; ".join((*words, *told))


def cautions_of_means(means: Iterable[Sequence[Protocol]]) -> list[str]:
    """What is wrong with means over runs that each trained networks of their own.

    Args:
        means: the protocols of the values of each mean.
    """
    found = (part for protocols in means for part in own_networks([[p] for p in protocols]))
    return [
        f"a mean over seeds is of runs that each trained their own {part}, so their values do not "
        "compare with each other"
        for part in dict.fromkeys(found)
    ]


def differences(columns: Sequence[Sequence[Protocol]]) -> dict[str, list[str]]:
    """Why values do not share a column: the keys that differ, with the values in each column.

    Args:
        columns: the protocols of the values of each column.
    """
    return _differing([[dict(basis(protocol)) for protocol in column] for column in columns])


def seed_differences(rows: Sequence[Sequence[Protocol]]) -> dict[str, list[str]]:
    """The seeds that differ between rows, with the values in each row."""
    return _differing(
        [[flat({k: x for k, x in (p or {}).items() if _is_seed(k)}) for p in row] for row in rows]
    )


def _is_seed(key: str) -> bool:
    return (key == "seed" or key.endswith(_SEED)) and key != _CHOICE


def _pairs(protocol: Mapping[str, Any]) -> Basis:
    """Without what a digest beside it identifies: ``reference`` and ``reference_protocol``."""
    parts = [
        key.removesuffix(digest) for key in protocol for digest in _DIGESTS if key.endswith(digest)
    ]
    identified = {*parts, *(f"{part}_protocol" for part in parts)}
    return tuple(sorted(flat({k: x for k, x in protocol.items() if k not in identified}).items()))


def _differing(stated: Sequence[Sequence[Mapping[str, str]]]) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for group in stated for found in group for key in found)
    values = {
        key: [
            ", ".join(dict.fromkeys(found.get(key, NOT_STATED) for found in group))
            for group in stated
        ]
        for key in keys
    }
    return {key: texts for key, texts in values.items() if len(set(texts)) > 1}
