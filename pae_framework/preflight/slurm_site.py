"""What a Slurm site offers, as its commands tell it. No torch."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pae_framework.recipe.profile_settings import gpus_in_gres, seconds_of
from pae_framework.system.slurm import SlurmUnknownError, ask_slurm, slurm_rows, unreadable

_FORMAT = "%P|%a|%l|%s|%D|%c|%m|%G|%f"
_FIELDS = _FORMAT.count("|") + 1


@dataclass(frozen=True)
class NodeKind:
    """Nodes of a partition that are alike."""

    count: int
    cpus: int
    """CPUs of each node."""
    mib: int
    """Memory of each node in MiB."""
    gpus: Mapping[str, int]
    """GPUs of each node by type; a type without a name is empty."""
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
    fewest: int = 1
    """Smallest number of nodes of a job."""
    most: int | None = None
    """Largest number of nodes of a job; None: unlimited, or unknown."""
    default: bool = False
    """Whether jobs that name no partition go there."""


@dataclass(frozen=True)
class Association:
    """What a user may charge and use."""

    account: str
    partition: str
    """The only partition it is for; empty: all."""
    qos: frozenset[str]
    """Empty: unknown."""


@dataclass(frozen=True)
class Site:
    """What a site says about itself. What its commands do not tell is unknown, and not guessed."""

    partitions: tuple[Partition, ...]
    associations: tuple[Association, ...] = ()
    """Those of this user; empty: unknown, or the site does not enforce them."""
    kill_wait: int | None = None
    """Seconds between the signal at a time limit and the kill; None: unknown."""
    unknown: tuple[str, ...] = field(default=(), compare=False)
    """Why each thing that is unknown is so."""


def ask_site() -> Site:
    """What this machine's Slurm says.

    Raises:
        SlurmUnknownError: there is no Slurm on this machine, or it does not name its partitions.
    """
    partitions = read_partitions()
    unknown: list[str] = []
    settings: Mapping[str, str] = {}
    associations: tuple[Association, ...] = ()
    try:
        settings = read_settings()
    except SlurmUnknownError as error:
        unknown.append(str(error))
    try:
        if _enforces_associations(settings):
            associations = read_associations()
        else:
            unknown.append("accounts and QOS, which the site does not enforce")
    except SlurmUnknownError as error:
        unknown.append(str(error))
    return Site(partitions, associations, _kill_wait(settings), tuple(unknown))


def read_partitions() -> tuple[Partition, ...]:
    """The partitions, from ``sinfo``, whose lines are groups of nodes that are alike.

    Raises:
        SlurmUnknownError: it does not answer, or not in the format asked for.
    """
    answer = ask_slurm("sinfo", "--all", "--exact", "--noheader", f"--format={_FORMAT}")
    partitions: dict[str, Partition] = {}
    for row in slurm_rows(answer, "sinfo", _FIELDS):
        try:
            found = _partition(row, partitions)
        except ValueError:
            raise unreadable("sinfo", "|".join(row)) from None
        partitions[found.name] = found
    return tuple(partitions.values())


def read_associations() -> tuple[Association, ...]:
    """The associations of this user, from ``sacctmgr``.

    Raises:
        SlurmUnknownError: it does not answer, or not in the format asked for.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        raise SlurmUnknownError("associations are unknown: this user has no name") from None
    chosen = ("show", "assoc", f"user={user}", "format=account,partition,qos")
    answer = ask_slurm("sacctmgr", "--noheader", "--parsable2", "--readonly", *chosen)
    return tuple(
        Association(account, partition, frozenset(filter(None, qos.split(","))))
        for account, partition, qos, *_ in slurm_rows(answer, "sacctmgr", 3)
    )


def read_settings() -> dict[str, str]:
    """The settings of the controller by name, from ``scontrol show config``.

    Raises:
        SlurmUnknownError: it does not answer, or not with settings.
    """
    answer = ask_slurm("scontrol", "show", "config")
    found = re.findall(r"^(\w+) *= (.*)$", answer, re.MULTILINE)
    if not found:
        raise unreadable("scontrol", answer)
    return {name: value.strip() for name, value in found}


def _enforces_associations(settings: Mapping[str, str]) -> bool:
    """Whether unknown accounts are refused; so it is taken to be if the site does not tell."""
    enforced = settings.get("AccountingStorageEnforce")
    return enforced is None or "associations" in enforced.split(",")


def _kill_wait(settings: Mapping[str, str]) -> int | None:
    found = re.match(r"(\d+) sec", settings.get("KillWait", ""))
    return int(found[1]) if found else None


def _partition(row: Sequence[str], earlier: Mapping[str, Partition]) -> Partition:
    partition, state, limit, size, *node = row
    name = partition.removesuffix("*")
    known = earlier[name].nodes if name in earlier else ()
    fewest, most = _job_size(size)
    nodes = (*known, _node_kind(node))
    default = partition.endswith("*")
    return Partition(name, state, _minutes(limit), nodes, fewest, most, default)


def _node_kind(fields: Sequence[str]) -> NodeKind:
    count, cpus, mib, gres, features = fields[:5]
    return NodeKind(
        _number(count), _number(cpus), _number(mib), gpus_in_gres(gres), _features(features)
    )


def _number(text: str) -> int:
    return int(text.removesuffix("+"))


def _minutes(limit: str) -> int | None:
    if limit in ("infinite", "n/a"):
        return None
    clock = limit if "-" in limit or limit.count(":") == 2 else f"00:{limit}"
    return seconds_of(clock) // 60


def _job_size(size: str) -> tuple[int, int | None]:
    """Fewest and most nodes of a job: ``1-4``, ``1-infinite``, ``2``; no limits if unreadable."""
    found = re.fullmatch(r"(\d+)(?:-(\d+|infinite))?", size)
    if found is None:
        return 1, None
    most = found[2] or found[1]
    return int(found[1]), None if most == "infinite" else int(most)


def _features(features: str) -> frozenset[str]:
    return frozenset() if features == "(null)" else frozenset(features.split(","))
