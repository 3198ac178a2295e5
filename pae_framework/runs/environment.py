"""Machine and software of a run. No torch."""

from __future__ import annotations

import platform
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
    "pydantic",
)


def describe_environment(registry: Registry) -> dict[str, Any]:
    """Python, machine, versions of packages and plugins, and the commit if run from a checkout."""
    return {
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": usable_cores(),
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
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


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
