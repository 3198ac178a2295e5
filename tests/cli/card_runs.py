"""Finished runs with given metrics, made from one that version 0.1.0 left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FINISHED = Path(__file__).parent.parent / "guard" / "old_run" / "finished"
PROTOCOL = {"test_data": {"use": "shapes"}, "count": 24, "precision": "float32"}


def metric(name: str = "reconstruction/psnr", value: float = 20.0, **more: Any) -> dict[str, Any]:
    """A metric in JSON; ``more`` replaces its fields."""
    label = {"psnr": "PSNR", "fd_small_cnn": "gFD"}.get(name.partition("/")[2], "made up")
    return {
        "name": name,
        "label": label,
        "value": value,
        "higher_is_better": label != "gFD",
        "std": None,
        "at": {},
        "protocol": PROTOCOL,
        "subject": {},
        **more,
    }


def finished_run(
    path: Path,
    metrics: Sequence[Mapping[str, Any]] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """A run with these metrics; ``changes``: values of its recipe by dotted key."""
    shutil.copytree(FINISHED, path, symlinks=True)
    resolved = path / "resolved.yaml"
    recipe = yaml.safe_load(resolved.read_text(encoding="utf-8"))
    for key, value in {"name": path.name, **(changes or {})}.items():
        *sections, last = key.split(".")
        section = recipe
        for name in sections:
            section = section[name]
        section[last] = value
    resolved.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    record = path / "run.json"
    info = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**info, "name": path.name}), encoding="utf-8")
    if metrics is not None:
        results = path / "evaluate" / "results.json"
        results.write_text(json.dumps(list(metrics)), encoding="utf-8")
    return path


def sweep_of(path: Path, runs: Mapping[str, Sequence[Mapping[str, Any]]], **seeds: int) -> Path:
    """A sweep whose members have these metrics; ``seeds``: of members, 0 if not given."""
    (path / "members").mkdir(parents=True)
    for name, metrics in runs.items():
        finished_run(path / "members" / name, metrics, {"seed": seeds.get(name, 0)})
    info = {"name": path.name, "command": "pae run", "members": list(runs)}
    (path / "run.json").write_text(json.dumps(info), encoding="utf-8")
    return path
