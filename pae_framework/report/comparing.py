"""Whether values of a metric are comparable: by their protocols alone. No torch.

A protocol is a mapping as in :class:`pae_framework.contracts.Metric`. Values are comparable if
their protocols are equal, apart from seeds, and from what a digest beside it identifies: two paths
to the same reference are the same reference. The seed that chooses the test images is not apart:
another one is another reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
