"""Weights in files of other programs: where they are in the file, and by which names.

Training programs save several sets of weights in a file, such as an average beside the weights that
are trained, and put prefixes before their names. The tables here list what is known. A choice
between sets is never silent: :class:`FileWeights` says what was chosen and what was left.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from pae_framework.errors import CheckpointError
from pae_framework.untrusted_files import key_text, plain_tensors, read_untrusted
from pae_framework.weight_parts import find_parts

AVERAGES = {
    "ema": "LightningDiT, DiT, SiT, REPA, RAE",
    "model_ema": "timm, MaskGIT, ConvNeXt",
    "ema_model": "ema-pytorch, Lightning",
    "state_dict_ema": "timm",
    "ema_state_dict": "VAR",
    "model_ema_state_dict": "various",
    "params_ema": "BasicSR",
    "shadow_params": "torch-ema, Diffusers",
    "shadow": "various",
    "teacher": "DINO, DINOv2, DINOv3, iBOT",
    "target_encoder": "I-JEPA, V-JEPA",
}
"""Keys of averaged weights, and programs that write them; the first in this order is taken."""

TRAINED = {
    "model": "PAE, LightningDiT, DiT, SiT, MAE, DINOv2",
    "state_dict": "timm, open-clip, Lightning",
    "model_state_dict": "PyTorch's tutorials",
    "params": "BasicSR",
    "module": "DeepSpeed",
    "net": "various",
    "network": "various",
    "weights": "various",
    "student": "DINO, DINOv2, iBOT",
}
"""Keys of the weights that were trained, and programs that write them."""

WRAPPERS = ("module.", "_orig_mod.", "_forward_module.")
"""Prefixes that DistributedDataParallel, torch.compile and Fabric add to names."""
INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that compiled, sharded and recomputed blocks add."""

Preference = Literal["average", "trained"]

_MAYBE_AVERAGE = re.compile(r"(?:^|[_.-])(?:ema|swa|avg|averaged?|shadow)(?:[_.-]|$)", re.I)
_MAX_DEPTH = 4

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileWeights:
    """Weights of a file, and where they were.

    Args:
        path: the file, index or folder.
        tensors: by name, without wrappers and without ``prefix``.
        entry: key of the weights in the file, with dots between nested keys; None: the whole file.
        prefix: what preceded the name of every tensor; empty for none.
        left: other keys and prefixes in the file, whose contents are not used.
        alternatives: those of them that are further sets of weights.
    """

    path: Path
    tensors: dict[str, Tensor]
    entry: str | None = None
    prefix: str = ""
    left: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line: what was chosen and what was left."""
        places = [] if self.entry is None else [f"`{self.entry}`"]
        places += [f"names after `{self.prefix}`"] if self.prefix else []
        left = f"; not used: {_listed(self.left)}" if self.left else ""
        return f"{self.path.name}: read {', '.join(places) or 'the whole file'}{left}"


def read_checkpoint(
    path: Path, prefer: Preference = "trained", names: Collection[str] = ()
) -> dict[str, Tensor]:
    """The tensors of :func:`read_weights`; logs a warning if the file has other weights too.

    Raises:
        CheckpointError: see :func:`read_weights`.
    """
    weights = read_weights(path, prefer, names)
    if weights.alternatives:
        _warn_once(weights.summary)
    return weights.tensors


@cache
def _warn_once(line: str) -> None:
    """Log a warning; every stage of a run reads the same file."""
    logger.warning("%s", line)


def read_weights(
    path: Path, prefer: Preference = "trained", names: Collection[str] = ()
) -> FileWeights:
    """Read the weights in files of another program: safetensors or torch, one file or its parts.

    The weights are the file itself, or its first entry of :data:`AVERAGES` (only if preferred) and
    :data:`TRAINED`.
    Wrappers are removed from the names (:data:`WRAPPERS`, :data:`INNER_WRAPPERS`).

    Args:
        path: the file, the index (``*.index.json``) of several, or the folder of either.
        prefer: ``average``: averaged weights if the file has any; ``trained``: never those.
        names: some names of the network's weights, to find them behind a prefix such as
            ``teacher.backbone.``; empty: names have no prefix.

    Raises:
        CheckpointError: a file is missing or damaged, would have to be unpickled, holds no weights
            in these places, an average that cannot be used although it is preferred, or a tensor
            that is not dense and real.
    """
    content, size = _read_parts(path)
    entry = _chosen_entry(content, path, prefer)
    source = f"{path}" if entry.key is None else f"{path}: `{entry.key}`"
    tensors = _without_wrappers(plain_tensors(entry.tensors, source, size), path)
    part = _behind_prefix(tensors, names, path, prefer)
    return FileWeights(
        path,
        part.tensors,
        entry.key,
        part.prefix,
        entry.left + part.left,
        entry.alternatives + part.alternatives,
    )


def _read_parts(path: Path) -> tuple[Any, int]:
    """What the file holds, or the tensors of all parts together; and the bytes of the files."""
    found = find_parts(path)
    size = sum(file.stat().st_size for file in found.files)
    if found.index is None:
        return read_untrusted(found.files[0]), size
    merged: dict[Any, Any] = {}
    for file in found.files:
        part = _state_dict(read_untrusted(file), file)
        if other := sorted(key_text(name) for name in part.keys() ^ found.names[file]):
            raise CheckpointError(
                f"{file} and {found.index.name} list different tensors: {_listed(other)}"
            )
        merged |= part
    return merged, size


def _state_dict(content: Any, path: Path) -> Mapping[Any, Any]:
    if isinstance(content, Mapping):
        return content
    raise CheckpointError(f"{path} contains a {type(content).__name__}, not a state dict")


# --- entries --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """Weights under a key: a mapping, or a list without names."""

    key: str | None
    tensors: Any
    left: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()


def _chosen_entry(content: Any, path: Path, prefer: Preference) -> _Entry:
    """The preferred entry with weights; tensors in a list get the names of the trained weights."""
    found = _find_entry(_state_dict(content, path), path, prefer)
    if found is None:
        keys = [*AVERAGES, *TRAINED] if prefer == "average" else list(TRAINED)
        found_keys = _listed([key_text(key) for key in content])
        raise CheckpointError(
            f"{path} contains no weights: expected a state dict, alone or under one of the keys "
            f"{_listed(keys, most=99)}; found {found_keys or 'no keys'}"
        )
    if prefer == "average" and not _is_average(found.key or ""):
        _require_no_average(content, path)
    if isinstance(found.tensors, Mapping):
        return found
    trained = _find_entry(content, path, "trained")
    names = _names_for(found.tensors, trained)
    if names is None:
        raise CheckpointError(
            f"{path}: `{found.key}` is a list of {len(found.tensors)} tensors without names, which "
            "do not correspond to those of the trained weights; save it as a state dict"
        )
    return replace(found, tensors=dict(zip(names, found.tensors, strict=True)))


def _find_entry(
    content: Mapping[Any, Any], path: Path, prefer: Preference, depth: int = 0
) -> _Entry | None:
    """The first entry with weights of the preferred kind; None if there is none."""
    if depth > _MAX_DEPTH:
        raise CheckpointError(
            f"{path} contains itself, or its weights are under more than {_MAX_DEPTH} keys inside "
            "each other; save only the state dict"
        )
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    if content and tensors == len(content):
        return _Entry(None, content)
    keys = [key for key in (*AVERAGES, *TRAINED) if _holds_tensors(content.get(key))]
    wanted = keys if prefer == "average" else [key for key in keys if key in TRAINED]
    if not wanted:  # what is mostly tensors is a state dict, whose other values are named later
        return _Entry(None, content) if 2 * tensors > len(content) else None
    key, value = wanted[0], content[wanted[0]]
    kind: Preference = "average" if key in AVERAGES else prefer
    inner = _find_entry(value, path, kind, depth + 1) if isinstance(value, Mapping) else None
    inner = inner or _Entry(None, value)
    left = [key_text(other) for other in content if other != key]
    alternatives = [other for other in keys if other != key]
    return _Entry(
        key if inner.key is None else f"{key}.{inner.key}",
        inner.tensors,
        (*left, *(f"{key}.{name}" for name in inner.left)),
        (*alternatives, *(f"{key}.{name}" for name in inner.alternatives)),
    )


def _holds_tensors(value: Any) -> bool:
    """Whether maps and lists up to ``_MAX_DEPTH`` inside each other hold a tensor.

    Each is visited once, because they may be shared or contain themselves.
    """
    level, seen = [value], {id(value)}
    for _ in range(_MAX_DEPTH):
        found: list[Any] = []
        for outer in level:
            for inner in _elements(outer):
                if isinstance(inner, Tensor):
                    return True
                if id(inner) not in seen:
                    seen.add(id(inner))
                    found.append(inner)
        level = found
    return False


def _elements(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def _names_for(tensors: Sequence[Any], trained: _Entry | None) -> list[Any] | None:
    """Names of the trained weights, if they are as many and of the same shapes in this order."""
    if trained is None or not isinstance(trained.tensors, Mapping):
        return None
    shapes = [getattr(value, "shape", None) for value in trained.tensors.values()]
    if shapes != [getattr(value, "shape", None) for value in tensors]:
        return None
    return list(trained.tensors)


def _is_average(place: str) -> bool:
    """Whether a key or prefix is one of averaged weights."""
    return any(part in AVERAGES for part in place.split("."))


def _require_no_average(content: Mapping[Any, Any], path: Path) -> None:
    """Reject trained weights beside what may be their average under an unknown key."""
    texts = [key for key in content if isinstance(key, str) and _holds_tensors(content[key])]
    averages = [key for key in texts if _MAYBE_AVERAGE.search(key)]
    if averages:
        raise CheckpointError(
            f"{path}: {_listed(averages)} may be the average of the weights, which is preferred to "
            "them, but the key is not a known one; save a file with the weights to use alone"
        )


# --- names ----------------------------------------------------------------------------------------


def _without_wrappers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for name, value in tensors.items():
        short = name
        while short.startswith(WRAPPERS):
            short = short.partition(".")[2]
        short = ".".join(part for part in short.split(".") if part not in INNER_WRAPPERS)
        if short in plain:
            raise CheckpointError(f"{path}: two tensors have the name {short} without wrappers")
        plain[short] = value
    return plain


@dataclass(frozen=True)
class _Part:
    """Tensors after a prefix; ``left`` and ``alternatives`` are other prefixes."""

    prefix: str
    tensors: dict[str, Tensor]
    left: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()


def _behind_prefix(
    tensors: dict[str, Tensor], names: Collection[str], path: Path, prefer: Preference
) -> _Part:
    """The part of the tensors that belongs to a network with these names."""
    prefixes = _prefixes(tensors, names)
    preferred = [prefix for prefix in prefixes if _is_average(prefix) == (prefer == "average")]
    choice = [prefix for prefix in ("", *preferred) if prefix in (preferred or prefixes)]
    choice = choice or prefixes
    if len(choice) > 1 and choice[0]:
        raise CheckpointError(
            f"{path} holds several networks of this form, after {_listed(sorted(choice))}; save a "
            "file with the one to use"
        )
    prefix = choice[0] if choice else ""
    others = tuple(other for other in prefixes if other != prefix)
    part = {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix) and not (prefix == "" and others and name.startswith(others))
    }
    unused = (name for name in tensors if name.removeprefix(prefix) not in part)
    left = tuple(dict.fromkeys(f"{name.partition('.')[0]}.*" for name in unused))
    return _Part(prefix, part, left, tuple(f"{other}*" for other in others))


def _prefixes(tensors: Collection[str], names: Collection[str]) -> list[str]:
    """Prefixes, empty or with a dot at the end, before about as many of ``names`` as any other."""
    votes: Counter[str] = Counter()
    for name in tensors:
        ends = [0, *(match.end() for match in re.finditer(r"\.", name))]
        votes.update(name[:end] for end in ends if name[end:] in names)
    most = max(votes.values(), default=0)
    return [prefix for prefix, count in votes.items() if count > most / 2]


def _listed(texts: Sequence[str], most: int = 8) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(f"`{text}`" for text in texts[:most]) + more
