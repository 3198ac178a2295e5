"""The run that version 0.1.0 began, at commit 757b773, and what it came to when it was not stopped.

``old_run/stopped`` was asked to stop (SIGTERM) in its tokenizer stage at step 4 and stopped after
step 5 of 8; ``old_run/finished`` is the same recipe gone through. Both lack what TensorBoard reads,
locks, and checkpoints of finished stages; the finished one also the weights its results do not
need, and its report. ``outcome.json`` has what the finished one came to, and on which machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from observe import HERE
from safetensors import safe_open

OLD = HERE / "old_run"
STAGES = (
    *("extractor", "encoder", "refine", "tokenizer", "latents"),
    *("generator", "sample", "evaluate", "report"),
)
FINISHED = STAGES[:3]
STOPPED_AT = 5


def outcome() -> dict[str, Any]:
    """What the uninterrupted run came to."""
    found: dict[str, Any] = json.loads((OLD / "outcome.json").read_text(encoding="utf-8"))
    return found


def copy_of(name: str, folder: Path) -> Path:
    """A copy of ``stopped`` or ``finished`` that may be written to."""
    return shutil.copytree(OLD / name, folder / name, symlinks=True)


def came_to(run: Path) -> dict[str, Any]:
    """Metrics, last lines of logs, and digests of the weights of a finished run."""
    metrics = json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))
    return {
        "metrics": [[metric["name"], metric["value"]] for metric in metrics],
        "losses": {
            stage: log(run, stage)[-1]["loss"]
            for stage in ("extractor", "encoder", "refine", "tokenizer", "generator")
        },
        "digests": {
            name: digest(run / name)
            for name in ("tokenizer/tokenizer.safetensors", "generator/weights.safetensors")
        },
    }


def log(run: Path, stage: str) -> list[dict[str, Any]]:
    """Lines of a stage's log."""
    lines = (run / stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def digest(path: Path) -> str:
    """Hash of names and bits of a file's tensors; their order in it does not count."""
    found = hashlib.sha256()
    with safe_open(path, "pt") as file:
        for name in sorted(file.keys()):
            found.update(name.encode() + file.get_tensor(name).contiguous().numpy().tobytes())
    return found.hexdigest()


def machine() -> dict[str, str]:
    """What bits depend on: torch, and which instructions the processor has."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    told = dict(reversed([line.split("\t", 1) for line in lines if "\t" in line]))
    keys = ("model name", "cpu family", "model", "flags")
    about = {key.strip(): value.strip("\t: ") for key, value in told.items()}
    processor = hashlib.sha256("".join(about.get(key, "") for key in keys).encode()).hexdigest()
    return {"torch": torch.__version__, "processor": f"{about.get('model name')} {processor[:12]}"}
