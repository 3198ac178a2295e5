"""The page that shows metrics of several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pae_framework.report.page import fill
from pae_framework.report.side_by_side import Compared, Line, Reason, cautions, side_by_side


@dataclass(frozen=True)
class ComparisonContent:
    """What the page shows.

    Args:
        name: its title.
        columns: the runs.
        sources: where each column comes from, by its name.
        changes: how the recipe of each column differs from that of the first, by its name.
        apart: why columns are not one, by the name of the later one.
        commands: that write the page again.
    """

    name: str
    columns: Sequence[Compared]
    sources: Mapping[str, str]
    changes: Mapping[str, Sequence[str]]
    apart: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    description: str = ""
    recipe_yaml: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> list[Line]:
        """The lines of the table."""
        return side_by_side(self.columns)[0]

    @property
    def cautions(self) -> list[str]:
        """What is wrong with means of the table."""
        return cautions(self.lines)

    @property
    def reasons(self) -> list[Reason]:
        """Why some lines are several."""
        return [reason for reason in side_by_side(self.columns)[1] if reason.shown]


def render_comparison(content: ComparisonContent) -> str:
    """The page, self-contained."""
    return fill("compare.html.j2", content=content, environment=content.environment)
