"""Which files hold a set of weights: one file, or the parts that an index lists. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path

from pae_framework.errors import CheckpointError
from pae_framework.hub import FILE_SUFFIXES, INDEX_SUFFIX
from pae_framework.system.files import file_identity, file_problem, json_digest

_PART = re.compile(r"(.+)-\d+-of-0*([1-9]\d*)\.\w+")


@dataclass(frozen=True)
class WeightParts:
    """The files of a set of weights.

    Args:
        files: those with tensors.
        names: the tensors that the index expects in each file; empty without an index.
        index: the index, if there is one.
    """

    files: tuple[Path, ...]
    names: Mapping[Path, frozenset[str]] = field(default_factory=dict)
    index: Path | None = None


def find_parts(path: Path) -> WeightParts:
    """The files that ``path`` stands for: a file, an index, or a folder with one set of weights.

    Raises:
        CheckpointError: there is no such file, the folder holds no or several sets, the file is
            one of several parts, or the index is damaged or names a part that is missing.
    """
    if path.is_dir():
        path = _only_set(path)
    if problem := file_problem(path):
        raise CheckpointError(problem)
    if path.name.endswith(".json"):
        return _indexed(path)
    if (match := _PART.fullmatch(path.name)) and match[2] != "1":
        raise CheckpointError(
            f"{path} is one of {match[2]} parts of a set of weights; pass {_whole(path, match[1])}"
        )
    return WeightParts((path,))


def contents_identity(path: Path) -> str | None:
    """Hash that identifies the contents of the weights at ``path``, not their names.

    See :func:`~pae_framework.system.files.file_identity`; the parts of a set are hashed in the
    order of their names. Names matter only in a folder of several sets. None: there are no such
    weights.
    """
    if path.is_file() and not path.name.endswith(INDEX_SUFFIX):
        return file_identity(path)
    try:
        files = find_parts(path).files
    except CheckpointError:
        if path.is_file():
            return file_identity(path)
        several = [(file.name, file_identity(file)) for file in _weights_in(path)]
        return json_digest(several) if several else None
    identities = [file_identity(file) for file in files]
    if len(identities) == 1:
        return identities[0]
    return hashlib.blake2b("".join(identities).encode(), digest_size=12).hexdigest()


def _weights_in(folder: Path) -> list[Path]:
    """The weights files in a folder, by name; none if it is no folder or cannot be read."""
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix in FILE_SUFFIXES)
    except OSError:
        return []
    return [path for path in found if path.is_file()]


def _only_set(folder: Path) -> Path:
    """The index or the file of the one set of weights in a folder."""
    try:
        visible = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from error
    indices = [path for path in visible if path.name.endswith(INDEX_SUFFIX)]
    files = [path for path in visible if path.suffix in FILE_SUFFIXES]
    if indices:
        files = [path for path in files if not _PART.fullmatch(path.name)]
    if len(sets := indices + files) == 1:
        return sets[0]
    if any(path.suffix == ".distcp" for path in visible):
        raise CheckpointError(
            f"{folder} holds a distributed checkpoint of torch; convert it with "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save and pass that file"
        )
    found = ", ".join(path.name for path in sets[:8]) or "no file of weights"
    raise CheckpointError(f"{folder} holds {found}; pass one file or one *{INDEX_SUFFIX}")


def _whole(part: Path, stem: str) -> Path | str:
    """What to pass instead of a part."""
    indices = sorted(part.parent.glob(f"{escape(stem)}*{INDEX_SUFFIX}"))
    if len(indices) == 1:
        return indices[0]
    return f"their index (*{INDEX_SUFFIX}), which has to lie beside them"


def _indexed(index: Path) -> WeightParts:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{index} cannot be read: {error}") from error
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not where:
        raise CheckpointError(f"{index} is no index of weights: it has no `weight_map`")
    names: dict[Path, set[str]] = {}
    for name, file in where.items():
        if not isinstance(file, str) or Path(file).name != file or "\0" in file:
            raise CheckpointError(f"{index}: {name} is in {file!r}, not in a file beside the index")
        names.setdefault(index.parent / file, set()).add(name)
    if absent := sorted(path.name for path in names if not path.is_file()):
        raise CheckpointError(f"{index} lists files that are missing: {', '.join(absent[:8])}")
    files = {path: frozenset(names[path]) for path in sorted(names)}
    return WeightParts(tuple(files), files, index)
