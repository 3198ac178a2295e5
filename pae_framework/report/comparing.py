"""Whether values of a metric are comparable: by their protocols alone. No torch.

A protocol is a mapping as in :class:`pae_framework.contracts.Metric`. Values are comparable if
their protocols are equal, apart from seeds, and from what a digest beside it identifies: two paths
to the same reference are the same reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pae_framework.report.metrics import flat

NOT_STATED = "not stated"
"""In place of a value that a protocol lacks."""
_DIGESTS = ("_digest", "_sha256")
_SEED = "_seed"

Basis = tuple[tuple[str, str], ...]
"""What must be equal, as sorted pairs of text: a dictionary key."""


def basis(protocol: Mapping[str, Any] | None) -> Basis:
    """What of a protocol must be equal for two values to be comparable; empty: nothing is known."""
    return _pairs({key: x for key, x in (protocol or {}).items() if not _is_seed(key)})


def basis_over_seeds(protocol: Mapping[str, Any] | None) -> Basis:
    """The same for runs that differ only by their seeds, each with networks it has trained."""
    stated = protocol or {}
    trained = [key.removesuffix(_SEED) for key in stated if key.endswith(_SEED)]
    own = {f"{part}{digest}" for part in trained for digest in _DIGESTS}
    return basis({key: x for key, x in stated.items() if key not in own})


def are_comparable(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> bool:
    """Whether two values with these protocols are comparable; not if one states nothing."""
    return bool(basis(first)) and basis(first) == basis(second)


def differences(protocols: Sequence[Mapping[str, Any] | None]) -> dict[str, list[str]]:
    """Why protocols are not comparable: keys that differ, each with the value of every protocol."""
    return _differing([dict(basis(protocol)) for protocol in protocols])


def seed_differences(protocols: Sequence[Mapping[str, Any] | None]) -> dict[str, list[str]]:
    """Seeds in which protocols differ, each with the value of every protocol."""
    seeds = ({k: x for k, x in (p or {}).items() if _is_seed(k)} for p in protocols)
    return _differing([flat(found) for found in seeds])


def _is_seed(key: str) -> bool:
    return key == "seed" or key.endswith(_SEED)


def _pairs(protocol: Mapping[str, Any]) -> Basis:
    """Without what a digest beside it identifies: ``reference`` and ``reference_protocol``."""
    parts = [
        key.removesuffix(digest) for key in protocol for digest in _DIGESTS if key.endswith(digest)
    ]
    identified = {*parts, *(f"{part}_protocol" for part in parts)}
    return tuple(sorted(flat({k: x for k, x in protocol.items() if k not in identified}).items()))


def _differing(stated: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for found in stated for key in found)
    values = {key: [found.get(key, NOT_STATED) for found in stated] for key in keys}
    return {key: found for key, found in values.items() if len(set(found)) > 1}
