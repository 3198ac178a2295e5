"""Memory and GPUs of this machine. No torch."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pae_framework.system.file_errors import gib

_DRIVER_FILES = (Path("/proc/driver/nvidia/gpus"), Path("/sys/class/kfd/kfd/topology/nodes"))
"""Folders with one entry per device: NVIDIA's driver, and AMD's."""

_LIMIT_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Limits of a container's memory in bytes: of control groups, version 2 and 1."""


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


def memory_advice(settings: str) -> str:
    """What to do about a process that the system killed, as it does when memory runs out."""
    memory = _main_memory()
    here = "" if memory is None else f" ({gib(memory)} here)"
    return f"as the system does when memory{here} runs out; set {settings} lower"


def _main_memory() -> int | None:
    """Memory of the machine, or of its container if that may use less."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):  # unknown to this system
        return None
    return min([memory, *_container_limits()])


def _container_limits() -> Iterator[int]:
    for file in _LIMIT_FILES:
        with suppress(OSError, ValueError):  # "max": no limit
            yield int(file.read_text(encoding="ascii"))


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
