"""Memory and GPUs of this machine, found without torch."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_DRIVER_FILES = (Path("/proc/driver/nvidia/gpus"), Path("/sys/class/kfd/kfd/topology/nodes"))
"""Folders with one entry per device: NVIDIA's driver, and AMD's."""


@dataclass(frozen=True)
class Machine:
    """``memory`` in bytes, None: unknown; the memory in bytes of each visible GPU, 0: unknown."""

    memory: int | None
    gpus: tuple[int, ...]


def this_machine() -> Machine:
    """The machine this process runs on."""
    return Machine(_main_memory(), _visible(_gpus()))


def _main_memory(table: Path = Path("/proc/meminfo")) -> int | None:
    try:
        lines = table.read_text(encoding="ascii").splitlines()
        (line,) = (line for line in lines if line.startswith("MemTotal:"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None


def _gpus() -> tuple[int, ...]:
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return tuple(int(line) << 20 for line in answer.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        pass
    for folder in _DRIVER_FILES:
        if folder.is_dir():
            return (0,) * sum(1 for _ in folder.iterdir())
    return ()


def _visible(gpus: tuple[int, ...]) -> tuple[int, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` selects; unset: all, empty: none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return gpus
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    if all(name.isdecimal() for name in names):
        return tuple(gpus[int(name)] for name in names if int(name) < len(gpus))
    return gpus[: len(names)] if "-1" not in names else ()
