"""Memory and GPUs of this machine. No torch."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_DRIVER_FILES = (Path("/proc/driver/nvidia/gpus"), Path("/sys/class/kfd/kfd/topology/nodes"))
"""Folders with one entry per device: NVIDIA's driver, and AMD's."""


@dataclass(frozen=True)
class Machine:
    """Memory of a machine."""

    memory: int | None
    """Main memory in bytes; None if unknown."""
    gpus: tuple[int, ...]
    """Memory of each visible GPU in bytes; 0 if unknown."""


def this_machine() -> Machine:
    """The machine this process runs on."""
    return Machine(_main_memory(), _visible(_gpus()))


def _main_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # unknown to this system
        return None


def _gpus() -> tuple[int, ...]:
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return tuple(int(line) << 20 for line in answer.stdout.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        counts = (sum(1 for _ in folder.iterdir()) for folder in _DRIVER_FILES if folder.is_dir())
        return (0,) * next(counts, 0)


def _visible(gpus: tuple[int, ...]) -> tuple[int, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` selects: all if it is unset, none if it is empty."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return gpus
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    if all(name.isdecimal() for name in names):
        return tuple(gpus[int(name)] for name in names if int(name) < len(gpus))
    return gpus[: len(names)] if "-1" not in names else ()
