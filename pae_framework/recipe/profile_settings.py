"""Models of profiles, which say where a recipe runs: executor, resources, time. No torch."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator, BeforeValidator, Field

from pae_framework.config import Processes, Settings
from pae_framework.recipe.suggestions import describe

# --- kinds of values ------------------------------------------------------------------------------

Number = Annotated[int, Ge(1), Le(100_000)]
"""A number of nodes, CPUs or jobs."""

Gpus = Annotated[int, Ge(0), Le(1024)]
"""A number of GPUs."""

Seconds = Annotated[int, Ge(0), Le(7 * 24 * 3600)]
"""A span of time in seconds."""

_MINUTE, _HOUR, _DAY = 60, 3600, 24 * 3600
_LONGEST = 366 * _DAY
_CLOCK = re.compile(
    r"(?:(?P<days>[0-9]{1,4})-)?(?P<hours>[0-9]{1,4}):(?P<minutes>[0-9][0-9]):(?P<seconds>[0-9][0-9])"
)
_DAYS = re.compile(r"(?P<days>[0-9]{1,4})-(?P<hours>[0-9][0-9]?)(?::(?P<minutes>[0-9][0-9]))?")
_SHORT_CLOCK = re.compile(r"([0-9]{1,4}):([0-9][0-9])")
_TIME_FORMS = "write 12:00:00, 2-00:00:00 (days-hours:minutes:seconds) or a number of minutes"

_MIB_PER_UNIT = {"M": 1, "G": 1 << 10, "T": 1 << 20}
_MEMORY = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,6})?) ?([MGT])(?:i?B)?", re.IGNORECASE)
_MOST_MIB = 1 << 30
_GPU = re.compile(r"(?:gres[:/])?gpu(?::([^:=]+?))??(?:[:=]([0-9]+))?")
ALL_MEMORY = "all"
"""The value of ``memory`` that asks for all memory of a node."""


def seconds_of(time: str) -> int:
    """The seconds of a time as Slurm writes it: ``12:00:00``, ``2-00:00:00``, ``2-12``.

    Raises:
        ValueError: it is no such time; states what to write.
    """
    found = _CLOCK.fullmatch(time) or _DAYS.fullmatch(time)
    if found is None:
        raise ValueError(f"{describe(time)} is not a time; {_time_hint(time)}")
    part = {name: int(digits or 0) for name, digits in found.groupdict().items()}
    limits = {"hours": 24} if found["days"] else {}
    for name, limit in {**limits, "minutes": 60, "seconds": 60}.items():
        if part.get(name, 0) >= limit:
            raise ValueError(f"{describe(time)} has {part[name]} {name}; fewer than {limit} fit")
    hours = part.get("days") or 0
    return hours * _DAY + part["hours"] * _HOUR + part["minutes"] * _MINUTE + part.get("seconds", 0)


def written_time(seconds: int) -> str:
    """The time as Slurm writes it: ``12:00:00``, or ``2-00:00:00`` from a day on."""
    days, rest = divmod(seconds, _DAY)
    clock = f"{rest // _HOUR:02d}:{rest % _HOUR // _MINUTE:02d}:{rest % _MINUTE:02d}"
    return f"{days}-{clock}" if days else clock


def mib_of(memory: str) -> int:
    """The MiB of an amount of memory such as ``64GB``; Slurm's units are powers of 1024.

    Raises:
        ValueError: it is no such amount; states what to write.
    """
    found = _MEMORY.fullmatch(memory)
    if found is None:
        hint = f"; write {memory}MB or {memory}GB" if memory.isdecimal() else "; write 64GB"
        raise ValueError(f"{describe(memory)} is not an amount of memory{hint}")
    mib = float(found[1]) * _MIB_PER_UNIT[found[2].upper()]
    if mib != int(mib):
        raise ValueError(f"{describe(memory)} is no whole number of MB")
    if not 1 <= mib <= _MOST_MIB:
        raise ValueError(f"{describe(memory)} is not between 1MB and {written_memory(_MOST_MIB)}")
    return int(mib)


def written_memory(mib: int) -> str:
    """The amount in the largest unit that gives a whole number: ``64GB``, ``1536MB``."""
    unit = max((unit for unit, size in _MIB_PER_UNIT.items() if mib % size == 0), key="MGT".index)
    return f"{mib // _MIB_PER_UNIT[unit]}{unit}B"


def gpus_in_gres(gres: str) -> dict[str, int]:
    """Number of GPUs by type in generic resources: ``gpu:a100:4(S:0-1),nvme:1``; untyped: empty."""
    found: dict[str, int] = {}
    for entry in re.sub(r"\([^)]*\)", "", gres).split(","):
        if match := _GPU.fullmatch(entry):
            kind = match[1] or ""
            found[kind] = found.get(kind, 0) + int(match[2] or 1)
    return found


def _time_hint(time: str) -> str:
    if short := _SHORT_CLOCK.fullmatch(time):
        return f"write {time}:00 for hours and minutes, or 00:{short[1]:0>2}:{short[2]} for minutes"
    return _TIME_FORMS


def _time(value: Any) -> Any:
    """The written time of minutes as a number or text, and of Slurm's forms."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{describe(value)} is not a time; {_TIME_FORMS}")
    seconds = seconds_of(value) if isinstance(value, str) else value * _MINUTE
    if not 0 < seconds <= _LONGEST:
        raise ValueError(
            f"expected a time of 1 second to {written_time(_LONGEST)}, found {describe(value)}"
            f"{' minutes' if isinstance(value, int) else ''}"
        )
    return written_time(seconds)


def _memory(value: Any) -> Any:
    if value == ALL_MEMORY:
        return value
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{describe(value)} is not an amount of memory; write 64GB")
    return written_memory(mib_of(str(value)))


Time = Annotated[str, BeforeValidator(_time)]
"""A time limit, normalized by :func:`written_time`."""

Memory = Annotated[str, BeforeValidator(_memory)]
"""Memory of each node, normalized by :func:`written_memory`, or ``all``."""


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("expected one line of text")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(r"[^\s'\"]{1,200}", text) or text.startswith("-"):
        raise ValueError("expected a name without spaces and quotes")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""One line for a shell."""

Name = Annotated[str, AfterValidator(_name)]
"""A name that the site knows: one argument of sbatch."""

# --- flags of sbatch ------------------------------------------------------------------------------

_OWN_KEYS = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "nodes": "nodes",
    "gpus": "gpus_per_node",
    "gpus-per-node": "gpus_per_node",
    "ntasks": "tasks_per_node",
    "ntasks-per-node": "tasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "memory",
    "time": "time",
    "signal": "signal_before",
}
"""Option of sbatch -> key of a profile that sets it."""

_SET_BY_PAE = frozenset(
    {"array", "dependency", "error", "job-name", "open-mode", "output", "parsable", "wrap"}
    | {"no-requeue", "requeue", "wait"}
)
"""Options of sbatch that a run sets itself."""

Flag = str | int | float | bool | None


def _flags(flags: dict[str, Flag]) -> dict[str, Flag]:
    for name, value in flags.items():
        if name.startswith("-"):
            raise ValueError(f"write {describe(name)} without dashes: {name.lstrip('-')}")
        if not re.fullmatch(r"[a-z][a-z0-9-]{1,60}", name):
            raise ValueError(f"{describe(name)} is no long option of sbatch, such as exclusive")
        if name in _OWN_KEYS:
            raise ValueError(f"{name} has a key of its own: set {_OWN_KEYS[name]}")
        if name in _SET_BY_PAE:
            raise ValueError(f"{name} is set by the run itself")
        if isinstance(value, str):
            _one_line(value)
    return flags


Flags = Annotated[dict[str, Flag], AfterValidator(_flags)]
"""Extra options of sbatch, without dashes; true: without a value, false or null: not given."""

# --- profiles -------------------------------------------------------------------------------------


class Resources(Settings):
    """What one job asks for. In `stages`, keys that are absent are those of the profile."""

    partition: Name | None = Field(None, description="partition; null: the site's default")
    account: Name | None = Field(None, description="account that is charged")
    qos: Name | None = Field(None, description="quality of service")
    constraint: Name | None = Field(None, description="features that a node must have: `a100`")
    nodes: Number = Field(1, description="number of nodes")
    gpus_per_node: Gpus | None = Field(None, description="GPUs on each node; null: none asked for")
    tasks_per_node: Processes | None = Field(
        None, description="processes on each node; null: one for each GPU, or 1"
    )
    cpus_per_task: Number | None = Field(None, description="CPUs of each process")
    memory: Memory | None = Field(
        None, description="memory of each node: `64GB`; `all`: all of it; null: the site's default"
    )
    time: Time | None = Field(
        None,
        description="time limit of each job: `12:00:00`, `2-00:00:00` or minutes; slurm needs one",
    )
    flags: Flags = Field(
        {},
        description="more options of sbatch, without dashes: `{exclusive: true, reservation: x}`",
    )

    @property
    def processes_per_node(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or sum(self.gpus.values()) or 1

    @property
    def processes(self) -> int:
        """Processes on all nodes."""
        return self.nodes * self.processes_per_node

    @property
    def gpus(self) -> dict[str, int]:
        """Number of GPUs on each node by type, which is empty if none is named."""
        gres = gpus_in_gres(str(self.flags.get("gres") or ""))
        return gres or ({"": self.gpus_per_node} if self.gpus_per_node else {})

    @property
    def minutes(self) -> int | None:
        """The time limit in minutes, rounded up; None if there is none."""
        return None if self.time is None else -(-seconds_of(self.time) // _MINUTE)

    @property
    def mib(self) -> int | None:
        """Memory of each node in MiB; None: the site's default, or all."""
        return None if self.memory in (None, ALL_MEMORY) else mib_of(str(self.memory))


class Profile(Resources):
    """Where a recipe runs. A map in `launch`, or one of the user's file of profiles."""

    extends: str | Annotated[tuple[str, ...], MinLen(1)] | None = Field(
        None,
        description="profile whose keys apply unless set here, or a list of profiles, of which "
        "the last takes precedence",
    )
    executor: Literal["slurm", "local", "debug"] = Field(
        "slurm",
        description="slurm: a job for each stage; local: processes on this machine; debug: this "
        "process",
    )
    setup: tuple[Line, ...] = Field(
        (), description="lines of shell that run before a job's processes: `module load cuda`"
    )
    srun_args: tuple[Line, ...] = Field(
        (), description="more arguments of srun, such as those of a container"
    )
    signal_before: Annotated[Seconds, Ge(1), Le(65535)] = Field(
        120,
        description="seconds before the time limit at which a job is told to save and requeue",
    )
    grace: Seconds | None = Field(
        None,
        description="seconds between the signal and the kill when the site preempts a job; null: "
        "unknown",
    )
    max_restarts_without_progress: Annotated[int, Ge(0), Le(1000)] = Field(
        3, description="a stage that restarts more often without a new checkpoint fails"
    )
    array_limit: Number | None = Field(
        None, description="members of a sweep that run at once; null: no limit"
    )
    stages: dict[str, Resources] = Field(
        {}, description="stage -> resources that differ for it: `{generator: {nodes: 2}}`"
    )

    def for_stage(self, name: str) -> Resources:
        """What the job of a stage asks for: the keys of its entry in `stages`, else the profile's.

        Flags are merged; false or null takes a flag of the profile away.
        """
        own = {key: getattr(self, key) for key in Resources.model_fields}
        if (stage := self.stages.get(name)) is not None:
            own |= {key: getattr(stage, key) for key in stage.model_fields_set}
            own["flags"] = {**self.flags, **stage.flags}
        return Resources.model_construct(**own)


def _named(value: Any) -> Any:
    """The long form of a profile's name."""
    return {"extends": value} if isinstance(value, str) else value


Launch = Annotated[Profile | None, BeforeValidator(_named)]
"""A profile, or the name of one, or null."""
