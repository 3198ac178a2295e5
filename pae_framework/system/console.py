"""A console for tables, styles and progress that shows the text of users as it is.

ruff rejects rich's own console elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO, Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType  # noqa: TID251
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from pae_framework.system.printing import printable


class PlainConsole(Console):
    """A rich console without markup, that escapes unprintable characters and breaks no line.

    Lines of text are broken only on a terminal, because a broken path is another path. For style,
    print a :class:`rich.text.Text`. Takes the arguments of rich's console.

    Args:
        progress_seconds: between two plain lines of progress; None: no progress is shown.
        options: those of rich's console.
    """

    def __init__(self, progress_seconds: float | None = 10.0, **options: Any):
        self.progress_seconds = progress_seconds
        super().__init__(**{"markup": False, "highlight": False, "emoji": False, **options})
        self._copy: PlainConsole | None = None

    def copy_to(self, file: IO[str] | None) -> None:
        """Write what is printed from now on into a file too; None: no longer."""
        self._copy = None if file is None else PlainConsole(file=file)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print text or tables; see rich."""
        if self._copy is not None:
            self._copy.print(*objects, **options)
        is_text = all(isinstance(shown, str | Text) for shown in objects)
        options.setdefault("soft_wrap", is_text and not self.is_terminal)
        super().print(*objects, **options)

    def rule(self, title: Any = "", **options: Any) -> None:
        """A heading; only on a terminal with a line around it."""
        if self.is_terminal:
            super().rule(title, **options)
        else:
            self.print(title)

    def render_str(self, text: str, **options: Any) -> Text:
        """A cell or line as it is measured, with printable text; see rich."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments of what is printed, with printable text; see rich."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield Segment(text, segment.style, segment.control)


class PlainTable(Table):
    """A table in the one style of all commands; outside of a terminal it has no lines.

    Args:
        headings: of the columns, which are justified as their headings.
        title: above the table.
    """

    def __init__(self, *headings: str | Text, title: str | Text | None = None):
        super().__init__(title=title, title_justify="left", pad_edge=False, show_edge=False)
        for heading in headings:
            justify = heading.justify if isinstance(heading, Text) else None
            self.add_column(heading, justify=justify or "left", overflow="fold")

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterable[RenderableType | Segment]:
        """Segments of the table; see rich."""
        self.box = box.SIMPLE_HEAD if console.is_terminal else None
        yield from super().__rich_console__(console, options)
