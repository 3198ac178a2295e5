"""Whether this machine and what is installed on it are fit for runs, for ``pae doctor``. No torch.

Torch is asked in a process of its own, because importing it here takes seconds and may crash.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from pae_framework.config import ComponentConfig
from pae_framework.errors import PluginError
from pae_framework.hub import UrlFile
from pae_framework.preflight.machine import Machine
from pae_framework.preflight.resources import RUNS, SHARED_MEMORY, lacking_compiler
from pae_framework.registry import DISTRIBUTION, Plugin, Registry
from pae_framework.runs.locks import has_locks
from pae_framework.system.file_errors import existing_folder, folder_problem, free_space, gib

Level = Literal["ok", "warning", "error"]

SLOW_SECONDS = 0.5
"""A registration that takes longer delays every command noticeably."""
LITTLE_SPACE = 5 << 30
"""Free bytes below which a disk is worth a warning."""
LITTLE_SHARED = 1 << 30
"""The same for shared memory, through which workers pass batches; Docker's default is 64 MiB."""
_TORCH_SECONDS = 120
_ASK_TORCH = """
import json, torch
gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
    "available": torch.cuda.is_available(), "bf16": bool(gpus) and torch.cuda.is_bf16_supported(),
    "gpus": [[gpu.name, gpu.total_memory] for gpu in gpus],
}))
"""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        topic: what it belongs to: ``python``, ``torch``, ``disk``, ``plugins``, ``run`` ...
        level: whether it is fine.
        text: what was found.
        remedy: what to do; empty if nothing.
    """

    topic: str
    level: Level
    text: str
    remedy: str = ""


def examine(
    registry: Registry, machine: Machine, recorded: Mapping[str, Any] | None = None
) -> Iterator[Finding]:
    """Everything that is looked at, in the order in which to mend it.

    Args:
        registry: the installed plugins.
        machine: this machine.
        recorded: the environment of a run, to compare with; None: of none.
    """
    yield from _packages()
    yield from _torch(machine)
    yield from _compiler(machine)
    yield from _folders()
    yield from _caches()
    yield from _slurm()
    yield from _plugins(registry)
    if recorded is not None:
        yield from _differences(registry, recorded)


# --- packages and torch ---------------------------------------------------------------------------


def _packages() -> Iterator[Finding]:
    """Whether what we require is installed, in versions that we support."""
    from packaging.requirements import Requirement

    python = ".".join(map(str, sys.version_info[:3]))
    wrong = 0
    for text in requires(DISTRIBUTION) or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        if (problem := _unmet(wanted.name, str(wanted.specifier))) is not None:
            wrong += 1
            yield Finding("packages", "error", problem, f"pip install '{text.partition(';')[0]}'")
    if not wrong:
        text = f"Python {python}, pae-framework {version(DISTRIBUTION)} and all it requires"
        yield Finding("packages", "ok", text)


def _unmet(name: str, specifier: str) -> str | None:
    from packaging.specifiers import SpecifierSet

    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} is not installed"
    if not SpecifierSet(specifier).contains(found, prereleases=True):
        return f"{name} {found} is installed, but {name}{specifier} is needed"
    return None


def _torch(machine: Machine) -> Iterator[Finding]:
    try:
        told = _told_by_torch()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        lines = str(getattr(error, "stderr", None) or error).strip().splitlines()
        reason = lines[-1] if lines else type(error).__name__
        remedy = "install torch again: https://pytorch.org/get-started"
        yield Finding("torch", "error", f"torch cannot be imported: {reason}", remedy)
        return
    build = told["cuda"] or told["hip"]
    text = f"torch {told['version']}, " + (f"built for {build}" if build else "built for the CPU")
    if machine.gpus and not told["available"]:
        remedy = (
            "update the GPU's driver, or install a torch for it"
            if build
            else "install torch with CUDA: https://pytorch.org/get-started"
        )
        message = f"{text}, cannot use the {len(machine.gpus)} GPUs of this machine"
        yield Finding("torch", "error", message, remedy)
        return
    yield Finding("torch", "ok", text)
    for name, memory in told["gpus"]:
        yield Finding("torch", "ok", f"GPU {name}, {gib(memory)}")
    if not told["gpus"]:
        yield Finding("torch", "ok", "no GPU: runs use the CPU")
    elif not told["bf16"]:
        message = "the GPU has no bf16, in which the full recipes train and sample"
        yield Finding("torch", "warning", message, "set `precision: float32`")


def _told_by_torch() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _ASK_TORCH],
        capture_output=True,
        text=True,
        timeout=_TORCH_SECONDS,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def _compiler(machine: Machine) -> Iterator[Finding]:
    if (lack := lacking_compiler(bool(machine.gpus))) is None:
        yield Finding("compiler", "ok", "torch.compile finds what it needs")
    else:
        yield Finding("compiler", "warning", lack, "install it, or leave `compile: false`")


# --- disks and caches -----------------------------------------------------------------------------


def _folders() -> Iterator[Finding]:
    if (problem := folder_problem(RUNS)) is not None:
        yield Finding("disk", "error", problem, "choose another place with --run-dir")
    else:
        yield _space("disk", RUNS, LITTLE_SPACE, "for runs", "make room, or choose --run-dir")
    if not has_locks(existing_folder(RUNS)):
        message = f"the file system of {existing_folder(RUNS).absolute()} has no locks"
        yield Finding("disk", "warning", message, "do not run one recipe from two machines at once")
    if SHARED_MEMORY.is_dir():
        remedy = f"enlarge {SHARED_MEMORY} (docker run --shm-size), or set `workers: 0`"
        yield _space("disk", SHARED_MEMORY, LITTLE_SHARED, "for batches", remedy)


def _space(topic: str, folder: Path, least: int, purpose: str, remedy: str) -> Finding:
    free = free_space(folder)
    if free is None:
        return Finding(topic, "warning", f"{folder}: free space is unknown")
    text = f"{existing_folder(folder).absolute()}: {gib(free)} free {purpose}"
    return Finding(topic, "ok", text) if free >= least else Finding(topic, "warning", text, remedy)


def _caches() -> Iterator[Finding]:
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    for what, variable, folder in (
        ("weights from the Hugging Face hub", "HF_HOME", Path(home).expanduser() / "hub"),
        ("other weights", "TORCH_HOME", UrlFile("https://none/none").path.parent),
    ):
        if (problem := folder_problem(folder)) is not None:
            yield Finding("caches", "error", f"{what}: {problem}", f"set {variable}")
        else:
            remedy = f"make room, or set {variable} to a folder on another disk"
            found = _space("caches", folder, LITTLE_SPACE, f"for {what}", remedy)
            yield Finding("caches", found.level, f"{folder}; {found.text}", found.remedy)
    for variable in ("HF_HUB_OFFLINE", "PAE_OFFLINE"):
        if os.environ.get(variable):
            yield Finding("caches", "ok", f"{variable} is set: nothing is downloaded")


def _slurm() -> Iterator[Finding]:
    if shutil.which("sbatch"):
        yield Finding("slurm", "ok", "sbatch is here; `pae profiles` lists where runs can go")


# --- plugins --------------------------------------------------------------------------------------


def _plugins(registry: Registry) -> Iterator[Finding]:
    fine = 0
    for plugin in registry.plugins:
        found = [*_of_plugin(plugin), *_of_configs(plugin, registry)]
        yield from found
        fine += not found
    yield Finding("plugins", "ok", f"{fine} of {len(registry.plugins)} plugins load and are fine")
    for spec in registry.specs():
        if registry.hidden(spec):
            message = (
                f"the {spec.kind} {spec.name!r} of {spec.origin} has the name of a built-in one"
            )
            remedy = f"write `use: {registry.use_name(spec)}` where you mean the plugin's"
            yield Finding("plugins", "warning", message, remedy)
    shared: dict[tuple[str, str], list[str]] = {}
    for spec in registry.specs():
        if not spec.built_in and not registry.hidden(spec):
            shared.setdefault((spec.kind, spec.name), []).append(registry.use_name(spec))
    for (kind, name), uses in shared.items():
        if len(uses) > 1:
            message = f"the name of the {kind} {name!r} is shared by {len(uses)} plugins"
            yield Finding("plugins", "warning", message, f"write `use: {' or '.join(uses)}`")


def _of_plugin(plugin: Plugin) -> Iterator[Finding]:
    named = f"{plugin.name} ({plugin.distribution} {plugin.version})"
    if plugin.error is not None:
        remedy = "update or uninstall it; `pae list-plugins --broken` shows the traceback"
        yield Finding("plugins", "error", f"{named} does not load: {plugin.error}", remedy)
    elif plugin.heavy:
        message = f"{named} imports torch when it registers, which slows every command down"
        remedy = "its author should register components by name: see docs/plugins.md"
        yield Finding("plugins", "warning", message, remedy)
    elif plugin.seconds > SLOW_SECONDS:
        message = f"{named} takes {plugin.seconds:.1f} s to register"
        yield Finding(
            "plugins", "warning", message, "its author should import less at registration"
        )


def _of_configs(plugin: Plugin, registry: Registry) -> Iterator[Finding]:
    """Configs that cannot be imported; built-in ones are tested."""
    for spec in registry.specs():
        if spec.plugin == plugin and not plugin.built_in:
            try:
                _: type[ComponentConfig] = spec.config_class()
            except PluginError as error:
                yield Finding("plugins", "error", str(error), f"update {plugin.distribution}")


# --- a run ----------------------------------------------------------------------------------------


def _differences(registry: Registry, recorded: Mapping[str, Any]) -> Iterator[Finding]:
    """In what this environment differs from that of a run."""
    from pae_framework.runs.environment import describe_environment

    now = describe_environment(registry)
    found = [
        *_other_versions("packages", recorded, now),
        *_other_versions("plugins", recorded, now),
    ]
    for key, words in (("python", "Python"), ("commit", "commit of pae-framework")):
        before, here = recorded.get(key), now[key]
        if before != here:
            message = f"{words}: {before or 'unknown'} in the run, {here or 'unknown'} here"
            found.append(Finding("run", "warning", message))
    yield from found
    if not found:
        yield Finding("run", "ok", "the run used the same packages and plugins")


def _other_versions(
    key: str, recorded: Mapping[str, Any], now: Mapping[str, Any]
) -> Sequence[Finding]:
    before, here = recorded.get(key, {}), now[key]
    found = []
    for name in sorted({*before, *here}):
        one, other = before.get(name), here.get(name)
        if one == other or (one is None and key == "plugins"):
            continue  # a plugin that was added since changes nothing
        text = f"{name}: {one or 'absent'} in the run, {other or 'absent'} here"
        found.append(Finding("run", "warning", text, _remedy(key, name, one) if one else ""))
    return found


def _remedy(key: str, name: str, version: str) -> str:
    if ".py " in version:  # path and digest of a plugin file
        return "it was edited or moved since; `pae run` says what would run again"
    return f"install {name} {version}" if key == "packages" else f"install {version}"
