"""Parameters of the built-in trackers. No torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints

from pae_framework.config import TrackerConfig

ProjectName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""A name that both trackers take, and that can be a file name."""


class RunTrackerConfig(TrackerConfig):
    """Parameters that the built-in trackers share."""

    project: ProjectName = Field("pae", description="project that the run belongs to")


class WandbConfig(RunTrackerConfig):
    """Follows a run with Weights & Biases."""

    entity: str | None = Field(
        None, description="user or team that the project belongs to; null: the default of the login"
    )
    mode: Literal["offline", "online"] = Field(
        "offline",
        description="offline: write to `trackers/` in the run directory, for `wandb sync`; "
        "online: send to the server at once",
    )
    tags: tuple[str, ...] = Field((), description="tags of the run")

    def missing(self) -> str | None:
        """The package, if it is not installed."""
        return _missing_package("wandb")

    def smoke(self) -> Self:
        """Offline."""
        return self.model_copy(update={"mode": "offline"})


class TrackioConfig(RunTrackerConfig):
    """Follows a run with trackio."""

    space: str | None = Field(
        None,
        min_length=1,
        description="Hugging Face Space to send to (`user/name`); null: stay on this machine, "
        "for `trackio show`",
    )

    def missing(self) -> str | None:
        """The package, if it is not installed."""
        return _missing_package("trackio")

    def smoke(self) -> Self:
        """On this machine."""
        return self.model_copy(update={"space": None})


def _missing_package(name: str) -> str | None:
    found = find_spec(name)
    if found is not None and found.origin is not None:  # a mere folder has none
        return None
    return (
        f"needs {name}: pip install 'pae-framework[{name}]'; or leave this tracker out (set it to "
        "null)"
    )
