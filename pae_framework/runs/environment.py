"""Machine and software of a run. No torch."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pae_framework.registry import Registry
from pae_framework.system.cores import usable_cores

PACKAGES = (
    "pae-framework",
    "torch",
    "torchvision",
    "torch-fidelity",
    "numpy",
    "scikit-learn",
    "timm",
    "open-clip-torch",
    "xformers",
    "submitit",
    "pydantic",
)
_DRIVER = Path("/proc/driver/nvidia")


def describe_environment(registry: Registry) -> dict[str, Any]:
    """Python, machine, GPUs with their driver, versions, and the commit if run from a checkout."""
    return {
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": usable_cores(),
        "gpus": _gpus(),
        "driver": _driver(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "plugins": {plugin.name: plugin.source for plugin in registry.plugins},
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _gpus() -> list[str]:
    """Names of the NVIDIA GPUs of the machine, also of those that the process does not use."""
    texts = (_text(file) for file in sorted(_DRIVER.glob("gpus/*/information")))
    lines = (line for text in texts for line in text.splitlines())
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]


def _driver() -> str | None:
    """The version of NVIDIA's driver; None if there is none."""
    first = _text(_DRIVER / "version").partition("\n")[0]
    found = re.search(r"\b\d+(\.\d+)+\b", first)
    return None if found is None else found.group()


def _text(file: Path) -> str:
    """A file of the system; empty if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


@cache
def _commit() -> str | None:
    """Commit of the checkout this package runs from, with ``+`` if files differ from it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = "+" if git("status", "--porcelain") else ""
        return git("rev-parse", "--short=12", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return None
