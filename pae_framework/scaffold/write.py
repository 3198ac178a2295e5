"""Writes a new plugin, and updates the scaffolding of one. No torch.

``.pae-plugin.json`` records what was written. An update replaces only files that still have these
contents; what the author changed stays as it is.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pae_framework import PAE_API, __version__
from pae_framework.errors import UsageError
from pae_framework.kinds import KINDS
from pae_framework.scaffold.names import Names
from pae_framework.scaffold.plugin_package import all_files, scaffolding
from pae_framework.system.files import (
    digest_of_text,
    file_problem,
    make_folder,
    read_json,
    read_text,
    write_json,
    write_text,
)

RECORD = ".pae-plugin.json"


def write_plugin(names: Names, folder: Path) -> list[str]:
    """Write a new plugin; returns the paths of its files.

    Raises:
        UsageError: there is something at ``folder`` already.
        WriteError: a file cannot be written.
    """
    if os.path.lexists(folder):
        raise UsageError(f"{folder} exists; choose another --out, or update it with --update")
    written = all_files(names)
    for path, text in written.items():
        _write(folder / path, text)
    _write_record(folder, names, _digests_of(scaffolding(names)))
    return [*written, RECORD]


@dataclass(frozen=True)
class FileUpdate:
    """What an update does to one file."""

    path: str
    state: str
    """``updated``, ``added``, ``restored``: it was deleted, or ``kept``: the author changed it, or
    it is behind a link of the author's."""
    diff: str
    """From the file as it is to that of the installed version, as a unified diff."""


def update_plugin(folder: Path) -> list[FileUpdate]:
    """Bring the scaffolding of a plugin to the installed version; returns what differs.

    Raises:
        UsageError: ``folder`` is no plugin that :func:`write_plugin` wrote, or one that a newer
            version wrote.
        WriteError: a file cannot be written.
    """
    names, recorded = _read_record(folder)
    current = scaffolding(names)
    updates = list(_updates(folder, current, recorded))
    for update in updates:
        if update.state != "kept":
            _write(folder / update.path, current[update.path])
    _write_record(folder, names, _digests(current, recorded, updates))
    return updates


def _digests(
    current: Mapping[str, str],
    recorded: Mapping[str, str],
    updates: Iterable[FileUpdate],
) -> dict[str, str]:
    """Digests of what was written last. A file that was never written has none."""
    kept = {update.path for update in updates if update.state == "kept"}
    before = {path: recorded[path] for path in kept & recorded.keys()}
    written = {path: text for path, text in current.items() if path not in kept}
    return {**before, **_digests_of(written)}


def _updates(
    folder: Path, current: Mapping[str, str], recorded: Mapping[str, str]
) -> Iterator[FileUpdate]:
    for path, text in current.items():
        exists = (folder / path).exists()
        found = _read(folder / path) if exists else ""
        if exists and found == text:
            continue
        if _is_linked(folder, path):
            state = "kept"
        elif not exists:
            state = "restored" if path in recorded else "added"
        else:
            unchanged = recorded.get(path) == digest_of_text(found)
            state = "updated" if unchanged else "kept"
        yield FileUpdate(path, state, _diff(path, found, text))


def _is_linked(folder: Path, path: str) -> bool:
    """Whether a file of a plugin, or a folder that it is in, is a symbolic link."""
    inside = (Path(path), *Path(path).parents)
    return any((folder / part).is_symlink() for part in inside if part.name)


def _diff(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), path, path
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _write(path: Path, text: str) -> None:
    make_folder(path.parent)
    write_text(path, text)


def _digests_of(written: Mapping[str, str]) -> dict[str, str]:
    return {path: digest_of_text(text) for path, text in written.items()}


def _write_record(folder: Path, names: Names, digests: Mapping[str, str]) -> None:
    record = {
        "distribution": names.distribution,
        "kinds": list(names.kinds),
        "pae_framework": __version__,
        "pae_api": PAE_API,
        "files": dict(digests),
    }
    write_json(folder / RECORD, record)


def _read_record(folder: Path) -> tuple[Names, dict[str, str]]:
    path = folder / RECORD
    if (problem := file_problem(path)) is not None:
        raise UsageError(f"{problem}; --update takes the folder that `pae new-plugin` wrote")
    try:
        record = read_json(path)
        kinds, digests = tuple(record["kinds"]), dict(record["files"])
        api, names = record.get("pae_api", PAE_API), Names(str(record["distribution"]), kinds)
        valid = all(kind in KINDS for kind in kinds) and all(
            isinstance(text, str) for text in (*digests.values(), *digests)
        )
        if not (kinds and valid and names.are_usable and type(api) is int):
            raise ValueError("its values are not those of a plugin")
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UsageError(
            f"{path} is damaged: {type(error).__name__}: {error}; restore it, or write the plugin "
            "anew into another folder and copy your code"
        ) from error
    if api > PAE_API:
        raise UsageError(f"{path} is for plugin API {api}, not {PAE_API}; update pae-framework")
    return names, digests


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
