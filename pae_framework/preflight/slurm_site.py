"""What a Slurm site offers, as ``sinfo`` tells it. No torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from pae_framework.recipe.profile_settings import seconds_of

_FORMAT = "%P|%a|%l|%D|%c|%m|%G|%f"
_TIMEOUT = 20
"""In seconds; a controller that is down answers late or never."""


@dataclass(frozen=True)
class NodeKind:
    """Nodes of a partition that are alike."""

    count: int
    cpus: int
    """CPUs of each node."""
    mib: int
    """Memory of each node in MiB."""
    gpus: int
    """GPUs of each node."""
    features: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Partition:
    """One partition."""

    name: str
    state: str
    """``up``, or why it takes or starts no jobs: ``down``, ``drain``, ``inact``."""
    minutes: int | None
    """Longest time limit; None: unlimited."""
    nodes: tuple[NodeKind, ...]
    default: bool = False
    """Whether jobs that name no partition go there."""


class SiteUnknownError(Exception):
    """The site cannot be asked; the text says why."""


def read_partitions() -> tuple[Partition, ...]:
    """The partitions of this machine's Slurm.

    Raises:
        SiteUnknownError: there is no Slurm on this machine, or it does not answer.
    """
    if shutil.which("sinfo") is None:
        raise SiteUnknownError("no Slurm on this machine: sinfo is not on PATH")
    command = ["sinfo", "--all", "--exact", "--noheader", f"--format={_FORMAT}"]
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, check=True
        )
        return parse_partitions(answer.stdout)
    except subprocess.TimeoutExpired:
        raise SiteUnknownError(f"sinfo did not answer within {_TIMEOUT} s") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [f"exit code {error.returncode}"])[-1]
        raise SiteUnknownError(f"sinfo failed: {reason}") from None
    except (OSError, ValueError) as error:
        raise SiteUnknownError(f"the answer of sinfo cannot be read: {error}") from None


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """The partitions in the answer of ``sinfo``, whose lines are groups of nodes that are alike.

    Raises:
        ValueError: a line is not of the format asked for.
    """
    partitions: dict[str, Partition] = {}
    for line in text.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) != 8:
            raise ValueError(f"unexpected line {line[:80]!r}")
        partition, state, limit, *node = fields
        name = partition.removesuffix("*")
        earlier = partitions.get(name)
        partitions[name] = Partition(
            name,
            state,
            _minutes(limit),
            (*(earlier.nodes if earlier else ()), _node_kind(node)),
            default=partition.endswith("*"),
        )
    return tuple(partitions.values())


def _node_kind(fields: Sequence[str]) -> NodeKind:
    count, cpus, mib, gres, features = fields
    return NodeKind(_number(count), _number(cpus), _number(mib), _gpus(gres), _features(features))


def _number(text: str) -> int:
    return int(text.removesuffix("+"))


def _minutes(limit: str) -> int | None:
    if limit in ("infinite", "n/a"):
        return None
    clock = limit if "-" in limit or limit.count(":") == 2 else f"00:{limit}"
    return seconds_of(clock) // 60


def _gpus(gres: str) -> int:
    """Number of GPUs in generic resources such as ``gpu:a100:4(S:0-1),nvme:1``."""
    entries = re.sub(r"\([^)]*\)", "", gres).split(",")
    found = (re.fullmatch(r"gpu(?::[^:]+)??(?::(\d+))?", entry) for entry in entries)
    return sum(int(match[1] or 1) for match in found if match)


def _features(features: str) -> frozenset[str]:
    return frozenset() if features == "(null)" else frozenset(features.split(","))
