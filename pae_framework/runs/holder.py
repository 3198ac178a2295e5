"""Which process holds a folder: what a lock file or a marker says about it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from pae_framework.system.files import read_text
from pae_framework.system.living import process_start

LONGEST_COMMAND = 200
"""Characters of the command in a message."""


@dataclass(frozen=True)
class Holder:
    """A process; one about which nothing is known has no number."""

    host: str = ""
    process: int | None = None
    started: str | None = None
    """Start of the process in the clock of its machine, which tells it from a later one."""
    command: str = ""
    renewed: bool = False
    """Whether it touches its marker every few seconds."""

    @classmethod
    def this_process(cls, renewed: bool = False) -> Holder:
        """The calling process."""
        command = shlex.join(["pae", *sys.argv[1:]])[:LONGEST_COMMAND]
        number = os.getpid()
        return cls(platform.node(), number, process_start(number), command, renewed)

    @property
    def here(self) -> bool:
        """Whether it runs, or ran, on this machine."""
        return self.host == platform.node()

    @property
    def ended(self) -> bool:
        """Whether it certainly ended; unknown of a process of another machine."""
        if self.process is None or not self.here:
            return False
        return process_start(self.process) != self.started

    def same_process(self, other: Holder) -> bool:
        """Whether both are one process."""
        facts = (other.host, other.process, other.started)
        return (self.host, self.process, self.started) == facts

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        if self.process is None:
            return "another process"
        command = f" (`{self.command}`)" if self.command else ""
        return f"process {self.process} of {self.host or 'an unknown machine'}{command}"


UNKNOWN = Holder()


def read_holder(path: Path) -> Holder | None:
    """What a file says about its holder; None if there is no file, :data:`UNKNOWN` if no sense."""
    try:
        return TypeAdapter(Holder).validate_json(read_text(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ValidationError, RecursionError):
        return UNKNOWN
